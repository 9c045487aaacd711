//! Cgroups of Linux (version 2): one for each process, where this program may make some.
//!
//! One write kills all processes of a cgroup at once, whatever they do. A cgroup also keeps its processes
//! known when all that supervised them has been killed. Each cgroup is locked by its reaper, so a cgroup
//! without a lock is a leftover. The next zygote in the same place ends it: see [`CgroupParent::sweep`].
//!
//! Most cgroups belong to systemd. So this happens only where a cgroup was delegated: at the root of the
//! cgroups that this process sees, as in a container that may write there, or in a cgroup that carries
//! systemd's mark of delegation (`Delegate=yes`). If anything fails, a process runs without a cgroup.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::{self, Fork};

/// The start of a cgroup's name. The process id of the reaper follows.
const PREFIX: &str = "teleport-proc-";

/// The marks of systemd for a cgroup that it delegates: to a user, or to the superuser only.
const DELEGATED: [&CStr; 2] = [c"user.delegate", c"trusted.delegate"];

/// Tells a cgroup of this crate from another's with such a name.
const OURS: &CStr = c"user.teleport-proc";

/// Reapers in different PID namespaces may have the same process id.
const MAX_NAMES: usize = 8;

/// Killed processes end much sooner. If not, their cgroup is left to the next sweep.
const MAX_SWEEP: Duration = Duration::from_secs(1);

/// A cgroup below which this program may make others.
#[derive(Debug)]
pub(crate) struct CgroupParent(PathBuf);

impl CgroupParent {
    /// Returns the cgroup of this process, if it was delegated.
    pub(crate) fn delegated() -> Option<CgroupParent> {
        let own = own(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
        let mounts = fs::read("/proc/self/mountinfo").ok()?;
        let folder = folder(&own, &String::from_utf8_lossy(&mounts))?;
        (own == Path::new("/") || DELEGATED.iter().any(|mark| sys::has_mark(&folder, mark)))
            .then_some(CgroupParent(folder))
    }

    /// Makes a cgroup for a process that this one starts. This process is its reaper.
    pub(crate) fn make(&self) -> Option<Cgroup> {
        let this = std::process::id();
        for name in 0..MAX_NAMES {
            match Cgroup::new(self.0.join(format!("{PREFIX}{this}-{name}"))) {
                Ok(cgroup) => return Some(cgroup),
                // The name is taken, or another process swept the cgroup before it was locked.
                Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Kills the processes of cgroups without a reaper, and removes the cgroups. **Blocks** for up to 1 s.
    pub(crate) fn sweep(&self) {
        let deadline = Instant::now() + MAX_SWEEP;
        for folder in folders(&self.0) {
            let name = folder.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(PREFIX.as_bytes()) {
                // This fails if another process sweeps at the same time.
                let _ = end(&folder, deadline);
            }
        }
    }
}

/// Ends a cgroup, unless it is locked. One without the mark is removed only if it is empty.
fn end(folder: &Path, deadline: Instant) -> io::Result<()> {
    let locked = File::open(folder)?;
    if !sys::try_lock(&locked)? {
        return Ok(());
    }
    if !sys::has_mark(folder, OURS) {
        return fs::remove_dir(folder);
    }
    let events = File::open(folder.join("cgroup.events"))?;
    fs::write(folder.join("cgroup.kill"), "1")?;
    while io::read_to_string(&events)?.contains("populated 1") && sys::has_changed(&events, deadline)? {
        io::Seek::rewind(&mut &events)?;
    }
    remove(folder)
}

/// Removes a cgroup and those below it, all of which are empty.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            folders(folder).iter().try_for_each(|below| remove(below))?;
            fs::remove_dir(folder)
        }
        result => result,
    }
}

/// Lists the cgroups directly below one.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_folder).map(|entry| entry.path()).collect()
}

/// The cgroup of one process and all that it starts.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    /// The folder, open and locked.
    lock: File,
}

impl Cgroup {
    fn new(folder: PathBuf) -> io::Result<Cgroup> {
        fs::create_dir(&folder)?;
        let made = || {
            let lock = File::open(&folder)?;
            if !sys::try_lock(&lock)? {
                // A sweep has locked it, and removes it.
                return Err(ErrorKind::NotFound.into());
            }
            sys::mark(&folder, OURS)?;
            // The process may make cgroups of its own below it.
            sys::mark(&folder, DELEGATED[0])?;
            // Linux has it since 5.14.
            File::options().write(true).open(folder.join("cgroup.kill"))?;
            Ok(lock)
        };
        match made() {
            Ok(lock) => Ok(Cgroup { folder, lock }),
            Err(error) => {
                // If this fails, an empty cgroup stays until the next sweep.
                let _ = fs::remove_dir(&folder);
                Err(error)
            }
        }
    }

    /// Forks a process that is in the cgroup from the start.
    ///
    /// # Safety
    /// As for [`sys::fork_into`].
    pub(crate) unsafe fn fork_into(&self) -> io::Result<Fork> {
        // SAFETY: the caller's promise.
        unsafe { sys::fork_into(&self.lock) }
    }

    /// Puts this process into the cgroup.
    pub(crate) fn enter(&self) {
        // If this fails, the kill tree still finds the process.
        let _ = fs::write(self.folder.join("cgroup.procs"), "0");
    }

    /// Kills all processes of the cgroup.
    pub(crate) fn kill(&self) {
        // As for `enter`.
        let _ = fs::write(self.folder.join("cgroup.kill"), "1");
    }

    /// Removes the cgroup, which is empty.
    pub(crate) fn remove(&self) {
        // If this fails, the cgroup is left to the next sweep.
        let _ = remove(&self.folder);
    }

    /// Returns the descriptor that holds the lock.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.lock.as_raw_fd()
    }
}

/// Finds the path of a cgroup below its root in the text of `/proc/self/cgroup`.
fn own(cgroups: &str) -> Option<PathBuf> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
}

/// Finds the folder of a cgroup in the text of `/proc/self/mountinfo`, whose lines are
/// `id parent device ROOT FOLDER options … - TYPE …`.
fn folder(cgroup: &Path, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, folder) = (fields.next()?, fields.next()?);
        let below = cgroup.strip_prefix(root).ok().filter(|_| after.starts_with("cgroup2 "))?;
        // Joining an empty path would add a slash.
        Some(if below.as_os_str().is_empty() { PathBuf::from(folder) } else { Path::new(folder).join(below) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_that_of_version_2() {
        let both = "2:cpu:/a\n1:name=systemd:/b\n0::/user.slice/app\n";
        assert_eq!(own(both), Some(PathBuf::from("/user.slice/app")));
        assert_eq!(own("4:memory:/a\n"), None);
    }

    #[test]
    fn the_folder_is_below_the_mount() {
        let mounts = "\
            30 23 0:25 / /proc rw - proc proc rw\n\
            31 23 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
            32 23 0:38 /box /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(folder(Path::new("/box/a"), mounts), Some(PathBuf::from("/sys/fs/cgroup/unified/a")));
        assert_eq!(folder(Path::new("/box"), mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(folder(Path::new("/elsewhere"), mounts), None);
        assert_eq!(folder(Path::new("/box"), ""), None);
    }
}
