use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use std::{fs, thread};

use mio::{Events, Poll};

use super::listener::Listener;
use super::*;
use crate::net::address::{AddressProblem, Host};

/// An operation that hangs must end the test.
const WATCHDOG: Duration = Duration::from_secs(20);

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn bind(text: &str) -> Listener {
    Listener::bind(&address(text)).unwrap()
}

fn connect(address: &Address) -> Result<Socket, ConnectError> {
    Socket::connect(address, Some(Instant::now() + WATCHDOG))
}

/// Waits with a poller of its own, as the reactor would.
#[track_caller]
fn wait(mut source: impl Source, interest: Interest) {
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut source, Token(7), interest).unwrap();
    let mut events = Events::with_capacity(1);
    poll.poll(&mut events, Some(WATCHDOG)).unwrap();
    assert!(events.iter().any(|event| event.token() == Token(7)), "no event within {WATCHDOG:?}");
    poll.registry().deregister(&mut source).unwrap();
}

#[track_caller]
fn accept(listener: &Listener) -> Socket {
    wait(listener, Interest::READABLE);
    listener.accept().unwrap().unwrap()
}

fn read(socket: &Socket, bytes: &mut [u8]) -> io::Result<usize> {
    socket.read_vectored(&mut [IoSliceMut::new(bytes)])
}

fn write(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.write_vectored(&[IoSlice::new(bytes)])
}

#[track_caller]
fn check_carries(from: &Socket, to: &Socket) {
    assert_eq!(read(to, &mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(from.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cde")]).unwrap(), 5);
    wait(to, Interest::READABLE);
    let (mut head, mut tail) = ([0; 3], [0; 8]);
    assert_eq!(to.read_vectored(&mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)]).unwrap(), 5);
    assert_eq!((&head, &tail[..2]), (b"abc", b"de".as_slice()));
}

/// Checks that a listener at `text` is reached at the address that it reports, and that its connections
/// work and close.
#[track_caller]
fn check_reached(text: &str) -> (Listener, Socket, Socket) {
    let listener = bind(text);
    assert!(listener.accept().unwrap().is_none());
    let client = connect(listener.address()).unwrap();
    let server = accept(&listener);
    assert!(listener.accept().unwrap().is_none());
    check_carries(&client, &server);
    check_carries(&server, &client);
    assert_eq!(server.is_unix(), listener.address().is_unix());
    (listener, client, server)
}

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("teleport-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn address(&self, name: &str) -> Address {
        Address::Path(self.0.join(name))
    }

    fn has(&self, name: &str) -> bool {
        self.0.join(name).symlink_metadata().is_ok()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn abstract_name(part: &str) -> String {
    format!("ipc://@teleport-{part}-{}", std::process::id())
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Tcp { port, .. } => *port,
        _ => panic!("{address} has no port"),
    }
}

fn at(host: &str, port: u16) -> Address {
    Address::Tcp { host: Host::Ip(host.parse().unwrap()), port }
}

#[test]
fn each_kind_of_address_is_reached() {
    for text in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://*:0", "tcp://[::]:0", "tcp://0.0.0.0:0"] {
        check_reached(text);
    }
    check_reached("tcp://localhost:0");
    check_reached(&abstract_name("reached"));
    let folder = Folder::new();
    check_reached(&folder.address("x.sock").to_string());
}

#[test]
fn a_listener_reports_its_address() {
    let any = bind("tcp://*:0");
    assert_eq!(any.address(), &at("::", port(any.address())));
    assert_ne!(port(any.address()), 0);
    let one = bind("tcp://127.0.0.1:0");
    assert_eq!(one.address(), &at("127.0.0.1", port(one.address())));
    let named = bind("tcp://localhost:0");
    let Address::Tcp { host: Host::Ip(ip), .. } = named.address() else { panic!("{}", named.address()) };
    assert!(IpAddr::is_loopback(ip));
}

