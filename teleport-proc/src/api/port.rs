//! TCP ports.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

/// A port of IPv4 that the system gives may be taken in IPv6; so often in a row it is not.
const MAX_TRIES: usize = 100;

/// A TCP port that nobody listens at, on any address of this machine.
///
/// It is free when this returns; another process can take it before the caller does. Who binds port 0 and passes on
/// what it got, as `Server::bind("tcp://*:0")` does, has no such gap.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let port = teleport_proc::free_port()?;
/// assert!(teleport_proc::port_free(port));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// What the system said, if it has no port or descriptor left.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..MAX_TRIES {
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        if port_free(port) {
            return Ok(port);
        }
    }
    Err(ErrorKind::AddrInUse.into())
}

/// Whether nobody listens at a TCP port, on any address of this machine.
///
/// A port whose connections have just been closed is free. So is one that this process may not bind.
pub fn port_free(port: u16) -> bool {
    // One after the other: where a socket of IPv6 takes IPv4 too, they would be in each other's way.
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].iter().all(|address| {
        !matches!(TcpListener::bind((*address, port)), Err(error) if error.kind() == ErrorKind::AddrInUse)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpStream, ToSocketAddrs};

    #[test]
    fn a_port_is_free_when_nobody_listens_on_any_address() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let address = address.to_socket_addrs().unwrap().next().unwrap();
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(!port_free(port), "{address}");
            let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let accepted = listener.accept().unwrap();
            drop((listener, accepted, connection));
            assert!(port_free(port), "{address}");
        }
    }
}
