//! The metadata of calls and results, which travels before their payload.
//!
//! Flow: the body of a frame -> [`CallMetadata`] or [`ResultMetadata`], which borrow from it ->
//! [`Signature`](crate::Signature) and [`Order`](crate::Order). Nothing is copied.

use std::time::Duration;

use crate::format::decode_error::DecodeError;
use crate::format::header::Kind;
use crate::format::limits::MAX_METHOD_BYTES;
use crate::format::reader::{Reader, at_most};

/// The part of a call besides its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallHead<'a> {
    /// The method's name, 1 to [`MAX_METHOD_BYTES`] long.
    pub method: &'a str,
    /// The remaining time of the call when the metadata is written, or `None` for no deadline. It travels in
    /// microseconds, and is at least one.
    pub deadline: Option<Duration>,
    /// The call may run twice. It is sent again when a server returns without its session.
    pub idempotent: bool,
    /// Both sides keep and acknowledge the call, so that it survives a lost connection.
    pub resume: bool,
}

impl<'a> CallHead<'a> {
    /// Creates the head of a call without a deadline and options.
    pub const fn new(method: &'a str) -> CallHead<'a> {
        CallHead { method, deadline: None, idempotent: false, resume: false }
    }
}

/// The length of the fields before the method's name.
const CALL_FIXED_BYTES: u64 = 24;

/// The length of the fields before the signature of a result.
const RESULT_FIXED_BYTES: u64 = 8;

pub(super) const IDEMPOTENT: u16 = 1;
pub(super) const RESUME: u16 = 2;

/// The received metadata of a call. Lengths are checked, but signature and order are not yet decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallMetadata<'a> {
    /// Method, deadline and options.
    pub head: CallHead<'a>,
    /// For [`Signature::decode`](crate::Signature::decode).
    pub signature: &'a [u8],
    /// For [`Order::decode`](crate::Order::decode).
    pub order: &'a [u8],
}

impl<'a> CallMetadata<'a> {
    /// Decodes the body of a call's frame.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &'a [u8]) -> Result<CallMetadata<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let method_bytes = reader.u16("method bytes")?;
        let flags = reader.u16("call flags")?;
        if flags & !(IDEMPOTENT | RESUME) != 0 {
            return Err(DecodeError::UnknownValue { field: "call flags", value: u64::from(flags) });
        }
        let signature_bytes = reader.u32("signature bytes")? as usize;
        let order_bytes = reader.u32("order bytes")? as usize;
        reader.zeros(4, "call reserved")?;
        let deadline = reader.u64("deadline")?;
        at_most(u64::from(method_bytes), MAX_METHOD_BYTES as u64, "method bytes")?;
        if method_bytes == 0 {
            return Err(DecodeError::Zero { field: "method bytes" });
        }
        let method = reader.utf8(usize::from(method_bytes), "method")?;
        let signature = reader.take(signature_bytes, "signature")?;
        let order = reader.take(order_bytes, "order")?;
        reader.finish("call metadata")?;
        let deadline = (deadline != 0).then(|| Duration::from_micros(deadline));
        let (idempotent, resume) = (flags & IDEMPOTENT != 0, flags & RESUME != 0);
        Ok(CallMetadata { head: CallHead { method, deadline, idempotent, resume }, signature, order })
    }
}

/// Returns the length of the metadata that the body of a call or result begins with, by the lengths in its
/// first fields. The body may be shorter. Returns `None` if it lacks these fields.
#[inline]
pub(super) fn metadata_bytes(kind: Kind, body: &[u8]) -> Option<u64> {
    match kind {
        Kind::Call => {
            let (words, _) = body.first_chunk::<16>()?.as_chunks::<8>();
            let [first, second] = [0, 1].map(|index| u64::from_le_bytes(words[index]));
            let (method_bytes, signature_bytes) = (first & 0xFFFF, first >> 32);
            Some(CALL_FIXED_BYTES + method_bytes + signature_bytes + (second & 0xFFFF_FFFF))
        }
        _ => {
            let lengths = u64::from_le_bytes(*body.first_chunk()?);
            Some(RESULT_FIXED_BYTES + (lengths & 0xFFFF_FFFF) + (lengths >> 32))
        }
    }
}

/// The received metadata of a result. Lengths are checked, but signature and order are not yet decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultMetadata<'a> {
    /// For [`Signature::decode`](crate::Signature::decode).
    pub signature: &'a [u8],
    /// For [`Order::decode`](crate::Order::decode).
    pub order: &'a [u8],
}

impl<'a> ResultMetadata<'a> {
    /// Decodes the body of a result's frame.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &'a [u8]) -> Result<ResultMetadata<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let signature_bytes = reader.u32("signature bytes")? as usize;
        let order_bytes = reader.u32("order bytes")? as usize;
        let signature = reader.take(signature_bytes, "signature")?;
        let order = reader.take(order_bytes, "order")?;
        reader.finish("result metadata")?;
        Ok(ResultMetadata { signature, order })
    }
}
