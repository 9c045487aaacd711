//! Chooses the memory for one read, so that as little payload as possible is copied.
//!
//! Within a chunk, a read gets the memory of its message, followed by the read-ahead buffer. If more of the
//! message follows, only the next header is read ahead, so that no payload is read there. Never blocks.
//! Bound: one read.

use std::io::{self, IoSliceMut};

use teleport_wire::{Decoder, Header};

use super::message::{Incoming, MAX_SEGMENTS_PER_READ};
use crate::protocol::error::Closed;

/// The result of one read.
pub(super) struct Read {
    /// Bytes in the memory of the open message.
    pub(super) in_place: usize,
    /// Bytes in the read-ahead buffer.
    pub(super) ahead: usize,
    /// The size of the memory for the read.
    pub(super) asked: usize,
}

/// Reads once. `message` is the message of the last chunk, if it may be incomplete.
pub(super) fn read_once(
    message: Option<&mut Incoming>,
    decoder: &Decoder,
    ahead: &mut [u8],
    read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
) -> Result<Read, Closed> {
    let (remaining, header_bytes) = (decoder.chunk_remaining(), decoder.header_remaining());
    let mut max_ahead = ahead.len();
    if let Some(message) = message {
        if remaining > 0 {
            let max_ahead = if message.has_more_chunks() { max_ahead.min(Header::BYTES) } else { max_ahead };
            let mut target = message.read_target();
            let mut slices = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let (filled, offered) = target.slices(remaining, &mut slices);
            if offered > 0 {
                let mut all: [IoSliceMut<'_>; MAX_SEGMENTS_PER_READ + 1] =
                    std::array::from_fn(|_| IoSliceMut::new(&mut []));
                for (slot, slice) in all.iter_mut().zip(slices) {
                    *slot = slice;
                }
                let (result, max_ahead) = if offered == remaining {
                    all[filled] = IoSliceMut::new(&mut ahead[..max_ahead]);
                    (read(&mut all[..=filled]), max_ahead)
                } else {
                    (read(&mut all[..filled]), 0)
                };
                let outcome = outcome(result, offered, max_ahead);
                target.on_read(outcome.as_ref().map_or(0, |read| read.in_place));
                return outcome;
            }
        } else if header_bytes > 0 && !message.is_dropped() && message.has_more_chunks() {
            // The same holds between two chunks: a sender whose write ended with the first chunk sends
            // payload right after the next header, again and again.
            max_ahead = max_ahead.min(header_bytes);
        }
    }
    outcome(read(&mut [IoSliceMut::new(&mut ahead[..max_ahead])]), 0, max_ahead)
}

fn outcome(result: io::Result<usize>, offered: usize, max_ahead: usize) -> Result<Read, Closed> {
    match result {
        Ok(0) => Err(Closed::Lost { error: None }),
        Ok(bytes) => Ok(Read {
            in_place: bytes.min(offered),
            ahead: bytes.saturating_sub(offered),
            asked: offered + max_ahead,
        }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Ok(Read { in_place: 0, ahead: 0, asked: 1 })
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Ok(Read { in_place: 0, ahead: 0, asked: 0 })
        }
        Err(error) => Err(Closed::Lost { error: Some(error) }),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::sync::Arc;
    use std::time::Instant;

    use teleport_wire::{
        Array, CallHead, Hello, Kind, Limits, Message, Preface, RemoteError, Tree, encode_frame,
    };

    use super::*;
    use crate::config::Config;
    use crate::protocol::{Gate, Inbound, Outbound, Role, halves};

    struct AllowAll;

    impl Gate for AllowAll {
        fn admit(&self, _: &str, _: u64) -> Result<u32, RemoteError> {
            Ok(0)
        }
    }

    /// Receives the bytes of one write. Returns the number of bytes that were read ahead and had to be
    /// copied.
    fn read_ahead(inbound: &mut Inbound, outbound: &RefCell<Outbound>, mut written: &[u8]) -> usize {
        let (mut ahead, copied) = ([0; 16 << 10], Cell::new(0));
        let place = ahead.as_ptr().addr()..ahead.as_ptr().addr() + ahead.len();
        while !written.is_empty() {
            let read = |slices: &mut [IoSliceMut<'_>]| {
                let bytes = io::Read::read_vectored(&mut written, slices)?;
                let before = slices.iter().take_while(|slice| !place.contains(&slice.as_ptr().addr()));
                copied.set(copied.get() + bytes.saturating_sub(before.map(|slice| slice.len()).sum()));
                Ok(bytes)
            };
            let (now, events) = (Instant::now(), &mut Vec::new());
            inbound
                .on_readable(now, &mut ahead, outbound, &AllowAll, events, read)
                .expect("the rules are kept");
        }
        copied.get()
    }

    #[test]
    fn little_of_a_large_message_is_copied_if_each_write_ends_with_a_chunk() {
        const CHUNK: usize = 1 << 20;
        let (mut inbound, outbound) = halves(Role::Server, &Arc::default(), None, Instant::now(), || {});
        let outbound = RefCell::new(outbound);
        let hello: Hello = Config::default().hello(Role::Client);
        let start = [&Preface::BYTES[..], &encode_frame(Kind::Hello, 0, &hello.encode())].concat();
        read_ahead(&mut inbound, &outbound, &start);

        let tree = Tree::Array(Array::zeros::<u8>([8 * CHUNK]));
        let call = Message::call(&CallHead::new("m"), &tree, &Limits::default()).expect("it is small");
        read_ahead(&mut inbound, &outbound, &[&call.header(1, false)[..], call.metadata()].concat());
        inbound.send_grant(1, None, &outbound);
        let write = [&Header::data(1, CHUNK as u64, None).encode()[..], &vec![0; CHUNK]].concat();
        let copied: Vec<usize> = (0..8).map(|_| read_ahead(&mut inbound, &outbound, &write)).collect();
        assert_eq!(copied[0], 16 << 10);
        assert_eq!(copied[1..], [Header::BYTES; 7], "headers only");
    }
}
