//! Calls, results and errors that are ready to send.
//!
//! Flow: tree -> [`Draft`] -> [`Draft::append_frame`] if it is small and its shape is known, else [`Message`]
//! -> [`Message::append_frame`] if it is small, else [`Message::header`], [`Message::metadata`], and the
//! payload in chunks.
//!
//! A small payload is copied behind the metadata, which costs less than to count the owner of each leaf, and
//! is sent in the same frame. A large one stays in its owners' memory.

mod draft;
mod known;

use std::ops::Range;

use crate::format::checksum::checksum;
use crate::format::encode::{Scratch, encode};
use crate::format::encode_error::EncodeError;
use crate::format::error_kind::RemoteError;
use crate::format::header::{Header, Kind};
use crate::format::limits::{Limits, MAX_INLINE_BYTES, MAX_METHOD_BYTES};
use crate::format::metadata::CallHead;
use crate::format::signature::Placement;
use crate::model::{buffer::Buffer, tree::Tree};
pub use draft::{Draft, FrameSizes};

/// The longest array, string or bytes that is copied into a message.
const MAX_COPIED_LEAF_BYTES: usize = 2 << 10;

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
    metadata_bytes: u32,
    metadata_crc: u32,
    /// The metadata, then the payload if it is copied.
    bytes: Buffer,
    /// The payload, if it is not copied. Most messages have none, and are moved and dropped with less code
    /// than an empty `Vec`. Invariant: neither the list nor a buffer is empty.
    pieces: Option<Box<[Buffer]>>,
    payload_bytes: u64,
    memory_bytes: u64,
}

impl Draft<'_> {
    /// Encodes the message.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if the receiver would refuse it.
    #[inline]
    pub fn encode(&self) -> Result<Message, EncodeError> {
        match known::encode(self) {
            Some(message) => Ok(message),
            None => Message::encode_new(self),
        }
    }

    /// Encodes a small message at the end of `out`, as one frame. The payload has a CRC32C if `is_checked`.
    ///
    /// Returns `None`, and leaves `out` as it is, if the payload takes more than `max_memory_bytes` of the
    /// receiver's memory or if this thread has not encoded several messages of this shape lately. The message
    /// must then be [encoded](Draft::encode) first, which tells if the receiver would refuse it.
    #[inline]
    pub fn append_frame(
        &self,
        id: u64,
        is_checked: bool,
        max_memory_bytes: u64,
        out: &mut Vec<u8>,
    ) -> Option<FrameSizes> {
        known::append_frame(self, id, is_checked, max_memory_bytes, out)
    }
}

impl Message {
    /// Encodes a call for a receiver with these limits.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if the receiver would refuse it.
    pub fn call(head: &CallHead<'_>, tree: &Tree, limits: &Limits) -> Result<Message, EncodeError> {
        Draft::call(head, tree, limits).encode()
    }

    /// Encodes a result for a receiver with these limits.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if the receiver would refuse it.
    pub fn result(tree: &Tree, limits: &Limits) -> Result<Message, EncodeError> {
        Draft::result(tree, limits).encode()
    }

    /// Encodes the error that ends a call. Long texts are cut.
    pub fn error(error: &RemoteError) -> Message {
        let bytes = error.encode_parts(|[fixed, texts @ ..]| {
            join(fixed, texts.iter().copied(), texts.iter().map(|text| text.len()).sum())
        });
        let (metadata_bytes, metadata_crc) = (bytes.len() as u32, checksum(0, &bytes));
        let (pieces, payload_bytes, memory_bytes) = (None, 0, 0);
        Message {
            kind: Kind::Error,
            metadata_bytes,
            metadata_crc,
            bytes,
            pieces,
            payload_bytes,
            memory_bytes,
        }
    }

    /// Encodes a message whose shape is not known.
    fn encode_new(draft: &Draft<'_>) -> Result<Message, EncodeError> {
        let bytes = draft.method.len();
        if draft.kind == Kind::Call && (bytes == 0 || bytes > MAX_METHOD_BYTES) {
            return Err(EncodeError::MethodName { bytes, max_bytes: MAX_METHOD_BYTES });
        }
        let mut scratch = Scratch::take();
        let lengths_at = match draft.kind {
            Kind::Call => {
                let method_and_flags = draft.method.len() as u64 | u64::from(draft.flags) << 16;
                let fixed = [method_and_flags, 0, draft.deadline_micros].map(u64::to_le_bytes);
                scratch.metadata.extend_from_slice(fixed.as_flattened());
                scratch.metadata.extend_from_slice(draft.method.as_bytes());
                4
            }
            _ => {
                scratch.metadata.extend_from_slice(&[0; 8]);
                0
            }
        };
        let encoded = encode(draft.tree, &mut scratch, draft.limits);
        let message = encoded.map(|encoded| {
            let metadata = &mut scratch.metadata[..];
            let lengths = u64::from(encoded.signature_bytes) | u64::from(encoded.order_bytes) << 32;
            metadata[lengths_at..][..8].copy_from_slice(&lengths.to_le_bytes());
            let metadata_crc = checksum(0, metadata);
            let Placement { payload_bytes, memory_bytes } = encoded.placement;
            let is_small =
                payload_bytes <= MAX_INLINE_BYTES && encoded.longest_bytes <= MAX_COPIED_LEAF_BYTES;
            let (copied, pieces) = if is_small {
                (&scratch.leaves[..], None)
            } else {
                (&[][..], Some(scratch.leaves.iter().copied().cloned().collect()))
            };
            let copied = copied.iter().map(|leaf| &leaf[..]);
            let bytes = join(metadata, copied, if is_small { payload_bytes as usize } else { 0 });
            let metadata_bytes = metadata.len() as u32;
            let kind = draft.kind;
            let message =
                Message { kind, metadata_bytes, metadata_crc, bytes, pieces, payload_bytes, memory_bytes };
            known::learn(draft, &message, &scratch.leaves);
            message
        });
        scratch.give_back();
        message
    }

