//! Tests of streams in every split, refused streams, and bodies at the limits.

use super::*;
use crate::format::frames::encode_frame;
use crate::format::limits::MAX_INLINE_BYTES;

/// A call of a sink. The bytes of a chunk are joined, however they arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Preface,
    /// The body and the inline payload.
    Frame(Header, Vec<u8>, Vec<u8>),
    Chunk(Header, Vec<u8>),
    ChunkEnd,
}

/// Refuses the first frame of a kind, if one is set.
#[derive(Default)]
struct Recorder {
    events: Vec<Event>,
    refuses: Option<Kind>,
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
        self.events.push(Event::Frame(*header, body.to_vec(), Vec::new()));
        self.check(header.kind)
    }

    fn message(&mut self, header: &Header, metadata: &[u8], payload: &[u8]) -> Result<(), DecodeError> {
        header.check_body(metadata)?;
        self.events.push(Event::Frame(*header, metadata.to_vec(), payload.to_vec()));
        self.check(header.kind)
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

/// Returns the metadata of a call or result with this length, which is at least 28.
fn metadata(kind: Kind, bytes: usize) -> Vec<u8> {
    let mut metadata = vec![5; bytes];
    match kind {
        Kind::Call => {
            metadata[..2].copy_from_slice(&2u16.to_le_bytes());
            metadata[4..8].copy_from_slice(&1u32.to_le_bytes());
            metadata[8..12].copy_from_slice(&(bytes as u32 - 24 - 2 - 1).to_le_bytes());
        }
        _ => {
            metadata[..4].copy_from_slice(&(bytes as u32 - 8 - 3).to_le_bytes());
            metadata[4..8].copy_from_slice(&3u32.to_le_bytes());
        }
    }
    metadata
}

/// Returns the header of a call or result with an inline payload.
fn inline_header(kind: Kind, metadata: &[u8], payload: &[u8]) -> Header {
    let flags = Header::EAGER | Header::INLINE | Header::CHECKED;
    let (length, arg) = ((metadata.len() + payload.len()) as u64, crate::checksum(0, payload));
    Header { flags, length, arg, ..Header::of_body(kind, 1, metadata) }
}

/// Returns a call or result with an inline payload.
fn inline(kind: Kind, metadata: &[u8], payload: &[u8]) -> Vec<u8> {
    [&inline_header(kind, metadata, payload).encode()[..], metadata, payload].concat()
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
        &inline(Kind::Call, &metadata(Kind::Call, 50), &[4; 40]),
        &inline(Kind::Result, &metadata(Kind::Result, 50), &[6; 1]),
        &Header::empty(Kind::Pong, 3).encode(),
    ]
    .concat()
}

#[test]
fn any_split_gives_the_same_frames() {
    let stream = stream();
    let whole = decode(&stream, stream.len());
    assert_eq!(whole.1, Ok(()));
    assert_eq!(whole.0.len(), 1 + 6 + 2 * 2);
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
fn an_inline_payload_is_separated_from_its_metadata() {
    for kind in [Kind::Call, Kind::Result] {
        let (metadata, payload) = (metadata(kind, 60), vec![7; 100]);
        let stream = [&Preface::BYTES[..], &inline(kind, &metadata, &payload)].concat();
        for piece_bytes in [1, 50, usize::MAX] {
            let (events, result) = decode(&stream, piece_bytes);
            let header = inline_header(kind, &metadata, &payload);
            assert_eq!(result, Ok(()));
            assert_eq!(events[1..], [Event::Frame(header, metadata.clone(), payload.clone())]);
            assert_eq!(header.payload_crc(), Some(crate::checksum(0, &payload)));
        }
    }
}

#[test]
fn damaged_payload_is_passed_on_and_damaged_metadata_is_not() {
    let bytes = inline(Kind::Call, &metadata(Kind::Call, 60), &[7; 100]);
    for at in Header::BYTES..bytes.len() {
        let mut damaged = [&Preface::BYTES[..], &bytes].concat();
        damaged[Preface::LENGTH + at] ^= 1;
        for piece_bytes in [1, usize::MAX] {
            let (events, result) = decode(&damaged, piece_bytes);
            let is_payload = at >= Header::BYTES + 60;
            assert_eq!((events.len(), result.is_ok()), (1 + usize::from(is_payload), is_payload), "{at}");
        }
    }
}

/// The limit of metadata is 1000 bytes here.
#[test]
fn inline_frames_of_wrong_lengths_are_refused() {
    let text = |metadata: &[u8], payload: &[u8]| {
        let kind = if metadata[4] == 1 { Kind::Call } else { Kind::Result };
        let stream = [&Preface::BYTES[..], &inline(kind, metadata, payload)].concat();
        let whole = decode(&stream, usize::MAX);
        assert_eq!(decode(&stream, 1), whole);
        whole.1.map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    };
    let max = MAX_INLINE_BYTES as usize;
    for kind in [Kind::Call, Kind::Result] {
        assert_eq!(text(&metadata(kind, 1000), &vec![0; max]), "fine");
        assert_eq!(text(&metadata(kind, 28), &[0]), "fine");
        let missing = "inline payload needs 61 bytes and 60 are left";
        assert_eq!(text(&metadata(kind, 60), &[]), missing);
        let long = "inline payload bytes is 16385, above the limit 16384";
        assert_eq!(text(&metadata(kind, 60), &vec![0; max + 1]), long);
        let long = "metadata bytes is 1001, above the limit 1000";
        assert_eq!(text(&metadata(kind, 1001), &[0]), long);
        let long = "bytes of metadata and payload is 17385, above the limit 17384";
        assert_eq!(text(&metadata(kind, 1000), &vec![0; max + 1]), long);
        // The lengths in the metadata say more than follows.
        let mut longer = metadata(kind, 60);
        longer[8 * usize::from(kind == Kind::Call)] += 100;
        assert_eq!(text(&longer, &[0; 40]), "inline payload needs 161 bytes and 100 are left");
        let mut endless = metadata(kind, 60);
        endless[if kind == Kind::Call { 8..12 } else { 0..4 }].fill(0xFF);
        assert!(text(&endless, &[0; 40]).starts_with("metadata bytes is 42949673"));
    }
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
        let stream = stream();
        let mut sink = Recorder { refuses: Some(refuses), ..Recorder::default() };
        let mut decoder = Decoder::new(&limits());
        assert_eq!(decoder.feed(&stream, &mut sink), Err(DecodeError::Zero { field: "test" }));
        let events = sink.events.len();
        assert_eq!(decoder.feed(&stream, &mut sink), Err(DecodeError::Refused));
        assert_eq!((sink.events.len(), decoder.chunk_remaining()), (events, 0));
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
            matches!(&decode(&call(1000), piece_bytes).0[1], Event::Frame(_, body, _) if body.len() == 1000)
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