#[test]
fn a_star_listens_on_both_families_and_an_address_only_on_itself() {
    for text in ["tcp://*:0", "tcp://[::]:0"] {
        let both = bind(text);
        for host in ["127.0.0.1", "::1"] {
            let client = connect(&at(host, port(both.address()))).unwrap();
            let server = accept(&both);
            check_carries(&client, &server);
            let shown = at(host, 1).to_string();
            let shown = shown.strip_suffix(":1").unwrap();
            assert!(server.peer().starts_with(shown), "{} is {shown}", server.peer());
        }
    }
    let v6 = bind("tcp://[::1]:0");
    connect(&at("127.0.0.1", port(v6.address()))).unwrap_err();
    let v4 = bind("tcp://0.0.0.0:0");
    connect(&at("::1", port(v4.address()))).unwrap_err();
}

#[test]
fn peers_have_names_for_people() {
    let (listener, client, server) = check_reached("tcp://127.0.0.1:0");
    assert_eq!(client.peer(), listener.address().to_string());
    assert!(server.peer().starts_with("tcp://127.0.0.1:"), "{}", server.peer());
    let (listener, client, server) = check_reached(&abstract_name("peers"));
    let expected = format!("{} (pid {}, uid ", listener.address(), std::process::id());
    assert!(client.peer().starts_with(&expected), "{}", client.peer());
    assert!(server.peer().starts_with(&expected), "{}", server.peer());
}

