//! The zygote: one process for each owner, from which the reapers are forked.
//!
//! It is this program, executed again. It has one thread and little memory, so forking it is cheap and
//! sound. Each reaper watches the owner itself. If a reaper is killed, the zygote adopts and kills the
//! processes below it. When the owner ends, the zygote kills everything below itself.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::supervise::control::{self, Control, Step};
use crate::supervise::reaper;
use crate::sys::{self, Exit, Fork, ProcessFd, Received, Watch};
use crate::tree::cgroup::CgroupParent;
use crate::tree::kill_tree::KillTree;
use crate::tree::snapshot::SUPERVISOR_NAME;

/// The time for which the zygote waits for killed processes before it kills again.
const KILL_TIME: Duration = Duration::from_millis(100);

/// Makes this process a zygote.
pub(crate) fn run() -> ! {
    // It has no output, and must not unwind into the program that it was made of.
    std::panic::set_hook(Box::new(|_| sys::leave(Exit::PANIC_CODE)));
    match Zygote::new() {
        Ok(zygote) => zygote.run(),
        // The owner sees the end.
        Err(_) => sys::leave(1),
    }
}

#[derive(Debug)]
struct Zygote {
    socket: OwnedFd,
    owner: ProcessFd,
    watch: Watch,
    reapers: BTreeSet<i32>,
    cgroups: Option<CgroupParent>,
}

impl Zygote {
    fn new() -> io::Result<Zygote> {
        let owner = sys::open_parent(sys::parent())?;
        sys::leave_terminal();
        sys::block_signals()?;
        sys::ignore_signals();
        sys::set_name(SUPERVISOR_NAME);
        sys::become_subreaper()?;
        let socket = sys::copy_high(&io::stdin())?;
        sys::forget_standard()?;
        let count = sys::threads()?.len() as u32;
        if count > 1 {
            control::send(&socket, Control::Threads { count }, &[])?;
            sys::leave(1)
        }
        let watch = Watch::new(owner.again()?)?;
        let [a, b] = watch.descriptors();
        // SAFETY: this process leaves without destructors, and uses only these descriptors from here on.
        unsafe { sys::close_all_but(&[0, 1, 2, socket.as_raw_fd(), owner.as_fd().as_raw_fd(), a, b]) };
        let cgroups = CgroupParent::delegated();
        // Leftovers of an earlier owner end before anything starts: they may hold a port or a file.
        cgroups.iter().for_each(CgroupParent::sweep);
        control::send(&socket, Control::Ready, &[])?;
        Ok(Zygote { socket, owner, watch, reapers: BTreeSet::new(), cgroups })
    }

    fn run(mut self) -> ! {
        loop {
            match self.watch.wait(Some(&self.socket), None) {
                Ok(events) if !events.owner_ended => {
                    if events.child_ended {
                        self.reap();
                    }
                    if events.socket_readable {
                        self.listen();
                    }
                }
                // The owner is gone, or this process can wait for nothing any more.
                _ => self.end_all(),
            }
        }
    }

    fn listen(&mut self) {
        match control::receive(&self.socket) {
            Ok(Received::Message(Control::Start, fds)) => self.start(fds),
            Ok(Received::Nothing) => {}
            // The owner executes another program, or is about to end.
            Ok(_) | Err(_) => self.end_all(),
        }
    }

    /// Forks a reaper.
    fn start(&mut self, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        // If there was no descriptor left to receive, the owner sees that its socket is closed.
        let Some(control) = fds.next() else { return };
        match sys::fork_patiently(|| self.reap()) {
            Ok(Fork::Parent { child }) => {
                self.reapers.insert(child);
            }
            Ok(Fork::Child) => {
                reaper::run_for_request(control, self.owner.again(), self.cgroups.as_ref(), fds)
            }
            Err(error) => control::send_failure(&control, Step::Fork, &error),
        }
    }

    /// Waits for all reapers that have ended, and ends the processes of those that were killed.
    fn reap(&mut self) {
        // Another reaper may be killed meanwhile.
        while self.reap_reapers() {
            let mut tree = KillTree::below_supervisor(self.reapers.clone());
            while tree.kill_and_wait(KILL_TIME) {}
            self.cgroups.iter().for_each(CgroupParent::sweep);
        }
    }

    /// Waits for all children that have ended. Returns whether one was a reaper that was killed.
    fn reap_reapers(&mut self) -> bool {
        let mut was_killed = false;
        sys::reap_ended(|pid, exit| was_killed |= self.reapers.remove(&pid) && !exit.success());
        was_killed
    }

    /// Kills everything below this process until nothing is left, and ends.
    fn end_all(&self) -> ! {
        let mut tree = KillTree::below_supervisor(BTreeSet::new());
        loop {
            let has_killed = tree.kill_and_wait(KILL_TIME);
            if !sys::reap_ended(|_, _| ()) {
                self.cgroups.iter().for_each(CgroupParent::sweep);
                sys::leave(0)
            }
            if !has_killed {
                // None of the children could be killed. When one ends, there may be others.
                let _ = self.watch.wait_for_child(Instant::now() + KILL_TIME);
            }
        }
    }
}
