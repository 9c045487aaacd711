//! The 32 bytes before each frame's body: its kind, its message and its length.
//!
//! [`Header::decode`] checks all fields by the rules of the kind. The connection checks who may send which
//! kind, and when.

use std::fmt;

use crate::format::checksum::{checksum, checksum_of_words};
use crate::format::limits::{
    Limits, MAX_CHUNK_BYTES, MAX_IDS, MAX_INLINE_BYTES, MAX_REASON_BYTES, MAX_RESUME_BYTES, RECORD_BYTES,
};
use crate::format::metadata::metadata_bytes;
use crate::format::reader::at_most;
use crate::format::{decode_error::DecodeError, error_kind::RemoteError, hello::Hello};

/// The kind of a frame. The discriminants are the numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Introduces a side and its limits. The first frame in both directions.
    Hello = 1,
    /// The metadata of a call, and its payload if that is inline.
    Call = 2,
    /// The metadata of a call's result, and its payload if that is inline.
    Result = 3,
    /// Ends a call without a result.
    Error = 4,
    /// Up to 1 MiB of the payload of a call or result.
    Data = 5,
    /// The sender will not finish a message whose metadata it has sent.
    Abort = 6,
    /// Returns eager credit.
    Credit = 7,
    /// The receiver has memory for the payload of these messages.
    Grant = 8,
    /// These messages have arrived completely.
    Ack = 9,
    /// The client withdraws a call.
    Cancel = 10,
    /// Asks for a pong with the same token.
    Ping = 11,
    /// Answers a ping.
    Pong = 12,
    /// Lists the calls that a client had open when its connection was lost.
    Resume = 13,
    /// Answers a resume.
    ResumeAnswer = 14,
    /// Announces a block of shared memory. Its descriptor is sent with the frame.
    Block = 15,
    /// The receiver of a block of shared memory no longer uses it.
    Release = 16,
    /// The last frame of its sender.
    Goodbye = 17,
}

/// The values that the fields of a header may have for one kind.
struct Rule {
    kind: Kind,
    flags: u8,
    id: Id,
    /// The shortest and the longest body. [`Limits`] further bound metadata.
    length: (u64, u64),
    /// A body is longer than the shortest by a multiple of this.
    step: u64,
    max_arg: u32,
}

enum Id {
    Zero,
    /// The id of a message, or an amount.
    NotZero,
    /// A token, or the id of a block.
    Any,
}

/// The shortest metadata of a call: that of a method with one letter and null.
const MIN_CALL_BYTES: usize = 26;

/// The shortest metadata of a result: that of null.
const MIN_RESULT_BYTES: usize = 9;

/// One rule for each kind, in the order of their numbers from 1.
const RULES: [Rule; 17] = {
    use Id::{Any, NotZero, Zero};
    const fn rule(kind: Kind, flags: u8, id: Id, min: usize, max: u64) -> Rule {
        Rule { kind, flags, id, length: (min as u64, max), step: 1, max_arg: 0 }
    }
    const fn empty(kind: Kind, id: Id) -> Rule {
        rule(kind, 0, id, 0, 0)
    }
    const fn records(kind: Kind, min: usize, max: u64, step: u64) -> Rule {
        Rule { step, ..rule(kind, 0, Zero, min, max) }
    }
    const ANY_BODY: u64 = u32::MAX as u64 + MAX_INLINE_BYTES;
    const HEAD: u8 = Header::EAGER | Header::INLINE | Header::CHECKED;
    [
        rule(Kind::Hello, 0, Zero, Hello::MIN_BYTES, Hello::MAX_BYTES as u64),
        rule(Kind::Call, HEAD, NotZero, MIN_CALL_BYTES, ANY_BODY),
        rule(Kind::Result, HEAD, NotZero, MIN_RESULT_BYTES, ANY_BODY),
        rule(Kind::Error, 0, NotZero, RemoteError::FIXED_BYTES, RemoteError::MAX_BYTES as u64),
        rule(Kind::Data, Header::CHECKSUM | Header::SHARED, NotZero, 1, MAX_CHUNK_BYTES),
        empty(Kind::Abort, NotZero),
        empty(Kind::Credit, NotZero),
        records(Kind::Grant, 8, MAX_IDS as u64 * 8, 8),
        records(Kind::Ack, 8, MAX_IDS as u64 * 8, 8),
        empty(Kind::Cancel, NotZero),
        empty(Kind::Ping, Any),
        empty(Kind::Pong, Any),
        records(Kind::Resume, 16, MAX_RESUME_BYTES, RECORD_BYTES),
        records(Kind::ResumeAnswer, 0, MAX_RESUME_BYTES - 16, RECORD_BYTES),
        rule(Kind::Block, 0, Any, 16, 16),
        empty(Kind::Release, Any),
        Rule { max_arg: u16::MAX as u32, ..rule(Kind::Goodbye, 0, Zero, 0, MAX_REASON_BYTES as u64) },
    ]
};

