//! The host in a TCP address: every address of this machine, one IP address, or a name.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::AddressProblem;

/// DNS allows 253 characters in a full name.
const MAX_NAME_BYTES: usize = 253;

/// The host of a TCP address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Host {
    /// `*`: every address of this machine, IPv4 and IPv6; for a client, this machine.
    Any,
    /// An IPv4 address, or an IPv6 address in brackets.
    Ip(IpAddr),
    /// A name that the system resolves, or an IPv6 address with its zone, as in `[fe80::1%eth0]`.
    Name(String),
}

impl Host {
    /// Parses a host that is not in brackets.
    pub(super) fn bare(text: &str) -> Result<Host, AddressProblem> {
        if text == "*" {
            return Ok(Host::Any);
        }
        if text.contains(':') {
            return Err(AddressProblem::NoBrackets);
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Host::Ip(IpAddr::V4(ip)));
        }
        Ok(Host::Name(text.to_owned()))
    }

    /// Parses a host that is in brackets.
    pub(super) fn in_brackets(text: &str) -> Result<Host, AddressProblem> {
        if text.contains('%') {
            return Ok(Host::Name(text.to_owned()));
        }
        let ip: Ipv6Addr = text.parse().map_err(|_| AddressProblem::BadIpv6 { host: text.to_owned() })?;
        Ok(Host::Ip(IpAddr::V6(ip)))
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Host::Any => f.write_str("*"),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// Refuses what is not a name: a mistyped address must not become a DNS query.
pub(super) fn check_name(name: &str) -> Result<(), AddressProblem> {
    if name.is_empty() {
        return Err(AddressProblem::NoHost);
    }
    if let Some((ip, zone)) = name.split_once('%') {
        let good = ip.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && zone.bytes().all(is_name_byte);
        return if good { Ok(()) } else { Err(AddressProblem::BadIpv6 { host: name.to_owned() }) };
    }
    if name.len() > MAX_NAME_BYTES || !name.bytes().all(is_name_byte) {
        return Err(AddressProblem::BadHost { host: name.to_owned() });
    }
    // No top-level domain is a number, and the C library parses "10.1" as 10.0.0.1.
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressProblem::BadIpv4 { host: name.to_owned() });
    }
    Ok(())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
