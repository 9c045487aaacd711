//! Finds the payload in a stream by parsing its frames from the first byte on.
//!
//! Nothing is validated: any bytes are parsed as if they were frames. Only a partly received header is kept.

use std::ops::Range;

use teleport::wire::{Header, Kind, Preface};

/// The position of the body length in a header: FORMAT.md, section 3.
const LENGTH: Range<usize> = 16..24;

/// The state of the parser of one stream.
#[derive(Debug)]
pub(super) struct PayloadFinder {
    /// The remaining bytes of the preface or of a body.
    left: u64,
    is_payload: bool,
    header: Vec<u8>,
}

impl PayloadFinder {
    pub(super) fn new() -> PayloadFinder {
        PayloadFinder { left: Preface::LENGTH as u64, is_payload: false, header: Vec::new() }
    }

    /// Parses the next bytes and returns the ranges of them that are payload.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Vec<Range<usize>> {
        let (mut found, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let rest = bytes.len() - at;
            if self.left > 0 {
                let step = self.left.min(rest as u64) as usize;
                if self.is_payload {
                    found.push(at..at + step);
                }
                self.left -= step as u64;
                at += step;
            } else {
                let step = (Header::BYTES - self.header.len()).min(rest);
                self.header.extend(&bytes[at..at + step]);
                at += step;
                if self.header.len() == Header::BYTES {
                    self.enter_body();
                }
            }
        }
        found
    }

    fn enter_body(&mut self) {
        let length = self.header[LENGTH].try_into().expect("it has 8 bytes");
        self.left = u64::from_le_bytes(length);
        self.is_payload = self.header[0] == Kind::Data as u8;
        self.header.clear();
    }
}

#[cfg(test)]
mod tests {
    use teleport::wire::{Header, Kind, Preface, encode_frame};

    use super::PayloadFinder;

    #[test]
    fn payload_is_found_in_a_stream_cut_into_pieces_of_any_size() {
        let goodbye = encode_frame(Kind::Goodbye, 0, b"reason");
        let mut stream = [&Preface::BYTES[..], &goodbye].concat();
        for text in [b"first", b"other"] {
            stream.extend(Header::data(1, 5, None).encode());
            stream.extend(text);
            stream.extend(Header::empty(Kind::Ping, 1).encode());
        }
        for piece in 1..=stream.len() {
            let mut finder = PayloadFinder::new();
            let found = |bytes: &[u8]| {
                finder.follow(bytes).into_iter().flat_map(|range| bytes[range].to_vec()).collect::<Vec<u8>>()
            };
            let payload: Vec<u8> = stream.chunks(piece).flat_map(found).collect();
            assert_eq!(payload, b"firstother", "in pieces of {piece}");
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic() {
        let mut finder = PayloadFinder::new();
        finder.follow(&[0xFF; 10_000]);
        finder.follow(&[5; 10_000]);
    }
}
