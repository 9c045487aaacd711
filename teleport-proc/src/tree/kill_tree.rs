//! Ends trees of processes, whatever the processes do against it.
//!
//! A tree is all that a snapshot shows below a root, and all that was found below it before. So it keeps
//! processes whose parent has ended and that another process has adopted.
//!
//! [`KillTree::terminate`] sends SIGTERM. [`KillTree::kill`] stops every process, again and again until it
//! finds no new one, and then kills all of them. A stopped process starts no others, and still counts
//! against its user's limit of processes. Parents are stopped before their children, since some react when a
//! child stops: a shell with job control may end its own group. A process may live for less time than a
//! snapshot takes, start the next one and end. To stop those, [`KillTree::kill`] also walks down the
//! kernel's lists of children, and stops each process as soon as it meets it.
//!
//! Signals go through pidfds to processes whose start time is still the same, so never to another process
//! with a reused id; or to children that nobody else could have waited for. Processes below an id count only
//! if the id still means the same process.
//!
//! If this process is in the tree, it gets no signal and has to end itself: see [`KillTree::contains_this`].
//!
//! Bound: [`KillTree::kill`] takes at most [`MAX_STOPPING`]. Callers repeat it until nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use crate::sys::{self, Entry, Id, ProcessFd, Signal};
use crate::tree::snapshot::{Snapshot, is_supervisor};

/// A tree that still grows after this time is killed while it grows, and then again.
const MAX_STOPPING: Duration = Duration::from_millis(500);

/// The processes below a root.
#[derive(Debug)]
pub(crate) struct KillTree {
    root: Root,
    this: i32,
    contains_this: bool,
    /// True if the root is this process, and only this thread waits for its children.
    is_supervisor: bool,
    /// Children of the root that stay, with all below them.
    spared: BTreeSet<i32>,
    /// All processes that were ever found and may still be there.
    found: BTreeMap<Id, Found>,
}

#[derive(Clone, Copy, Debug)]
enum Root {
    /// This process, which stays.
    This,
    /// A process that ends with all below it, or `None` if it was gone from the start.
    Other(Option<Id>),
}

#[derive(Clone, Copy, Debug)]
struct Found {
    is_supervisor: bool,
    stopped: bool,
}

impl KillTree {
    /// Makes the tree of all processes below this one.
    pub(crate) fn below_this() -> KillTree {
        KillTree::new(Root::This)
    }

    /// Makes the same tree as [`below_this`](KillTree::below_this), for a zygote or reaper, without the
    /// children `spared`.
    pub(crate) fn below_supervisor(spared: BTreeSet<i32>) -> KillTree {
        KillTree { is_supervisor: true, spared, ..KillTree::below_this() }
    }

    /// Makes the tree of the process that has this id now, and of all below it.
    pub(crate) fn of(pid: i32) -> io::Result<KillTree> {
        Ok(KillTree::new(Root::Other(sys::process(pid)?.map(|entry| entry.id))))
    }

    fn new(root: Root) -> KillTree {
        let this = std::process::id() as i32;
        let (spared, found) = Default::default();
        KillTree { root, this, contains_this: false, is_supervisor: false, spared, found }
    }

    /// Returns whether this process was found in the tree.
    pub(crate) fn contains_this(&self) -> bool {
        self.contains_this
    }

    /// Sends SIGTERM to the processes that [`Snapshot::to_terminate`] names.
    pub(crate) fn terminate(&mut self) -> io::Result<()> {
        let snapshot = self.refresh()?;
        for id in snapshot.to_terminate(|id| self.found.contains_key(&id)) {
            signal(id, Signal::SIGTERM);
            // A stopped process gets the signal only when it continues.
            signal(id, Signal::SIGCONT);
        }
        Ok(())
    }

    /// Kills all processes that there are, and returns how many. Others may have started meanwhile.
    pub(crate) fn kill(&mut self) -> io::Result<usize> {
        let end = Instant::now() + MAX_STOPPING;
        loop {
            while self.stop_children()? && Instant::now() < end {}
            self.refresh()?;
            let mut new = self.found.iter_mut().filter(|(_, found)| !found.stopped).peekable();
            if new.peek().is_none() || Instant::now() >= end {
                break;
            }
            for (id, found) in new {
                signal(*id, Signal::SIGSTOP);
                found.stopped = true;
            }
        }
        Ok(self.found.keys().filter(|id| signal(**id, Signal::SIGKILL)).count())
    }

    /// Kills all processes that there are, and **blocks** until they have ended, for up to `time`. Returns
    /// whether there were any, as far as this process can tell.
    pub(crate) fn kill_and_wait(&mut self, time: Duration) -> bool {
        let killed = self.kill().unwrap_or(0);
        // If it fails, the caller's next round looks again.
        killed > 0 && self.wait(true, Instant::now() + time).is_ok()
    }

