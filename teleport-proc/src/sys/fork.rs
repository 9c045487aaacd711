//! Starting processes and ending this one.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::Exit;
use super::descriptor;

/// A reaper that has told of the end of its process has ended and was waited for well within ten of these.
const FORK_PAUSE: Duration = Duration::from_millis(10);
const MAX_FORK_TRIES: usize = 10;

/// Which process this is after a fork.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    Parent { child: i32 },
    Child,
}

/// Copies this process, if it has one thread.
///
/// A copy of a process with more has only the thread that forked, and everything that the others had locked stays locked
/// in it for ever.
pub(crate) fn fork() -> io::Result<Fork> {
    check_threads()?;
    // SAFETY: this process has one thread, which is this one: nothing is locked by another.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent { child: child.as_raw() }),
        ForkResult::Child => Ok(Fork::Child),
    }
}

fn check_threads() -> io::Result<()> {
    if threads()?.len() > 1 {
        return Err(io::Error::other("this process has more than one thread"));
    }
    Ok(())
}

/// As [`fork`], for a copy that starts in a cgroup, whose folder is given: going there later takes milliseconds. Fails where the
/// system does not do that (Linux does since 5.7, and some containers forbid it), or the cgroup does not take it.
///
/// # Safety
/// The copy executes another program, or leaves: the C library does not know that it is one.
pub(crate) unsafe fn fork_into(cgroup: &impl AsFd) -> io::Result<Fork> {
    check_threads()?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        /// What `clone3` reads, as far as it is needed.
        #[repr(C)]
        #[derive(Default)]
        struct CloneArguments {
            flags: u64,
            pidfd: u64,
            child_tid: u64,
            parent_tid: u64,
            exit_signal: u64,
            stack: u64,
            stack_size: u64,
            tls: u64,
            set_tid: u64,
            set_tid_size: u64,
            cgroup: u64,
        }
        const CLONE_INTO_CGROUP: u64 = 1 << 33;
        let arguments = CloneArguments {
            flags: CLONE_INTO_CGROUP,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: cgroup.as_fd().as_raw_fd() as u64,
            ..CloneArguments::default()
        };
        let size = std::mem::size_of_val(&arguments);
        // SAFETY: the arguments are what the kernel expects. Without a stack and without shared memory it copies this process, as
        // `fork` does; this thread is its only one.
        let result = Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) })?;
        Ok(if result == 0 { Fork::Child } else { Fork::Parent { child: result as i32 } })
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = cgroup;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// As [`fork`], but where the user has as many processes as are allowed, tries for a while: one that has ended counts until
/// it was waited for, which `meanwhile` may do.
pub(crate) fn fork_patiently(mut meanwhile: impl FnMut()) -> io::Result<Fork> {
    for _ in 0..MAX_FORK_TRIES {
        match fork() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(FORK_PAUSE);
                meanwhile();
            }
            result => return result,
        }
    }
    fork()
}

/// The names of the threads of this process.
pub(crate) fn threads() -> io::Result<Vec<String>> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let name = |task: io::Result<std::fs::DirEntry>| {
            let name = task?.path().join("comm");
            // A thread may end meanwhile.
            io::Result::Ok(std::fs::read_to_string(name).ok().map(|name| name.trim_end().to_owned()))
        };
        let names = std::fs::read_dir("/proc/self/task")?.map(name).collect::<io::Result<Vec<_>>>()?;
        Ok(names.into_iter().flatten().collect())
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let pid = std::process::id().to_string();
        let output = std::process::Command::new("ps").args(["-M", "-p", &pid]).output()?;
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        Ok(vec!["a thread".to_owned(); lines.saturating_sub(1)])
    }
}

/// Takes over the children of every process below this one that ends, and gives it a name. Elsewhere than on Linux those
/// go to the first process of the system.
pub(crate) fn become_guard(name: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        nix::sys::prctl::set_child_subreaper(true)?;
    }
    set_name(name);
    Ok(())
}

/// Shows this process under another name, of which the system keeps 15 bytes.
pub(crate) fn set_name(name: &str) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Ok(name) = CString::new(name) {
        // Fails for no name.
        let _ = nix::sys::prctl::set_name(&name);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = name;
}

