//! Tests of streams in every split, refused streams, and bodies at the limits.

use super::*;
use crate::format::frames::encode_frame;

/// A call of a sink. The bytes of a chunk are joined, however they arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Preface,
    Frame(Header, Vec<u8>),
    Chunk(Header, Vec<u8>),
    ChunkEnd,
}

/// Refuses the first frame of a kind, if one is set.
#[derive(Default)]
struct Recorder {
    events: Vec<Event>,
    refuses: Option<Kind>,
    /// The messages that arrived with their payload.
    messages: usize,
}

impl Recorder {
    fn check(&self, kind: Kind) -> Result<(), DecodeError> {
        if self.refuses == Some(kind) { Err(DecodeError::Zero { field: "test" }) } else { Ok(()) }
    }
}

impl Sink for Recorder {
    type Error = DecodeError;

    fn preface(&mut self) -> Result<(), DecodeError> {
        self.events.push(Event::Preface);
        Ok(())
    }

    fn frame(&mut self, header: &Header, body: &[u8]) -> Result<(), DecodeError> {
        self.events.push(Event::Frame(*header, body.to_vec()));
        self.check(header.kind)
    }

    fn message(
        &mut self,
        header: &Header,
        metadata: &[u8],
        data: &Header,
        payload: &[u8],
    ) -> Result<(), DecodeError> {
        self.messages += 1;
        assert!(header.is_eager() && data.kind == Kind::Data && header.id == data.id);
        self.frame(header, metadata)?;
        self.chunk(data, payload)
    }

    fn begin_chunk(&mut self, header: &Header) -> Result<(), DecodeError> {
        self.events.push(Event::Chunk(*header, Vec::new()));
        self.check(header.kind)
    }

