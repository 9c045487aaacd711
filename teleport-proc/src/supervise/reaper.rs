//! The process between a process and its owner. Each process has one.
//!
//! The reaper starts the process and, as a subreaper, adopts all that leaves its tree. Then it waits for a
//! message of the owner, for the end of the owner, and for the end of its children:
//!
//! - If the process or the owner has ended, the reaper kills all that is left at once.
//! - If the owner asks for the end or drops the process, it sends SIGTERM, and SIGKILL after the grace.
//!
//! All that is left of the tree is a child of the reaper. So when the reaper has no children, it reports how
//! the process ended, and ends itself. It has one thread, holds no lock, and has no descriptors but its own.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::cancel::deadline::moment;
use crate::supervise::control::{self, Control, Step};
use crate::supervise::{exec, ids, request};
use crate::sys::{self, Exit, Fork, ProcessFd, Received, Watch};
use crate::tree::cgroup::{Cgroup, CgroupParent};
use crate::tree::kill_tree::KillTree;
use crate::tree::snapshot::SUPERVISOR_NAME;

/// The pause after a round that killed nothing, as when no descriptor is left to check other processes.
const RETRY: Duration = Duration::from_millis(100);

/// Killed processes have ended by then. If not, they are killed again.
const KILL_TIME: Duration = Duration::from_secs(1);

/// Becomes the reaper of a process that executes the program again. `fds` came with the request.
pub(crate) fn run_for_request(
    control: OwnedFd,
    owner: io::Result<ProcessFd>,
    cgroups: Option<&CgroupParent>,
    mut fds: impl Iterator<Item = OwnedFd>,
) -> ! {
    let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let received = (|| {
        let folder = fds.next().ok_or_else(missing)?;
        let mut descriptors = vec![OwnedFd::from(sys::null()?)];
        descriptors.extend(fds);
        let request = File::from(descriptors.get(ids::REQUEST).ok_or_else(missing)?.try_clone()?);
        Ok((request::read_head(&request).map_err(io::Error::other)?, folder, descriptors))
    })();
    match received {
        Ok((head, folder, descriptors)) => {
            let start = |cgroup: Option<&Cgroup>| exec::execute(&head, &folder, &descriptors, cgroup);
            run(control, owner, cgroups, head.grace, start)
        }
        Err(error) => fail(&control, Step::Receive, &error),
    }
}

/// Becomes the reaper of a process that runs `work`, in a process that was forked from the owner.
pub(crate) fn run_for_fork(
    control: OwnedFd,
    owner: io::Result<ProcessFd>,
    grace: Duration,
    work: impl FnOnce() -> Infallible,
) -> ! {
    let _guard = LeaveOnUnwind;
    let mask = sys::block_signals().unwrap_or_else(|error| fail(&control, Step::Reaper, &error));
    let control_number = control.as_raw_fd();
    let cgroups = CgroupParent::delegated();
    // A zygote does the same at its start.
    cgroups.iter().for_each(CgroupParent::sweep);
    run(control, owner, cgroups.as_ref(), grace, move |cgroup| {
        match sys::fork_patiently(|| {}).map_err(|error| (Step::Fork, error))? {
            Fork::Parent { child } => Ok(child),
            Fork::Child => {
                // SAFETY: only the reaper uses its end of the socket, and `work` does not return.
                unsafe { sys::close(control_number) };
                if let Some(cgroup) = cgroup {
                    cgroup.enter();
                    // SAFETY: as above. Otherwise this process would hold the lock, too.
                    unsafe { sys::close(cgroup.descriptor()) };
                }
                sys::leave_group();
                sys::forget_signals();
                let _ = sys::restore_signals(&mask);
                match work() {}
            }
        }
    })
}

