//! The bodies of the kinds that carry no tree: lists of ids, resuming, shared blocks, the goodbye.
//!
//! Kinds without a body (abort, credit, cancel, ping, pong, release) are a [`Header::empty`] alone.

use crate::format::header::{Header, Kind};
use crate::format::limits::{MAX_CHUNK_BYTES, MAX_IDS, MAX_OPEN_CALLS, MAX_REASON_BYTES};
use crate::format::reader::{Reader, at_most, truncate};
use crate::format::{decode_error::DecodeError, error_kind::ErrorKind, hello::Id128};

/// Length of one record of a resume or its answer.
pub(crate) const ANSWER_BYTES: u64 = 16;

/// Length of the longest resume: every open call.
pub(crate) const MAX_RESUME_BYTES: u64 = 16 + MAX_OPEN_CALLS as u64 * ANSWER_BYTES;

/// A whole frame, header and body in one allocation, for kinds with a short body and no flags.
pub fn encode_frame(kind: Kind, id: u64, body: &[u8]) -> Vec<u8> {
    encode_with(Header::of_body(kind, id, body), body)
}

fn encode_with(header: Header, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(Header::BYTES + body.len());
    frame.extend_from_slice(&header.encode());
    frame.extend_from_slice(body);
    frame
}

/// The body of a grant or an acknowledgement: the ids of 1 to [`MAX_IDS`] messages, in any order.
///
/// # Panics
/// If `ids` is empty or longer, which is the caller's mistake.
pub fn encode_ids(ids: &[u64]) -> Vec<u8> {
    assert!(!ids.is_empty() && ids.len() <= MAX_IDS, "1 to {MAX_IDS} ids fit a frame, not {}", ids.len());
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// Reads the body of a grant or an acknowledgement, without copying it.
///
/// # Errors
/// [`DecodeError`] if the body is not 1 to [`MAX_IDS`] ids, none of them zero.
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

/// What a client knows of one call that was open when its connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CallState {
    /// None of its bytes were given to a socket.
    Unsent = 0,
    /// Some of its bytes were.
    Part = 1,
    /// All of its bytes were, and no acknowledgement has come.
    Sent = 2,
    /// The server has acknowledged the call: its arguments are no longer held.
    Acknowledged = 3,
}

/// What became of one such call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CallAnswer {
    /// It has ended: its result or error follows.
    Done = 0,
    /// It is waiting or running: its result or error will come.
    Running = 1,
    /// It has not arrived whole: send it again under the same id.
    Missing = 2,
    /// It ran, and its result was dropped.
    Expired = 3,
    /// The server does not know the session: whether the call ran is unknown.
    UnknownSession = 4,
}

/// Numbers that records carry in one byte.
trait RecordByte: Copy + 'static {
    const ALL: &'static [Self];
    const FIELD: &'static str;
    fn number(self) -> u8;
}

impl RecordByte for CallState {
    const ALL: &'static [CallState] =
        &[CallState::Unsent, CallState::Part, CallState::Sent, CallState::Acknowledged];
    const FIELD: &'static str = "resume state";
    fn number(self) -> u8 {
        self as u8
    }
}

impl RecordByte for CallAnswer {
    const ALL: &'static [CallAnswer] = &[
        CallAnswer::Done,
        CallAnswer::Running,
        CallAnswer::Missing,
        CallAnswer::Expired,
        CallAnswer::UnknownSession,
    ];
    const FIELD: &'static str = "resume answer";
    fn number(self) -> u8 {
        self as u8
    }
}

/// A client's list of the calls that it still waits for, sent first on a new connection.
///
/// What the server keeps of the session and is not listed, the client has received or given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The server's instance when the calls were made: another one has never seen them.
    pub server: Id128,
    /// Call ids, ascending strictly, at most [`MAX_OPEN_CALLS`].
    pub calls: Vec<(u64, CallState)>,
}

