//! Calls, results and errors that are ready to send.
//!
//! Flow: tree -> [`Message`] -> [`Message::append_frames`] if it is small, else [`Message::header`],
//! [`Message::metadata`], and the [pieces](Message::pieces) of the payload in chunks.
//!
//! A small payload is copied behind the metadata, which costs less than to count the owner of each leaf. A
//! large one stays in its owners' memory.

use std::time::Duration;

use crate::format::checksum::checksum;
use crate::format::encode::{Encoded, encode};
use crate::format::encode_error::EncodeError;
use crate::format::error_kind::RemoteError;
use crate::format::header::{Header, Kind};
use crate::format::limits::{Limits, MAX_METHOD_BYTES};
use crate::format::metadata::{CallHead, IDEMPOTENT, RESUME};
use crate::model::{buffer::Buffer, tree::Tree};

/// The lengths of the fixed parts of a call's and a result's metadata.
const CALL_BYTES: usize = 24;
const RESULT_BYTES: usize = 8;

/// The longest array, string or bytes that is copied into a message.
const MAX_COPIED_LEAF_BYTES: usize = 2 << 10;

/// The longest payload that is copied into a message.
const MAX_COPIED_BYTES: usize = 16 << 10;

/// One message that is ready to send.
///
/// A payload of up to 16 KiB, with no array, string or bytes above 2 KiB, is copied into the message. A
/// larger one shares the caller's memory.
///
/// ```
/// use teleport_wire::{Array, CallHead, Limits, Message, tree};
///
/// let weights = Array::zeros::<f32>([256, 1024]);
/// let tree = tree!({"weights": weights.clone()});
/// let call = Message::call(&CallHead::new("load"), &tree, &Limits::default())?;
/// assert_eq!(call.payload_bytes(), 1 << 20);
/// assert!(call.metadata().len() < 100);
/// assert_eq!(call.pieces()[0].as_ptr(), weights.as_bytes().as_ptr()); // not copied
/// # Ok::<(), teleport_wire::EncodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Message {
    kind: Kind,
    metadata_bytes: usize,
    metadata_crc: u32,
    /// The metadata, then the payload if it is copied.
    bytes: Vec<u8>,
    /// The payload, if it is not copied. Invariant: no buffer is empty.
    pieces: Vec<Buffer>,
    payload_bytes: u64,
    memory_bytes: u64,
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
        Message::of_metadata(Kind::Error, error.encode())
    }

    /// Returns a message without a payload.
    fn of_metadata(kind: Kind, metadata: Vec<u8>) -> Message {
        let (metadata_bytes, metadata_crc) = (metadata.len(), checksum(0, &metadata));
        let (bytes, pieces) = (metadata, Vec::new());
        Message { kind, metadata_bytes, metadata_crc, bytes, pieces, payload_bytes: 0, memory_bytes: 0 }
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
        let (payload_bytes, memory_bytes) = (placement.payload_bytes, placement.memory_bytes);
        let message = Message::of_metadata(kind, metadata);
        Ok(Message { payload_bytes, memory_bytes, ..message }.with_payload(payload))
    }

    /// Adds the payload to a message that lacks it: as a copy if it is small.
    fn with_payload(mut self, payload: Vec<Buffer>) -> Message {
        let is_small = self.payload_bytes <= MAX_COPIED_BYTES as u64
            && payload.iter().all(|leaf| leaf.len() <= MAX_COPIED_LEAF_BYTES);
        if is_small {
            payload.iter().for_each(|leaf| self.bytes.extend_from_slice(leaf));
        } else {
            self.pieces = payload;
        }
        self
    }

    /// Returns the message with another payload of the same size: as a copy if it is small.
    pub(crate) fn with_other_payload(&self, payload: Vec<Buffer>) -> Message {
        let bytes = self.metadata().to_vec();
        Message { bytes, pieces: Vec::new(), ..*self }.with_payload(payload)
    }

    /// Returns [`Kind::Call`], [`Kind::Result`] or [`Kind::Error`].
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the body of the first frame.
    pub fn metadata(&self) -> &[u8] {
        &self.bytes[..self.metadata_bytes]
    }

    /// Returns the CRC32C of the metadata.
    pub fn metadata_crc(&self) -> u32 {
        self.metadata_crc
    }

    /// Returns the size of the payload.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Returns the size of the payload in the receiver's memory, which credit and budgets count.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Returns the payload if it was copied into the message, else no bytes.
    pub fn inline_payload(&self) -> &[u8] {
        &self.bytes[self.metadata_bytes..]
    }

    /// Returns the payload in its owners' memory. It is empty if the payload was copied into the message. No
    /// buffer is empty.
    pub fn pieces(&self) -> &[Buffer] {
        &self.pieces
    }

    /// Iterates over the bytes of the payload, wherever they are.
    pub fn payload(&self) -> impl Iterator<Item = &[u8]> {
        let inline = Some(self.inline_payload()).filter(|bytes| !bytes.is_empty());
        inline.into_iter().chain(self.pieces.iter().map(|piece| &**piece))
    }

    /// Converts the message into its payload. No buffer is empty.
    pub fn into_pieces(self) -> Vec<Buffer> {
        if self.inline_payload().is_empty() {
            return self.pieces;
        }
        vec![Buffer::from_vec(self.bytes).slice(self.metadata_bytes..)]
    }

    /// Converts the message into its metadata and its payload, without a copy. No buffer is empty.
    pub fn into_parts(self) -> (Buffer, Vec<Buffer>) {
        let bytes = Buffer::from_vec(self.bytes);
        let mut pieces = self.pieces;
        pieces.extend(Some(bytes.slice(self.metadata_bytes..)).filter(|payload| !payload.is_empty()));
        (bytes.slice(..self.metadata_bytes), pieces)
    }

    /// Replaces the [pieces](Message::pieces) by others that hold the same bytes, such as a copy of them.
    ///
    /// # Panics
    /// Panics if the lengths of the pieces do not add up to those of the present ones.
    pub fn with_pieces(mut self, pieces: Vec<Buffer>) -> Message {
        let bytes = |pieces: &[Buffer]| pieces.iter().map(|piece| piece.len()).sum::<usize>();
        assert_eq!(bytes(&pieces), bytes(&self.pieces), "other pieces of the same payload");
        self.pieces = pieces;
        self
    }

    /// Encodes the header of the frame with the metadata. With `is_eager`, the payload follows without a
    /// grant. This is ignored for a message without payload.
    pub fn header(&self, id: u64, is_eager: bool) -> [u8; Header::BYTES] {
        let flags = if is_eager && self.payload_bytes > 0 { Header::EAGER } else { 0 };
        let (body_crc, length) = (self.metadata_crc, self.metadata_bytes as u64);
        Header { kind: self.kind, flags, body_crc, id, length, arg: 0 }.encode()
    }

    /// Appends the frame with the metadata to `out`. If the payload is [inline](Message::inline_payload) and
    /// `is_eager`, its frame follows, with a CRC32C if `checksum` is set.
    pub fn append_frames(&self, id: u64, is_eager: bool, checksum: bool, out: &mut Vec<u8>) {
        let payload = if is_eager { self.inline_payload() } else { &[] };
        out.reserve(2 * Header::BYTES + self.metadata_bytes + payload.len());
        out.extend_from_slice(&self.header(id, is_eager));
        out.extend_from_slice(self.metadata());
        if !payload.is_empty() {
            let crc = checksum.then(|| crate::format::checksum::checksum(0, payload));
            out.extend_from_slice(&Header::data(id, payload.len() as u64, crc).encode());
            out.extend_from_slice(payload);
        }
    }
}

/// Allocates metadata with room for a tree of a few leaves, so that a small message allocates once.
fn with_room(bytes: usize) -> Vec<u8> {
    Vec::with_capacity(bytes + 104)
}
