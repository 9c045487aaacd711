//! Cgroups of Linux (version 2): one for each process, where this program may have some.
//!
//! One word kills all that is in a cgroup, at once and whatever it does. What is in one also stays known after everything
//! that watched over it has been killed: each cgroup is locked by its reaper for as long as that lives, so one that
//! nobody has locked is a leftover, and the next zygote in the same place ends it ([`Place::sweep`]).
//!
//! Cgroups belong to somebody, mostly to systemd. So this happens only where one was delegated: at the root of what this
//! process sees of them, as in a container that may write there, or below one that is marked as systemd marks what it
//! delegates (`Delegate=yes`). Everything works without: whatever fails here leaves a process without a cgroup.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::{self, Fork};

/// Before the number of the reaper.
const PREFIX: &str = "teleport-proc-";

/// What systemd gives a cgroup that it delegates: the second if only the superuser may have it.
const DELEGATED: [&CStr; 2] = [c"user.delegate", c"trusted.delegate"];

/// Tells a cgroup that was made here from what others may call alike.
const OURS: &CStr = c"user.teleport-proc";

/// Others have the same number where processes are numbered anew.
const MAX_NAMES: usize = 8;

/// What was killed is gone much sooner; until then its cgroup cannot be removed, and is left to the next who looks.
const MAX_DYING: Duration = Duration::from_secs(1);

/// A cgroup whose inner life is this program's.
#[derive(Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// The cgroup that this process is in, if it was delegated.
    pub(crate) fn delegated() -> Option<Place> {
        let own = own(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
        let mounts = fs::read("/proc/self/mountinfo").ok()?;
        let folder = folder(&own, &String::from_utf8_lossy(&mounts))?;
        (own == Path::new("/") || DELEGATED.iter().any(|mark| sys::has_mark(&folder, mark)))
            .then_some(Place(folder))
    }

    /// Makes a cgroup for a process of this one, which is its reaper.
    pub(crate) fn make(&self) -> Option<Cgroup> {
        let this = std::process::id();
        for name in 0..MAX_NAMES {
            match Cgroup::new(self.0.join(format!("{PREFIX}{this}-{name}"))) {
                Ok(cgroup) => return Some(cgroup),
                // The name is taken, or it was swept away before it was locked.
                Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Ends what is in cgroups that nobody keeps any more, and removes them. **Blocks** until it has ended, for up to 1 s.
    pub(crate) fn sweep(&self) {
        let deadline = Instant::now() + MAX_DYING;
        for folder in folders(&self.0) {
            let name = folder.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(PREFIX.as_bytes()) {
                // Another may be faster, and then there is nothing left to do.
                let _ = end(&folder, deadline);
            }
        }
    }
}

/// Ends a cgroup, unless somebody keeps it. One that has no mark yet, or is another's, is removed if nothing is in it.
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

/// Removes a cgroup with those below it, which are empty.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            folders(folder).iter().try_for_each(|below| remove(below))?;
            fs::remove_dir(folder)
        }
        result => result,
    }
}

/// The cgroups right below one.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_folder).map(|entry| entry.path()).collect()
}

/// A cgroup with one process and all that it starts.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    /// Locks it.
    lock: File,
    /// Where who is to be in it says so.
    entrance: File,
    /// Where its end is asked for.
    kill: File,
}

impl Cgroup {
    fn new(folder: PathBuf) -> io::Result<Cgroup> {
        fs::create_dir(&folder)?;
        let made = || {
            let lock = File::open(&folder)?;
            if !sys::try_lock(&lock)? {
                // Who swept it up has it, and removes it.
                return Err(ErrorKind::NotFound.into());
            }
            sys::mark(&folder, OURS)?;
            // What runs in it may divide it again.
            sys::mark(&folder, DELEGATED[0])?;
            let writable = |name| File::options().write(true).open(folder.join(name));
            // Linux has the second since 5.14.
            Ok((lock, writable("cgroup.procs")?, writable("cgroup.kill")?))
        };
        match made() {
            Ok((lock, entrance, kill)) => Ok(Cgroup { folder, lock, entrance, kill }),
            Err(error) => {
                // It is gone, or stays: nothing is in it.
                let _ = fs::remove_dir(&folder);
                Err(error)
            }
        }
    }

    /// Forks a process that is in it from the start.
    ///
    /// # Safety
    /// As for [`sys::fork_into`].
    pub(crate) unsafe fn fork_into(&self) -> io::Result<Fork> {
        // SAFETY: as the caller says.
        unsafe { sys::fork_into(&self.lock) }
    }

    /// Puts this process into it.
    pub(crate) fn enter(&self) {
        // One that is not in it is found by those who look for it elsewhere.
        let _ = (&self.entrance).write(b"0");
    }

    /// Kills all that is in it.
    pub(crate) fn kill(&self) {
        // As for `enter`.
        let _ = (&self.kill).write(b"1");
    }

    /// Removes it. Nothing is in it any more.
    pub(crate) fn remove(&self) {
        // Somebody may have swept it, if something was: it is a leftover then.
        let _ = remove(&self.folder);
    }

    /// Those that its reaper needs, which lock it.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.lock.as_raw_fd(), self.kill.as_raw_fd()]
    }

    /// Closes its descriptors, in a process that was forked from its reaper and goes on to use it no more.
    ///
    /// # Safety
    /// Nothing drops it in this process.
    pub(crate) unsafe fn close(&self) {
        for fd in [&self.lock, &self.entrance, &self.kill] {
            // SAFETY: as the caller says.
            unsafe { sys::close(fd.as_raw_fd()) };
        }
    }
}

/// The cgroup of a process, from its root on, as `/proc/self/cgroup` tells.
fn own(cgroups: &str) -> Option<PathBuf> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
}

/// Where a cgroup is to be found, as `/proc/self/mountinfo` tells: `id parent device ROOT FOLDER options … - TYPE …`.
fn folder(cgroup: &Path, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, folder) = (fields.next()?, fields.next()?);
        let below = cgroup.strip_prefix(root).ok().filter(|_| after.starts_with("cgroup2 "))?;
        // Nothing that a path could be pushed with: that would put a slash at its end.
        Some(if below.as_os_str().is_empty() { PathBuf::from(folder) } else { Path::new(folder).join(below) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_version_2_is_meant() {
        let both = "2:cpu:/a\n1:name=systemd:/b\n0::/user.slice/app\n";
        assert_eq!(own(both), Some(PathBuf::from("/user.slice/app")));
        assert_eq!(own("4:memory:/a\n"), None);
    }

    #[test]
    fn its_folder_is_where_it_is_mounted() {
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