impl Resume {
    /// The body of a resume frame.
    ///
    /// # Panics
    /// If the ids do not ascend strictly from above zero, or are more than [`MAX_OPEN_CALLS`].
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(16 + self.calls.len() * ANSWER_BYTES as usize);
        body.extend_from_slice(&self.server.0);
        encode_records(&self.calls, &mut body);
        body
    }

    /// Reads the body of a resume frame.
    ///
    /// # Errors
    /// [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &[u8]) -> Result<Resume, DecodeError> {
        let mut reader = Reader::new(body);
        let server = Id128(reader.array("resume instance")?);
        Ok(Resume { server, calls: decode_records(reader)? })
    }
}

/// The server's answer to a resume: the same ids in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeAnswer {
    /// What became of each call that the resume listed.
    pub calls: Vec<(u64, CallAnswer)>,
}

impl ResumeAnswer {
    /// The body of a resume answer's frame.
    ///
    /// # Panics
    /// As [`Resume::encode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.calls.len() * ANSWER_BYTES as usize);
        encode_records(&self.calls, &mut body);
        body
    }

    /// Reads the body of a resume answer's frame.
    ///
    /// # Errors
    /// [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &[u8]) -> Result<ResumeAnswer, DecodeError> {
        Ok(ResumeAnswer { calls: decode_records(Reader::new(body))? })
    }
}

fn encode_records<T: RecordByte>(records: &[(u64, T)], body: &mut Vec<u8>) {
    assert!(records.len() <= MAX_OPEN_CALLS as usize, "{} records do not fit a frame", records.len());
    let mut previous = 0;
    for (id, state) in records {
        assert!(*id > previous, "call ids must ascend: {id} after {previous}");
        previous = *id;
        body.extend_from_slice(&id.to_le_bytes());
        body.extend_from_slice(&u64::from(state.number()).to_le_bytes());
    }
}

fn decode_records<T: RecordByte>(mut reader: Reader<'_>) -> Result<Vec<(u64, T)>, DecodeError> {
    let count = reader.remaining() / ANSWER_BYTES as usize;
    at_most(count as u64, u64::from(MAX_OPEN_CALLS), "resume calls")?;
    let mut records = Vec::with_capacity(count);
    let mut previous = 0;
    for index in 0..count {
        let id = reader.u64("resume id")?;
        if id <= previous {
            return Err(DecodeError::NotAscending { field: "resume ids", index: index as u64 });
        }
        previous = id;
        let value = reader.u64(T::FIELD)?;
        let state = T::ALL.iter().find(|state| u64::from(state.number()) == value);
        records.push((id, *state.ok_or(DecodeError::UnknownValue { field: T::FIELD, value })?));
    }
    reader.finish("resume records")?;
    Ok(records)
}

/// A block of shared memory, announced by the side that made it. Its id is the frame's id, its descriptor
/// comes with the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Bytes of the block; never zero.
    pub bytes: u64,
}

impl Block {
    /// The body of a block's frame.
    pub fn encode(&self) -> [u8; 16] {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&self.bytes.to_le_bytes());
        body
    }

    /// Reads the body of a block's frame.
    ///
    /// # Errors
    /// [`DecodeError`] if the body breaks the format.
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

/// A stretch of a shared block that holds a part of a message's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The block's id.
    pub block: u64,
    /// Where in the block it starts.
    pub offset: u64,
    /// Bytes of payload; never zero.
    pub bytes: u64,
}

impl Stretch {
    /// The body of shared data: one record for each stretch.
    pub fn encode(stretches: &[Stretch]) -> Vec<u8> {
        stretches.iter().flat_map(|s| [s.block, s.offset, s.bytes]).flat_map(u64::to_le_bytes).collect()
    }