// `rule_of` finds a rule by its index.
const _: () = {
    let mut index = 0;
    while index < RULES.len() {
        assert!(RULES[index].kind as usize == index + 1);
        index += 1;
    }
};

fn rule_of(number: u8) -> Option<&'static Rule> {
    RULES.get(usize::from(number).wrapping_sub(1))
}

impl Kind {
    /// Iterates over all kinds, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Kind> {
        RULES.iter().map(|rule| rule.kind)
    }

    /// Returns the number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The header of a frame. Encoding and decoding are exact inverses.
///
/// ```
/// use teleport_wire::{FrameHeader, Header, Kind, Limits};
///
/// let header = Header::empty(Kind::Ping, 7);
/// let decoded = Header::decode(&header.encode(), &Limits::default()).unwrap();
/// assert_eq!(decoded, FrameHeader::Known(header));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind of the frame.
    pub kind: Kind,
    /// [`EAGER`](Header::EAGER), [`INLINE`](Header::INLINE) and [`CHECKED`](Header::CHECKED) of a call or
    /// result; [`CHECKSUM`](Header::CHECKSUM) and [`SHARED`](Header::SHARED) of data; otherwise 0.
    pub flags: u8,
    /// CRC32C of the body without an inline payload. It is 0 for an empty body, and for data without
    /// `CHECKSUM`.
    pub body_crc: u32,
    /// The id of the message, the token of a ping, the bytes of credit, or the id of a block, depending on
    /// the kind.
    pub id: u64,
    /// The length of the body, which follows the header.
    pub length: u64,
    /// CRC32C of the inline payload with [`CHECKED`](Header::CHECKED); the number of an error kind in a
    /// goodbye; otherwise 0.
    pub arg: u32,
}

/// A decoded header: a frame of this version, or one of a later version that may be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameHeader {
    /// A frame of this version.
    Known(Header),
    /// An unknown kind that may be skipped together with its body.
    Skip {
        /// The length of the body, at most `max_metadata_bytes`.
        length: u64,
    },
}

impl Header {
    /// Length of an encoded header.
    pub const BYTES: usize = 32;

    /// Flag of a call or result: its payload follows without a grant and is charged to the eager credit.
    pub const EAGER: u8 = 1;

    /// Flag of a call or result that is [`EAGER`](Header::EAGER): its whole payload follows the metadata in
    /// the same body.
    pub const INLINE: u8 = 2;

    /// Flag of a call or result that is [`INLINE`](Header::INLINE): `arg` is the CRC32C of the payload.
    pub const CHECKED: u8 = 4;

    /// Flag of data: `body_crc` covers the body.
    pub const CHECKSUM: u8 = 1;

    /// Flag of data: the body lists extents of shared blocks, which hold the payload.
    pub const SHARED: u8 = 2;

    /// The bit of a kind's number that allows a peer to skip the frame if it does not know the kind.
    pub const SKIPPABLE: u8 = 0x80;

    /// Creates the header of a frame without a body.
    pub const fn empty(kind: Kind, id: u64) -> Header {
        Header { kind, flags: 0, body_crc: 0, id, length: 0, arg: 0 }
    }

    /// Creates the header of a frame with this body, and computes its checksum. Use [`data`](Header::data)
    /// for data, and [`Message`](crate::Message) for an inline payload.
    pub fn of_body(kind: Kind, id: u64, body: &[u8]) -> Header {
        Header { body_crc: checksum(0, body), length: body.len() as u64, ..Header::empty(kind, id) }
    }

    /// Creates the header of a chunk of `length` bytes of the message `id`, with its CRC32C if there is one.
    pub const fn data(id: u64, length: u64, crc: Option<u32>) -> Header {
        let (flags, body_crc) = match crc {
            Some(crc) => (Header::CHECKSUM, crc),
            None => (0, 0),
        };
        Header { flags, body_crc, length, ..Header::empty(Kind::Data, id) }
    }

