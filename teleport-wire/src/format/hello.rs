//! The first frame in both directions: a side's identity, features and limits.
//!
//! Both sides send it at once, without waiting for the other's. The limits bound what the peer may send.
//! Features that both sides have may be used.

use crate::format::decode_error::DecodeError;
use crate::format::limits::{Limits, MAX_AUTH_BYTES, MAX_NAME_BYTES, MAX_OPEN_CALLS};
use crate::format::reader::{Reader, at_most, truncate};

/// 128 random bits that identify a process, server or session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Id128(pub [u8; 16]);

impl Id128 {
    /// Zeros stand for no id.
    pub const NONE: Id128 = Id128([0; 16]);

    /// Returns true for [`NONE`](Id128::NONE).
    pub fn is_none(&self) -> bool {
        *self == Id128::NONE
    }
}

/// The first message of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Bits of optional features, such as [`RESUME`](Hello::RESUME). Unknown bits are kept and ignored.
    pub features: u64,
    /// The limits on messages to this side.
    pub limits: Limits,
    /// Bytes of payload memory that may be in flight to this side without a grant.
    pub eager_credit_bytes: u64,
    /// From a server, the maximum of open calls on this connection, at most [`MAX_OPEN_CALLS`]. From a
    /// client, the most calls that it will have open, or 0 if it does not say.
    pub max_open_calls: u32,
    /// Changes with each start of this side. A new instance has lost the state of the old one.
    pub instance: Id128,
    /// A client's session, the same on all its connections. [`Id128::NONE`] from a server, and from a client
    /// that never resumes.
    pub session: Id128,
    /// A name for logs, at most [`MAX_NAME_BYTES`] long.
    pub name: String,
    /// A proof that this side may connect, at most [`MAX_AUTH_BYTES`] long.
    pub auth: Vec<u8>,
}

impl Hello {
    /// Feature: calls survive a lost connection.
    pub const RESUME: u64 = 1;

    /// Feature: payload may be in blocks of shared memory.
    pub const SHARED: u64 = 2;

    /// Feature: the side asks the peer to send data with checksums.
    pub const CHECKSUM: u64 = 4;

    pub(crate) const MIN_BYTES: usize = 80;
    pub(crate) const MAX_BYTES: usize = Self::MIN_BYTES + MAX_NAME_BYTES + MAX_AUTH_BYTES;

    /// Encodes the body of a hello frame. A name, authentication or `max_open_calls` above its limit is cut
    /// to it.
    pub fn encode(&self) -> Vec<u8> {
        let name = truncate(&self.name, MAX_NAME_BYTES);
        let auth = &self.auth[..self.auth.len().min(MAX_AUTH_BYTES)];
        let mut body = Vec::with_capacity(Self::MIN_BYTES + name.len() + auth.len());
        for number in [self.features, self.limits.max_message_bytes, self.eager_credit_bytes] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        let Limits { max_metadata_bytes, max_depth, max_nodes, .. } = self.limits;
        for number in [max_metadata_bytes, self.max_open_calls.min(MAX_OPEN_CALLS), max_depth, max_nodes] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&self.instance.0);
        body.extend_from_slice(&self.session.0);
        body.extend_from_slice(&(name.len() as u16).to_le_bytes());
        body.extend_from_slice(&(auth.len() as u16).to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(auth);
        body
    }

    /// Decodes the body of a hello frame.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &[u8]) -> Result<Hello, DecodeError> {
        let mut reader = Reader::new(body);
        let features = reader.u64("hello features")?;
        let max_message_bytes = reader.u64("hello message bytes")?;
        let eager_credit_bytes = reader.u64("hello eager credit")?;
        let max_metadata_bytes = reader.u32("hello metadata bytes")?;
        let max_open_calls = reader.u32("hello open calls")?;
        at_most(u64::from(max_open_calls), u64::from(MAX_OPEN_CALLS), "hello open calls")?;
        let max_depth = reader.u32("hello depth")?;
        let max_nodes = reader.u32("hello nodes")?;
        let instance = Id128(reader.array("hello instance")?);
        let session = Id128(reader.array("hello session")?);
        let name_bytes = reader.u16("hello name bytes")?;
        at_most(u64::from(name_bytes), MAX_NAME_BYTES as u64, "hello name bytes")?;
        let auth_bytes = reader.u16("hello authentication bytes")?;
        at_most(u64::from(auth_bytes), MAX_AUTH_BYTES as u64, "hello authentication bytes")?;
        reader.zeros(4, "hello reserved")?;
        let name = reader.utf8(usize::from(name_bytes), "hello name")?.to_owned();
        let auth = reader.take(usize::from(auth_bytes), "hello authentication")?.to_owned();
        reader.finish("hello")?;
        let limits = Limits { max_metadata_bytes, max_depth, max_nodes, max_message_bytes };
        Ok(Hello { features, limits, eager_credit_bytes, max_open_calls, instance, session, name, auth })
    }

    /// Returns true if both sides have this feature.
    pub fn shares(&self, other: &Hello, feature: u64) -> bool {
        self.features & other.features & feature == feature
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            features: Hello::RESUME,
            limits: Limits::default(),
            eager_credit_bytes: 1 << 20,
            max_open_calls: 16,
            instance: Id128([1; 16]),
            session: Id128([2; 16]),
            name: "actor-é".into(),
            auth: vec![1, 2, 3],
        }
    }

    #[test]
    fn round_trip() {
        let body = hello().encode();
        assert_eq!(Hello::decode(&body), Ok(hello()));
        for end in 0..body.len() {
            assert!(matches!(Hello::decode(&body[..end]), Err(DecodeError::Truncated { .. })), "{end}");
        }
    }

    #[test]
    fn values_above_a_limit_are_cut() {
        let hello = Hello {
            name: "é".repeat(MAX_NAME_BYTES),
            auth: vec![7; MAX_AUTH_BYTES + 1],
            max_open_calls: u32::MAX,
            ..hello()
        };
        let decoded = Hello::decode(&hello.encode()).unwrap();
        assert_eq!(decoded.name, "é".repeat(MAX_NAME_BYTES / 2));
        assert_eq!((decoded.auth.len(), decoded.max_open_calls), (MAX_AUTH_BYTES, MAX_OPEN_CALLS));
    }

    #[test]
    fn values_above_a_limit_and_reserved_bytes_are_refused() {
        let broken = |at: usize, value: u8| {
            let mut body = hello().encode();
            body[at] = value;
            Hello::decode(&body).unwrap_err()
        };
        assert!(matches!(broken(30, 2), DecodeError::TooLarge { value: 0x20010, .. }));
        assert!(matches!(broken(73, 2), DecodeError::TooLarge { .. }));
        assert!(matches!(broken(75, 0x11), DecodeError::TooLarge { .. }));
        assert!(matches!(broken(79, 1), DecodeError::NotZero { .. }));
    }
}
