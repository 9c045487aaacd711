use super::*;

#[track_caller]
fn check(text: &str, expected: &Address) {
    assert_eq!(&text.parse::<Address>().unwrap(), expected);
    assert_eq!(expected.to_string(), text);
}

#[track_caller]
fn check_refused(text: &str, problem: AddressProblem, message_part: &str) {
    let error = text.parse::<Address>().unwrap_err();
    assert_eq!(error, AddressError { address: text.to_owned(), problem });
    let message = error.to_string();
    assert!(message.contains(&format!("{text:?}")), "{message}");
    assert!(message.contains(message_part), "{message}");
}

fn tcp(host: Host, port: u16) -> Address {
    Address::Tcp { host, port }
}

fn ip(text: &str) -> Host {
    Host::Ip(text.parse().unwrap())
}

fn name(text: &str) -> Host {
    Host::Name(text.to_owned())
}

#[test]
fn addresses_print_as_they_are_read() {
    check("tcp://localhost:2222", &tcp(name("localhost"), 2222));
    check("tcp://a-1.my_net.example:1", &tcp(name("a-1.my_net.example"), 1));
    check("tcp://example.com.:1", &tcp(name("example.com."), 1));
    check("tcp://*:0", &tcp(Host::Any, 0));
    check("tcp://0.0.0.0:65535", &tcp(ip("0.0.0.0"), 65535));
    check("tcp://10.0.0.5:80", &tcp(ip("10.0.0.5"), 80));
    check("tcp://[::]:0", &tcp(ip("::"), 0));
    check("tcp://[::1]:2222", &tcp(ip("::1"), 2222));
    check("tcp://[fe80::1%eth0]:2222", &tcp(name("fe80::1%eth0"), 2222));
    check("ipc:///run/teleport.sock", &Address::Path("/run/teleport.sock".into()));
    check("ipc:///tmp/with space: and://colons", &Address::Path("/tmp/with space: and://colons".into()));
    check("ipc://@name/with@signs", &Address::Abstract("name/with@signs".to_owned()));
}

#[test]
fn the_longest_names_fit() {
    let path = format!("/{}", "p".repeat(MAX_SOCKET_NAME_BYTES - 1));
    check(&format!("ipc://{path}"), &Address::Path(path.into()));
    let name = "n".repeat(MAX_SOCKET_NAME_BYTES);
    check(&format!("ipc://@{name}"), &Address::Abstract(name));
}

#[test]
fn only_unix_sockets_are_certain_to_be_local() {
    assert!(!"tcp://localhost:1".parse::<Address>().unwrap().is_unix());
    assert!("ipc:///a".parse::<Address>().unwrap().is_unix());
    assert!("ipc://@a".parse::<Address>().unwrap().is_unix());
}

#[test]
fn each_problem_is_reported() {
    use AddressProblem as P;
    check_refused("", P::NoScheme, "tcp://HOST:PORT");
    check_refused("localhost:2222", P::NoScheme, "no scheme");
    check_refused("http://localhost:80", P::UnknownScheme { scheme: "http".into() }, "\"http\"");
    check_refused("TCP://localhost:80", P::UnknownScheme { scheme: "TCP".into() }, "\"TCP\"");
    check_refused("tcp://:80", P::NoHost, "no host");
    check_refused("tcp://ho st:80", P::BadHost { host: "ho st".into() }, "\"ho st\"");
    check_refused("tcp://user@host:80", P::BadHost { host: "user@host".into() }, "\"user@host\"");
    check_refused("tcp://münchen:80", P::BadHost { host: "münchen".into() }, "xn--");
    let long = "h".repeat(254);
    check_refused(&format!("tcp://{long}:80"), P::BadHost { host: long }, "253");
    check_refused("tcp://256.1.1.1:80", P::BadIpv4 { host: "256.1.1.1".into() }, "0 to 255");
    check_refused("tcp://10.1:80", P::BadIpv4 { host: "10.1".into() }, "four numbers");
    check_refused("tcp://...:80", P::BadIpv4 { host: "...".into() }, "four numbers");
    check_refused("tcp://[::g]:80", P::BadIpv6 { host: "::g".into() }, "\"::g\"");
    check_refused("tcp://[localhost]:80", P::BadIpv6 { host: "localhost".into() }, "\"localhost\"");
    check_refused("tcp://[fe80::1%]:80", P::BadIpv6 { host: "fe80::1%".into() }, "\"fe80::1%\"");
    check_refused("tcp://::1:80", P::NoBrackets, "tcp://[::1]:2222");
    check_refused("tcp://[::1:80", P::UnclosedBracket, "not closed");
    check_refused("tcp://localhost", P::NoPort, "port 0");
    check_refused("tcp://localhost:", P::NoPort, "no port");
    check_refused("tcp://[::1]", P::NoPort, "no port");
    check_refused("tcp://[::1]80", P::NoPort, "no port");
    check_refused("tcp://localhost:65536", P::BadPort { port: "65536".into() }, "0 to 65535");
    check_refused("tcp://localhost:+80", P::BadPort { port: "+80".into() }, "\"+80\"");
    check_refused("tcp://localhost:80/x", P::BadPort { port: "80/x".into() }, "\"80/x\"");
    check_refused("ipc://", P::NoPath, "ipc:///run");
    check_refused("ipc:///run/", P::NoPath, "no socket file");
    check_refused("ipc://run/x.sock", P::RelativePath, "three slashes");
    check_refused("ipc://@", P::NoName, "ipc://@NAME");
    check_refused("ipc:///a\0b", P::ZeroByte, "zero byte");
    check_refused("ipc://@a\0b", P::ZeroByte, "zero byte");
}

#[test]
fn a_long_path_names_the_limit() {
    let path = format!("ipc:///{}", "p".repeat(MAX_SOCKET_NAME_BYTES));
    check_refused(&path, AddressProblem::TooLong { bytes: 108, max_bytes: 107 }, "108 bytes");
    let name = format!("ipc://@{}", "n".repeat(200));
    check_refused(&name, AddressProblem::TooLong { bytes: 200, max_bytes: 107 }, "takes 107");
}

#[test]
fn a_hand_made_address_is_checked_too() {
    assert_eq!(Address::Path("".into()).check(), Err(AddressProblem::NoPath));
    assert_eq!(tcp(name(""), 1).check(), Err(AddressProblem::NoHost));
}

#[test]
fn peers_are_shown_as_addresses_to_connect_to() {
    let show = |text: &str| Address::of_tcp(text.parse().unwrap()).to_string();
    assert_eq!(show("10.0.0.5:7"), "tcp://10.0.0.5:7");
    assert_eq!(show("[::1]:7"), "tcp://[::1]:7");
    assert_eq!(show("[::ffff:10.0.0.5]:7"), "tcp://10.0.0.5:7");
    assert_eq!(show("[fe80::1%3]:7"), "tcp://[fe80::1%3]:7");
    assert_eq!(show("[fe80::1%3]:7").parse::<Address>().unwrap().to_string(), show("[fe80::1%3]:7"));
}