    /// Walks down the lists of children and stops each process that it meets, parents before their children.
    /// Returns whether one of them was new.
    fn stop_children(&mut self) -> io::Result<bool> {
        let mut met_new = false;
        let base = match self.root {
            Root::This => Some(self.this),
            Root::Other(root) => {
                let entry = root.map(|root| sys::process(root.pid)).transpose()?.flatten();
                met_new = entry.is_some_and(|entry| Some(entry.id) == root && self.stop(&entry));
                None
            }
        };
        let mut seen = self.spared.clone();
        let known = self.found.keys().map(|id| (id.pid, Some(*id)));
        let mut next: Vec<(i32, Option<Id>)> = known.chain(base.map(|pid| (pid, None))).collect();
        while let Some((pid, id)) = next.pop() {
            let children = sys::children(pid);
            // This check comes after the listing: if the parent is still the same, they are its children.
            if !children.is_empty()
                && let Some(id) = id
                && sys::process(pid)?.is_some_and(|entry| entry.id != id)
            {
                self.found.remove(&id);
                continue;
            }
            for child in children.into_iter().filter(|child| seen.insert(*child)) {
                if self.is_supervisor && Some(pid) == base {
                    sys::signal_child(child, Signal::SIGSTOP);
                }
                let Some(entry) = sys::process(child)? else { continue };
                met_new |= self.stop(&entry);
                next.push((child, Some(entry.id)));
            }
        }
        Ok(met_new)
    }

    /// Stops a process of the tree. Returns false if it was stopped before.
    fn stop(&mut self, entry: &Entry) -> bool {
        if entry.id.pid == self.this {
            self.contains_this = true;
            return false;
        }
        let found = Found { is_supervisor: is_supervisor(entry), stopped: true };
        let is_new = self.found.insert(entry.id, found).is_none_or(|before| !before.stopped);
        if is_new {
            signal(entry.id, Signal::SIGSTOP);
        }
        is_new
    }

    /// **Blocks** until all processes that were found have ended, or until `deadline`. Returns whether they
    /// have ended. Supervisors count only `with_supervisors`.
    pub(crate) fn wait(&self, with_supervisors: bool, deadline: Instant) -> io::Result<bool> {
        for (id, found) in &self.found {
            if (with_supervisors || !found.is_supervisor)
                && let Some(process) = open(*id)?
                && !process.wait(Some(deadline))?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether no process of the tree is left.
    pub(crate) fn is_over(&mut self) -> io::Result<bool> {
        self.refresh()?;
        self.wait(true, Instant::now())
    }

    /// Returns the ids of the processes that were found and have not ended.
    pub(crate) fn left(&self) -> Vec<u32> {
        let lives = |id: &&Id| open(**id).is_ok_and(|process| process.is_some_and(|p| is_alive(&p)));
        self.found.keys().filter(lives).map(|id| id.pid as u32).collect()
    }

    /// Takes a snapshot, adds the processes of the tree to `found`, and removes those that are gone.
    fn refresh(&mut self) -> io::Result<Snapshot> {
        let snapshot = Snapshot::new(sys::processes()?);
        self.found.retain(|id, _| snapshot.get(*id).is_some());
        let root = match self.root {
            Root::This => Some(self.this),
            Root::Other(root) => root.filter(|root| snapshot.get(*root).is_some()).map(|root| root.pid),
        };
        let starts = self.found.keys().map(|id| id.pid).chain(root).collect();
        let mut add = |entry: &Entry| {
            if entry.id.pid == self.this {
                self.contains_this = true;
                return;
            }
            let new = Found { is_supervisor: is_supervisor(entry), stopped: false };
            // A process may have got its name only after it was found.
            self.found.entry(entry.id).or_insert(new).is_supervisor = new.is_supervisor;
        };
        if let Root::Other(Some(root)) = self.root {
            snapshot.get(root).into_iter().for_each(&mut add);
        }
        snapshot.walk(starts, &self.spared, add);
        Ok(snapshot)
    }
}

/// Sends a signal to a process. Returns whether the process was there to get it.
fn signal(id: Id, signal: Signal) -> bool {
    // This fails for a process of another user, and then nothing can be done.
    open(id).ok().flatten().is_some_and(|process| is_alive(&process) && process.signal(signal).is_ok())
}

fn is_alive(process: &ProcessFd) -> bool {
    !process.wait(Some(Instant::now())).unwrap_or(false)
}

/// Opens a process. Returns `None` if it is gone, also if another has its id.
fn open(id: Id) -> io::Result<Option<ProcessFd>> {
    match ProcessFd::open(id.pid) {
        // From here on the descriptor keeps meaning the process that has the id now.
        Ok(process) => Ok(sys::process(id.pid)?.filter(|entry| entry.id == id).map(|_| process)),
        Err(error) if sys::is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn processes_below_a_reused_id_are_left_alone() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "sleep 600 & echo started; wait"]).stdout(std::process::Stdio::piped());
        let mut stranger = command.spawn().unwrap();
        stranger.stdout.take().unwrap().read_exact(&mut [0; 7]).unwrap();
        let pid = stranger.id() as i32;
        let [child] = sys::children(pid)[..] else { panic!("it has one child") };
        let mut tree = KillTree::new(Root::Other(None));
        let gone = Id { pid, started: 1 };
        tree.found.insert(gone, Found { is_supervisor: false, stopped: false });
        assert!(!tree.stop_children().unwrap());
        assert_eq!(tree.kill().unwrap(), 0);
        let child = sys::process(child).unwrap().unwrap();
        assert!(open(child.id).unwrap().is_some_and(|process| is_alive(&process)));
        signal(child.id, Signal::SIGKILL);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
