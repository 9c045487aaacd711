//! Where payload lies in a stream, found by following its frames from the first byte on.
//!
//! What is no stream of frames is followed as if it were one: nothing is checked, and nothing of it is kept but a header
//! that has come in part.

use std::ops::Range;

use teleport::wire::{Header, Kind, Preface};

/// Where in a header the length of its body stands: FORMAT.md, section 3.
const LENGTH: Range<usize> = 16..24;

/// How far a stream has come.
#[derive(Debug)]
pub(super) struct Trail {
    /// What is still to come of the preface or of a body.
    left: u64,
    is_payload: bool,
    header: Vec<u8>,
}

impl Trail {
    pub(super) fn new() -> Trail {
        Trail { left: Preface::LENGTH as u64, is_payload: false, header: Vec::new() }
    }

    /// Follows the next bytes, and gives the stretches of them that are payload.
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

    use super::Trail;

    #[test]
    fn payload_is_found_however_the_stream_is_cut() {
        let goodbye = encode_frame(Kind::Goodbye, 0, b"reason");
        let mut stream = [&Preface::BYTES[..], &goodbye].concat();
        for text in [b"first", b"other"] {
            stream.extend(Header::data(1, 5, None).encode());
            stream.extend(text);
            stream.extend(Header::empty(Kind::Ping, 1).encode());
        }
        for piece in 1..=stream.len() {
            let mut trail = Trail::new();
            let found = |bytes: &[u8]| {
                trail.follow(bytes).into_iter().flat_map(|range| bytes[range].to_vec()).collect::<Vec<u8>>()
            };
            let payload: Vec<u8> = stream.chunks(piece).flat_map(found).collect();
            assert_eq!(payload, b"firstother", "in pieces of {piece}");
        }
    }

    #[test]
    fn noise_is_followed_as_well() {
        let mut trail = Trail::new();
        trail.follow(&[0xFF; 10_000]);
        trail.follow(&[5; 10_000]);
    }
}