    /// Returns true if the payload follows without a grant.
    pub const fn is_eager(&self) -> bool {
        matches!(self.kind, Kind::Call | Kind::Result) && self.flags & Header::EAGER != 0
    }

    /// Returns true if the whole payload follows the metadata in the same body.
    #[inline]
    pub const fn is_inline(&self) -> bool {
        matches!(self.kind, Kind::Call | Kind::Result) && self.flags & Header::INLINE != 0
    }

    /// Returns the CRC32C of the inline payload, if the header has it.
    #[inline]
    pub const fn payload_crc(&self) -> Option<u32> {
        if self.is_inline() && self.flags & Header::CHECKED != 0 { Some(self.arg) } else { None }
    }

    /// Returns true if `body_crc` covers the body. Only data without `CHECKSUM` has none.
    pub const fn has_checksum(&self) -> bool {
        !matches!(self.kind, Kind::Data) || self.flags & Header::CHECKSUM != 0
    }

    /// Returns true for data whose body lists extents of shared blocks.
    pub const fn is_shared(&self) -> bool {
        matches!(self.kind, Kind::Data) && self.flags & Header::SHARED != 0
    }

    /// Encodes the header.
    #[inline]
    pub fn encode(&self) -> [u8; Header::BYTES] {
        let first =
            u64::from(self.kind.number()) | u64::from(self.flags) << 8 | u64::from(self.body_crc) << 32;
        let crc = checksum_of_words(first, self.id, self.length, self.arg);
        let last = u64::from(self.arg) | u64::from(crc) << 32;
        let mut bytes = [0; Header::BYTES];
        bytes.copy_from_slice([first, self.id, self.length, last].map(u64::to_le_bytes).as_flattened());
        bytes
    }

    /// Decodes a header and checks each field against the rules of its kind.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the bytes are not a header of this version. The rest of the stream is
    /// unreadable then.
    pub fn decode(bytes: &[u8; Header::BYTES], limits: &Limits) -> Result<FrameHeader, DecodeError> {
        let Words { header_crc: found, computed, first, id, length, arg } = Words::of(bytes);
        if found != computed {
            return Err(DecodeError::HeaderChecksum { found, computed });
        }
        must_be_zero(first >> 16 & 0xFFFF, "header reserved")?;
        let (kind, flags, body_crc) = (first as u8, (first >> 8) as u8, (first >> 32) as u32);
        let max_metadata_bytes = u64::from(limits.max_metadata_bytes);
        let Some(rule) = rule_of(kind) else {
            if kind & Header::SKIPPABLE == 0 {
                return Err(DecodeError::UnknownKind { kind });
            }
            at_most(length, max_metadata_bytes, "metadata bytes")?;
            return Ok(FrameHeader::Skip { length });
        };
        let header = Header { kind: rule.kind, flags, body_crc, id, length, arg };
        header.check(rule, max_metadata_bytes)?;
        Ok(FrameHeader::Known(header))
    }

    /// Decodes the header of a call or result that is right by all rules and has an inline payload without a
    /// checksum, or does not claim credit. Almost all frames are such, and need few comparisons.
    #[inline]
    pub(crate) fn decode_plain(bytes: &[u8; Header::BYTES], limits: &Limits) -> Option<Header> {
        const INLINE: u32 = (Header::EAGER | Header::INLINE) as u32;
        let Words { header_crc, computed, first, id, length, arg } = Words::of(bytes);
        let (kind, min) = match first as u8 {
            number if number == Kind::Call.number() => (Kind::Call, MIN_CALL_BYTES as u64),
            number if number == Kind::Result.number() => (Kind::Result, MIN_RESULT_BYTES as u64),
            _ => return None,
        };
        // The reserved bytes are above the flags.
        let flags_and_reserved = first as u32 >> 8;
        let is_inline = flags_and_reserved == INLINE;
        let max = u64::from(limits.max_metadata_bytes) + if is_inline { MAX_INLINE_BYTES } else { 0 };
        let is_right = header_crc == computed
            && (is_inline || flags_and_reserved == 0)
            && length >= min + u64::from(is_inline)
            && length <= max
            && id != 0
            && arg == 0;
        let (flags, body_crc) = (flags_and_reserved as u8, (first >> 32) as u32);
        is_right.then_some(Header { kind, flags, body_crc, id, length, arg })
    }

