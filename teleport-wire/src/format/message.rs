//! Calls, results and errors that are ready to send, and received metadata.
//!
//! Sending: tree -> [`Message`] (metadata and shared payload) -> [`Message::header`], metadata, payload in
//! chunks. Receiving: body -> [`CallMetadata`] or [`ResultMetadata`], which borrow from it ->
//! [`Signature`](crate::Signature) and [`Order`](crate::Order). No payload is copied.

use std::time::Duration;

use crate::format::encode::{Encoded, encode};
use crate::format::header::{Header, Kind};
use crate::format::limits::{Limits, MAX_METHOD_BYTES};
use crate::format::reader::{Reader, at_most};
use crate::format::{
    checksum::checksum, decode_error::DecodeError, encode_error::EncodeError, error_kind::RemoteError,
};
use crate::model::{buffer::Buffer, tree::Tree};

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

const IDEMPOTENT: u16 = 1;
const RESUME: u16 = 2;

/// The lengths of the fixed parts of a call's and a result's metadata.
const CALL_BYTES: usize = 24;
const RESULT_BYTES: usize = 8;

/// One message that is ready to send. Its payload shares the caller's memory.
///
/// ```
/// use teleport_wire::{Array, CallHead, Limits, Message, tree};
///
/// let weights = Array::zeros::<f32>([256, 1024]);
/// let call = Message::call(&CallHead::new("load"), &tree!({"weights": weights}), &Limits::default())?;
/// assert_eq!(call.payload_bytes, 1 << 20);
/// assert!(call.metadata.len() < 100);
/// # Ok::<(), teleport_wire::EncodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Message {
    /// [`Kind::Call`], [`Kind::Result`] or [`Kind::Error`].
    pub kind: Kind,
    /// The body of the first frame.
    pub metadata: Vec<u8>,
    /// CRC32C of the metadata.
    pub metadata_crc: u32,
    /// The payload, which follows in data frames. No buffer is empty.
    pub payload: Vec<Buffer>,
    /// The size of the payload.
    pub payload_bytes: u64,
    /// The size of the payload in the receiver's memory, which credit and budgets count.
    pub memory_bytes: u64,
}

impl Message {
    /// Encodes a call for a receiver with these limits.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if the receiver would refuse it.
    pub fn call(head: &CallHead<'_>, tree: &Tree, limits: &Limits) -> Result<Message, EncodeError> {
        let bytes = head.method.len();
        if bytes == 0 || bytes > MAX_METHOD_BYTES {
            return Err(EncodeError::MethodName { bytes, max_bytes: MAX_METHOD_BYTES });
        }
        let flags = if head.idempotent { IDEMPOTENT } else { 0 } | if head.resume { RESUME } else { 0 };
        // Zero would mean that there is no deadline.
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut metadata = with_room(CALL_BYTES + bytes);
        let method_and_flags = bytes as u64 | u64::from(flags) << 16;
        let fixed = [method_and_flags, 0, head.deadline.map_or(0, micros)];
        metadata.extend_from_slice(fixed.map(u64::to_le_bytes).as_flattened());
        metadata.extend_from_slice(head.method.as_bytes());
        Message::encode(Kind::Call, tree, metadata, 4, limits)
    }

    /// Encodes a result for a receiver with these limits.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if the receiver would refuse it.
    pub fn result(tree: &Tree, limits: &Limits) -> Result<Message, EncodeError> {
        let mut metadata = with_room(RESULT_BYTES);
        metadata.resize(RESULT_BYTES, 0);
        Message::encode(Kind::Result, tree, metadata, 0, limits)
    }

    /// Encodes the error that ends a call. Long texts are cut.
    pub fn error(error: &RemoteError) -> Message {
        let metadata = error.encode();
        let metadata_crc = checksum(0, &metadata);
        let payload = Vec::new();
        Message { kind: Kind::Error, metadata, metadata_crc, payload, payload_bytes: 0, memory_bytes: 0 }
    }

    /// Appends the tree to `metadata`, and writes the lengths of its signature and order at `lengths_at`.
    fn encode(
        kind: Kind,
        tree: &Tree,
        metadata: Vec<u8>,
        lengths_at: usize,
        limits: &Limits,
    ) -> Result<Message, EncodeError> {
        let Encoded { mut metadata, signature_bytes, order_bytes, payload, placement } =
            encode(tree, metadata, limits)?;
        let lengths = [signature_bytes.to_le_bytes(), order_bytes.to_le_bytes()];
        metadata[lengths_at..][..8].copy_from_slice(lengths.as_flattened());
        let metadata_crc = checksum(0, &metadata);
        let (payload_bytes, memory_bytes) = (placement.payload_bytes, placement.memory_bytes);
        Ok(Message { kind, metadata, metadata_crc, payload, payload_bytes, memory_bytes })
    }

    /// Encodes the header of the frame with the metadata. With `eager`, the payload follows without a grant.
    /// This is ignored for a message without payload.
    pub fn header(&self, id: u64, eager: bool) -> [u8; Header::BYTES] {
        let flags = if eager && self.payload_bytes > 0 { Header::EAGER } else { 0 };
        let (body_crc, length) = (self.metadata_crc, self.metadata.len() as u64);
        Header { kind: self.kind, flags, body_crc, id, length, arg: 0 }.encode()
    }
}

/// Allocates metadata with room for a tree of a few leaves, so that a small message allocates once.
fn with_room(bytes: usize) -> Vec<u8> {
    Vec::with_capacity(bytes + 104)
}

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
