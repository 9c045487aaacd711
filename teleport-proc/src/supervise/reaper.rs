//! The process that stands between a process and its owner: one for each, and nothing in it but this file.
//!
//! It starts the process, takes over whatever leaves that one's tree (as subreaper), and waits for three things: a word of
//! the owner, the owner's end, and its children's. Then:
//!
//! - The process ends by itself, or its owner ends: whatever is left is killed at once.
//! - The owner asks for the end, or lets go: SIGTERM, and SIGKILL for what is left after the grace.
//!
//! Once it has no children, nothing of the tree is left, since all of it would have come to it; then it tells how the
//! process ended, and ends. It has one thread, holds no lock, and has no descriptors but its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::cancel::deadline::moment;
use crate::supervise::control::{self, Control, Step};
use crate::supervise::request;
use crate::supervise::{exec, ids};
use crate::sys::Exit;
use crate::sys::{self, Fork, ProcessFd, Reaped, Received, Watch};
use crate::tree::cgroup::{Cgroup, Place};
use crate::tree::kill_tree::{GUARD_NAME, KillTree};

/// Where a process has no descriptor or memory left to look at others, it tries again after so long.
const RETRY: Duration = Duration::from_millis(100);

/// What was struck is expected to be gone by then; if not, it is struck again.
const STRIKE_TIME: Duration = Duration::from_secs(1);

/// What the zygote does in a process that it has just forked; `fds` came with the request, after the reaper's socket.
pub(crate) fn start(
    control: OwnedFd,
    owner: io::Result<ProcessFd>,
    place: Option<&Place>,
    fds: impl Iterator<Item = OwnedFd>,
) -> ! {
    let mut fds = fds;
    let wanted = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let received = (|| {
        let folder = fds.next().ok_or_else(wanted)?;
        let mut descriptors = vec![OwnedFd::from(sys::null()?)];
        descriptors.extend(fds);
        let request = File::from(descriptors.get(ids::REQUEST).ok_or_else(wanted)?.try_clone()?);
        Ok((request::read_head(&request).map_err(io::Error::other)?, folder, descriptors))
    })();
    match received {
        Ok((head, folder, descriptors)) => keep(control, owner, place, head.grace, |cgroup| {
            exec::execute(&head, &folder, &descriptors, cgroup)
        }),
        Err(error) => fail(&control, Step::Receive, &error),
    }
}

/// Makes a reaper of this process, which has just been forked.
///
/// `start` makes the process that it keeps, in the cgroup that it is for if there is one, and gives its number; it runs
/// once everything else is ready.
pub(crate) fn keep(
    control: OwnedFd,
    owner: io::Result<ProcessFd>,
    place: Option<&Place>,
    grace: Duration,
    start: impl FnOnce(Option<&Cgroup>) -> Result<i32, (Step, io::Error)>,
) -> ! {
    let _never_unwinds = Never;
    let prepared = prepare().and_then(|()| Watch::new(owner?));
    let watch = prepared.unwrap_or_else(|error| fail(&control, Step::Reaper, &error));
    let cgroup = place.and_then(Place::make);
    let child = start(cgroup.as_ref()).unwrap_or_else(|(step, error)| {
        cgroup.iter().for_each(Cgroup::remove);
        fail(&control, step, &error)
    });
    sys::ignore_signals();
    // Shows its owner when it is gone itself. Without a descriptor left it does not.
    let this = ProcessFd::open(std::process::id() as i32).ok();
    let this: Vec<_> = this.iter().filter_map(ProcessFd::sendable).collect();
    // A failure is that the owner is gone, which shows soon.
    let _ = control::send(&control, Control::Started { pid: child }, &this);
    let mut used = vec![control.as_raw_fd()];
    used.extend(watch.descriptors());
    used.extend(cgroup.iter().flat_map(Cgroup::descriptors));
    // SAFETY: this process leaves without destructors, and what it uses from here on is among those that stay.
    unsafe { sys::close_all_but(&used) };
    Reaper {
        control: Some(control),
        watch,
        child,
        grace,
        exit: None,
        deadline: None,
        kill_tree: KillTree::below_guard(),
        cgroup,
    }
    .run()
}