/// Leaves the terminal: its Ctrl-C goes to the owner, who ends this process when it wants to. Fails for the first process
/// of a session or group, which has left already.
pub(crate) fn leave_terminal() {
    let _ = nix::unistd::setsid();
}

/// Makes this process deaf to all signals that can be ignored, but lets it see its children end.
pub(crate) fn ignore_signals() {
    for signal in Signal::iterator() {
        let handler = if signal == Signal::SIGCHLD { SigHandler::SigDfl } else { SigHandler::SigIgn };
        // SAFETY: no function is installed that could run at a bad time. SIGKILL and SIGSTOP refuse.
        let _ = unsafe { nix::sys::signal::signal(signal, handler) };
    }
}

/// Has writing to what nobody reads fail instead of ending the process, as Rust programs do before `main`.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: no function is installed that could run at a bad time.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

/// Lets all signals through or none, and says what was before.
pub(crate) fn block_signals() -> io::Result<SigSet> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(before)
}

/// Undoes [`block_signals`].
pub(crate) fn restore_signals(before: &SigSet) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(before), None)?)
}

/// What a program is executed with.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) path: &'a CStr,
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    pub(crate) folder: &'a OwnedFd,
    /// Become descriptors 0, 1, 2, and so on; it gets no others.
    pub(crate) descriptors: &'a [OwnedFd],
}

/// Becomes another program, with signals as the system sets them. Returns only if that fails.
///
/// # Safety
/// If it returns, this process leaves without destructors: its descriptors are no longer what they were.
pub(crate) unsafe fn execute(program: &Program<'_>) -> io::Result<Infallible> {
    leave_group();
    nix::unistd::fchdir(program.folder)?;
    let copies = program.descriptors.iter().map(descriptor::copy_high).collect::<io::Result<Vec<_>>>()?;
    for (number, copy) in copies.iter().enumerate() {
        // SAFETY: as the caller says.
        unsafe { descriptor::place(copy, number as RawFd) }?;
    }
    for signal in Signal::iterator() {
        // SAFETY: no function is installed. SIGKILL and SIGSTOP refuse.
        let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
    }
    restore_signals(&SigSet::empty())?;
    Ok(nix::unistd::execve(program.path, program.arguments, program.environment)?)
}

/// Ends this process at once, without destructors and without what was to run at its end.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: it does not return, and touches no memory.
    unsafe { libc::_exit(code) }
}

/// What has become of the children of this process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaped {
    Ended(i32, Exit),
    /// There are some, and none has ended.
    None,
    NoChildren,
}

/// Waits for a child that has ended, if there is one: for any, so this process must not have children of others.
pub(crate) fn reap_any() -> io::Result<Reaped> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Ok(Reaped::Ended(pid.as_raw(), Exit::Code(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Ok(Reaped::Ended(pid.as_raw(), Exit::Signal(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) => return Ok(Reaped::None),
            Err(Errno::ECHILD) => return Ok(Reaped::NoChildren),
            // Stopped or continued, which was not asked for.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a signal to a child of this process that nobody waits for meanwhile, so that its number is its own.
pub(crate) fn signal_child(pid: i32, signal: Signal) {
    // A failure is that it has ended or belongs to another user.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}

/// Ends this process as if another had killed it.
pub(crate) fn kill_this() {
    // Cannot fail, and does not return.
    let _ = nix::sys::signal::kill(Pid::this(), Signal::SIGKILL);
}

/// Gives this process a group of its own: signals to all of its group are not meant for its reaper.
pub(crate) fn leave_group() {
    let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
}

/// Waits for one child of this process, which has ended or is about to. That another part of the program did so is fine.
pub(crate) fn reap(pid: i32) {
    while let Err(Errno::EINTR) = waitpid(Pid::from_raw(pid), None) {}
}

/// The parent of this process.
pub(crate) fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Takes a variable out of the environment, unless another thread might be reading it.
pub(crate) fn remove_variable(name: &str) {
    if threads().is_ok_and(|threads| threads.len() == 1) {
        // SAFETY: this is the only thread.
        unsafe { std::env::remove_var(name) };
    }
}

/// Waits for one child of this process if it has ended. Says whether it is no longer there.
pub(crate) fn reap_if_ended(pid: i32) -> bool {
    !matches!(waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
}
