//! The first 16 bytes that each side sends. They identify a Teleport peer.
//!
//! The magic number has a byte above 127, a carriage return with a line feed, an end of file and a single
//! line feed, so that anything that converts text damages it. A peer of another protocol is recognized at its
//! first wrong byte.

use std::fmt;

/// The version of the format.
pub const VERSION: u16 = 1;

/// The preface of this version.
///
/// ```
/// use teleport_wire::Preface;
///
/// assert!(Preface::check_prefix(&Preface::BYTES).is_ok());
/// let error = Preface::check_prefix(b"GET / HTTP/1.1\r\n").unwrap_err();
/// let text = "the peer speaks HTTP, not Teleport: check the address and port on its side";
/// assert_eq!(error.to_string(), text);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Preface;

impl Preface {
    /// Length of a preface.
    pub const LENGTH: usize = 16;

    /// The preface.
    pub const BYTES: [u8; Preface::LENGTH] = [
        0x89, b'T', b'L', b'P', b'\r', b'\n', 0x1A, b'\n', // magic
        0x01, 0x00, 0x00, 0x00, // version, reserved
        0xD7, 0x52, 0xDA, 0x7E, // CRC32C of the twelve bytes before
    ];

    /// Checks the bytes that have arrived so far. Bytes after the preface are ignored.
    ///
    /// # Errors
    /// Returns [`PrefaceError`] if the bytes cannot become a preface, with the peer's protocol if it is
    /// known.
    pub fn check_prefix(bytes: &[u8]) -> Result<(), PrefaceError> {
        let preface = &bytes[..bytes.len().min(Preface::LENGTH)];
        let magic = preface.len().min(8);
        if preface[..magic] != Preface::BYTES[..magic] {
            return Err(PrefaceError::recognize(bytes));
        }
        if let Some([low, high]) = preface.get(8..10) {
            let found = u16::from_le_bytes([*low, *high]);
            if found != VERSION {
                return Err(PrefaceError::Version { found });
            }
        }
        if preface != &Preface::BYTES[..preface.len()] {
            return Err(PrefaceError::Damaged);
        }
        Ok(())
    }
}

/// The peer's first bytes are not the preface of this version.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefaceError {
    /// A web browser, a health check or a gRPC client.
    #[error("the peer speaks HTTP, not Teleport: check the address and port on its side")]
    Http,
    /// A client that wants an encrypted connection.
    #[error("the peer speaks TLS, not Teleport: connect without TLS, or through a tunnel that ends it")]
    Tls,
    /// ZeroMQ, which the Python package of Teleport uses.
    #[error("the peer speaks ZeroMQ, as the Python package does, not this version of Teleport")]
    ZeroMq,
    /// Another version of this format.
    #[error("the peer speaks version {found} of Teleport's format, this side version {VERSION}")]
    Version {
        /// The peer's version.
        found: u16,
    },
    /// The magic number and the version are right, and the following bytes are wrong.
    #[error("the peer's preface is damaged: its reserved bytes or its checksum are wrong")]
    Damaged,
    /// An unknown protocol.
    #[error("the peer does not speak Teleport; it began with {start}")]
    Unknown {
        /// The peer's first bytes.
        start: FirstBytes,
    },
}

impl PrefaceError {
    fn recognize(bytes: &[u8]) -> PrefaceError {
        const HTTP: [&[u8]; 9] =
            [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN", b"PRI "];
        if HTTP.iter().any(|method| bytes.starts_with(method)) || bytes.starts_with(b"HTTP") {
            return PrefaceError::Http;
        }
        match bytes {
            [0x16, 0x03, ..] => PrefaceError::Tls,
            // ZMTP's signature: FF, eight bytes of padding, 7F. Its client may wait after these ten bytes.
            [0xFF, 0, ..] if bytes.get(9).is_none_or(|byte| *byte == 0x7F) => PrefaceError::ZeroMq,
            _ => PrefaceError::Unknown { start: FirstBytes::new(bytes) },
        }
    }
}

/// The first bytes of an unknown peer, at most 16. They display as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FirstBytes {
    bytes: [u8; 16],
    /// Invariant: at most 16.
    len: usize,
}

impl FirstBytes {
    fn new(all: &[u8]) -> FirstBytes {
        let len = all.len().min(16);
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(&all[..len]);
        FirstBytes { bytes, len }
    }

    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.as_slice().iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_matches_the_format() {
        let bytes = Preface::BYTES;
        assert_eq!(bytes[..8], [0x89, 0x54, 0x4C, 0x50, 0x0D, 0x0A, 0x1A, 0x0A]);
        assert_eq!(bytes[8..10], VERSION.to_le_bytes());
        assert_eq!(bytes[12..], crc32c::crc32c(&bytes[..12]).to_le_bytes());
    }

    #[test]
    fn every_prefix_passes_and_every_changed_byte_fails_at_once() {
        for end in 0..=Preface::LENGTH {
            assert_eq!(Preface::check_prefix(&Preface::BYTES[..end]), Ok(()));
        }
        for at in 0..Preface::LENGTH {
            let mut bytes = Preface::BYTES;
            bytes[at] ^= 0x10;
            assert!(Preface::check_prefix(&bytes).is_err(), "byte {at}");
            let decided = if at == 8 { 10 } else { at + 1 };
            assert!(Preface::check_prefix(&bytes[..decided]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn other_protocols_are_named() {
        let check = |bytes: &[u8]| Preface::check_prefix(bytes).unwrap_err();
        assert_eq!(check(b"POST /"), PrefaceError::Http);
        assert_eq!(check(b"PRI * HTTP/2.0"), PrefaceError::Http);
        assert_eq!(check(&[0x16, 0x03, 0x01, 0x02]), PrefaceError::Tls);
        assert_eq!(check(&[0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F]), PrefaceError::ZeroMq);
        let mut newer = Preface::BYTES;
        newer[8] = 2;
        assert_eq!(check(&newer), PrefaceError::Version { found: 2 });
        let unknown = check(b"SSH-2.0");
        assert_eq!(
            unknown.to_string(),
            "the peer does not speak Teleport; it began with 53 53 48 2d 32 2e 30"
        );
    }
}