/// Becomes a reaper, in a process that has just been forked.
///
/// `start` starts the process in the given cgroup, and returns its id. All else is ready when it is called.
fn run(
    control: OwnedFd,
    owner: io::Result<ProcessFd>,
    cgroups: Option<&CgroupParent>,
    grace: Duration,
    start: impl FnOnce(Option<&Cgroup>) -> Result<i32, (Step, io::Error)>,
) -> ! {
    let _guard = LeaveOnUnwind;
    sys::leave_terminal();
    sys::set_name(SUPERVISOR_NAME);
    let prepared = sys::become_subreaper().and_then(|()| Watch::new(owner?));
    let watch = prepared.unwrap_or_else(|error| fail(&control, Step::Reaper, &error));
    let cgroup = cgroups.and_then(CgroupParent::make);
    let child = start(cgroup.as_ref()).unwrap_or_else(|(step, error)| {
        cgroup.iter().for_each(Cgroup::remove);
        fail(&control, step, &error)
    });
    sys::ignore_signals();
    let this = ProcessFd::open(std::process::id() as i32).ok();
    let this: Vec<_> = this.iter().filter_map(ProcessFd::sendable).collect();
    // This fails if the owner is gone, which `watch` shows soon.
    let _ = control::send(&control, Control::Started { pid: child }, &this);
    let mut used = vec![control.as_raw_fd()];
    used.extend(watch.descriptors());
    used.extend(cgroup.iter().map(Cgroup::descriptor));
    // SAFETY: this process leaves without destructors, and uses only these descriptors from here on.
    unsafe { sys::close_all_but(&used) };
    let tree = KillTree::below_supervisor(BTreeSet::new());
    Reaper { control: Some(control), watch, child, grace, exit: None, deadline: None, tree, cgroup }.run()
}

/// Reports why there is no process, and ends.
fn fail(control: &OwnedFd, step: Step, error: &io::Error) -> ! {
    control::send_failure(control, step, error);
    sys::leave(0)
}

/// Ends this process if it would unwind into the program that it was forked from.
struct LeaveOnUnwind;

impl Drop for LeaveOnUnwind {
    fn drop(&mut self) {
        sys::leave(Exit::PANIC_CODE)
    }
}

struct Reaper {
    /// `None` once the owner has dropped the process.
    control: Option<OwnedFd>,
    watch: Watch,
    child: i32,
    grace: Duration,
    /// The exit of the process, once it has ended.
    exit: Option<Exit>,
    /// The end of the grace, once the owner has asked for the end.
    deadline: Option<Instant>,
    tree: KillTree,
    cgroup: Option<Cgroup>,
}

impl Reaper {
    fn run(mut self) -> ! {
        loop {
            if !self.reap() {
                self.leave();
            }
            let grace_is_over = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if grace_is_over || (self.exit.is_some() && self.deadline.is_none()) {
                self.kill();
            }
            match self.watch.wait(self.control.as_ref(), self.deadline) {
                Ok(events) if events.owner_ended => self.kill(),
                Ok(events) if events.socket_readable => self.listen(),
                Ok(_) => {}
                // Without memory to wait, this is all that it can do.
                Err(_) => self.kill(),
            }
        }
    }

    /// Waits for all children that have ended. Returns whether others are left.
    fn reap(&mut self) -> bool {
        sys::reap_ended(|pid, exit| {
            if pid == self.child {
                self.exit = Some(exit);
            }
        })
    }

    fn listen(&mut self) {
        let Some(control) = &self.control else { return };
        let grace = match control::receive(control) {
            Ok(Received::Message(Control::End { grace }, _)) => grace,
            Ok(Received::Nothing) => return,
            // The owner has dropped the process, or sends nonsense.
            Ok(_) | Err(_) => {
                self.control = None;
                self.grace
            }
        };
        let is_first = self.deadline.is_none();
        let deadline = moment(grace);
        self.deadline = Some(self.deadline.map_or(deadline, |before| before.min(deadline)));
        if is_first && !grace.is_zero() {
            // A process that cannot be asked is killed after the grace.
            let _ = self.tree.terminate();
        }
    }

    /// Kills all processes until none is left, and ends.
    fn kill(&mut self) -> ! {
        while self.reap() {
            // This ends all that is in the cgroup at once. The tree finds what has left it.
            self.cgroup.iter().for_each(Cgroup::kill);
            if !self.tree.kill_and_wait(KILL_TIME) && self.reap() {
                // None of the children could be killed. When one ends, there may be others.
                let _ = self.watch.wait_for_child(Instant::now() + RETRY);
            }
        }
        self.leave()
    }

    fn leave(&mut self) -> ! {
        self.cgroup.iter().for_each(Cgroup::remove);
        if let (Some(control), Some(exit)) = (&self.control, self.exit) {
            // This fails if the owner is gone.
            let _ = control::send(control, Control::Ended { exit }, &[]);
        }
        sys::leave(0)
    }
}
