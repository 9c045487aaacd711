//! Kills an owner at a given system call of any of its processes.
//!
//! The owner and all that it starts is traced with ptrace, and stops before and after each system call. All
//! stops are counted together.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use teleport_tests::{marked, until_none_left};

/// Runs an owner that starts a process and ends, kills it at stop number `stop`, and waits until nothing is
/// left. Returns whether it had ended before.
pub(crate) fn killed_at(stop: usize, mark: &str) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_owner"));
    command.arg("brief").envs(marked(mark)).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Tracing belongs to a thread. When the thread ends, the traced processes go on.
    let tracer = thread::spawn(move || {
        let mut owner = command.spawn().expect("it can be started");
        let has_ended = trace(&mut owner, stop).expect("a child can be traced");
        (owner, has_ended)
    });
    let (mut owner, has_ended) = tracer.join().expect("it does not panic");
    // The tracer may have waited for it already.
    let _ = owner.wait();
    until_none_left(mark);
    has_ended
}

fn trace(owner: &mut Child, stop: usize) -> nix::Result<bool> {
    let owner_pid = Pid::from_raw(owner.id() as i32);
    let forks = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(owner_pid, forks | Options::PTRACE_O_TRACESYSGOOD)?;
    ptrace::interrupt(owner_pid)?;
    let mut word = owner.stdin.take();
    let mut stops = 0;
    loop {
        // Only children of this thread: other threads run other tests.
        let pid = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))? {
            WaitStatus::PtraceSyscall(pid) => {
                stops += 1;
                pid
            }
            WaitStatus::PtraceEvent(pid, ..) => pid,
            WaitStatus::Stopped(pid, signal) => {
                let _ = ptrace::syscall(pid, signal);
                continue;
            }
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == owner_pid => {
                return Ok(true);
            }
            _ => continue,
        };
        if stops > stop {
            kill(owner_pid, Signal::SIGKILL)?;
            return Ok(false);
        }
        // It may have been killed meanwhile.
        let _ = ptrace::syscall(pid, None);
        if let Some(mut word) = word.take() {
            word.write_all(b"go\n").expect("it waits for that");
        }
    }
}
