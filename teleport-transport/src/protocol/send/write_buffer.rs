//! Bytes that left the outbox and that the socket has not yet taken.
//!
//! Flow: the outbox appends frames (`append` copies, `share` borrows) -> `slices` (for writev) -> `advance`.
//! Small pieces lie one behind the other in one buffer, so that many small messages are one segment; array bytes stay
//! where their owner has them. That buffer is lent by the thread that stages, so an idle connection has none.
//! Bound: the outbox stages one large chunk or `STAGED_SMALL_BYTES` at a time.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use teleport_wire::Buffer;

use crate::memory::deferred_drop::drop_buffer_later;

/// Segments handed to one `writev`. Linux takes 1,024; 64 fit on the stack and already fill a socket's buffer.
pub const MAX_SEGMENTS_PER_WRITE: usize = 64;

/// A buffer of up to so many bytes is kept for the next that this thread stages.
const MAX_SPARE_BYTES: usize = 16 << 10;

thread_local! {
    /// For the next connection for which this thread stages.
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

/// Frames in the order in which they go to the socket.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    inline: Vec<u8>,
    /// Invariant: no segment is empty.
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that the socket has taken; less than its length.
    written_bytes: usize,
    /// Invariant: the lengths of `segments` less `written_bytes`.
    remaining_bytes: usize,
}

impl WriteBuffer {
    /// Bytes that the socket has not taken.
    pub fn remaining_bytes(&self) -> usize {
        self.remaining_bytes
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.remaining_bytes == 0
    }

    /// Copies a few bytes behind what is there.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.inline.capacity() == 0 {
            // Fails while the thread ends: then it has none.
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

    /// Puts a buffer behind what is there without copying it.
    pub(super) fn share(&mut self, buffer: Buffer) {
        if !buffer.is_empty() {
            self.remaining_bytes += buffer.len();
            self.segments.push_back(Segment::Shared(buffer));
        }
    }

    /// Fills `slices` with what comes next and says how many it filled.
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

    /// Takes note that the socket took the next `bytes` bytes, and lets go of what is behind them.
    ///
    /// # Panics
    /// If fewer bytes are left.
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

    /// Drops everything, as when the connection is gone.
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

    fn written(staged: &mut WriteBuffer, at_most: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        let filled = staged.slices(&mut slices);
        let mut bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.truncate(at_most);
        staged.advance(bytes.len());
        bytes
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_takes() {
        for at_most in 1..12 {
            let mut staged = WriteBuffer::default();
            staged.append(b"ab");
            staged.append(b"cd");
            staged.share(Buffer::copy_from(b"efg"));
            staged.share(Buffer::empty());
            staged.append(b"h");
            assert_eq!(staged.segments.len(), 3);
            let mut all = Vec::new();
            while !staged.is_empty() {
                all.extend(written(&mut staged, at_most));
            }
            assert_eq!(all, b"abcdefgh");
        }
    }

    #[test]
    fn shared_bytes_are_the_owners_own() {
        let buffer = Buffer::zeroed(100);
        let mut staged = WriteBuffer::default();
        staged.share(buffer.clone());
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        assert_eq!(staged.slices(&mut slices), 1);
        assert_eq!(slices[0].as_ptr(), buffer.as_ptr());
    }

    #[test]
    fn an_empty_stage_keeps_no_memory() {
        let mut staged = WriteBuffer::default();
        for bytes in [100_000, 1000] {
            staged.append(&vec![0; bytes]);
            staged.advance(bytes);
            assert_eq!(staged.inline.capacity(), 0);
            let spare = SPARE.take();
            assert!(spare.is_empty() && spare.capacity() <= MAX_SPARE_BYTES);
            SPARE.set(spare);
        }
    }
}
