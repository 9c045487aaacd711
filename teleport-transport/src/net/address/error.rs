//! Errors of addresses. Each says how to write the address instead.

use thiserror::Error;

/// An address that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("bad address {address:?}: {problem}")]
#[non_exhaustive]
pub struct AddressError {
    /// The whole address as it was given.
    pub address: String,
    /// The problem.
    pub problem: AddressProblem,
}

/// A problem of an address. Its text says how to write the address.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// There is no `://`.
    #[error("it has no scheme; write tcp://HOST:PORT, ipc:///PATH or ipc://@NAME")]
    NoScheme,
    /// The scheme before `://` is not supported.
    #[error("the scheme {scheme:?} is unknown; write tcp://HOST:PORT, ipc:///PATH or ipc://@NAME")]
    UnknownScheme {
        /// The text before `://`.
        scheme: String,
    },
    /// The host is missing.
    #[error(
        "it has no host; write tcp://HOST:PORT, or tcp://*:PORT to listen at every address of this machine"
    )]
    NoHost,
    /// The host's name has an illegal character or is too long.
    #[error(
        "{host:?} is not a host name; a name has up to 253 letters, digits, '-', '_' and '.' (other scripts as xn--...)"
    )]
    BadHost {
        /// The host as it was given.
        host: String,
    },
    /// A host of digits and dots is not an IPv4 address of four numbers.
    #[error("{host:?} is not an IPv4 address; write four numbers from 0 to 255, as in tcp://10.0.0.5:2222")]
    BadIpv4 {
        /// The host as it was given.
        host: String,
    },
    /// The text in brackets is not an IPv6 address.
    #[error("{host:?} is not an IPv6 address; write it as in tcp://[2001:db8::1]:2222")]
    BadIpv6 {
        /// The text between the brackets.
        host: String,
    },
    /// A host with colons is not in brackets, so its port cannot be recognized.
    #[error("an IPv6 address goes in brackets, as in tcp://[::1]:2222")]
    NoBrackets,
    /// A `[` without a `]`.
    #[error("the bracket is not closed; write tcp://[::1]:2222")]
    UnclosedBracket,
    /// There is no `:PORT`.
    #[error("it has no port; write tcp://HOST:PORT, with port 0 to listen at a free one")]
    NoPort,
    /// The port is not a number of 16 bits.
    #[error("the port {port:?} is not a number from 0 to 65535")]
    BadPort {
        /// The text after the last colon.
        port: String,
    },
    /// A client was asked to connect to port 0.
    #[error("port 0 lets a server take a free port; connect to the port in the server's address")]
    PortZero,
    /// An `ipc://` without a path, or with a path that ends in a slash.
    #[error("it names no socket file; write ipc:///run/name.sock, or ipc://@NAME for one without a file")]
    NoPath,
    /// A path is not absolute.
    #[error("the path must be absolute; write three slashes, as in ipc:///run/name.sock")]
    RelativePath,
    /// An `ipc://@` without a name.
    #[error("the abstract name is empty; write ipc://@NAME")]
    NoName,
    /// A path or a name contains a zero byte.
    #[error("it contains a zero byte")]
    ZeroByte,
    /// A path or a name is too long for the kernel.
    #[error("the path or name has {bytes} bytes, and a Unix socket takes {max_bytes}; choose a shorter one")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The kernel's limit.
        max_bytes: usize,
    },
}
