//! The bodies of frames without a tree: lists of ids, resuming, shared blocks, and the goodbye.
//!
//! Kinds without a body (abort, credit, cancel, ping, pong, release) are a [`Header::empty`].

use crate::format::header::{Header, Kind};
use crate::format::limits::{MAX_CHUNK_BYTES, MAX_IDS, MAX_OPEN_CALLS, MAX_REASON_BYTES, RECORD_BYTES};
use crate::format::reader::{Reader, at_most, truncate, utf8};
use crate::format::{decode_error::DecodeError, error_kind::ErrorKind, hello::Id128};

/// Encodes a whole frame in one allocation, for kinds with a short body and no flags.
pub fn encode_frame(kind: Kind, id: u64, body: &[u8]) -> Vec<u8> {
    encode_with(Header::of_body(kind, id, body), body)
}

fn encode_with(header: Header, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(Header::BYTES + body.len());
    frame.extend_from_slice(&header.encode());
    frame.extend_from_slice(body);
    frame
}

/// Encodes the body of a grant or an acknowledgement: the ids of 1 to [`MAX_IDS`] messages, in any order.
///
/// # Panics
/// Panics if `ids` is empty or longer.
pub fn encode_ids(ids: &[u64]) -> Vec<u8> {
    assert!(!ids.is_empty() && ids.len() <= MAX_IDS, "1 to {MAX_IDS} ids fit a frame, not {}", ids.len());
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// Decodes the body of a grant or an acknowledgement, without copying it.
///
/// # Errors
/// Returns [`DecodeError`] if the body is not 1 to [`MAX_IDS`] ids, or one of them is zero.
pub fn decode_ids(body: &[u8]) -> Result<impl ExactSizeIterator<Item = u64> + '_, DecodeError> {
    at_most(body.len() as u64, MAX_IDS as u64 * 8, "bytes of ids")?;
    let (ids, rest) = body.as_chunks::<8>();
    match (ids, rest) {
        ([], _) => Err(DecodeError::Truncated { field: "ids", bytes: 8, remaining: rest.len() as u64 }),
        (_, []) if ids.contains(&[0; 8]) => Err(DecodeError::Zero { field: "ids" }),
        (_, []) => Ok(ids.iter().map(|id| u64::from_le_bytes(*id))),
        (_, rest) => Err(DecodeError::Trailing { what: "ids", bytes: rest.len() as u64 }),
    }
}

/// The state of a call, known to the client, when its connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CallState {
    /// None of its bytes were written to a socket.
    Unsent = 0,
    /// Some of its bytes were written.
    Part = 1,
    /// All of its bytes were written, and no acknowledgement has arrived.
    Sent = 2,
    /// The server has acknowledged the call. The client no longer holds the arguments.
    Acknowledged = 3,
}

/// The server's answer about such a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CallAnswer {
    /// It has ended. Its result or error follows.
    Done = 0,
    /// It is waiting or running. Its result or error will follow.
    Running = 1,
    /// It has not arrived completely. The client sends it again under the same id.
    Missing = 2,
    /// It ran, and its result was dropped.
    Expired = 3,
    /// The server does not know the session, so it cannot tell whether the call ran.
    UnknownSession = 4,
}

/// The values of each enum, in the order of their numbers.
const STATES: [CallState; 4] = [CallState::Unsent, CallState::Part, CallState::Sent, CallState::Acknowledged];
const ANSWERS: [CallAnswer; 5] = [
    CallAnswer::Done,
    CallAnswer::Running,
    CallAnswer::Missing,
    CallAnswer::Expired,
    CallAnswer::UnknownSession,
];

/// A client's list of the calls that it still waits for. It is sent first on a new connection.
///
/// The server drops all other calls of the session: the client has received their answers or given them up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The instance of the server to which the calls were made. Another instance has never seen them.
    pub server: Id128,
    /// Call ids in strictly ascending order, at most [`MAX_OPEN_CALLS`].
    pub calls: Vec<(u64, CallState)>,
}

impl Resume {
    /// Encodes the body of a resume frame.
    ///
    /// # Panics
    /// Panics if the ids do not ascend strictly, if one is zero, or if there are more than
    /// [`MAX_OPEN_CALLS`].
    pub fn encode(&self) -> Vec<u8> {
        let records = self.calls.iter().map(|(id, state)| (*id, *state as u64));
        encode_records(&self.server.0, records)
    }

    /// Decodes the body of a resume frame.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &[u8]) -> Result<Resume, DecodeError> {
        let mut reader = Reader::new(body);
        let server = Id128(reader.array("resume instance")?);
        Ok(Resume { server, calls: decode_records(reader, &STATES, "resume state")? })
    }
}

