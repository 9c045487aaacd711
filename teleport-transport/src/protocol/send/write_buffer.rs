//! Frames in the order in which the socket takes them.
//!
//! Flow: frames are appended (`append` copies, `share` keeps a reference), and may be cut out again -> `take`
//! moves them to the writer's buffer -> `slices` (for writev) -> `advance`. Copied bytes are contiguous in
//! one memory, so that many small messages are one segment. Array bytes stay in their owner's memory. An
//! empty buffer has no memory: threads lend it theirs. Bounds: the messages that may be queued; what the
//! writer has is bounded by one `stage`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use teleport_wire::Buffer;

use crate::memory::deferred_drop::drop_buffer_later;

/// The segments of one `writev`. Linux accepts 1,024; 64 fit on the stack and already fill a socket's buffer.
pub const MAX_SEGMENTS_PER_WRITE: usize = 64;

/// A thread keeps a buffer of up to this size for the next connection.
const MAX_SPARE_BYTES: usize = 64 << 10;

/// A thread without spare memory allocates this much: room for a few small messages.
const MIN_BYTES: usize = 4 << 10;

/// A thread that writes fills two buffers at once, if it sends control frames before messages.
const MAX_SPARES: usize = 2;

/// Free bytes before the first ones of a buffer: control frames get there without a copy of the messages
/// behind them.
const HEADROOM_BYTES: usize = 512;

thread_local! {
    /// The memory for the next buffers that this thread fills, the first of them filled first. Each has no
    /// memory or begins with the headroom.
    static SPARES: [Cell<Vec<u8>>; MAX_SPARES] = const { [const { Cell::new(Vec::new()) }; MAX_SPARES] };
}

/// Frames in the order in which they are written to the socket.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    /// The copied bytes. Those before `start` have left.
    inline: Vec<u8>,
    start: usize,
    /// Invariant: sorted by `at`, which is at least `start`. No segment is empty.
    shared: VecDeque<Shared>,
    /// The bytes of the first shared segment that the socket has taken. Invariant: fewer than its length, and
    /// 0 unless the segment is next.
    taken_bytes: usize,
    /// Invariant: the bytes of `inline` and `shared` that have not left.
    remaining_bytes: usize,
}

/// Bytes in their owner's memory.
#[derive(Debug)]
struct Shared {
    /// They follow the copied bytes before this place of `inline`.
    at: usize,
    buffer: Buffer,
}

/// A run of frames in a buffer: its copied bytes and its shared segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) inline_bytes: usize,
    pub(super) segments: usize,
}

impl Extent {
    /// Returns the extent of both runs, one behind the other.
    pub(super) fn and(self, next: Extent) -> Extent {
        Extent {
            inline_bytes: self.inline_bytes + next.inline_bytes,
            segments: self.segments + next.segments,
        }
    }
}

impl WriteBuffer {
    /// Returns the number of bytes that have not left.
    pub fn remaining_bytes(&self) -> usize {
        self.remaining_bytes
    }

    /// Returns true if everything has left.
    pub fn is_empty(&self) -> bool {
        self.remaining_bytes == 0
    }

