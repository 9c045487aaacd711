//! Cuts a stream of bytes into frames.
//!
//! [`Decoder::feed`] takes bytes in pieces of any length. While a data chunk is open, the caller may read its
//! bytes directly into their final memory, and report them with [`Decoder::advance`]. Between two calls the
//! decoder keeps at most the part of one frame's body that has arrived, up to `max_metadata_bytes` and the
//! longest inline payload.

use crate::format::header::{FrameHeader, Header, Kind};
use crate::format::{decode_error::DecodeError, limits::Limits, preface::Preface};

/// Receives the output of a [`Decoder`], in the order of the stream. An error of any method ends the stream.
pub trait Sink {
    /// The reason why a sink refuses a frame.
    type Error: From<DecodeError>;

    /// Called when the peer's preface has arrived and has this version.
    fn preface(&mut self) -> Result<(), Self::Error>;

    /// Called for the header of each frame except data, before its body is collected.
    fn header(&mut self, _header: &Header) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Called for each whole frame except calls, results and data. Its checksum is right and its length is
    /// within the limits.
    fn frame(&mut self, header: &Header, body: &[u8]) -> Result<(), Self::Error>;

    /// Called for each whole call or result, with its payload if that is inline. The lengths are within the
    /// limits, but the sink must [check](Header::check_body) the metadata. If it knows the bytes from an
    /// earlier message, it need not compute their checksum again.
    fn message(&mut self, header: &Header, metadata: &[u8], payload: &[u8]) -> Result<(), Self::Error>;

    /// Called when a data chunk of `header.length` bytes (1 byte to 1 MiB) begins.
    fn begin_chunk(&mut self, header: &Header) -> Result<(), Self::Error>;

    /// Called with the next bytes of the open chunk, to copy them to their place.
    fn chunk_bytes(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Called when the open chunk is complete.
    fn end_chunk(&mut self) -> Result<(), Self::Error>;
}

/// The part of the stream that the next byte belongs to.
#[derive(Debug)]
enum State {
    Preface,
    Header,
    /// Collecting the body of a frame in `Decoder::body`.
    Body(Header),
    /// The number of bytes of a skipped body that have not arrived.
    Skip(u64),
    /// The number of bytes of a data chunk that have not arrived. It is never 0.
    Chunk(usize),
    Refused,
}

/// Decodes a stream of bytes into frames.
///
/// ```
/// use teleport_wire::{DecodeError, Decoder, Header, Kind, Limits, Preface, Sink};
///
/// struct Print;
/// impl Sink for Print {
///     type Error = DecodeError;
///     fn preface(&mut self) -> Result<(), DecodeError> { Ok(()) }
///     fn frame(&mut self, header: &Header, _body: &[u8]) -> Result<(), DecodeError> {
///         assert_eq!((header.kind, header.id), (Kind::Ping, 7));
///         Ok(())
///     }
///     fn message(&mut self, header: &Header, metadata: &[u8], _: &[u8]) -> Result<(), DecodeError> {
///         header.check_body(metadata)
///     }
///     fn begin_chunk(&mut self, _: &Header) -> Result<(), DecodeError> { Ok(()) }
///     fn chunk_bytes(&mut self, _: &[u8]) -> Result<(), DecodeError> { Ok(()) }
///     fn end_chunk(&mut self) -> Result<(), DecodeError> { Ok(()) }
/// }
///
/// let mut stream = Preface::BYTES.to_vec();
/// stream.extend(Header::empty(Kind::Ping, 7).encode());
/// let mut decoder = Decoder::new(&Limits::default());
/// for byte in stream {
///     decoder.feed(&[byte], &mut Print)?; // any split gives the same frames
/// }
/// # Ok::<(), DecodeError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    state: State,
    limits: Limits,
    /// The first `partial_bytes` bytes of a preface or header whose rest has not arrived.
    partial: [u8; Header::BYTES],
    partial_bytes: usize,
    /// Invariant: empty unless the state is `Body`.
    body: Vec<u8>,
}

/// A buffer up to this size is kept for the body of the next frame. So an idle connection holds little
/// memory.
const KEPT_BODY_BYTES: usize = 1024;

impl Decoder {
    /// Creates a decoder at the start of a stream. It refuses metadata longer than
    /// `limits.max_metadata_bytes`.
    pub fn new(limits: &Limits) -> Decoder {
        Decoder {
            state: State::Preface,
            limits: *limits,
            partial: [0; Header::BYTES],
            partial_bytes: 0,
            body: Vec::new(),
        }
    }

    /// Returns the number of bytes of the open data chunk that have not arrived, or 0 outside of a chunk.
    pub fn chunk_remaining(&self) -> usize {
        match self.state {
            State::Chunk(remaining) => remaining,
            _ => 0,
        }
    }

    /// Returns the number of bytes that complete the next header, or 0 if something else comes next.
    pub fn header_remaining(&self) -> usize {
        match self.state {
            State::Header => Header::BYTES - self.partial_bytes,
            _ => 0,
        }
    }

    /// Returns the number of bytes that are kept of an unfinished frame's body.
    pub fn collected_bytes(&self) -> usize {
        self.body.len()
    }

    /// Reports `bytes` bytes of the open chunk that the caller has read directly into their memory.
    ///
    /// # Panics
    /// Panics if fewer bytes of the chunk are missing.
    pub fn advance<S: Sink>(&mut self, bytes: usize, sink: &mut S) -> Result<(), S::Error> {
        let State::Chunk(remaining) = &mut self.state else {
            assert_eq!(bytes, 0, "bytes of a chunk, but none is open");
            return Ok(());
        };
        assert!(bytes <= *remaining, "{bytes} bytes for a chunk that lacks {remaining}");
        *remaining -= bytes;
        if *remaining > 0 {
            return Ok(());
        }
        self.state = State::Header;
        let result = sink.end_chunk();
        self.keep_refused(result)
    }

