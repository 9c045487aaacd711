//! Messages that are written and wait to be staged: the heads of all messages, and small payloads.
//!
//! Flow: `write` appends a message to a buffer, once and under the lock that is held, with an inline payload
//! if it is small -> `take` moves the buffer, or as many messages as may be staged at once, to the writer.
//! Until then, `cut` takes a message out again. Taking does no work for a message unless it is noted. Bounds:
//! the open calls, and at most a few KiB of copied bytes for each.

use std::collections::VecDeque;

use teleport_wire::{Draft, FrameSizes, Header, MAX_CHUNK_BYTES, Message};

use super::payload::Payload;
use super::write_buffer::{Extent, WriteBuffer};

/// Longer metadata is sent from its own memory.
const MAX_COPIED_METADATA_BYTES: usize = 16 << 10;

/// An empty queue keeps memory for this many messages.
const MAX_KEPT: usize = 64;

/// One message, or the payload of one whose head was staged before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) id: u64,
    extent: Extent,
    /// The credit that pays for the payload, if the head is here.
    pub(super) eager_bytes: u64,
    /// 0 without the head.
    metadata_bytes: u32,
    payload_bytes: u32,
    /// The frames that it is written in.
    frames: u8,
    /// Nothing of the message is elsewhere.
    is_whole: bool,
    /// Its staging is reported.
    is_noted: bool,
}

impl Written {
    /// Returns the bytes of metadata and payload.
    pub(super) fn queued_bytes(&self) -> u64 {
        u64::from(self.metadata_bytes) + u64::from(self.payload_bytes)
    }

    /// Returns the bytes of its frames.
    fn frame_bytes(&self) -> usize {
        usize::from(self.frames) * Header::BYTES + self.queued_bytes() as usize
    }

    /// Returns true if nothing of its message was staged.
    pub(super) fn has_head(&self) -> bool {
        self.metadata_bytes > 0
    }
}

/// The sums over some messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// Metadata and payload.
    pub(super) queued_bytes: u64,
    pub(super) payload_bytes: u64,
    /// The messages of which nothing is elsewhere.
    pub(super) whole: usize,
    noted: usize,
}

impl Sums {
    fn add(&mut self, written: &Written) {
        self.queued_bytes += written.queued_bytes();
        self.payload_bytes += u64::from(written.payload_bytes);
        self.whole += usize::from(written.is_whole);
        self.noted += usize::from(written.is_noted);
    }

    fn subtract(&mut self, written: &Written) {
        self.queued_bytes -= written.queued_bytes();
        self.payload_bytes -= u64::from(written.payload_bytes);
        self.whole -= usize::from(written.is_whole);
        self.noted -= usize::from(written.is_noted);
    }
}

