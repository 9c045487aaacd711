//! Connecting: resolve the host, then try each address within its share of the time.
//!
//! Blocks. Bounds: each TCP attempt gets an equal share of the time until the deadline. Only the system's
//! resolver bounds the look-up of a name (`timeout` and `attempts` in `resolv.conf`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::{Attempt, ConnectError};
use super::{Socket, file};
use crate::net::address::{Address, AddressProblem, Host};
use crate::sys;

pub(super) fn connect(address: &Address, deadline: Option<Instant>) -> Result<Socket, ConnectError> {
    address.check().map_err(|problem| address.error(problem))?;
    match address {
        Address::Tcp { port: 0, .. } => Err(address.error(AddressProblem::PortZero).into()),
        Address::Tcp { host, port } => connect_tcp(address, host, *port, deadline),
        Address::Path(_) | Address::Abstract(_) => connect_unix(address, deadline).map_err(|error| {
            let attempt = Attempt { address: address.clone(), error };
            ConnectError::Failed { address: address.clone(), attempts: vec![attempt] }
        }),
    }
}

fn connect_tcp(
    address: &Address,
    host: &Host,
    port: u16,
    deadline: Option<Instant>,
) -> Result<Socket, ConnectError> {
    let targets =
        targets(host, port).map_err(|source| ConnectError::Resolve { address: address.clone(), source })?;
    let mut attempts = Vec::new();
    for (index, &target) in targets.iter().enumerate() {
        match dial(target, deadline, targets.len() - index) {
            Ok(socket) => return Ok(socket),
            Err(error) => attempts.push(Attempt { address: Address::of_tcp(target), error }),
        }
    }
    Err(ConnectError::Failed { address: address.clone(), attempts })
}

/// Returns the socket addresses that `host` means to a client.
fn targets(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    Ok(match host {
        // A server that listens on all addresses is on this machine for a client.
        Host::Any | Host::Ip(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => vec![v6, v4],
        Host::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => vec![v4],
        Host::Ip(ip) => vec![SocketAddr::from((*ip, port))],
        Host::Name(name) => (name.as_str(), port).to_socket_addrs()?.collect(),
    })
}

/// Tries one address within its share of the time. `untried` addresses are left, including this one.
fn dial(target: SocketAddr, deadline: Option<Instant>, untried: usize) -> io::Result<Socket> {
    let stream = match deadline {
        None => TcpStream::connect(target)?,
        Some(deadline) => TcpStream::connect_timeout(&target, share(time_left(deadline)?, untried))?,
    };
    refuse_itself(&stream)?;
    Socket::from_tcp(stream, target)
}

/// Refuses a socket that connected to itself. That happens if the kernel gives the connecting socket the
/// local port that it connects to.
fn refuse_itself(stream: &TcpStream) -> io::Result<()> {
    if stream.local_addr()? == stream.peer_addr()? { Err(sys::connection_refused()) } else { Ok(()) }
}

/// Returns an equal share of the time. Never zero, which the kernel takes for no limit.
fn share(left: Duration, untried: usize) -> Duration {
    let untried = u32::try_from(untried).unwrap_or(u32::MAX).max(1);
    (left / untried).max(Duration::from_millis(1))
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the deadline passed before it was tried"))
        }
        left => Ok(left),
    }
}

fn connect_unix(address: &Address, deadline: Option<Instant>) -> io::Result<Socket> {
    let name = file::unix_name(address)?;
    let time = deadline.map(time_left).transpose()?;
    Socket::from_unix(sys::connect_unix(&name, time)?, address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_time_is_divided_among_the_untried() {
        assert_eq!(share(60_000 * MS, 3), 20_000 * MS);
        assert_eq!(share(40_000 * MS, 2), 20_000 * MS);
        assert_eq!(share(20_000 * MS, 1), 20_000 * MS);
        assert_eq!(share(MS, 1_000), MS);
        assert_eq!(share(20_000 * MS, 0), 20_000 * MS);
    }

    #[test]
    fn every_address_of_a_server_is_this_machine_for_a_client() {
        let show =
            |host: &Host| targets(host, 7).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(show(&Host::Any), ["[::1]:7", "127.0.0.1:7"]);
        assert_eq!(show(&Host::Ip("::".parse().unwrap())), ["[::1]:7", "127.0.0.1:7"]);
        assert_eq!(show(&Host::Ip("0.0.0.0".parse().unwrap())), ["127.0.0.1:7"]);
        assert_eq!(show(&Host::Ip("10.0.0.5".parse().unwrap())), ["10.0.0.5:7"]);
        assert!(show(&Host::Name("localhost".into())).contains(&"127.0.0.1:7".to_owned()));
    }

    #[test]
    fn a_socket_that_reached_itself_is_refused() {
        let error = refuse_itself(&sys::tests::connected_to_itself()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
