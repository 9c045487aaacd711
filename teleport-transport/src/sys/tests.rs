//! Helpers that create situations in the kernel for tests of other modules.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, getsockopt, sockopt,
};

/// Creates a socket that dialed its own port. This may happen to a client on the machine of a server
/// that is not running.
pub(crate) fn connected_to_itself() -> TcpStream {
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
    let stream = TcpStream::from(fd);
    let own = stream.local_addr().unwrap();
    socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(own)).unwrap();
    stream
}

/// Creates a listener whose queue has room for a single connection.
pub(crate) fn unix_listener_without_queue(path: &Path) -> UnixListener {
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    socket::listen(&fd, Backlog::new(0).unwrap()).unwrap();
    fd.into()
}

/// The kernel's errors for an address that no interface has, a protocol that it lacks, and a port in
/// use.
pub(crate) const LISTEN_ERRORS: [i32; 3] =
    [Errno::EADDRNOTAVAIL as i32, Errno::EAFNOSUPPORT as i32, Errno::EADDRINUSE as i32];

/// Ends a connection with a reset, as a peer does that crashed.
pub(crate) fn reset(stream: TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    socket::setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
}

/// Held while a child starts: between fork and exec, a child holds every descriptor of this process
/// open.
static FORKING: RwLock<()> = RwLock::new(());

/// Keeps children from starting, for tests that need a dropped socket to be closed at once.
pub(crate) fn no_forks() -> RwLockReadGuard<'static, ()> {
    FORKING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the test of this name alone in a child process, because it would disturb others. Returns true
/// in the child, and false in the parent once the child has passed.
pub(crate) fn in_child(test: &str) -> bool {
    const MARK: &str = "TELEPORT_TEST_IN_CHILD";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(MARK, "1").stdout(Stdio::piped());
    let forking = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    let mut child = command.spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut text = vec![0];
    // `spawn` may return before exec has closed the descriptors; the child's first byte comes after that.
    output.read_exact(&mut text).unwrap();
    drop(forking);
    output.read_to_end(&mut text).unwrap();
    let (status, text) = (child.wait().unwrap(), String::from_utf8_lossy(&text));
    assert!(status.success() && text.contains("1 passed"), "{status}: {text}");
    false
}

/// Uses up all free descriptors of this process until the result is dropped.
pub(crate) fn use_up_descriptors() -> Vec<File> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Lets this process map at most `bytes` more than now.
pub(crate) fn limit_new_memory(bytes: u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size =
        status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")).unwrap();
    let mapped_bytes = size.parse::<u64>().unwrap() * 1024;
    let (_, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    setrlimit(Resource::RLIMIT_AS, mapped_bytes + bytes, hard).unwrap();
}

/// Undoes the change of the Rust runtime at start, as in a process whose `main` is not Rust's.
pub(crate) fn let_sigpipe_kill() {
    // SAFETY: the default action runs no code of this process.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
}

#[test]
fn sockets_are_tuned() {
    let stream = connected_to_itself();
    super::tune_tcp(stream.as_fd(), 128 << 10).unwrap();
    assert!(getsockopt(&stream, sockopt::TcpNoDelay).unwrap());
    assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
    assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), 60);
    assert_eq!(super::net::tcp_not_sent_low(stream.as_fd()).unwrap(), 128 << 10);
    super::set_tcp_not_sent_low(stream.as_fd(), 1 << 20).unwrap();
    assert_eq!(super::net::tcp_not_sent_low(stream.as_fd()).unwrap(), 1 << 20);
}

#[test]
fn accept_errors_are_distinguished() {
    let error = |code: Errno| std::io::Error::from(code);
    for code in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
        assert!(super::is_exhausted(&error(code)) && !super::is_lost_connection(&error(code)));
    }
    for code in [Errno::ECONNABORTED, Errno::EPROTO, Errno::EHOSTUNREACH, Errno::EPERM] {
        assert!(super::is_lost_connection(&error(code)) && !super::is_exhausted(&error(code)));
    }
    for error in [error(Errno::EBADF), error(Errno::EINVAL), std::io::ErrorKind::Other.into()] {
        assert!(!super::is_lost_connection(&error) && !super::is_exhausted(&error));
    }
}