    /// Appends a copy of `bytes`.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.append_with(|inline| inline.extend_from_slice(bytes));
    }

    /// Appends what `write` appends to the copied bytes. Returns the number of these bytes.
    #[inline]
    pub(super) fn append_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        if self.inline.capacity() == 0 {
            self.begin();
        }
        let before = self.inline.len();
        write(&mut self.inline);
        let bytes = self.inline.len() - before;
        self.remaining_bytes += bytes;
        bytes
    }

    /// Appends a buffer without copying it.
    pub(super) fn share(&mut self, buffer: Buffer) {
        if !buffer.is_empty() {
            self.remaining_bytes += buffer.len();
            self.shared.push_back(Shared { at: self.inline.len(), buffer });
        }
    }

    /// Returns the extent of what has not left. Only for a buffer from which the socket takes nothing.
    #[inline]
    pub(super) fn extent(&self) -> Extent {
        Extent { inline_bytes: self.inline.len() - self.start, segments: self.shared.len() }
    }

    /// Returns the extent of what was appended since the buffer had the extent `before`.
    #[inline]
    pub(super) fn extent_since(&self, before: Extent) -> Extent {
        let now = self.extent();
        Extent {
            inline_bytes: now.inline_bytes - before.inline_bytes,
            segments: now.segments - before.segments,
        }
    }

    // ---- What is taken out ----

    /// Moves everything behind the bytes of `other`.
    pub(super) fn take_all(&mut self, other: &mut WriteBuffer) {
        if other.is_empty() {
            mem::swap(self, other);
        } else if other.shared.is_empty() && other.remaining_bytes <= self.start && self.taken_bytes == 0 {
            let before = self.start - other.remaining_bytes;
            self.inline[before..self.start].copy_from_slice(&other.inline[other.start..]);
            self.start = before;
            self.remaining_bytes += mem::take(&mut other.remaining_bytes);
            other.recycle();
            mem::swap(self, other);
        } else {
            self.take(self.extent(), other);
        }
    }

    /// Moves the first bytes behind those of `other`.
    pub(super) fn take(&mut self, first: Extent, other: &mut WriteBuffer) {
        let end = self.start + first.inline_bytes;
        // Most buffers share nothing.
        if first.segments > 0 {
            for Shared { at, buffer } in self.shared.drain(..first.segments) {
                other.append(&self.inline[self.start..at]);
                self.start = at;
                self.remaining_bytes -= buffer.len();
                other.share(buffer);
            }
        }
        other.append(&self.inline[self.start..end]);
        self.start = end;
        self.remaining_bytes -= first.inline_bytes;
        if self.is_empty() {
            self.recycle();
        } else if self.start > self.inline.len() / 2 {
            // Rare enough that a byte is moved once on average.
            self.inline.drain(..self.start);
            self.shared.iter_mut().for_each(|shared| shared.at -= self.start);
            self.start = 0;
        }
    }

    /// Removes the bytes of `extent`, which follow those of `before`.
    pub(super) fn cut(&mut self, before: Extent, extent: Extent) {
        let start = self.start + before.inline_bytes;
        self.inline.drain(start..start + extent.inline_bytes);
        self.remaining_bytes -= extent.inline_bytes;
        for Shared { buffer, .. } in self.shared.drain(before.segments..before.segments + extent.segments) {
            self.remaining_bytes -= buffer.len();
            drop_buffer_later(buffer);
        }
        self.shared.range_mut(before.segments..).for_each(|later| later.at -= extent.inline_bytes);
        if self.is_empty() {
            self.recycle();
        }
    }

    /// Drops everything, because the connection is gone.
    pub fn clear(&mut self) {
        mem::take(self).shared.into_iter().for_each(|shared| drop_buffer_later(shared.buffer));
    }

    // ---- What the socket takes ----

    /// Returns all bytes if they are one segment.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        self.shared.is_empty().then(|| &self.inline[self.start..])
    }

    /// Fills `slices` with the next bytes. Returns the number of filled slices.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SEGMENTS_PER_WRITE]) -> usize {
        let mut filled = 0;
        let mut fill = |bytes: &'a [u8]| {
            if !bytes.is_empty() && filled < slices.len() {
                slices[filled] = IoSlice::new(bytes);
                filled += 1;
            }
        };
        let (mut start, mut skip) = (self.start, self.taken_bytes);
        for Shared { at, buffer } in self.shared.iter().take(MAX_SEGMENTS_PER_WRITE) {
            fill(&self.inline[start..*at]);
            fill(&buffer[skip..]);
            (start, skip) = (*at, 0);
        }
        if self.shared.len() < MAX_SEGMENTS_PER_WRITE {
            fill(&self.inline[start..]);
        }
        filled
    }

    /// Removes the next `bytes` bytes, which the socket took. Drops the segments that were written
    /// completely.
    ///
    /// # Panics
    /// Panics if fewer bytes are left.
    pub fn advance(&mut self, mut bytes: usize) {
        assert!(bytes <= self.remaining_bytes, "{bytes} bytes written of {}", self.remaining_bytes);
        self.remaining_bytes -= bytes;
        if self.is_empty() {
            while let Some(Shared { buffer, .. }) = self.shared.pop_front() {
                drop_buffer_later(buffer);
            }
            return self.recycle();
        }
        while let Some(Shared { at, buffer }) = self.shared.front() {
            let before = bytes.min(at - self.start);
            (self.start, bytes) = (self.start + before, bytes - before);
            if self.start < *at {
                return;
            }
            self.taken_bytes += bytes;
            if self.taken_bytes < buffer.len() {
                return;
            }
            bytes = mem::take(&mut self.taken_bytes) - buffer.len();
            if let Some(Shared { buffer, .. }) = self.shared.pop_front() {
                drop_buffer_later(buffer);
            }
        }
        self.start += bytes;
    }

    /// Gives a buffer without copied bytes memory for them.
    #[cold]
    fn begin(&mut self) {
        self.inline = spare();
        self.start = self.inline.len();
        self.shared.iter_mut().for_each(|shared| shared.at = self.start);
    }

    /// Lends the memory of the empty buffer to the next one that this thread fills.
    fn recycle(&mut self) {
        let mut inline = mem::take(&mut self.inline);
        (self.start, self.taken_bytes) = (0, 0);
        if (1..=MAX_SPARE_BYTES).contains(&inline.capacity()) {
            inline.truncate(HEADROOM_BYTES);
            // Fails while the thread ends; then the memory is freed. The memory of the first place moves on.
            let _ = SPARES.try_with(|spares| {
                for spare in spares {
                    inline = spare.replace(mem::take(&mut inline));
                    if inline.capacity() == 0 {
                        break;
                    }
                }
            });
        }
        if self.shared.capacity() > MAX_SEGMENTS_PER_WRITE {
            self.shared = VecDeque::new();
        }
    }
}