    fn chunk_bytes(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        assert!(!bytes.is_empty());
        match self.events.last_mut() {
            Some(Event::Chunk(_, all)) => all.extend_from_slice(bytes),
            other => panic!("bytes of a chunk after {other:?}"),
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), DecodeError> {
        self.events.push(Event::ChunkEnd);
        Ok(())
    }
}

fn limits() -> Limits {
    Limits { max_metadata_bytes: 1000, ..Limits::default() }
}

fn decode(stream: &[u8], piece_bytes: usize) -> (Vec<Event>, Result<(), DecodeError>) {
    let (mut decoder, mut sink) = (Decoder::new(&limits()), Recorder::default());
    let result = stream.chunks(piece_bytes).try_for_each(|piece| decoder.feed(piece, &mut sink));
    (sink.events, result)
}

/// Changes a header, and corrects its checksum.
fn sealed(change: impl FnOnce(&mut [u8; Header::BYTES])) -> Vec<u8> {
    let mut bytes = Header::empty(Kind::Ping, 0).encode();
    change(&mut bytes);
    let crc = crate::checksum(0, &bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes.to_vec()
}

/// Returns a frame that this version does not know and may skip. The checksum of its body is wrong.
fn skippable(length: u64) -> Vec<u8> {
    let mut frame = sealed(|header| {
        header[0] = Header::SKIPPABLE | 9;
        header[1] = 0xFF;
        header[16..24].copy_from_slice(&length.to_le_bytes());
    });
    frame.resize(frame.len() + length as usize, 0xAA);
    frame
}

fn data(id: u64, bytes: &[u8]) -> Vec<u8> {
    [&Header::data(id, bytes.len() as u64, None).encode()[..], bytes].concat()
}

/// Returns an eager call.
fn eager(id: u64) -> Vec<u8> {
    let body = [5; 30];
    let header = Header { flags: Header::EAGER, ..Header::of_body(Kind::Call, id, &body) };
    [&header.encode()[..], &body].concat()
}

/// Returns a stream with frames of every kind: empty, with a body, skipped, in chunks.
fn stream() -> Vec<u8> {
    [
        &Preface::BYTES[..],
        &encode_frame(Kind::Call, 1, &[7; 26]),
        &data(1, b"chunk"),
        &skippable(0),
        &Header::empty(Kind::Ping, 2).encode(),
        &skippable(70),
        &encode_frame(Kind::Grant, 0, &[3; 16]),
        &data(9, &[8; 300]),
        &eager(10),
        &data(10, &[9; 40]),
        &Header::empty(Kind::Pong, 3).encode(),
    ]
    .concat()
}

#[test]
fn any_split_gives_the_same_frames() {
    let stream = stream();
    let whole = decode(&stream, stream.len());
    assert_eq!(whole.1, Ok(()));
    assert_eq!(whole.0.len(), 1 + 5 + 3 * 2);
    assert!(whole.0.contains(&Event::Chunk(Header::data(1, 5, None), b"chunk".to_vec())));
    for piece_bytes in 1..stream.len() {
        assert_eq!(decode(&stream, piece_bytes), whole, "in pieces of {piece_bytes}");
    }
    for end in 0..stream.len() {
        let (mut decoder, mut sink) = (Decoder::new(&limits()), Recorder::default());
        decoder.feed(&stream[..end], &mut sink).expect("the stream is valid");
        decoder.feed(&[], &mut sink).expect("no bytes are valid");
        decoder.feed(&stream[end..], &mut sink).expect("the stream is valid");
        assert_eq!(sink.events, whole.0, "cut at {end}");
    }
}

#[test]
fn a_message_that_arrived_whole_is_passed_on_whole() {
    let messages = |bytes: &[u8]| {
        let (mut decoder, mut sink) = (Decoder::new(&limits()), Recorder::default());
        decoder.feed(&Preface::BYTES, &mut sink).expect("the preface is valid");
        let result = decoder.feed(bytes, &mut sink);
        (sink.messages, sink.events.len(), result.is_ok())
    };
    let whole = [eager(1), data(1, &[1; 40])].concat();
    let checked = |crc: u32| {
        let data = Header::data(1, 40, Some(crc));
        [&eager(1)[..], &data.encode(), &[1; 40]].concat()
    };
    assert_eq!(messages(&[&whole[..], &whole].concat()), (2, 7, true));
    assert_eq!(messages(&checked(crate::checksum(0, &[1; 40]))), (1, 4, true));
    // In all other cases, the frames come one by one.
    assert_eq!(messages(&whole[..whole.len() - 1]), (0, 3, true), "the payload is not whole");
    assert_eq!(messages(&checked(7)), (0, 4, true), "the sink judges a wrong checksum");
    assert_eq!(messages(&[eager(1), data(2, &[1; 40])].concat()), (0, 4, true), "of another message");
    assert_eq!(messages(&[encode_frame(Kind::Call, 1, &[5; 30]), data(1, &[1; 40])].concat()), (0, 4, true));
    assert_eq!(messages(&[eager(1), Header::empty(Kind::Ping, 1).encode().to_vec()].concat()), (0, 3, true));
    let mut broken = whole;
    broken[32 + 30 + 8] ^= 1;
    assert_eq!(messages(&broken), (0, 2, false), "the call precedes the broken header");
}

#[test]
fn bytes_of_a_chunk_may_be_read_elsewhere() {
    let stream = stream();
    let start = Preface::LENGTH + Header::BYTES + 26 + Header::BYTES;
    for elsewhere in 0..=5 {
        let (mut decoder, mut sink) = (Decoder::new(&limits()), Recorder::default());
        decoder.feed(&stream[..start], &mut sink).expect("the stream is valid");
        assert_eq!(decoder.chunk_remaining(), 5);
        for _ in 0..elsewhere {
            decoder.advance(1, &mut sink).expect("the stream is valid");
        }
        assert_eq!(decoder.chunk_remaining(), 5 - elsewhere);
        decoder.advance(0, &mut sink).expect("no bytes are valid");
        decoder.feed(&stream[start + elsewhere..], &mut sink).expect("the stream is valid");
        let (mut expected, _) = decode(&stream, stream.len());
        expected[2] = Event::Chunk(Header::data(1, 5, None), b"chunk"[elsewhere..].to_vec());
        assert_eq!(sink.events, expected);
    }
}

#[test]
#[should_panic(expected = "6 bytes for a chunk that lacks 5")]
fn reporting_more_bytes_than_the_chunk_panics() {
    let (mut decoder, mut sink) = (Decoder::new(&limits()), Recorder::default());
    decoder
        .feed(&[&Preface::BYTES[..], &Header::data(1, 5, None).encode()].concat(), &mut sink)
        .expect("the stream is valid");
    let _ = decoder.advance(6, &mut sink);
}

#[test]
fn a_refused_stream_stays_refused() {
    let mut broken_body = encode_frame(Kind::Grant, 0, &[3; 16]);
    broken_body[40] ^= 1;
    let reserved = |header: &mut [u8; Header::BYTES]| (header[0], header[2]) = (Header::SKIPPABLE, 1);
    for wrong in [vec![0; 32], broken_body, sealed(reserved), sealed(|header| header[0] = 99)] {
        let stream = [&Preface::BYTES[..], &wrong, &Header::empty(Kind::Ping, 1).encode()].concat();
        let whole = decode(&stream, stream.len());
        assert!(whole.1.is_err());
        assert_eq!(whole.0, [Event::Preface]);
        for piece_bytes in 1..stream.len() {
            assert_eq!(decode(&stream, piece_bytes), whole, "in pieces of {piece_bytes}");
        }
        let (mut decoder, mut sink) = (Decoder::new(&limits()), Recorder::default());
        decoder.feed(&stream, &mut sink).expect_err("the stream is invalid");
        for _ in 0..2 {
            let again = decoder.feed(&Header::empty(Kind::Ping, 1).encode(), &mut sink);
            assert_eq!(again, Err(DecodeError::Refused));
        }
        assert_eq!(decoder.chunk_remaining(), 0);
    }
}

#[test]
fn an_error_of_the_sink_ends_the_stream() {
    for refuses in [Kind::Call, Kind::Data, Kind::Pong] {
        let mut eager =
            [eager(1), data(1, &[1; 40]), Header::empty(Kind::Pong, 1).encode().to_vec()].concat();
        eager.splice(0..0, Preface::BYTES);
        for stream in [stream(), eager] {
            let mut sink = Recorder { refuses: Some(refuses), ..Recorder::default() };
            let mut decoder = Decoder::new(&limits());
            assert_eq!(decoder.feed(&stream, &mut sink), Err(DecodeError::Zero { field: "test" }));
            let events = sink.events.len();
            assert_eq!(decoder.feed(&stream, &mut sink), Err(DecodeError::Refused));
            assert_eq!((sink.events.len(), decoder.chunk_remaining()), (events, 0));
        }
    }
}

#[test]
fn another_protocol_is_refused_at_its_first_wrong_byte() {
    for at in 0..Preface::LENGTH {
        let (mut decoder, mut sink) = (Decoder::new(&limits()), Recorder::default());
        decoder.feed(&Preface::BYTES[..at], &mut sink).expect("the prefix is valid");
        let refused = decoder.feed(&[!Preface::BYTES[at]], &mut sink);
        assert!(matches!(refused, Err(DecodeError::Preface(_))), "{at}");
        assert!(sink.events.is_empty());
    }
}

#[test]
fn bodies_up_to_the_limit_are_accepted() {
    let call = |bytes: usize| [&Preface::BYTES[..], &encode_frame(Kind::Call, 1, &vec![1; bytes])].concat();
    let skip = |bytes: u64| [&Preface::BYTES[..], &skippable(bytes)].concat();
    for piece_bytes in [1, 999, usize::MAX] {
        assert!(
            matches!(&decode(&call(1000), piece_bytes).0[1], Event::Frame(_, body) if body.len() == 1000)
        );
        assert_eq!(decode(&skip(1000), piece_bytes), (vec![Event::Preface], Ok(())));
        for stream in [call(1001), skip(1001)] {
            let (_, result) = decode(&stream, piece_bytes);
            assert!(matches!(result, Err(DecodeError::TooLarge { value: 1001, max: 1000, .. })));
        }
    }
}

#[test]
fn memory_grows_with_the_arrived_bytes_and_is_freed() {
    let limits = Limits::default();
    let (mut decoder, mut sink) = (Decoder::new(&limits), Recorder::default());
    let body = vec![1; limits.max_metadata_bytes as usize];
    let frame = encode_frame(Kind::Call, 1, &body);
    decoder.feed(&Preface::BYTES, &mut sink).expect("the preface is valid");
    decoder.feed(&frame[..Header::BYTES + 100], &mut sink).expect("the stream is valid");
    assert!(decoder.body.capacity() < 1000, "an announced length allocates nothing");
    for piece in frame[Header::BYTES + 100..].chunks(4096) {
        decoder.feed(piece, &mut sink).expect("the stream is valid");
        assert!(decoder.body.capacity() <= 2 * body.len());
    }
    assert_eq!(sink.events.len(), 2);
    assert!(decoder.body.capacity() <= KEPT_BODY_BYTES);
}
