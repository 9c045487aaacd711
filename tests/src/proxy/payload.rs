//! Finds the payload in a stream by parsing its frames from the first byte on.
//!
//! Nothing is validated: any bytes are parsed as if they were frames. Only a partly received header is kept,
//! with the first fields of the metadata before an inline payload.

use std::ops::Range;

use teleport::wire::{Header, Kind, Preface};

const CALL: u8 = Kind::Call as u8;
const RESULT: u8 = Kind::Result as u8;

/// The state of the parser of one stream.
#[derive(Debug)]
pub(super) struct PayloadFinder {
    /// The remaining bytes of the preface, or of a body before its payload.
    skip: u64,
    /// The remaining bytes of payload, which follow.
    payload: u64,
    /// The bytes of a frame that tell where its payload is.
    start: Vec<u8>,
}

impl PayloadFinder {
    pub(super) fn new() -> PayloadFinder {
        PayloadFinder { skip: Preface::LENGTH as u64, payload: 0, start: Vec::new() }
    }

    /// Parses the next bytes and returns the ranges of them that are payload.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Vec<Range<usize>> {
        let (mut found, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let rest = (bytes.len() - at) as u64;
            let step = if self.skip > 0 {
                let step = self.skip.min(rest);
                self.skip -= step;
                step as usize
            } else if self.payload > 0 {
                let step = self.payload.min(rest);
                self.payload -= step;
                found.push(at..at + step as usize);
                step as usize
            } else {
                let step = (self.start_bytes() - self.start.len()).min(bytes.len() - at);
                self.start.extend(&bytes[at..at + step]);
                if self.start.len() == self.start_bytes() {
                    self.enter_body();
                }
                step
            };
            at += step;
        }
        found
    }

    /// Returns the number of bytes that tell where the payload of this frame is: FORMAT.md, sections 2 and 6.
    fn start_bytes(&self) -> usize {
        match (self.start.first(), self.is_inline()) {
            (Some(&CALL), true) => Header::BYTES + 12,
            (Some(&RESULT), true) => Header::BYTES + 8,
            _ => Header::BYTES,
        }
    }

    fn is_inline(&self) -> bool {
        self.start.len() >= Header::BYTES
            && matches!(self.start[0], CALL | RESULT)
            && self.start[1] & Header::INLINE != 0
    }

    fn enter_body(&mut self) {
        let number = |at: usize, bytes: usize| {
            let digits = self.start[at..at + bytes].iter().rev();
            digits.fold(0, |number, digit| number << 8 | u64::from(*digit))
        };
        let length = number(16, 8);
        let known = (self.start.len() - Header::BYTES) as u64;
        let metadata = match self.start[0] {
            kind if kind == Kind::Data as u8 => 0,
            CALL if self.is_inline() => 24 + number(32, 2) + number(36, 4) + number(40, 4),
            RESULT if self.is_inline() => 8 + number(32, 4) + number(36, 4),
            _ => length,
        };
        self.skip = metadata.min(length).saturating_sub(known);
        self.payload = length.saturating_sub(metadata.max(known));
        self.start.clear();
    }
}

#[cfg(test)]
mod tests {
    use teleport::tree;
    use teleport::wire::{CallHead, Header, Kind, Limits, Message, Preface, encode_frame};

    use super::PayloadFinder;

    #[test]
    fn payload_is_found_in_a_stream_cut_into_pieces_of_any_size() {
        let goodbye = encode_frame(Kind::Goodbye, 0, b"reason");
        let mut stream = [&Preface::BYTES[..], &goodbye].concat();
        let limits = Limits::default();
        let call = Message::call(&CallHead::new("method"), &tree!({"y": "inline", "x": "call"}), &limits);
        call.expect("it is small").append_frame(1, false, &mut stream);
        for text in [b"first", b"other"] {
            stream.extend(Header::data(1, 5, None).encode());
            stream.extend(text);
            stream.extend(Header::empty(Kind::Ping, 1).encode());
        }
        let result = Message::result(&tree!("result"), &limits);
        result.expect("it is small").append_frame(1, true, &mut stream);
        for piece in 1..=stream.len() {
            let mut finder = PayloadFinder::new();
            let found = |bytes: &[u8]| {
                finder.follow(bytes).into_iter().flat_map(|range| bytes[range].to_vec()).collect::<Vec<u8>>()
            };
            let payload: Vec<u8> = stream.chunks(piece).flat_map(found).collect();
            assert_eq!(payload, b"callinlinefirstotherresult", "in pieces of {piece}");
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic() {
        let mut finder = PayloadFinder::new();
        for byte in [0xFF, 2, 3, 5] {
            finder.follow(&[byte; 10_000]);
        }
    }
}
