//! Addresses and connecting: where a server listens, servers that start late or never, and several servers
//! and many clients in one process.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use teleport::client::ClientError;
use teleport::transport::Host;
use teleport::{Address, BoxError, Client, Methods, ServeError, Server, ServerHandle, Tree, tree};
use teleport_tests::{Scratch, Serve, abstract_address, until, watched};

fn start(address: &str) -> ServerHandle {
    Server::bind(address).unwrap().start(Methods::new().register("echo", |x: Tree| x)).unwrap()
}

fn port(server: &ServerHandle) -> u16 {
    match server.address() {
        Address::Tcp { port, .. } => *port,
        other => panic!("{other} has no port"),
    }
}

#[track_caller]
fn answers(address: &str) {
    let client = Client::connect(address).unwrap();
    assert_eq!(client.call("echo", tree!(address)).wait().unwrap(), tree!(address));
}

/// Returns this machine's source address for traffic to the internet, unless that is loopback. Sends nothing.
fn other_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn a_star_listens_on_ipv4_and_ipv6() {
    watched(|| {
        let server = start("tcp://*:0");
        let port = port(&server);
        assert_ne!(port, 0);
        answers(&server.address().to_string());
        answers(&format!("tcp://127.0.0.1:{port}"));
        answers(&format!("tcp://localhost:{port}"));
        if has_ipv6() {
            answers(&format!("tcp://[::1]:{port}"));
        }
        if let Some(address) = other_address() {
            answers(&format!("tcp://{}:{port}", Host::Ip(address)));
        }
    });
}

#[test]
fn a_server_listens_only_at_its_address() {
    watched(|| {
        let server = start("tcp://127.0.0.1:0");
        let port = port(&server);
        answers(&format!("tcp://127.0.0.1:{port}"));
        // The client tries each address of a name. On most machines the IPv6 address is the first.
        answers(&format!("tcp://localhost:{port}"));
        assert!(is_refused(SocketAddr::new("127.0.0.2".parse().unwrap(), port)));
        if has_ipv6() {
            assert!(is_refused(SocketAddr::new("::1".parse().unwrap(), port)));
        }
        if let Some(address) = other_address() {
            assert!(is_refused(SocketAddr::new(address, port)), "{address}");
        }
        if has_ipv6() {
            let server = start("tcp://[::1]:0");
            answers(&server.address().to_string());
            assert!(is_refused(SocketAddr::new("127.0.0.1".parse().unwrap(), self::port(&server))));
        }
    });
}

#[test]
fn a_client_finds_a_server_at_any_address_of_a_name() {
    watched(|| {
        let server = start("tcp://localhost:0");
        answers(&format!("tcp://localhost:{}", port(&server)));
        // Not every machine resolves the name to both addresses.
        for found in ("localhost", 0).to_socket_addrs().unwrap() {
            let server = start(&format!("tcp://{}:0", Host::Ip(found.ip())));
            answers(&format!("tcp://localhost:{}", port(&server)));
        }
    });
}

#[test]
fn binding_an_address_twice_is_an_error_that_names_it() {
    watched(|| {
        let scratch = Scratch::new();
        for address in ["tcp://127.0.0.1:0", &abstract_address(), &scratch.socket()] {
            let server = start(address);
            let taken = server.address().to_string();
            let error = Server::bind(&taken).unwrap_err();
            assert!(matches!(error, ServeError::Bind(_)), "{error:?}");
            assert!(error.to_string().contains(&taken), "{error}");
            // The first server still works.
            answers(&taken);
        }
        assert_eq!(scratch.files(), [""; 0], "a closed server removes its file");
    });
}

#[test]
fn a_client_waits_for_a_server_that_starts_later() {
    watched(|| {
        let scratch = Scratch::new();
        for address in [scratch.socket(), abstract_address()] {
            let (sender, connected) = mpsc::channel();
            let waiting = {
                let address = address.clone();
                thread::spawn(move || sender.send(Client::connect(&address).is_ok()))
            };
            // There is no server yet.
            assert_eq!(connected.try_recv(), Err(mpsc::TryRecvError::Empty));
            let server = start(&address);
            assert_eq!(connected.recv(), Ok(true));
            waiting.join().unwrap().unwrap();
            server.close().unwrap();
        }
    });
}