/// The result of [`Outgoing::take`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) bytes: usize,
    pub(super) sums: Sums,
    /// The last message whose head was taken.
    pub(super) last_begun_id: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Invariant: the frames of `messages`, in their order.
    buffer: WriteBuffer,
    messages: VecDeque<Written>,
    /// Invariant: over `messages`.
    sums: Sums,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the number of messages of which nothing is elsewhere.
    pub(super) fn whole(&self) -> usize {
        self.sums.whole
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.messages.iter().any(|written| written.id == id)
    }

    /// Encodes a small message of a known shape at the end of the buffer. Returns its sizes, or `None` if it
    /// must be encoded first, see [`Draft::append_frame`].
    #[inline]
    pub(super) fn encode(
        &mut self,
        id: u64,
        draft: &Draft<'_>,
        max_memory_bytes: u64,
        checksum: bool,
    ) -> Option<FrameSizes> {
        let mut sizes = None;
        let inline_bytes = self.buffer.append_with(|out| {
            sizes = draft.append_frame(id, checksum, max_memory_bytes, out);
        });
        let sizes = sizes?;
        self.push_copied(id, inline_bytes, sizes, sizes.memory_bytes, false);
        Some(sizes)
    }

    /// Appends the head of a message, and its payload if that is eager and small. Returns the rest of the
    /// payload. The staging of a message with a rest is noted.
    #[inline]
    pub(super) fn write(
        &mut self,
        id: u64,
        message: Message,
        is_eager: bool,
        checksum: bool,
        is_noted: bool,
    ) -> Option<Box<Payload>> {
        let (metadata_bytes, payload_bytes) = (message.metadata().len(), message.payload_bytes());
        let is_copied = message.pieces().is_empty() && (is_eager || payload_bytes == 0);
        if !is_copied || metadata_bytes > MAX_COPIED_METADATA_BYTES {
            return self.write_parts(id, message, is_eager, checksum, is_noted);
        }
        let inline_bytes = self.buffer.append_with(|out| message.append_frame(id, checksum, out));
        let sizes = FrameSizes {
            metadata_bytes: metadata_bytes as u32,
            payload_bytes: payload_bytes as u32,
            memory_bytes: message.memory_bytes(),
        };
        self.push_copied(id, inline_bytes, sizes, if is_eager { sizes.memory_bytes } else { 0 }, is_noted);
        None
    }

    /// Adds a message that was copied into one frame.
    #[inline]
    fn push_copied(
        &mut self,
        id: u64,
        inline_bytes: usize,
        sizes: FrameSizes,
        eager_bytes: u64,
        is_noted: bool,
    ) {
        self.push(Written {
            id,
            extent: Extent { inline_bytes, segments: 0 },
            eager_bytes,
            metadata_bytes: sizes.metadata_bytes,
            payload_bytes: sizes.payload_bytes,
            frames: 1,
            is_whole: true,
            is_noted,
        });
    }

    /// Does the same for a message that has more than a few copied bytes.
    #[inline(never)]
    fn write_parts(
        &mut self,
        id: u64,
        message: Message,
        is_eager: bool,
        checksum: bool,
        is_noted: bool,
    ) -> Option<Box<Payload>> {
        let before = self.buffer.extent();
        let (metadata_bytes, payload_bytes) = (message.metadata().len(), message.payload_bytes());
        let eager_bytes = if is_eager { message.memory_bytes() } else { 0 };
        self.buffer.append(&message.header(id, is_eager));
        let pieces = if metadata_bytes > MAX_COPIED_METADATA_BYTES {
            let (metadata, pieces) = message.into_parts();
            self.buffer.share(metadata);
            pieces
        } else {
            self.buffer.append(message.metadata());
            message.into_pieces()
        };
        let mut rest = Payload::new(pieces, payload_bytes, is_eager);
        let is_whole = payload_bytes == 0 || (is_eager && rest.is_small());
        if is_whole && payload_bytes > 0 {
            rest.write_chunk(id, MAX_CHUNK_BYTES, checksum, &mut self.buffer);
        }
        self.push(Written {
            id,
            extent: self.buffer.extent_since(before),
            eager_bytes,
            metadata_bytes: metadata_bytes as u32,
            payload_bytes: if is_whole { payload_bytes as u32 } else { 0 },
            frames: if is_whole && payload_bytes > 0 { 2 } else { 1 },
            is_whole,
            is_noted: is_noted || !is_whole,
        });
        (!is_whole).then(|| Box::new(rest))
    }

    /// Appends the rest of a message whose head was staged. Its staging is noted.
    pub(super) fn write_rest(&mut self, id: u64, mut rest: Payload, checksum: bool) {
        let before = self.buffer.extent();
        let payload_bytes = rest.write_chunk(id, MAX_CHUNK_BYTES, checksum, &mut self.buffer) as u32;
        self.push(Written {
            id,
            extent: self.buffer.extent_since(before),
            eager_bytes: 0,
            metadata_bytes: 0,
            payload_bytes,
            frames: 1,
            is_whole: true,
            is_noted: true,
        });
    }

    fn push(&mut self, written: Written) {
        self.sums.add(&written);
        self.messages.push_back(written);
    }

    /// Takes the message out, whose frames are then never sent.
    pub(super) fn cut(&mut self, id: u64) -> Option<Written> {
        // Most messages that are cut out are among the last.
        let index = self.messages.iter().rposition(|written| written.id == id)?;
        let before = self.messages.range(..index).fold(Extent::default(), |sum, other| sum.and(other.extent));
        let written = self.messages.remove(index)?;
        self.buffer.cut(before, written.extent);
        self.sums.subtract(&written);
        Some(written)
    }

    /// Moves the first messages behind the bytes of `into`, until `max_bytes` are moved or exceeded. Calls
    /// `on_noted` with the id of each that is noted.
    pub(super) fn take(
        &mut self,
        max_bytes: usize,
        into: &mut WriteBuffer,
        mut on_noted: impl FnMut(u64),
    ) -> Taken {
        let bytes = self.buffer.remaining_bytes();
        if bytes > max_bytes {
            return self.take_some(max_bytes, into, on_noted);
        }
        if self.sums.noted > 0 {
            self.messages.iter().filter(|written| written.is_noted).for_each(|written| on_noted(written.id));
        }
        // Almost always the last one.
        let last = self.messages.back().filter(|written| written.has_head());
        let last = last.or_else(|| self.messages.iter().rfind(|written| written.has_head()));
        let last_begun_id = last.map(|written| written.id);
        self.buffer.take_all(into);
        self.forget();
        Taken { bytes, sums: std::mem::take(&mut self.sums), last_begun_id }
    }

    #[cold]
    fn take_some(
        &mut self,
        max_bytes: usize,
        into: &mut WriteBuffer,
        mut on_noted: impl FnMut(u64),
    ) -> Taken {
        let (mut taken, mut extent) = (Taken::default(), Extent::default());
        while taken.bytes < max_bytes
            && let Some(written) = self.messages.pop_front()
        {
            taken.bytes += written.frame_bytes();
            taken.sums.add(&written);
            extent = extent.and(written.extent);
            self.sums.subtract(&written);
            if written.has_head() {
                taken.last_begun_id = Some(written.id);
            }
            if written.is_noted {
                on_noted(written.id);
            }
        }
        self.buffer.take(extent, into);
        taken
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.sums = Sums::default();
        self.forget();
    }

    fn forget(&mut self) {
        self.messages.clear();
        if self.messages.capacity() > MAX_KEPT {
            self.messages = VecDeque::new();
        }
    }
}
