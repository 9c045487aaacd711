//! The stream decoder gives the same frames for any split of the stream, and refuses a stream for good.

use teleport_wire::{DecodeError, Decoder, FrameHeader, Header, Kind, Limits, Preface, Sink};

/// The limit is low, so that bodies reach it.
const MAX_METADATA_BYTES: u32 = 300;

/// The first byte of `data` decides how the stream is split. The rest is a script for the stream.
pub(crate) fn decoder(data: &[u8]) {
    let Some((seed, script)) = data.split_first() else { return };
    let stream = stream(script);
    let whole = run(&stream, None, false);
    assert_eq!(run(&stream, Some(*seed), false), whole);
    assert_eq!(run(&stream, Some(*seed), true), whole);
}

/// Makes a preface and frames. The script has a byte of options, the header and the body of each frame.
/// Lengths and checksums are corrected unless the options disable it, since a fuzzer would never find right
/// ones.
fn stream(mut script: &[u8]) -> Vec<u8> {
    let mut stream = Preface::BYTES.to_vec();
    while let Some((options, rest)) = script.split_first() {
        let taken = rest.len().min(28);
        let mut header = [0; Header::BYTES];
        header[..taken].copy_from_slice(&rest[..taken]);
        script = &rest[taken..];
        let mut body = &script[..0];
        if options & 1 == 0 {
            (body, script) = script.split_at(usize::from(header[16]).min(script.len()));
            header[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
        }
        if options & 4 == 0 {
            header[2..4].fill(0);
        }
        if options & 2 == 0 {
            let crc = teleport_wire::checksum(0, covered(header, body));
            header[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        if options & 8 == 0 {
            seal(&mut header);
        }
        stream.extend_from_slice(&header);
        stream.extend_from_slice(body);
    }
    stream
}

fn seal(header: &mut [u8; Header::BYTES]) {
    let crc = teleport_wire::checksum(0, &header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
}

/// Returns the part of a body that its checksum covers: all of it but an inline payload.
fn covered(mut header: [u8; Header::BYTES], body: &[u8]) -> &[u8] {
    header[4..8].fill(0);
    seal(&mut header);
    match Header::decode(&header, &limits()) {
        Ok(FrameHeader::Known(header)) => header.split_body(body, &limits()).map_or(body, |(body, _)| body),
        _ => body,
    }
}

fn limits() -> Limits {
    Limits { max_metadata_bytes: MAX_METADATA_BYTES, ..Limits::default() }
}

/// The calls of a sink, and the end of the stream.
type Outcome = (Vec<Event>, Result<(), DecodeError>);

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Preface,
    Frame(Header, Vec<u8>, Vec<u8>),
    Chunk(Header, Vec<u8>),
    ChunkEnd,
}

#[derive(Default)]
struct Recorder(Vec<Event>);

impl Sink for Recorder {
    type Error = DecodeError;

    fn preface(&mut self) -> Result<(), DecodeError> {
        self.0.push(Event::Preface);
        Ok(())
    }

    fn frame(&mut self, header: &Header, body: &[u8]) -> Result<(), DecodeError> {
        assert_eq!((header.length, header.check_body(body)), (body.len() as u64, Ok(())));
        assert!(!matches!(header.kind, Kind::Call | Kind::Result | Kind::Data));
        self.0.push(Event::Frame(*header, body.to_vec(), Vec::new()));
        Ok(())
    }

    fn message(&mut self, header: &Header, metadata: &[u8], payload: &[u8]) -> Result<(), DecodeError> {
        assert_eq!(header.length, (metadata.len() + payload.len()) as u64);
        assert_eq!(header.is_inline(), !payload.is_empty());
        assert!(header.payload_crc().is_none() || header.is_inline());
        header.check_body(metadata)?;
        self.0.push(Event::Frame(*header, metadata.to_vec(), payload.to_vec()));
        Ok(())
    }

    fn begin_chunk(&mut self, header: &Header) -> Result<(), DecodeError> {
        self.0.push(Event::Chunk(*header, Vec::new()));
        Ok(())
    }

    fn chunk_bytes(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        match self.0.last_mut() {
            Some(Event::Chunk(header, all)) => {
                all.extend_from_slice(bytes);
                assert!(all.len() as u64 <= header.length);
            }
            other => panic!("bytes of a chunk after {other:?}"),
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), DecodeError> {
        match self.0.last() {
            Some(Event::Chunk(header, all)) => assert_eq!(all.len() as u64, header.length),
            other => panic!("the end of a chunk after {other:?}"),
        }
        self.0.push(Event::ChunkEnd);
        Ok(())
    }
}

/// Feeds the stream at once, or in pieces derived from `seed`. With `in_place`, bytes of an open chunk bypass
/// the decoder, as if they were read directly into their memory.
fn run(stream: &[u8], seed: Option<u8>, in_place: bool) -> Outcome {
    let (mut decoder, mut sink) = (Decoder::new(&limits()), Recorder::default());
    let mut state = u64::from(seed.unwrap_or(0)) + 1;
    let mut rest = stream;
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let piece_bytes = seed.map_or(rest.len(), |_| 1 + (state >> 33) as usize % 40).min(rest.len());
        let open = decoder.chunk_remaining();
        let result = if in_place && open > 0 {
            let (now, later) = rest.split_at(piece_bytes.min(open));
            rest = later;
            sink.chunk_bytes(now).expect("the recorder takes everything");
            decoder.advance(now.len(), &mut sink)
        } else {
            let (now, later) = rest.split_at(piece_bytes);
            rest = later;
            decoder.feed(now, &mut sink)
        };
        if let Err(error) = result {
            assert_eq!(decoder.chunk_remaining(), 0);
            assert_eq!(decoder.feed(stream, &mut sink), Err(DecodeError::Refused));
            return (sink.0, Err(error));
        }
    }
    (sink.0, Ok(()))
}