/// Makes a reaper of this process, which was forked from the owner, and runs `work` in the process that it keeps.
pub(crate) fn keep_forked(
    control: OwnedFd,
    owner: io::Result<ProcessFd>,
    grace: Duration,
    work: impl FnOnce() -> std::convert::Infallible,
) -> ! {
    let _never_unwinds = Never;
    let handlers = sys::block_signals().unwrap_or_else(|error| fail(&control, Step::Reaper, &error));
    let number = control.as_raw_fd();
    let place = Place::delegated();
    // As a zygote does at its start.
    place.iter().for_each(Place::sweep);
    keep(control, owner, place.as_ref(), grace, move |cgroup| {
        match sys::fork_patiently(|| {}).map_err(|error| (Step::Fork, error))? {
            Fork::Parent { child } => Ok(child),
            Fork::Child => {
                // SAFETY: the reaper's end of the socket is the reaper's alone, and this process comes back to nothing that
                // would use it.
                unsafe { sys::close(number) };
                if let Some(cgroup) = cgroup {
                    cgroup.enter();
                    // SAFETY: as above.
                    unsafe { cgroup.close() };
                }
                sys::leave_group();
                sys::forget_signals();
                let _ = sys::restore_signals(&handlers);
                match work() {}
            }
        }
    })
}

/// Tells why there is no process, and ends.
fn fail(control: &OwnedFd, step: Step, error: &io::Error) -> ! {
    let errno = error.raw_os_error().unwrap_or(0);
    // Nobody may be left who wants to know.
    let _ = control::send(control, Control::Failed { step, errno }, &[]);
    sys::leave(0)
}

/// Ends the process instead of unwinding into the program that it was forked from.
struct Never;

impl Drop for Never {
    fn drop(&mut self) {
        sys::leave(101)
    }
}

/// Everything that must be so before there is a child.
fn prepare() -> io::Result<()> {
    sys::leave_terminal();
    sys::become_guard(GUARD_NAME)
}

struct Reaper {
    /// None once the owner has let go.
    control: Option<OwnedFd>,
    watch: Watch,
    child: i32,
    grace: Duration,
    /// How the process ended, once it has.
    exit: Option<Exit>,
    /// When the grace is over, once the end was asked for.
    deadline: Option<Instant>,
    kill_tree: KillTree,
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
                Ok(seen) if seen.owner => self.kill(),
                Ok(seen) if seen.socket => self.listen(),
                Ok(_) => {}
                // No memory: nothing else can be done than to do the worst that could be asked for.
                Err(_) => self.kill(),
            }
        }
    }

    /// Waits for those that have ended. Says whether there are others.
    fn reap(&mut self) -> bool {
        loop {
            match sys::reap_any() {
                Ok(Reaped::Ended(pid, exit)) if pid == self.child => self.exit = Some(exit),
                Ok(Reaped::Ended(..)) => {}
                Ok(Reaped::None) => return true,
                Ok(Reaped::NoChildren) | Err(_) => return false,
            }
        }
    }

    fn listen(&mut self) {
        let Some(control) = &self.control else { return };
        let grace = match control::receive(control) {
            Ok(Received::Message(Control::End { grace }, _)) => grace,
            Ok(Received::Nothing) => return,
            // It let go, or says what nobody understands.
            Ok(_) | Err(_) => {
                self.control = None;
                self.grace
            }
        };
        let asked_before = self.deadline.is_some();
        let deadline = moment(grace);
        self.deadline = Some(self.deadline.map_or(deadline, |before| before.min(deadline)));
        if !asked_before && !grace.is_zero() {
            // What cannot be asked is killed when the grace is over.
            let _ = self.kill_tree.terminate();
        }
    }

    /// Kills all that there are until there are none, and ends.
    fn kill(&mut self) -> ! {
        let mut is_left = self.reap();
        while is_left {
            // At once, as far as it goes: what has left it is hunted.
            self.cgroup.iter().for_each(Cgroup::kill);
            let struck = self.kill_tree.kill().and_then(|count| {
                self.kill_tree.wait(true, Instant::now() + STRIKE_TIME)?;
                Ok(count)
            });
            is_left = self.reap();
            if is_left && !matches!(struck, Ok(1..)) {
                // Nothing to be seen and yet not over: what ends tells of it, and may have left others behind.
                let _ = self.watch.wait_for_child(Instant::now() + RETRY);
                is_left = self.reap();
            }
        }
        self.leave()
    }

    fn leave(&mut self) -> ! {
        self.cgroup.iter().for_each(Cgroup::remove);
        if let (Some(control), Some(exit)) = (&self.control, self.exit) {
            // Nobody is left who wants to know.
            let _ = control::send(control, Control::Ended { exit }, &[]);
        }
        sys::leave(0)
    }
}