    /// Reads the body of shared data.
    ///
    /// # Errors
    /// [`DecodeError`] if the body breaks the format, or a stretch ends past 2^64.
    pub fn decode(body: &[u8]) -> Result<Vec<Stretch>, DecodeError> {
        at_most(body.len() as u64, MAX_CHUNK_BYTES, "bytes of stretches")?;
        let mut reader = Reader::new(body);
        let mut stretches = Vec::with_capacity(body.len() / 24);
        while reader.remaining() > 0 {
            let block = reader.u64("stretch block")?;
            let offset = reader.u64("stretch offset")?;
            let bytes = reader.u64("stretch bytes")?;
            if bytes == 0 {
                return Err(DecodeError::Zero { field: "stretch bytes" });
            }
            at_most(bytes, u64::MAX - offset, "stretch bytes")?;
            stretches.push(Stretch { block, offset, bytes });
        }
        Ok(stretches)
    }
}

/// The last thing a side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Why, if something went wrong; none for a plain end.
    pub kind: Option<ErrorKind>,
    /// A line for the peer's log; at most [`MAX_REASON_BYTES`] travel.
    pub reason: String,
}

impl Goodbye {
    /// The whole frame.
    pub fn encode_frame(&self) -> Vec<u8> {
        let body = truncate(&self.reason, MAX_REASON_BYTES).as_bytes();
        let arg = self.kind.map_or(0, |kind| u32::from(kind.number()));
        encode_with(Header { arg, ..Header::of_body(Kind::Goodbye, 0, body) }, body)
    }

    /// Reads a goodbye.
    ///
    /// # Errors
    /// [`DecodeError`] if the body is not UTF-8 or too long, or `header` is not of a goodbye.
    pub fn decode(header: &Header, body: &[u8]) -> Result<Goodbye, DecodeError> {
        at_most(body.len() as u64, MAX_REASON_BYTES as u64, "goodbye reason bytes")?;
        let number = u16::try_from(header.arg).map_err(|_| DecodeError::UnknownValue {
            field: "goodbye error kind",
            value: u64::from(header.arg),
        })?;
        let kind = (number != 0).then(|| ErrorKind::from_number(number));
        Ok(Goodbye { kind, reason: crate::format::reader::utf8(body, "goodbye reason")?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FrameHeader, Limits};

    #[test]
    fn ids_round_trip_and_refuse_none_too_many_zero_and_parts() {
        let ids: Vec<u64> = (1..=MAX_IDS as u64).collect();
        let body = encode_ids(&ids);
        assert_eq!(decode_ids(&body).unwrap().collect::<Vec<_>>(), ids);
        let refused = |body: &[u8]| decode_ids(body).is_err();
        assert!(refused(&[]) && refused(&body[..9]) && refused(&[0; 8]));
        assert!(refused(&[body.as_slice(), &[1; 8]].concat()));
    }

    #[test]
    fn resume_and_answer_round_trip() {
        let calls = CallState::ALL.iter().enumerate().map(|(i, s)| (i as u64 + 1, *s)).collect();
        let resume = Resume { server: Id128([3; 16]), calls };
        assert_eq!(Resume::decode(&resume.encode()), Ok(resume.clone()));
        let calls = CallAnswer::ALL.iter().enumerate().map(|(i, a)| (1 << (i * 8), *a)).collect();
        let answer = ResumeAnswer { calls };
        assert_eq!(ResumeAnswer::decode(&answer.encode()), Ok(answer));
        assert_eq!(ResumeAnswer::decode(&[]), Ok(ResumeAnswer { calls: vec![] }));
    }

    #[test]
    fn records_refuse_repeated_ids_unknown_numbers_and_parts() {
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
    fn blocks_and_stretches_round_trip_and_are_never_empty() {
        let block = Block { bytes: 1 << 30 };
        assert_eq!(Block::decode(&block.encode()), Ok(block));
        assert!(Block::decode(&[0; 16]).is_err());
        assert!(Block::decode(&[1; 16]).is_err());
        let stretches = vec![Stretch { block: 0, offset: 64, bytes: 5 }; 3];
        let body = Stretch::encode(&stretches);
        assert_eq!(Stretch::decode(&body), Ok(stretches));
        assert!(Stretch::decode(&body[..30]).is_err());
        let past = Stretch { block: 0, offset: u64::MAX, bytes: 1 };
        assert!(Stretch::decode(&Stretch::encode(&[past])).is_err());
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
