//! Forks the process that runs a function, and executes the program again in it.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use crate::supervise::control::Step;
use crate::supervise::ids;
use crate::supervise::request::Head;
use crate::sys::{self, Fork};
use crate::tree::cgroup::Cgroup;

/// Forks, executes the program again with `descriptors` as 0, 1, 2 and so on, and returns the process id.
pub(crate) fn execute(
    head: &Head,
    folder: &OwnedFd,
    descriptors: &[OwnedFd],
    cgroup: Option<&Cgroup>,
) -> Result<i32, (Step, io::Error)> {
    let forked = |error| (Step::Fork, error);
    let (read, write) = sys::pipe().map_err(forked)?;
    match fork(cgroup).map_err(forked)? {
        Fork::Child => {
            let error = become_process(head, folder, descriptors);
            let errno = error.raw_os_error().unwrap_or(0);
            // If this fails, the reaper still sees that the process has ended.
            let _ = File::from(write).write_all(&errno.to_le_bytes());
            sys::leave(127)
        }
        Fork::Parent { child } => {
            drop(write);
            let mut errno = [0; 4];
            // Executing the program closes the pipe, and nothing comes.
            match File::from(read).read_exact(&mut errno) {
                Ok(()) => {
                    sys::reap(child);
                    Err((Step::Execute, io::Error::from_raw_os_error(i32::from_le_bytes(errno))))
                }
                Err(_) => Ok(child),
            }
        }
    }
}

/// Forks a process, in its cgroup if there is one. The process executes another program or leaves.
fn fork(cgroup: Option<&Cgroup>) -> io::Result<Fork> {
    if let Some(cgroup) = cgroup {
        // SAFETY: `execute` does as this function says.
        if let Ok(fork) = unsafe { cgroup.fork_into() } {
            return Ok(fork);
        }
    }
    let fork = sys::fork_patiently(|| {})?;
    if fork == Fork::Child {
        cgroup.into_iter().for_each(Cgroup::enter);
    }
    Ok(fork)
}

/// Executes the program again in this process. Returns only if that fails. Then this process has to leave.
fn become_process(head: &Head, folder: &OwnedFd, descriptors: &[OwnedFd]) -> io::Error {
    let result = (|| -> io::Result<Infallible> {
        let path = CString::new(sys::program_path()?.as_os_str().as_bytes())?;
        let mut environment = head.environment.clone();
        environment.push(CString::new(format!("{}={}", ids::MARK_VARIABLE, ids::own_process_mark()))?);
        let arguments = [head.program.clone(), CString::new(format!("teleport: {}", head.name))?];
        // SAFETY: the caller leaves.
        unsafe { sys::execute(&path, &arguments, &environment, folder, descriptors) }
    })();
    let Err(error) = result;
    error
}