#[test]
fn the_end_is_read_and_writing_after_it_fails() {
    for text in ["tcp://127.0.0.1:0".to_owned(), abstract_name("end")] {
        let (_listener, client, server) = check_reached(&text);
        client.shutdown().unwrap();
        assert_eq!(write(&client, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        wait(&server, Interest::READABLE);
        assert_eq!(read(&server, &mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_full_socket_would_block_and_is_writable_again() {
    let (_listener, client, server) = check_reached("tcp://127.0.0.1:0");
    let bytes = vec![7; 1 << 20];
    let mut sent = 0;
    let error = loop {
        match write(&client, &bytes) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    while received < sent {
        wait(&server, Interest::READABLE);
        received += read(&server, &mut buffer).unwrap();
    }
    wait(&client, Interest::WRITABLE);
    assert!(write(&client, &bytes).unwrap() > 0);
}

#[test]
fn a_connection_that_was_reset_while_it_waited_disturbs_nobody() {
    let listener = bind("tcp://127.0.0.1:0");
    let Address::Tcp { host: Host::Ip(ip), port } = *listener.address() else {
        panic!("{}", listener.address())
    };
    sys::tests::reset(TcpStream::connect((ip, port)).unwrap());
    let client = TcpStream::connect((ip, port)).unwrap();
    let name = format!("tcp://{}", client.local_addr().unwrap());
    let server = loop {
        let socket = accept(&listener);
        if socket.peer() == name {
            break socket;
        }
    };
    check_carries(&Socket::from_tcp(client, SocketAddr::new(ip, port)).unwrap(), &server);
}

#[test]
fn segments_past_the_kernels_limit_are_left() {
    let (_listener, client, server) = check_reached(&abstract_name("segments"));
    let segments = [IoSlice::new(b"x"); 1500];
    assert_eq!(client.write_vectored(&segments).unwrap(), 1024);
    wait(&server, Interest::READABLE);
    let mut bytes = [0; 1500];
    let mut segments: Vec<_> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
    assert_eq!(server.read_vectored(&mut segments).unwrap(), 1024);
    assert_eq!(client.write_vectored(&[]).unwrap(), 0);
}

#[test]
fn an_address_of_a_live_server_is_in_use() {
    let folder = Folder::new();
    let places = [address("tcp://127.0.0.1:0"), address(&abstract_name("in-use")), folder.address("x")];
    for place in places {
        let living = Listener::bind(&place).unwrap();
        let error = Listener::bind(living.address()).unwrap_err();
        assert!(matches!(&error, BindError::InUse { address } if address == living.address()), "{error}");
        assert!(error.to_string().contains(&living.address().to_string()), "{error}");
        // The check for a live server may have left a connection that has ended.
        while living.accept().unwrap().is_some() {}
        connect(living.address()).unwrap();
    }
}

#[test]
fn a_name_in_use_does_not_fall_back_to_its_next_address() {
    let first = bind("tcp://localhost:0");
    let again = Address::Tcp { host: Host::Name("localhost".into()), port: port(first.address()) };
    assert!(matches!(Listener::bind(&again), Err(BindError::InUse { .. })));
}

#[test]
fn other_listen_errors_are_distinguished() {
    let folder = Folder::new();
    let refuse = |place: &Address| Listener::bind(place).unwrap_err();

    let error = refuse(&Address::Path("relative".into()));
    assert!(
        matches!(&error, BindError::Address(error) if error.problem == AddressProblem::RelativePath),
        "{error}"
    );
    let error = refuse(&Address::Path(Path::new("/").join("p".repeat(200))));
    assert!(error.to_string().contains("takes 107"), "{error}");

    fs::write(folder.0.join("file"), "precious").unwrap();
    let error = refuse(&folder.address("file"));
    assert!(matches!(&error, BindError::NotASocket { path } if path.ends_with("file")), "{error}");
    assert_eq!(fs::read(folder.0.join("file")).unwrap(), b"precious");

    let error = refuse(&folder.address("no/such/folder"));
    assert!(
        matches!(&error, BindError::Io { source, .. } if source.kind() == ErrorKind::NotFound),
        "{error}"
    );

    let error = refuse(&address("tcp://203.0.113.9:0")); // reserved for documentation
    assert!(matches!(&error, BindError::NotLocal { .. }), "{error}");
    assert!(error.to_string().contains("tcp://*:PORT"), "{error}");

    let error = refuse(&address("tcp://teleport.invalid:0")); // reserved never to exist
    assert!(matches!(&error, BindError::Resolve { .. }), "{error}");
}

#[test]
fn a_dead_servers_file_is_replaced() {
    let _no_forks = sys::tests::no_forks();
    let folder = Folder::new();
    let place = folder.address("x");
    drop(UnixListener::bind(folder.0.join("x")).unwrap()); // the standard library leaves the file
    assert!(folder.has("x"));
    let error = connect(&place).unwrap_err();
    assert!(matches!(&error, ConnectError::Failed { attempts, .. }
        if attempts[0].error.kind() == ErrorKind::ConnectionRefused));
    check_reached(&place.to_string());
}

#[test]
fn a_closed_listener_removes_its_own_file() {
    let folder = Folder::new();
    let listener = Listener::bind(&folder.address("x")).unwrap();
    assert!(folder.has("x"));
    drop(listener);
    assert!(!folder.has("x"));
}

#[test]
fn a_closed_listener_leaves_anothers_file() {
    let _no_forks = sys::tests::no_forks();
    let folder = Folder::new();
    let place = folder.address("x");
    let first = Listener::bind(&place).unwrap();
    fs::remove_file(folder.0.join("x")).unwrap();
    let second = Listener::bind(&place).unwrap();
    drop(first);
    connect(&place).unwrap();
    drop(second);
    assert!(!folder.has("x"));
}

#[test]
fn only_one_of_several_servers_that_start_together_listens() {
    let _no_forks = sys::tests::no_forks();
    const SERVERS: usize = 4;
    let folder = Folder::new();
    for round in 0..50 {
        let name = format!("x{round}");
        drop(UnixListener::bind(folder.0.join(&name)).unwrap());
        let start = Arc::new(Barrier::new(SERVERS));
        let servers = [(); SERVERS].map(|()| {
            let (place, start) = (folder.address(&name), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                Listener::bind(&place)
            })
        });
        let bound = servers.map(|server| server.join().unwrap());
        let lost = bound.iter().filter(|one| matches!(one, Err(BindError::InUse { .. }))).count();
        assert_eq!(lost, SERVERS - 1, "{bound:?}");
        connect(&folder.address(&name)).unwrap();
    }
}

#[test]
fn a_server_with_a_full_queue_lives_and_is_waited_for_in_time() {
    let folder = Folder::new();
    let place = folder.address("x");
    let listener = sys::tests::unix_listener_without_queue(&folder.0.join("x"));
    let _waiting = connect(&place).unwrap();
    let error = Socket::connect(&place, Some(Instant::now() + Duration::from_millis(10))).unwrap_err();
    let ConnectError::Failed { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!(attempts[0].error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(matches!(Listener::bind(&place), Err(BindError::InUse { .. })));
    let later = thread::spawn(move || connect(&place).map(drop));
    listener.accept().unwrap();
    later.join().unwrap().unwrap();
}

#[test]
fn a_client_learns_the_error_of_each_address() {
    let _no_forks = sys::tests::no_forks();
    let closed = port(bind("tcp://*:0").address()); // closed again at once
    let error = connect(&Address::Tcp { host: Host::Any, port: closed }).unwrap_err();
    let ConnectError::Failed { attempts, .. } = &error else { panic!("{error}") };
    let tried: Vec<_> = attempts.iter().map(|attempt| attempt.address.clone()).collect();
    assert_eq!(tried, [at("::1", closed), at("127.0.0.1", closed)]);
    assert!(attempts.iter().all(|attempt| attempt.error.kind() == ErrorKind::ConnectionRefused));
    for part in [format!("tcp://*:{closed}"), format!("tcp://[::1]:{closed}: "), "refused".into()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
}

#[test]
fn each_address_of_a_name_is_tried() {
    let v4 = bind("tcp://127.0.0.1:0"); // "localhost" may give [::1] first
    connect(&address(&format!("tcp://localhost:{}", port(v4.address())))).unwrap();
    let v6 = bind("tcp://[::1]:0");
    connect(&Address::Tcp { host: Host::Any, port: port(v6.address()) }).unwrap();
}

#[test]
fn other_connect_errors_are_distinguished() {
    let error = connect(&address("tcp://localhost:0")).unwrap_err();
    assert!(
        matches!(&error, ConnectError::Address(error) if error.problem == AddressProblem::PortZero),
        "{error}"
    );
    let error = connect(&Address::Abstract(String::new())).unwrap_err();
    assert!(
        matches!(&error, ConnectError::Address(error) if error.problem == AddressProblem::NoName),
        "{error}"
    );
    let error = connect(&address("tcp://teleport.invalid:1")).unwrap_err();
    assert!(matches!(&error, ConnectError::Resolve { .. }), "{error}");
    let error = connect(&address("ipc:///no/such/socket")).unwrap_err();
    assert!(matches!(&error, ConnectError::Failed { attempts, .. }
        if attempts[0].error.kind() == ErrorKind::NotFound));

    let listener = bind("tcp://127.0.0.1:0");
    let unix = bind(&abstract_name("late"));
    for place in [listener.address(), unix.address()] {
        let error = Socket::connect(place, Some(Instant::now())).unwrap_err();
        assert!(matches!(&error, ConnectError::Failed { attempts, .. }
            if attempts[0].error.kind() == ErrorKind::TimedOut));
    }
    Socket::connect(listener.address(), None).unwrap();
    Socket::connect(unix.address(), None).unwrap();
}

#[test]
fn errors_cross_threads() {
    fn check<T: std::error::Error + Send + Sync + 'static>() {}
    check::<BindError>();
    check::<ConnectError>();
    check::<AcceptError>();
}

#[test]
fn a_process_without_descriptors_gets_a_clear_error() {
    if sys::tests::in_child("net::socket::tests::a_process_without_descriptors_gets_a_clear_error") {
        let listener = bind("tcp://127.0.0.1:0");
        let client = connect(listener.address()).unwrap();
        let descriptors = sys::tests::use_up_descriptors();
        let error = listener.accept().unwrap_err();
        assert!(matches!(error, AcceptError::Exhausted { .. }), "{error}");
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        drop(descriptors);
        check_carries(&client, &listener.accept().unwrap().unwrap());
    }
}

#[test]
fn a_closed_peer_raises_no_signal() {
    if sys::tests::in_child("net::socket::tests::a_closed_peer_raises_no_signal") {
        sys::tests::let_sigpipe_kill();
        for text in ["tcp://127.0.0.1:0".to_owned(), abstract_name("signal")] {
            let (_listener, client, _server) = check_reached(&text);
            client.shutdown().unwrap();
            assert_eq!(write(&client, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    }
}