/// The server's answer to a resume: the same ids in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeAnswer {
    /// The answer about each call that the resume listed.
    pub calls: Vec<(u64, CallAnswer)>,
}

impl ResumeAnswer {
    /// Encodes the body of a resume answer's frame.
    ///
    /// # Panics
    /// Panics for the same ids as [`Resume::encode`].
    pub fn encode(&self) -> Vec<u8> {
        encode_records(&[], self.calls.iter().map(|(id, answer)| (*id, *answer as u64)))
    }

    /// Decodes the body of a resume answer's frame.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &[u8]) -> Result<ResumeAnswer, DecodeError> {
        Ok(ResumeAnswer { calls: decode_records(Reader::new(body), &ANSWERS, "resume answer")? })
    }
}

fn encode_records(start: &[u8], records: impl ExactSizeIterator<Item = (u64, u64)>) -> Vec<u8> {
    assert!(records.len() <= MAX_OPEN_CALLS as usize, "{} records do not fit a frame", records.len());
    let mut body = Vec::with_capacity(start.len() + records.len() * RECORD_BYTES as usize);
    body.extend_from_slice(start);
    let mut previous = 0;
    for (id, state) in records {
        assert!(id > previous, "call ids must ascend: {id} after {previous}");
        previous = id;
        body.extend_from_slice(&id.to_le_bytes());
        body.extend_from_slice(&state.to_le_bytes());
    }
    body
}

fn decode_records<T: Copy>(
    mut reader: Reader<'_>,
    values: &[T],
    field: &'static str,
) -> Result<Vec<(u64, T)>, DecodeError> {
    let count = reader.remaining() / RECORD_BYTES as usize;
    at_most(count as u64, u64::from(MAX_OPEN_CALLS), "resume calls")?;
    let mut records = Vec::with_capacity(count);
    let mut previous = 0;
    for index in 0..count {
        let id = reader.u64("resume id")?;
        if id <= previous {
            return Err(DecodeError::NotAscending { field: "resume ids", index: index as u64 });
        }
        previous = id;
        let value = reader.u64(field)?;
        let state = usize::try_from(value).ok().and_then(|index| values.get(index));
        records.push((id, *state.ok_or(DecodeError::UnknownValue { field, value })?));
    }
    reader.finish("resume records")?;
    Ok(records)
}

/// A block of shared memory, announced by the side that created it. Its id is the frame's id. Its descriptor
/// is sent with the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The size of the block. It is never zero.
    pub bytes: u64,
}

impl Block {
    /// Encodes the body of a block's frame.
    pub fn encode(&self) -> [u8; 16] {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&self.bytes.to_le_bytes());
        body
    }

    /// Decodes the body of a block's frame.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &[u8]) -> Result<Block, DecodeError> {
        let mut reader = Reader::new(body);
        let bytes = reader.u64("block bytes")?;
        if bytes == 0 {
            return Err(DecodeError::Zero { field: "block bytes" });
        }
        reader.zeros(8, "block flags")?;
        reader.finish("block")?;
        Ok(Block { bytes })
    }
}

/// A part of a shared block that holds a part of a message's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The block's id.
    pub block: u64,
    /// The offset in the block.
    pub offset: u64,
    /// The number of bytes. It is never zero.
    pub bytes: u64,
}

impl Extent {
    /// Encodes the body of shared data: one record for each extent.
    pub fn encode(extents: &[Extent]) -> Vec<u8> {
        extents.iter().flat_map(|s| [s.block, s.offset, s.bytes]).flat_map(u64::to_le_bytes).collect()
    }

    /// Decodes the body of shared data.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body breaks the format, or an extent ends past 2^64.
    pub fn decode(body: &[u8]) -> Result<Vec<Extent>, DecodeError> {
        at_most(body.len() as u64, MAX_CHUNK_BYTES, "bytes of extents")?;
        let mut reader = Reader::new(body);
        let mut extents = Vec::with_capacity(body.len() / 24);
        while reader.remaining() > 0 {
            let block = reader.u64("extent block")?;
            let offset = reader.u64("extent offset")?;
            let bytes = reader.u64("extent bytes")?;
            if bytes == 0 {
                return Err(DecodeError::Zero { field: "extent bytes" });
            }
            at_most(bytes, u64::MAX - offset, "extent bytes")?;
            extents.push(Extent { block, offset, bytes });
        }
        Ok(extents)
    }
}

