//! Ending trees of processes that may not want to end.
//!
//! A tree is what a snapshot of all processes shows below a root, and what was found below it before: so those stay in
//! it whose parent ended meanwhile, and who were handed to another. [`KillTree::terminate`] sends SIGTERM. [`KillTree::kill`] first
//! stops everything, again and again until nothing new shows up, since what is stopped starts nothing and keeps its
//! place among the processes that its user may have; then it kills. Parents are stopped before their children, since
//! some act when they see a child stop: a shell with jobs may end the group that it is in. To stop those that live for
//! less than a snapshot takes, who start the next and end, it goes down the lists of children and stops each that it
//! meets at once.
//!
//! Signals go through pidfds to processes whose start time is still what was seen, so never to another that got the
//! number; or to children that nobody else could have waited for. What is below a number counts only if that is still
//! whose it was.
//!
//! This process may be part of the tree. It is left out, and known to be [part of it](KillTree::is_part): it has to end itself.
//!
//! Bound: stopping goes on for [`MAX_FREEZE`]; callers strike until nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use crate::sys::{self, Entry, Id, ProcessFd, Signal};

/// How processes of this crate that watch over others call themselves; a forked one keeps the name.
pub(crate) const GUARD_NAME: &str = "teleport-guard";

/// A tree that still grows after this is struck while it grows, and struck again.
const MAX_FREEZE: Duration = Duration::from_millis(500);

/// The processes below a root.
#[derive(Debug)]
pub(crate) struct KillTree {
    root: Root,
    this: i32,
    /// Whether this process is below the root, or the root itself, and so is to end too.
    is_part: bool,
    /// Whether the root is this process, and nothing but this thread waits for its children.
    is_guard: bool,
    /// Children of the root that stay, with all below them.
    spared: BTreeSet<i32>,
    /// All that were ever found and not known to be gone.
    found: BTreeMap<Id, Found>,
}

#[derive(Clone, Copy, Debug)]
enum Root {
    /// This process, which itself stays.
    This,
    /// One that is to end with all below it; none if it was gone from the start.
    Other(Option<Id>),
}

#[derive(Clone, Copy, Debug)]
struct Found {
    is_guard: bool,
    /// Whether it was told to stop.
    stopped: bool,
}

impl KillTree {
    /// Everything below this process.
    pub(crate) fn below_this() -> KillTree {
        KillTree::new(Root::This)
    }

    /// Everything below this process, which is a guard.
    pub(crate) fn below_guard() -> KillTree {
        KillTree { is_guard: true, ..KillTree::below_this() }
    }

    /// The process that has this number now, and everything below it.
    pub(crate) fn tree(root: i32) -> io::Result<KillTree> {
        Ok(KillTree::new(Root::Other(sys::process(root)?.map(|entry| entry.id))))
    }

    fn new(root: Root) -> KillTree {
        let this = std::process::id() as i32;
        KillTree {
            root,
            this,
            is_part: false,
            is_guard: false,
            spared: BTreeSet::new(),
            found: BTreeMap::new(),
        }
    }

    /// Whether this process was seen in the tree, all others of which are ended here.
    pub(crate) fn is_part(&self) -> bool {
        self.is_part
    }

    /// Leaves out these children of the root and all below them.
    pub(crate) fn sparing(self, spared: BTreeSet<i32>) -> KillTree {
        KillTree { spared, ..self }
    }

    /// Asks all to end, with SIGTERM: but neither guards, which end with their owner, nor what the guards of a process
    /// guard that is asked itself, since that is for this process to end in its own order.
    pub(crate) fn terminate(&mut self) -> io::Result<()> {
        let tree = self.look()?;
        for id in tree.unguarded(&self.found) {
            signal(id, Signal::SIGTERM);
            // One that is stopped hears of it only then.
            signal(id, Signal::SIGCONT);
        }
        Ok(())
    }

