//! One direction of a link, with the bytes that the kernels of both sides hold and a log of every
//! frame.
//!
//! Flow: the outbox of one side -> `fill` -> `drain` -> the receiving half of the other. Payload
//! travels as a length only, so 1 GiB costs neither time nor memory. The receiver's payload has
//! arbitrary bytes.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};

use teleport_wire::{DecodeError, Decoder, Header, Kind, Limits, MAX_CHUNK_BYTES, Preface, Sink};

use super::super::MAX_SEGMENTS_PER_WRITE;
use super::pair::Side;

/// The bytes of a full chunk on the wire.
pub(super) const CHUNK: u64 = Header::BYTES as u64 + MAX_CHUNK_BYTES;

/// The bytes that the kernels of both sides hold of one direction, as measured for TCP over loopback
/// with at most 128 KiB unsent.
pub(super) const KERNEL_BYTES: usize = 284 << 10;

/// Shorter pieces of a write are copied. Longer ones are payload, of which only the length travels.
pub(super) const MIN_PAYLOAD_BYTES: usize = 4096;

/// A frame on the wire, with its start and end in the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) frames: Vec<Frame>,
    pub(super) end: u64,
}

impl Log {
    pub(super) fn push(&mut self, header: &Header) {
        let start = self.end;
        self.end += Header::BYTES as u64 + header.length;
        self.frames.push(Frame { kind: header.kind, id: header.id, start, end: self.end });
    }
}

impl Sink for Log {
    type Error = DecodeError;

    fn preface(&mut self) -> Result<(), DecodeError> {
        self.end += Preface::BYTES.len() as u64;
        Ok(())
    }

    fn frame(&mut self, header: &Header, _body: &[u8]) -> Result<(), DecodeError> {
        self.push(header);
        Ok(())
    }

    fn message(&mut self, header: &Header, metadata: &[u8], _payload: &[u8]) -> Result<(), DecodeError> {
        self.push(header);
        header.check_body(metadata)
    }

    fn begin_chunk(&mut self, header: &Header) -> Result<(), DecodeError> {
        self.push(header);
        Ok(())
    }

    fn chunk_bytes(&mut self, _bytes: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
}

pub(super) enum Held {
    Copied(VecDeque<u8>),
    Payload(usize),
}

impl Held {
    pub(super) fn len(&self) -> usize {
        match self {
            Held::Copied(bytes) => bytes.len(),
            Held::Payload(bytes) => *bytes,
        }
    }
}

/// One direction of the link.
pub(super) struct Wire {
    pub(super) held: VecDeque<Held>,
    /// Invariant: the sum of the lengths of `held`, at most `KERNEL_BYTES`.
    pub(super) held_bytes: usize,
    /// The bytes that the receiver has read.
    pub(super) delivered: u64,
    pub(super) decoder: Decoder,
    pub(super) log: Log,
}

impl Wire {
    pub(super) fn new() -> Wire {
        let (held, decoder, log) = (VecDeque::new(), Decoder::new(&Limits::default()), Log::default());
        Wire { held, held_bytes: 0, delivered: 0, decoder, log }
    }

    /// The sender writes until the kernel is full.
    pub(super) fn fill(&mut self, from: &mut Side) {
        while self.held_bytes < KERNEL_BYTES {
            if from.staged.is_empty() {
                from.outbound.borrow_mut().send_credit();
                from.outbound.borrow_mut().poll_write(&mut from.staged);
                let staged = from.staged.remaining_bytes() as u64;
                assert!(staged <= 2 * CHUNK, "{staged} bytes left the outbox at once: nothing passes them");
            }
            let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
            let filled = from.staged.slices(&mut slices);
            let mut written = 0;
            for slice in &slices[..filled] {
                let bytes = slice.len().min(KERNEL_BYTES - self.held_bytes);
                self.hold(&slice[..bytes]);
                written += bytes;
            }
            if written == 0 {
                return;
            }
            from.staged.advance(written);
        }
    }

    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held_bytes += bytes.len();
        if bytes.len() >= MIN_PAYLOAD_BYTES && self.decoder.chunk_remaining() >= bytes.len() {
            self.decoder.advance(bytes.len(), &mut self.log).expect("it is the format");
            self.held.push_back(Held::Payload(bytes.len()));
        } else if !bytes.is_empty() {
            self.decoder.feed(bytes, &mut self.log).expect("it is the format");
            self.held.push_back(Held::Copied(bytes.iter().copied().collect()));
        }
    }

    /// The receiver reads at most `at_most` bytes.
    pub(super) fn drain(&mut self, to: &mut Side, mut at_most: usize) {
        while at_most > 0 && self.held_bytes > 0 {
            let (held, mut bytes) = (&mut self.held, 0);
            let read = |slices: &mut [IoSliceMut<'_>]| {
                for slice in slices {
                    let length = slice.len().min(at_most - bytes);
                    bytes += take(held, &mut slice[..length]);
                }
                Ok(bytes)
            };
            to.receive(read);
            at_most -= bytes;
            self.held_bytes -= bytes;
            self.delivered += bytes as u64;
        }
    }

    /// Returns the end of the last frame of this message, or with this token.
    pub(super) fn end_of(&self, id: u64, kinds: &[Kind]) -> Option<u64> {
        let is_it = |frame: &&Frame| frame.id == id && kinds.contains(&frame.kind);
        self.log.frames.iter().rev().find(is_it).map(|frame| frame.end)
    }
}

/// Reads bytes into the receiver's slices. Payload is only counted, because no test looks at it.
pub(super) fn take(held: &mut VecDeque<Held>, mut into: &mut [u8]) -> usize {
    let mut taken = 0;
    while !into.is_empty() {
        let Some(first) = held.front_mut() else { break };
        let bytes = first.len().min(into.len());
        match first {
            Held::Copied(held) => {
                for (place, byte) in into[..bytes].iter_mut().zip(held.drain(..bytes)) {
                    *place = byte;
                }
            }
            Held::Payload(held) => *held -= bytes,
        }
        if first.len() == 0 {
            held.pop_front();
        }
        into = &mut into[bytes..];
        taken += bytes;
    }
    taken
}