#[test]
fn a_client_finds_a_server_process_again_at_the_same_port() {
    watched(|| {
        let first = Serve::start("tcp://127.0.0.1:0");
        let address = first.address().to_owned();
        let client = Client::connect(&address).unwrap();
        assert_eq!(client.call("echo", tree!(1)).wait().unwrap(), tree!(1));
        assert_eq!(first.log(), [""; 0]);
        let second = Serve::start(&address);
        assert_eq!(second.address(), address);
        // A call waits for a connection.
        until("the second server answers", || client.call("echo", tree!(2)).wait().is_ok());
        assert_eq!(client.stats().connects, 2);
        drop(client);
        second.log();
    });
}

/// Returns a port at which no process listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_connect_timeout_error_names_address_attempts_and_remedy() {
    watched(|| {
        let address = format!("tcp://localhost:{}", free_port());
        for time in [Duration::ZERO, Duration::from_millis(300)] {
            let error = Client::builder(&address).connect_timeout(time).connect().unwrap_err();
            let ClientError::TimedOut { attempts, .. } = &error else { panic!("{error:?}") };
            assert!(*attempts >= 1);
            let text = error.to_string();
            for part in [&address, "attempt", "connect_timeout", "refused"] {
                assert!(text.contains(part), "{text}\nhas no {part:?}");
            }
        }
    });
}

#[test]
fn a_bad_address_is_an_error_at_once() {
    watched(|| {
        let scratch = Scratch::new();
        let long = format!("ipc:///{}", "x".repeat(200));
        for (address, part) in [
            ("localhost:2222", "tcp://"),
            ("tcp://localhost", "port"),
            ("tcp://localhost:70000", "70000"),
            ("tcp://:1", "tcp://:1"),
            ("udp://localhost:1", "udp"),
            ("ipc://relative/path", "relative/path"),
            (&long, "107"),
        ] {
            let error = Client::connect(address).unwrap_err();
            assert!(matches!(error, ClientError::Address(_)), "{error:?}");
            assert!(error.to_string().contains(part), "{error}\nhas no {part:?}");
            let error = Server::bind(address).unwrap_err();
            assert!(error.to_string().contains(part), "{error}\nhas no {part:?}");
        }
        assert_eq!(scratch.files(), [""; 0]);
    });
}

#[test]
fn two_servers_and_many_clients_work_in_one_process() {
    watched(|| {
        let servers = [start("tcp://127.0.0.1:0"), start(&abstract_address())];
        let addresses = servers.each_ref().map(|server| server.address().to_string());
        let clients: Vec<Client> =
            (0..40).map(|index| Client::connect(&addresses[index % 2]).unwrap()).collect();
        // The last hello may not have arrived yet.
        until("all clients are connected", || servers.each_ref().map(ServerHandle::clients) == [20, 20]);
        thread::scope(|scope| {
            for (index, client) in clients.iter().enumerate() {
                scope.spawn(move || {
                    for call in 0..50 {
                        let sent = tree!({"client": index, "call": call, "data": (vec![index as u8; 3000])});
                        assert_eq!(client.call("echo", sent.clone()).wait().unwrap(), sent);
                    }
                });
            }
        });
        let mut clients = clients.into_iter();
        drop(clients.next());
        until("one of the first server's clients has left", || servers[0].clients() == 19);
        assert_eq!(servers[1].clients(), 20);
        drop(clients);
        until("all clients have left", || servers.iter().all(|server| server.clients() == 0));
        assert_eq!(servers.each_ref().map(|server| server.stats().calls), [1000, 1000]);
    });
}

#[test]
fn a_resolver_returns_the_address_of_the_server() {
    watched(|| {
        let server = start("tcp://127.0.0.1:0");
        let address = server.address().to_string();
        let client = Client::builder("names://trainer")
            .resolver("names://*", move |name| {
                if name == "trainer" { Ok(address.clone()) } else { Err(format!("unknown name {name}")) }
            })
            .connect()
            .unwrap();
        assert_eq!(client.call("echo", tree!(1)).wait().unwrap(), tree!(1));
    });
}

#[test]
fn a_resolver_is_asked_again_when_the_server_has_moved() {
    watched(|| {
        let server = start("tcp://127.0.0.1:0");
        let place = Arc::new(Mutex::new(server.address().to_string()));
        let client = Client::builder("names://trainer")
            .resolver("names://trainer", {
                let place = place.clone();
                move |_| Ok::<_, BoxError>(place.lock().unwrap().clone())
            })
            .connect()
            .unwrap();
        let next = start("tcp://127.0.0.1:0");
        *place.lock().unwrap() = next.address().to_string();
        server.close().unwrap();
        until("the client finds the next server", || client.call("echo", tree!(1)).wait().is_ok());
        assert_eq!(client.stats().server.unwrap(), next.address().to_string());
    });
}