    /// Returns the message with another payload of the same size: this range of each of the buffers.
    pub(crate) fn with_payload_of(
        &self,
        buffers: &[Buffer],
        range: impl Fn(&Buffer) -> Range<usize>,
    ) -> Message {
        let (bytes, pieces) = if self.pieces.is_none() {
            let leaves = buffers.iter().map(|buffer| &buffer[range(buffer)]);
            (join(self.metadata(), leaves, self.payload_bytes as usize), None)
        } else {
            let pieces = buffers.iter().map(|buffer| buffer.slice(range(buffer))).collect();
            (self.bytes.clone(), Some(pieces))
        };
        Message { bytes, pieces, ..*self }
    }

    /// Returns [`Kind::Call`], [`Kind::Result`] or [`Kind::Error`].
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the body of the first frame.
    pub fn metadata(&self) -> &[u8] {
        &self.bytes[..self.metadata_bytes as usize]
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
        &self.bytes[self.metadata_bytes as usize..]
    }

    /// Returns the payload in its owners' memory. It is empty if the payload was copied into the message. No
    /// buffer is empty.
    pub fn pieces(&self) -> &[Buffer] {
        self.pieces.as_deref().unwrap_or_default()
    }

    /// Iterates over the bytes of the payload, wherever they are.
    pub fn payload(&self) -> impl Iterator<Item = &[u8]> {
        let inline = Some(self.inline_payload()).filter(|bytes| !bytes.is_empty());
        inline.into_iter().chain(self.pieces().iter().map(|piece| &**piece))
    }

    /// Converts the message into its payload. No buffer is empty.
    pub fn into_pieces(self) -> Vec<Buffer> {
        if self.inline_payload().is_empty() {
            return self.pieces.map(Vec::from).unwrap_or_default();
        }
        vec![self.bytes.slice(self.metadata_bytes as usize..)]
    }

    /// Converts the message into its metadata and its payload, without a copy. No buffer is empty.
    pub fn into_parts(self) -> (Buffer, Vec<Buffer>) {
        let metadata = self.bytes.slice(..self.metadata_bytes as usize);
        (metadata, self.into_pieces())
    }

    /// Replaces the [pieces](Message::pieces) by others that hold the same bytes, such as a copy of them.
    ///
    /// # Panics
    /// Panics if the lengths of the pieces do not add up to those of the present ones.
    pub fn with_pieces(mut self, pieces: Vec<Buffer>) -> Message {
        let bytes = |pieces: &[Buffer]| pieces.iter().map(|piece| piece.len()).sum::<usize>();
        assert_eq!(bytes(&pieces), bytes(self.pieces()), "other pieces of the same payload");
        self.pieces = (!pieces.is_empty()).then(|| pieces.into());
        self
    }

    /// Encodes the header of a frame with the metadata alone. With `is_eager`, the payload follows without a
    /// grant, in frames of its own. This is ignored for a message without payload.
    pub fn header(&self, id: u64, is_eager: bool) -> [u8; Header::BYTES] {
        let flags = if is_eager && self.payload_bytes > 0 { Header::EAGER } else { 0 };
        let (body_crc, length) = (self.metadata_crc, u64::from(self.metadata_bytes));
        Header { kind: self.kind, flags, body_crc, id, length, arg: 0 }.encode()
    }

    /// Appends a frame with the metadata and the [inline payload](Message::inline_payload) to `out`. The
    /// payload has a CRC32C if `is_checked`. The frame is eager if there is such a payload.
    #[inline]
    pub fn append_frame(&self, id: u64, is_checked: bool, out: &mut Vec<u8>) {
        let (kind, body_crc, payload) = (self.kind, self.metadata_crc, self.inline_payload());
        let header = frame_header(kind, id, body_crc, self.bytes.len(), payload, is_checked);
        out.reserve(Header::BYTES + self.bytes.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.bytes);
    }
}

/// Encodes the header of a frame with the metadata, which has the CRC32C `body_crc`, and this inline payload.
#[inline(always)]
fn frame_header(
    kind: Kind,
    id: u64,
    body_crc: u32,
    body_bytes: usize,
    payload: &[u8],
    is_checked: bool,
) -> [u8; Header::BYTES] {
    let (flags, arg) = match payload {
        [] => (0, 0),
        _ if is_checked => (Header::EAGER | Header::INLINE | Header::CHECKED, checksum(0, payload)),
        _ => (Header::EAGER | Header::INLINE, 0),
    };
    Header { kind, flags, body_crc, id, length: body_bytes as u64, arg }.encode()
}

/// Returns the metadata and the copied leaves, which have `payload_bytes` bytes.
#[inline]
fn join<'a>(metadata: &[u8], leaves: impl Iterator<Item = &'a [u8]>, payload_bytes: usize) -> Buffer {
    let mut bytes = Buffer::fresh(metadata.len() + payload_bytes);
    let (place, mut rest) = bytes.bytes_mut().split_at_mut(metadata.len());
    place.copy_from_slice(metadata);
    for leaf in leaves {
        let (place, behind) = rest.split_at_mut(leaf.len());
        place.copy_from_slice(leaf);
        rest = behind;
    }
    bytes.into_buffer()
}