/// The last frame of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The kind of error, or `None` if nothing went wrong.
    pub kind: Option<ErrorKind>,
    /// A line for the peer's log. It is cut to [`MAX_REASON_BYTES`] when encoded.
    pub reason: String,
}

impl Goodbye {
    /// Encodes the whole frame.
    pub fn encode_frame(&self) -> Vec<u8> {
        let body = truncate(&self.reason, MAX_REASON_BYTES).as_bytes();
        let arg = self.kind.map_or(0, |kind| u32::from(kind.number()));
        encode_with(Header { arg, ..Header::of_body(Kind::Goodbye, 0, body) }, body)
    }

    /// Decodes a goodbye.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body is not UTF-8 or is too long, or if `header` is not that of a
    /// goodbye.
    pub fn decode(header: &Header, body: &[u8]) -> Result<Goodbye, DecodeError> {
        at_most(body.len() as u64, MAX_REASON_BYTES as u64, "goodbye reason bytes")?;
        let (field, value) = ("goodbye error kind", u64::from(header.arg));
        let number = u16::try_from(value).map_err(|_| DecodeError::UnknownValue { field, value })?;
        let kind = (number != 0).then(|| ErrorKind::from_number(number));
        Ok(Goodbye { kind, reason: utf8(body, "goodbye reason")?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FrameHeader, Limits};

    #[test]
    fn ids_round_trip_and_invalid_lists_are_refused() {
        let ids: Vec<u64> = (1..=MAX_IDS as u64).collect();
        let body = encode_ids(&ids);
        assert_eq!(decode_ids(&body).unwrap().collect::<Vec<_>>(), ids);
        let refused = |body: &[u8]| decode_ids(body).is_err();
        assert!(refused(&[]) && refused(&body[..9]) && refused(&[0; 8]));
        assert!(refused(&[body.as_slice(), &[1; 8]].concat()));
    }

    #[test]
    fn resume_and_answer_round_trip() {
        let calls = STATES.iter().enumerate().map(|(i, s)| (i as u64 + 1, *s)).collect();
        let resume = Resume { server: Id128([3; 16]), calls };
        assert_eq!(Resume::decode(&resume.encode()), Ok(resume.clone()));
        let calls = ANSWERS.iter().enumerate().map(|(i, a)| (1 << (i * 8), *a)).collect();
        let answer = ResumeAnswer { calls };
        assert_eq!(ResumeAnswer::decode(&answer.encode()), Ok(answer));
        assert_eq!(ResumeAnswer::decode(&[]), Ok(ResumeAnswer { calls: vec![] }));
    }

    #[test]
    fn records_with_repeated_ids_or_unknown_numbers_are_refused() {
        let records = |ids: [u64; 2], state: u64| {
            let numbers = [ids[0], state, ids[1], 0];
            let body: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            ResumeAnswer::decode(&body)
        };
        assert!(records([1, 2], 4).is_ok());
        for broken in [records([1, 1], 0), records([2, 1], 0), records([0, 1], 0), records([1, 2], 5)] {
            assert!(broken.is_err());
        }
        assert!(ResumeAnswer::decode(&[1; 17]).is_err());
        assert!(Resume::decode(&[1; 15]).is_err());
    }

    #[test]
    fn blocks_and_extents_round_trip_and_empty_ones_are_refused() {
        let block = Block { bytes: 1 << 30 };
        assert_eq!(Block::decode(&block.encode()), Ok(block));
        assert!(Block::decode(&[0; 16]).is_err());
        assert!(Block::decode(&[1; 16]).is_err());
        let extents = vec![Extent { block: 0, offset: 64, bytes: 5 }; 3];
        let body = Extent::encode(&extents);
        assert_eq!(Extent::decode(&body), Ok(extents));
        assert!(Extent::decode(&body[..30]).is_err());
        let past = Extent { block: 0, offset: u64::MAX, bytes: 1 };
        assert!(Extent::decode(&Extent::encode(&[past])).is_err());
    }

    #[test]
    fn goodbye_round_trips() {
        for kind in [None, Some(ErrorKind::Closing), Some(ErrorKind::Other(999))] {
            let goodbye = Goodbye { kind, reason: "the server was stopped".into() };
            let frame = goodbye.encode_frame();
            let (header, body) = frame.split_first_chunk().unwrap();
            let Ok(FrameHeader::Known(header)) = Header::decode(header, &Limits::default()) else {
                panic!("not a known frame");
            };
            header.check_body(body).unwrap();
            assert_eq!(Goodbye::decode(&header, body), Ok(goodbye));
        }
    }
}
