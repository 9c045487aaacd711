//! The zygote: one process for each that starts others, from which their reapers are forked.
//!
//! It is this program, executed again, so that it has one thread and almost no memory: forking it is cheap and sound,
//! however large and busy its owner is. It keeps nothing but its own descriptors. Each reaper watches the owner by
//! itself; the zygote is there for the case that one was killed: what that one kept comes to it, and is killed. When
//! the owner ends, it kills everything below it until nothing is left.
//!
//! Flow: [`start`], in the owner, sends a request with its descriptors -> `run`, in the zygote, forks a reaper -> which
//! answers the owner on a socket of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ProcError;
use crate::supervise::control::{self, Control, Step};
use crate::supervise::ids::{MARK_VARIABLE, ZYGOTE_MARK};
use crate::supervise::program;
use crate::supervise::reaper;
use crate::sys::{self, Fork, ProcessFd, Reaped, Received, Watch};
use crate::tree::cgroup::Place;
use crate::tree::kill_tree::{GUARD_NAME, KillTree};

/// A program needs milliseconds until `init`; one that has not come there by then never will.
const MAX_START: Duration = Duration::from_secs(60);

/// How long the zygote waits for what it has struck before it strikes again.
const STRIKE_TIME: Duration = Duration::from_millis(100);

/// The zygote of this process.
static ZYGOTE: Mutex<Option<ZygoteHandle>> = Mutex::new(None);

/// The owner's end.
#[derive(Debug)]
struct ZygoteHandle {
    /// Whose it is: a process that was forked from that one needs another.
    owner: u32,
    socket: OwnedFd,
    child: Child,
}

/// What a process is started with.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) name: &'a str,
    pub(crate) request: &'a File,
    pub(crate) result: &'a File,
    pub(crate) stop: OwnedFd,
}

/// What goes to the zygote with a request: first this, then what the process gets as descriptors 1, 2 and so on.
const FIRST: [&str; 2] = ["the reaper's end", "the folder"];

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    /// Where its reaper listens.
    pub(crate) control: OwnedFd,
    /// Readable once its reaper has ended, where there are such descriptors.
    pub(crate) reaper: Option<OwnedFd>,
}

/// Starts a process. **Blocks** until it runs; one after the
/// other, so that what is under way stays bounded.
pub(crate) fn start(start: &Start<'_>) -> Result<Started, ProcError> {
    let failed = |what| ProcError::start(start.name, what);
    if start.name.contains('\0') {
        return Err(failed("its name has a zero byte")(io::ErrorKind::InvalidInput.into()));
    }
    let (ours, theirs) = sys::pair().map_err(failed("no sockets to its reaper can be made"))?;
    let folder = sys::current_folder().map_err(failed("the current folder cannot be opened"))?;
    let (out, error) = (io::stdout(), io::stderr());
    let fds: [BorrowedFd<'_>; FIRST.len() + 5] = [
        theirs.as_fd(),
        folder.as_fd(),
        out.as_fd(),
        error.as_fd(),
        start.request.as_fd(),
        start.result.as_fd(),
        start.stop.as_fd(),
    ];
    let mut zygote = ZYGOTE.lock().unwrap_or_else(PoisonError::into_inner);
    send(&mut zygote, start.name, &fds)?;
    drop(theirs);
    let answered = sys::readable(&ours, Some(Instant::now() + MAX_START));
    if !answered.map_err(failed("its reaper cannot be waited for"))? {
        let silence = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {MAX_START:?}"));
        return Err(failed("its reaper does not answer")(silence));
    }
    match control::receive(&ours).map_err(failed("its reaper cannot be heard"))? {
        Received::Message(Control::Started { pid }, mut fds) => {
            Ok(Started { pid, control: ours, reaper: fds.pop() })
        }
        Received::Message(Control::Failed { step, errno }, _) => {
            let reason = match errno {
                0 => io::Error::other("for no reason that the system gives"),
                errno => io::Error::from_raw_os_error(errno),
            };
            Err(failed(step.what())(reason))
        }
        _ => {
            let ended = io::Error::new(io::ErrorKind::BrokenPipe, "it was killed, or has no descriptor left");
            Err(failed("the zygote process has ended meanwhile")(ended))
        }
    }
}

/// Sends a request to the zygote, which is started first if there is none.
fn send(slot: &mut Option<ZygoteHandle>, name: &str, fds: &[BorrowedFd<'_>]) -> Result<(), ProcError> {
    let this = std::process::id();
    if let Some(zygote) = slot.take_if(|zygote| zygote.owner != this) {
        // Another process's: its descriptor is closed here, and nothing else.
        drop(zygote);
    }
    if let Some(zygote) = slot
        && control::send(&zygote.socket, Control::Start, fds).is_err()
        && let Some(dead) = slot.take()
    {
        end(dead);
    }
    if slot.is_none() {
        let zygote = slot.insert(ZygoteHandle::new(name)?);
        let sent = control::send(&zygote.socket, Control::Start, fds);
        sent.map_err(ProcError::start(name, "the zygote process cannot be asked"))?;
    }
    Ok(())
}

/// Gets rid of a zygote that does not answer.
fn end(mut zygote: ZygoteHandle) {
    // Errors mean that it has ended and was waited for.
    let _ = zygote.child.kill();
    let _ = zygote.child.wait();
}

impl ZygoteHandle {
    /// Executes this program again as a zygote, and waits until it is ready.
    fn new(name: &str) -> Result<ZygoteHandle, ProcError> {
        let failed = |what| ProcError::start(name, what);
        let (ours, theirs) = sys::pair().map_err(failed("no sockets to the zygote process can be made"))?;
        let path = program::path().map_err(failed("the path of this program is not known"))?;
        let child = Command::new(path)
            .arg0(GUARD_NAME)
            .env(MARK_VARIABLE, ZYGOTE_MARK)
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("the zygote process cannot be started"))?;
        let zygote = ZygoteHandle { owner: std::process::id(), socket: ours, child };
        let answered = sys::readable(&zygote.socket, Some(Instant::now() + MAX_START));
        match answered.and_then(|answered| {
            if answered { control::receive(&zygote.socket) } else { Ok(Received::Nothing) }
        }) {
            Ok(Received::Message(Control::Ready, _)) => Ok(zygote),
            Ok(Received::Message(Control::Threads { count }, _)) => {
                end(zygote);
                Err(ProcError::EarlyThreads { name: name.to_owned(), count })
            }
            Ok(Received::Nothing) => {
                end(zygote);
                Err(ProcError::InitNotReached { name: name.to_owned(), waited: Some(MAX_START) })
            }
            _ => {
                end(zygote);
                Err(ProcError::InitNotReached { name: name.to_owned(), waited: None })
            }
        }
    }
}

