//! TCP ports.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

/// A port that is free for IPv4 may be taken for IPv6, but not this many times in a row.
const MAX_TRIES: usize = 100;

/// Returns a TCP port at which nobody listens, on any address of this machine.
///
/// Another process can take the port before the caller does. To avoid that, bind port 0 and pass on the port
/// that the system chose, as `Server::bind("tcp://*:0")` does.
///
/// # Examples
/// ```
/// # fn main() -> std::io::Result<()> {
/// let port = teleport_proc::free_port()?;
/// assert!(teleport_proc::port_free(port));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Returns the error of the system if it has no port or descriptor left.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..MAX_TRIES {
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        if port_free(port) {
            return Ok(port);
        }
    }
    Err(ErrorKind::AddrInUse.into())
}

/// Returns whether nobody listens at a TCP port, on any address of this machine.
///
/// A port whose connections have just been closed is free. So is a port that this process may not bind.
pub fn port_free(port: u16) -> bool {
    // One after the other: an IPv6 socket that takes IPv4, too, would conflict with the other.
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