    /// Takes the next bytes of the stream, and passes every frame that they complete to `sink`.
    ///
    /// # Errors
    /// Returns the error of the format or of the sink. All later calls return [`DecodeError::Refused`].
    pub fn feed<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let result = self.step(&mut rest, sink);
            self.keep_refused(result)?;
        }
        Ok(())
    }

    fn keep_refused<E>(&mut self, result: Result<(), E>) -> Result<(), E> {
        if result.is_err() {
            self.state = State::Refused;
            self.body = Vec::new();
        }
        result
    }

    /// Consumes at least one byte of `rest`, which must not be empty, or fails.
    fn step<S: Sink>(&mut self, rest: &mut &[u8], sink: &mut S) -> Result<(), S::Error> {
        match &mut self.state {
            State::Refused => Err(DecodeError::Refused.into()),
            State::Preface => self.preface(rest, sink),
            State::Header => self.header(rest, sink),
            State::Body(_) => self.body(rest, sink),
            State::Skip(remaining) => {
                let taken = rest.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *rest = &rest[taken..];
                *remaining -= taken as u64;
                if *remaining == 0 {
                    self.state = State::Header;
                }
                Ok(())
            }
            State::Chunk(remaining) => {
                let taken = rest.len().min(*remaining);
                let (now, later) = rest.split_at(taken);
                *rest = later;
                sink.chunk_bytes(now)?;
                self.advance(taken, sink)
            }
        }
    }

    /// Collects up to `whole` bytes in `partial`. Returns true if they are complete.
    fn collect(&mut self, rest: &mut &[u8], whole: usize) -> bool {
        let taken = rest.len().min(whole - self.partial_bytes);
        self.partial[self.partial_bytes..self.partial_bytes + taken].copy_from_slice(&rest[..taken]);
        self.partial_bytes += taken;
        *rest = &rest[taken..];
        self.partial_bytes == whole
    }

    fn preface<S: Sink>(&mut self, rest: &mut &[u8], sink: &mut S) -> Result<(), S::Error> {
        let whole = self.collect(rest, Preface::LENGTH);
        // A peer of another protocol is refused at its first wrong byte: it may never send a whole preface.
        Preface::check_prefix(&self.partial[..self.partial_bytes]).map_err(DecodeError::from)?;
        if whole {
            self.partial_bytes = 0;
            self.state = State::Header;
            sink.preface()?;
        }
        Ok(())
    }

    fn header<S: Sink>(&mut self, rest: &mut &[u8], sink: &mut S) -> Result<(), S::Error> {
        if self.partial_bytes == 0
            && let Some((bytes, later)) = rest.split_first_chunk()
            && let Some(header) = Header::decode_plain(bytes, &self.limits)
        {
            *rest = later;
            return self.begin_body(&header, rest, sink);
        }
        self.any_header(rest, sink)
    }

    #[inline(never)]
    fn any_header<S: Sink>(&mut self, rest: &mut &[u8], sink: &mut S) -> Result<(), S::Error> {
        if !self.collect(rest, Header::BYTES) {
            return Ok(());
        }
        self.partial_bytes = 0;
        match Header::decode(&self.partial, &self.limits)? {
            FrameHeader::Skip { length: 0 } => {}
            FrameHeader::Skip { length } => self.state = State::Skip(length),
            FrameHeader::Known(header) if header.kind == Kind::Data => {
                sink.begin_chunk(&header)?;
                // `Header::decode` refuses empty data and data longer than a chunk.
                self.state = State::Chunk(header.length as usize);
            }
            FrameHeader::Known(header) => return self.begin_body(&header, rest, sink),
        }
        Ok(())
    }

    /// Passes on the frame with this header if its body has arrived, and waits for it otherwise.
    #[inline]
    fn begin_body<S: Sink>(
        &mut self,
        header: &Header,
        rest: &mut &[u8],
        sink: &mut S,
    ) -> Result<(), S::Error> {
        sink.header(header)?;
        match rest.split_at_checked(header.length as usize) {
            // Most small frames have arrived whole. Their body is not copied.
            Some((body, later)) => {
                *rest = later;
                self.frame(header, body, sink)
            }
            None => {
                self.state = State::Body(*header);
                Ok(())
            }
        }
    }

    /// Passes on a whole frame.
    #[inline]
    fn frame<S: Sink>(&self, header: &Header, body: &[u8], sink: &mut S) -> Result<(), S::Error> {
        if matches!(header.kind, Kind::Call | Kind::Result) {
            let (metadata, payload) = header.split_body(body, &self.limits)?;
            return sink.message(header, metadata, payload);
        }
        header.check_body(body)?;
        sink.frame(header, body)
    }

    fn body<S: Sink>(&mut self, rest: &mut &[u8], sink: &mut S) -> Result<(), S::Error> {
        let State::Body(header) = &self.state else { return Ok(()) };
        let length = header.length as usize;
        let taken = rest.len().min(length - self.body.len());
        self.body.extend_from_slice(&rest[..taken]);
        *rest = &rest[taken..];
        if self.body.len() < length {
            return Ok(());
        }
        let header = *header;
        let mut body = std::mem::take(&mut self.body);
        self.state = State::Header;
        self.frame(&header, &body, sink)?;
        if body.capacity() <= KEPT_BODY_BYTES {
            body.clear();
            self.body = body;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