    /// Splits a body into the part that `body_crc` covers, and the inline payload. That is empty without
    /// [`INLINE`](Header::INLINE).
    ///
    /// # Errors
    /// Returns [`DecodeError`] if metadata or payload break a limit, or if one of them is missing.
    #[inline]
    pub fn split_body<'a>(
        &self,
        body: &'a [u8],
        limits: &Limits,
    ) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        if !self.is_inline() {
            return Ok((body, &[]));
        }
        let (bytes, remaining) = (metadata_bytes(self.kind, body).unwrap_or(u64::MAX), body.len() as u64);
        at_most(bytes, u64::from(limits.max_metadata_bytes), "metadata bytes")?;
        if bytes >= remaining {
            return Err(DecodeError::Truncated { field: "inline payload", bytes: bytes + 1, remaining });
        }
        at_most(remaining - bytes, MAX_INLINE_BYTES, "inline payload bytes")?;
        Ok(body.split_at(bytes as usize))
    }

    /// Checks the checksum of a body without its inline payload, if the header has one.
    ///
    /// # Errors
    /// Returns [`DecodeError::BodyChecksum`] if it is wrong.
    pub fn check_body(&self, body: &[u8]) -> Result<(), DecodeError> {
        if !self.has_checksum() {
            return Ok(());
        }
        self.check_crc(checksum(0, body))
    }

    /// Checks a checksum that was computed while the body arrived.
    ///
    /// # Errors
    /// Returns [`DecodeError::BodyChecksum`] if it is wrong.
    pub fn check_crc(&self, computed: u32) -> Result<(), DecodeError> {
        match self.body_crc {
            found if found == computed => Ok(()),
            found => Err(DecodeError::BodyChecksum { found, computed }),
        }
    }

    fn check(&self, rule: &Rule, max_metadata_bytes: u64) -> Result<(), DecodeError> {
        let is_head = matches!(self.kind, Kind::Call | Kind::Result);
        // Each flag of a call or result needs the one before.
        if self.flags & !rule.flags != 0 || (is_head && self.flags & (self.flags + 1) != 0) {
            return Err(DecodeError::UnknownValue { field: "header flags", value: u64::from(self.flags) });
        }
        match rule.id {
            Id::Zero => must_be_zero(self.id, "header id")?,
            Id::NotZero if self.id == 0 => return Err(DecodeError::Zero { field: "header id" }),
            Id::NotZero | Id::Any => {}
        }
        let (mut min, max) = rule.length;
        if self.is_inline() {
            at_most(self.length, max_metadata_bytes + MAX_INLINE_BYTES, "bytes of metadata and payload")?;
            min += 1;
        } else if is_head {
            at_most(self.length, max_metadata_bytes, "metadata bytes")?;
        }
        // The body of shared data is a list of records. All other steps depend on the kind alone.
        let (min, step) = if self.is_shared() { (EXTENT_BYTES, EXTENT_BYTES) } else { (min, rule.step) };
        if self.length < min || self.length > max || !(self.length - min).is_multiple_of(step) {
            return Err(DecodeError::BodyLength { kind: self.kind.number(), length: self.length });
        }
        if self.length == 0 || !self.has_checksum() {
            must_be_zero(u64::from(self.body_crc), "header body checksum")?;
        }
        if self.payload_crc().is_none() && self.arg > rule.max_arg {
            return Err(DecodeError::UnknownValue { field: "header argument", value: u64::from(self.arg) });
        }
        Ok(())
    }
}

/// The numbers of an encoded header.
struct Words {
    /// Kind, flags, reserved bytes and the checksum of the body.
    first: u64,
    id: u64,
    length: u64,
    arg: u32,
    header_crc: u32,
    /// The checksum that the header should have.
    computed: u32,
}

impl Words {
    #[inline]
    fn of(bytes: &[u8; Header::BYTES]) -> Words {
        let (words, _) = bytes.as_chunks::<8>();
        let [first, id, length, last] = [0, 1, 2, 3].map(|index| u64::from_le_bytes(words[index]));
        let (arg, header_crc) = (last as u32, (last >> 32) as u32);
        Words { first, id, length, arg, header_crc, computed: checksum_of_words(first, id, length, arg) }
    }
}

/// Length of one record in shared data: block, offset, bytes.
const EXTENT_BYTES: u64 = 24;

fn must_be_zero(value: u64, field: &'static str) -> Result<(), DecodeError> {
    if value == 0 { Ok(()) } else { Err(DecodeError::NotZero { field, value }) }
}

#[cfg(test)]
mod tests;