/// Returns memory for copied bytes, which begins with the headroom.
fn spare() -> Vec<u8> {
    // Fails while the thread ends; then there is no spare memory.
    let spare = SPARES.try_with(|spares| {
        let kept = spares.iter().map(Cell::take).find(|spare| spare.capacity() > 0);
        kept.unwrap_or_default()
    });
    spare.ok().filter(|spare| spare.capacity() > 0).unwrap_or_else(|| {
        let mut spare = Vec::with_capacity(HEADROOM_BYTES + MIN_BYTES);
        spare.resize(HEADROOM_BYTES, 0);
        spare
    })
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

    fn all_of(buffer: &mut WriteBuffer, at_most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !buffer.is_empty() {
            all.extend(written(buffer, at_most));
        }
        all
    }

    /// Appends a run of bytes, which are shared where they are capital letters. Returns its extent.
    fn push(buffer: &mut WriteBuffer, run: &str) -> Extent {
        let before = buffer.extent();
        for part in run.split_inclusive(char::is_uppercase) {
            let copied = part.trim_end_matches(char::is_uppercase);
            buffer.append(copied.as_bytes());
            buffer.share(Buffer::copy_from(part[copied.len()..].repeat(2).as_bytes()));
        }
        buffer.extent_since(before)
    }

    fn text(runs: &[&str]) -> String {
        let double = |of: char| if of.is_uppercase() { vec![of, of] } else { vec![of] };
        runs.iter().flat_map(|run| run.chars().flat_map(double)).collect()
    }

    const RUNS: [&str; 6] = ["abc", "deF", "G", "hIJk", "LM", "nop"];

    #[test]
    fn bytes_leave_in_order_however_many_the_socket_takes() {
        for at_most in 1..30 {
            let mut buffer = WriteBuffer::default();
            for run in RUNS {
                push(&mut buffer, run);
            }
            assert_eq!(all_of(&mut buffer, at_most), text(&RUNS).as_bytes());
        }
    }

    #[test]
    fn a_run_that_is_cut_out_leaves_the_others_as_they_are() {
        for cut in 0..RUNS.len() {
            let mut buffer = WriteBuffer::default();
            let extents = RUNS.map(|run| push(&mut buffer, run));
            let before = extents[..cut].iter().fold(Extent::default(), |sum, extent| sum.and(*extent));
            buffer.cut(before, extents[cut]);
            push(&mut buffer, "qRs");
            let rest = [&RUNS[..cut], &RUNS[cut + 1..], &["qRs"]].concat();
            assert_eq!(all_of(&mut buffer, usize::MAX), text(&rest).as_bytes());
        }
        let mut buffer = WriteBuffer::default();
        let extent = push(&mut buffer, "abC");
        buffer.cut(Extent::default(), extent);
        assert!(buffer.is_empty() && buffer.inline.capacity() == 0);
    }

    #[test]
    fn runs_are_taken_in_order_by_a_writer_that_has_none_or_some() {
        for taken in 0..=RUNS.len() {
            for is_empty in [false, true] {
                let (mut buffer, mut writers) = (WriteBuffer::default(), WriteBuffer::default());
                if !is_empty {
                    writers.append(b"-");
                }
                let extents = RUNS.map(|run| push(&mut buffer, run));
                for extent in &extents[..taken] {
                    buffer.take(*extent, &mut writers);
                }
                let last = push(&mut buffer, "qR");
                let is_left = (1..RUNS.len()).contains(&taken);
                let max_start = if is_left { buffer.inline.len() / 2 } else { HEADROOM_BYTES };
                assert!(buffer.start <= max_start, "what was taken takes no memory for long");
                buffer.cut(extents[taken..].iter().fold(Extent::default(), |sum, one| sum.and(*one)), last);
                buffer.take_all(&mut writers);
                assert!(buffer.is_empty());
                let all = [if is_empty { "" } else { "-" }, &text(&RUNS)].concat();
                assert_eq!(all_of(&mut writers, usize::MAX), all.as_bytes());
            }
        }
    }

    #[test]
    fn shared_bytes_are_not_copied() {
        let shared = Buffer::zeroed(100);
        let mut buffer = WriteBuffer::default();
        buffer.share(shared.clone());
        assert!(buffer.single().is_none());
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        assert_eq!(buffer.slices(&mut slices), 1);
        assert_eq!(slices[0].as_ptr(), shared.as_ptr());
    }

    #[test]
    fn copied_bytes_alone_are_one_segment() {
        let mut buffer = WriteBuffer::default();
        buffer.append(b"abc");
        buffer.advance(1);
        assert_eq!(buffer.single(), Some(&b"bc"[..]));
    }

    #[test]
    fn more_segments_than_one_write_takes_are_left_for_the_next() {
        let mut buffer = WriteBuffer::default();
        let mut all = Vec::new();
        for index in 0..100u8 {
            buffer.append(&[index]);
            buffer.share(Buffer::copy_from(&[index, index]));
            all.extend([index; 3]);
        }
        buffer.append(b"end");
        all.extend(b"end");
        let first = written(&mut buffer, usize::MAX);
        assert_eq!(first.len(), MAX_SEGMENTS_PER_WRITE / 2 * 3);
        assert_eq!([first, all_of(&mut buffer, usize::MAX)].concat(), all);
    }

    #[test]
    fn little_goes_before_much_without_a_copy_of_it() {
        for (control_bytes, is_copied) in [(1, false), (HEADROOM_BYTES, false), (HEADROOM_BYTES + 1, true)] {
            for shared in ["", "S"] {
                let (mut control, mut messages) = (WriteBuffer::default(), WriteBuffer::default());
                control.append(&vec![b'c'; control_bytes]);
                push(&mut messages, shared);
                push(&mut messages, "message");
                let before = messages.inline.as_ptr();
                messages.take_all(&mut control);
                assert_eq!(control.inline.as_ptr() != before, is_copied);
                assert!(messages.is_empty() && messages.inline.capacity() == 0);
                let all = "c".repeat(control_bytes) + &text(&[shared, "message"]);
                assert_eq!(all_of(&mut control, 3), all.as_bytes());
            }
        }
    }

    #[test]
    fn an_empty_buffer_keeps_no_memory() {
        let mut buffer = WriteBuffer::default();
        for bytes in [100_000, 1000] {
            buffer.append(&vec![0; bytes]);
            buffer.advance(bytes);
            assert_eq!(buffer.inline.capacity(), 0);
        }
        assert_eq!(small_spares(), 1);
        // Buffers that are filled at once are kept, up to a few.
        let mut buffers: [WriteBuffer; MAX_SPARES + 1] = std::array::from_fn(|_| WriteBuffer::default());
        buffers.iter_mut().for_each(|buffer| buffer.append(&[0; 1000]));
        buffers.iter_mut().for_each(|buffer| buffer.advance(1000));
        assert_eq!(small_spares(), MAX_SPARES);
    }

    /// Takes this thread's spare memory, and checks it. Puts it back and returns how much there was.
    fn small_spares() -> usize {
        SPARES.with(|spares| {
            let count = |spare: &Cell<Vec<u8>>| {
                let memory = spare.take();
                let is_kept = memory.capacity() > 0;
                assert!(!is_kept || memory.len() == HEADROOM_BYTES && memory.capacity() <= MAX_SPARE_BYTES);
                spare.set(memory);
                usize::from(is_kept)
            };
            spares.iter().map(count).sum()
        })
    }
}
