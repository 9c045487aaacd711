//! Staged bytes that the socket has not taken yet.
//!
//! Flow: frames are appended (`append` copies, `share` keeps a reference) -> `slices` (for writev) ->
//! `advance`. Small pieces are contiguous in one buffer, so that many small messages are one segment. Array
//! bytes stay in their owner's memory. The thread that stages lends the buffer, so an idle connection has
//! none. Bound: the bytes that one `stage` moves.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use teleport_wire::Buffer;

use crate::memory::deferred_drop::drop_buffer_later;

/// The segments of one `writev`. Linux accepts 1,024; 64 fit on the stack and already fill a socket's buffer.
pub const MAX_SEGMENTS_PER_WRITE: usize = 64;

/// A thread keeps a buffer of up to this size for the next connection.
const MAX_SPARE_BYTES: usize = 16 << 10;

thread_local! {
    /// The buffer for the next connection that this thread stages for.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[derive(Debug)]
enum Segment {
    /// A range of `WriteBuffer::inline`.
    Inline {
        start: usize,
        end: usize,
    },
    Shared(Buffer),
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Segment::Inline { start, end } => end - start,
            Segment::Shared(buffer) => buffer.len(),
        }
    }
}

/// Frames in the order in which they are written to the socket.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    inline: Vec<u8>,
    /// Invariant: no segment is empty.
    segments: VecDeque<Segment>,
    /// The bytes of the first segment that the socket has taken; fewer than its length.
    written_bytes: usize,
    /// Invariant: the lengths of `segments` less `written_bytes`.
    remaining_bytes: usize,
}

impl WriteBuffer {
    /// Returns the number of bytes that the socket has not taken.
    pub fn remaining_bytes(&self) -> usize {
        self.remaining_bytes
    }

    /// Returns true if everything was written.
    pub fn is_empty(&self) -> bool {
        self.remaining_bytes == 0
    }

    /// Appends a copy of `bytes`.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.inline.capacity() == 0 {
            // Fails while the thread ends; then there is no spare buffer.
            self.inline = SPARE.try_with(Cell::take).unwrap_or_default();
        }
        let start = self.inline.len();
        self.inline.extend_from_slice(bytes);
        self.remaining_bytes += bytes.len();
        match self.segments.back_mut() {
            Some(Segment::Inline { end, .. }) => *end += bytes.len(),
            _ => self.segments.push_back(Segment::Inline { start, end: start + bytes.len() }),
        }
    }

    /// Appends a buffer without copying it.
    pub(super) fn share(&mut self, buffer: Buffer) {
        if !buffer.is_empty() {
            self.remaining_bytes += buffer.len();
            self.segments.push_back(Segment::Shared(buffer));
        }
    }

    /// Fills `slices` with the next bytes. Returns the number of filled slices.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SEGMENTS_PER_WRITE]) -> usize {
        let mut skip = self.written_bytes;
        let mut filled = 0;
        for (slot, segment) in slices.iter_mut().zip(&self.segments) {
            let bytes = match segment {
                Segment::Inline { start, end } => &self.inline[*start..*end],
                Segment::Shared(buffer) => &buffer[..],
            };
            *slot = IoSlice::new(&bytes[skip..]);
            skip = 0;
            filled += 1;
        }
        filled
    }

    /// Removes the next `bytes` bytes, which the socket took. Drops the segments that were written
    /// completely.
    ///
    /// # Panics
    /// Panics if fewer bytes are left.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.remaining_bytes, "{bytes} bytes written of {}", self.remaining_bytes);
        self.remaining_bytes -= bytes;
        self.written_bytes += bytes;
        while let Some(first) = self.segments.front().map(Segment::len) {
            if self.written_bytes < first {
                break;
            }
            self.written_bytes -= first;
            if let Some(Segment::Shared(buffer)) = self.segments.pop_front() {
                drop_buffer_later(buffer);
            }
        }
        if self.segments.is_empty() {
            self.recycle();
        }
    }

    /// Drops everything, because the connection is gone.
    pub fn clear(&mut self) {
        for segment in mem::take(self).segments {
            if let Segment::Shared(buffer) = segment {
                drop_buffer_later(buffer);
            }
        }
    }

    fn recycle(&mut self) {
        let mut inline = mem::take(&mut self.inline);
        inline.clear();
        if inline.capacity() <= MAX_SPARE_BYTES {
            let _ = SPARE.try_with(|spare| spare.set(inline));
        }
        if self.segments.capacity() > MAX_SEGMENTS_PER_WRITE {
            self.segments = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(buffer: &mut WriteBuffer, at_most: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        let filled = buffer.slices(&mut slices);
        let mut bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.truncate(at_most);
        buffer.advance(bytes.len());
        bytes
    }

    #[test]
    fn bytes_leave_in_order_however_many_the_socket_takes() {
        for at_most in 1..12 {
            let mut buffer = WriteBuffer::default();
            buffer.append(b"ab");
            buffer.append(b"cd");
            buffer.share(Buffer::copy_from(b"efg"));
            buffer.share(Buffer::empty());
            buffer.append(b"h");
            assert_eq!(buffer.segments.len(), 3);
            let mut all = Vec::new();
            while !buffer.is_empty() {
                all.extend(written(&mut buffer, at_most));
            }
            assert_eq!(all, b"abcdefgh");
        }
    }

    #[test]
    fn shared_bytes_are_not_copied() {
        let shared = Buffer::zeroed(100);
        let mut buffer = WriteBuffer::default();
        buffer.share(shared.clone());
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        assert_eq!(buffer.slices(&mut slices), 1);
        assert_eq!(slices[0].as_ptr(), shared.as_ptr());
    }

    #[test]
    fn an_empty_buffer_keeps_no_memory() {
        let mut buffer = WriteBuffer::default();
        for bytes in [100_000, 1000] {
            buffer.append(&vec![0; bytes]);
            buffer.advance(bytes);
            assert_eq!(buffer.inline.capacity(), 0);
            let spare = SPARE.take();
            assert!(spare.is_empty() && spare.capacity() <= MAX_SPARE_BYTES);
            SPARE.set(spare);
        }
    }
}