/// What the zygote does: this process is one.
pub(crate) fn run() -> ! {
    // It has no output, and must not unwind into the program that it is not.
    std::panic::set_hook(Box::new(|_| sys::leave(101)));
    match Zygote::new() {
        Ok(guard) => guard.run(),
        // The owner sees that.
        Err(_) => sys::leave(1),
    }
}

/// The zygote's end.
#[derive(Debug)]
struct Zygote {
    socket: OwnedFd,
    owner: ProcessFd,
    watch: Watch,
    reapers: BTreeSet<i32>,
    /// Where cgroups may be made.
    place: Option<Place>,
}

impl Zygote {
    fn new() -> io::Result<Zygote> {
        let number = sys::parent();
        let owner = ProcessFd::open(number)?;
        // As long as it is the parent, nobody else has its number: so it still was when it was opened.
        if sys::parent() != number {
            return Err(io::ErrorKind::NotFound.into());
        }
        sys::leave_terminal();
        sys::block_signals()?;
        sys::ignore_signals();
        sys::become_guard(GUARD_NAME)?;
        let socket = sys::copy_high(&io::stdin())?;
        sys::forget_standard()?;
        let count = sys::threads()?.len() as u32;
        if count > 1 {
            control::send(&socket, Control::Threads { count }, &[])?;
            sys::leave(1)
        }
        let watch = Watch::new(owner.again()?)?;
        let [a, b] = watch.descriptors();
        // SAFETY: nothing in this process, which leaves without destructors, uses others from here on.
        unsafe { sys::close_all_but(&[0, 1, 2, socket.as_raw_fd(), owner.as_fd().as_raw_fd(), a, b]) };
        let place = Place::delegated();
        // What an earlier owner has left there ends before anything starts: it may have a port, or a file.
        place.iter().for_each(Place::sweep);
        control::send(&socket, Control::Ready, &[])?;
        Ok(Zygote { socket, owner, watch, reapers: BTreeSet::new(), place })
    }

    fn run(mut self) -> ! {
        loop {
            match self.watch.wait(Some(&self.socket), None) {
                Ok(seen) if !seen.owner => {
                    if seen.child {
                        self.reap();
                    }
                    if seen.socket {
                        self.listen();
                    }
                }
                // The owner is gone, or this process can see nothing any more.
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
        // Without a descriptor for it, its owner sees that the socket is closed.
        let Some(control) = fds.next() else { return };
        match sys::fork_patiently(|| self.reap()) {
            Ok(Fork::Parent { child }) => {
                self.reapers.insert(child);
            }
            Ok(Fork::Child) => reaper::start(control, self.owner.again(), self.place.as_ref(), fds),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                let _ = control::send(&control, Control::Failed { step: Step::Fork, errno }, &[]);
            }
        }
    }

    /// Waits for reapers that have ended. What one leaves behind that was killed has come to this process.
    fn reap(&mut self) {
        // Others may be killed while the strays of one are ended.
        while self.reap_keepers() {
            self.end_strays();
        }
    }

    /// Waits for all that have ended. Says whether a reaper among them was killed.
    fn reap_keepers(&mut self) -> bool {
        let mut is_stray = false;
        while let Ok(Reaped::Ended(pid, exit)) = sys::reap_any() {
            let was_keeper = self.reapers.remove(&pid);
            is_stray |= was_keeper && !exit.success();
        }
        is_stray
    }

    fn end_strays(&self) {
        let mut kill_tree = KillTree::below_guard().sparing(self.reapers.clone());
        while let Ok(1..) = kill_tree.kill() {
            // It is looked at again in any case.
            let _ = kill_tree.wait(true, Instant::now() + STRIKE_TIME);
        }
        self.place.iter().for_each(Place::sweep);
    }

    /// Kills everything below this process until nothing is left, and ends.
    fn end_all(&self) -> ! {
        let mut kill_tree = KillTree::below_guard();
        loop {
            let struck = kill_tree.kill().and_then(|count| {
                kill_tree.wait(true, Instant::now() + STRIKE_TIME)?;
                Ok(count)
            });
            loop {
                match sys::reap_any() {
                    Ok(Reaped::Ended(..)) => {}
                    Ok(Reaped::None) => break,
                    Ok(Reaped::NoChildren) | Err(_) => {
                        self.place.iter().for_each(Place::sweep);
                        sys::leave(0)
                    }
                }
            }
            if !matches!(struck, Ok(1..)) {
                // Nothing to be seen and yet not over: what ends tells of it, and may have left others behind.
                let _ = self.watch.wait_for_child(Instant::now() + STRIKE_TIME);
            }
        }
    }
}