    /// Kills all that there are, and says how many were. Others may have started meanwhile.
    pub(crate) fn kill(&mut self) -> io::Result<usize> {
        let end = Instant::now() + MAX_FREEZE;
        loop {
            while self.stop_met()? && Instant::now() < end {}
            self.look()?;
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

    /// Goes down the lists of children and stops each that it meets, parents before their children. Says whether some
    /// were new.
    fn stop_met(&mut self) -> io::Result<bool> {
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
            // Afterwards: as long as nobody else has the number, they are whose they seem to be.
            if !children.is_empty()
                && let Some(id) = id
                && sys::process(pid)?.is_some_and(|entry| entry.id != id)
            {
                self.found.remove(&id);
                continue;
            }
            for child in children.into_iter().filter(|child| seen.insert(*child)) {
                if self.is_guard && Some(pid) == base {
                    sys::signal_child(child, Signal::SIGSTOP);
                }
                let Some(entry) = sys::process(child)? else { continue };
                met_new |= self.stop(&entry);
                next.push((child, Some(entry.id)));
            }
        }
        Ok(met_new)
    }

    /// Stops a process of the tree, unless it was stopped before. Says whether it was not.
    fn stop(&mut self, entry: &Entry) -> bool {
        if entry.id.pid == self.this {
            self.is_part = true;
            return false;
        }
        let before = self.found.insert(entry.id, Found { is_guard: is_guard(entry), stopped: true });
        let is_new = !before.is_some_and(|before| before.stopped);
        if is_new {
            signal(entry.id, Signal::SIGSTOP);
        }
        is_new
    }

    /// **Blocks** until all that were found have ended, at most until `deadline`; `with_guards`, or without those. Says
    /// whether they have.
    pub(crate) fn wait(&self, with_guards: bool, deadline: Instant) -> io::Result<bool> {
        for (id, found) in &self.found {
            if (with_guards || !found.is_guard)
                && let Some(process) = open(*id)?
                && !process.wait(Some(deadline))?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all that were found have ended, and nothing else is there.
    pub(crate) fn is_over(&mut self) -> io::Result<bool> {
        self.look()?;
        self.wait(true, Instant::now())
    }

    /// The numbers of those that were found and have not ended.
    pub(crate) fn left(&self) -> Vec<u32> {
        let lives = |id: &&Id| open(**id).is_ok_and(|process| process.is_some_and(|p| is_alive(&p)));
        self.found.keys().filter(lives).map(|id| id.pid as u32).collect()
    }

    /// Adds what there is to what was found, and forgets those that are gone.
    fn look(&mut self) -> io::Result<Tree> {
        let tree = Tree::new(sys::processes()?);
        self.found.retain(|id, _| tree.has(*id));
        let root = match self.root {
            Root::This => Some(self.this),
            Root::Other(root) => root.filter(|root| tree.has(*root)).map(|root| root.pid),
        };
        let starts = self.found.keys().map(|id| id.pid).chain(root).collect();
        let mut add = |entry: &Entry| {
            if entry.id.pid == self.this {
                self.is_part = true;
                return;
            }
            let new = Found { is_guard: is_guard(entry), stopped: false };
            // One that was seen between its fork and its exec may have got its name only now.
            self.found.entry(entry.id).or_insert(new).is_guard = new.is_guard;
        };
        if let Root::Other(_) = self.root {
            root.and_then(|root| tree.entries.get(&root)).into_iter().for_each(&mut add);
        }
        tree.walk(starts, &self.spared, add);
        Ok(tree)
    }
}

/// A snapshot of all processes.
struct Tree {
    entries: BTreeMap<i32, Entry>,
    children: BTreeMap<i32, Vec<i32>>,
}

impl Tree {
    fn new(processes: Vec<Entry>) -> Tree {
        let mut children = BTreeMap::<i32, Vec<i32>>::new();
        for entry in &processes {
            children.entry(entry.parent).or_default().push(entry.id.pid);
        }
        Tree { entries: processes.into_iter().map(|entry| (entry.id.pid, entry)).collect(), children }
    }

    fn has(&self, id: Id) -> bool {
        self.entries.get(&id.pid).is_some_and(|entry| entry.id == id)
    }

    /// Visits all below `starts`, each once, but not those of `spared` and what is below them.
    fn walk(&self, starts: Vec<i32>, spared: &BTreeSet<i32>, mut visit: impl FnMut(&Entry)) {
        let mut seen = spared.clone();
        let mut next = starts;
        while let Some(pid) = next.pop() {
            for child in self.children.get(&pid).into_iter().flatten().filter(|child| seen.insert(**child)) {
                visit(&self.entries[child]);
                next.push(*child);
            }
        }
    }

    /// Those of `found` that are neither guards nor below the guard of another of them.
    fn unguarded(&self, found: &BTreeMap<Id, Found>) -> BTreeSet<Id> {
        let is_asked = |entry: &Entry| found.contains_key(&entry.id) && !is_guard(entry);
        let mut unguarded: BTreeSet<Id> =
            self.entries.values().filter(|entry| is_asked(entry)).map(|entry| entry.id).collect();
        let owned = |entry: &&Entry| is_guard(entry) && self.entries.get(&entry.parent).is_some_and(is_asked);
        for guard in self.entries.values().filter(owned) {
            self.walk(vec![guard.id.pid], &BTreeSet::new(), |entry| {
                unguarded.remove(&entry.id);
            });
        }
        unguarded
    }
}

fn is_guard(entry: &Entry) -> bool {
    entry.name == GUARD_NAME
}

/// Sends a signal to a process, unless it has ended. Says whether it was there to get it.
fn signal(id: Id, signal: Signal) -> bool {
    // Whoever may not be signalled or looked at is no process of this user's; nothing can be done about it.
    open(id).ok().flatten().is_some_and(|process| is_alive(&process) && process.signal(signal).is_ok())
}

fn is_alive(process: &ProcessFd) -> bool {
    !process.wait(Some(Instant::now())).unwrap_or(false)
}

/// The process itself, and no later one with its number.
fn open(id: Id) -> io::Result<Option<ProcessFd>> {
    match ProcessFd::open(id.pid) {
        // From here on the descriptor holds whoever has the number now.
        Ok(process) => Ok(sys::process(id.pid)?.filter(|entry| entry.id == id).map(|_| process)),
        Err(error) if sys::is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn entry(pid: i32, parent: i32, name: &str) -> Entry {
        Entry { id: Id { pid, started: 1 }, parent, name: name.to_owned() }
    }

    fn unguarded(processes: Vec<Entry>, found: &[i32]) -> Vec<i32> {
        let tree = Tree::new(processes);
        let found = found.iter().map(|pid| {
            (tree.entries[pid].id, Found { is_guard: is_guard(&tree.entries[pid]), stopped: false })
        });
        tree.unguarded(&found.collect()).into_iter().map(|id| id.pid).collect()
    }

    #[test]
    fn what_a_process_guards_itself_is_its_own_to_end() {
        // 1 (guard) -> 2 -> 3, and 2 -> 4 (its guard) -> 5 (guard of one) -> 6
        let all = || {
            vec![
                entry(1, 0, GUARD_NAME),
                entry(2, 1, "worker"),
                entry(3, 2, "sh"),
                entry(4, 2, GUARD_NAME),
                entry(5, 4, GUARD_NAME),
                entry(6, 5, "nested"),
            ]
        };
        assert_eq!(unguarded(all(), &[2, 3, 4, 5, 6]), [2, 3]);
        // The owner itself asks: what its own guards guard is asked too.
        assert_eq!(unguarded(all(), &[4, 5, 6]), [6]);
    }

    #[test]
    fn what_is_below_a_number_that_is_another_s_by_now_is_left_alone() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "sleep 600 & echo started; wait"]).stdout(std::process::Stdio::piped());
        let mut stranger = command.spawn().unwrap();
        stranger.stdout.take().unwrap().read_exact(&mut [0; 7]).unwrap();
        let pid = stranger.id() as i32;
        let [child] = sys::children(pid)[..] else { panic!("it has one child") };
        let mut kill_tree = KillTree::new(Root::Other(None));
        let gone = Id { pid, started: 1 };
        kill_tree.found.insert(gone, Found { is_guard: false, stopped: false });
        assert!(!kill_tree.stop_met().unwrap());
        assert_eq!(kill_tree.kill().unwrap(), 0);
        let child = sys::process(child).unwrap().unwrap();
        assert!(open(child.id).unwrap().is_some_and(|process| is_alive(&process)));
        signal(child.id, Signal::SIGKILL);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn a_walk_ends_where_parents_form_a_circle() {
        // Two looks at different times can show that.
        let tree = Tree::new(vec![entry(2, 3, "a"), entry(3, 2, "b")]);
        let mut seen = Vec::new();
        tree.walk(vec![2], &BTreeSet::new(), |entry| seen.push(entry.id.pid));
        assert_eq!(seen, [3, 2]);
    }
}
