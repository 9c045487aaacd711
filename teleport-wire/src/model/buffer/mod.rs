//! Reference-counted bytes: the memory behind arrays, strings and messages.
//!
//! A [`Buffer`] is a pointer, a length and a counted owner that keeps the memory alive: an allocation, a
//! `Vec`, a block of a pool, a mapped file. Clones and slices count the same owner and share its bytes. Bytes
//! are written only through `&mut Buffer` while the count is one, so a shared buffer never changes. A copy of
//! up to [`MAX_INLINE_BYTES`] is in the buffer itself, in the place of the pointer: a number needs no memory
//! of its own.

mod memory;
mod small;

use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::ptr::NonNull;

use crate::model::element::Element;
use memory::{Allocation, Owner};

/// Reference-counted bytes that are cheap to clone and to slice, and writable in place while they have one
/// owner.
///
/// ```
/// use teleport_wire::Buffer;
///
/// let mut buffer = Buffer::from(vec![1u8, 2, 3, 4]); // no copy
/// let tail = buffer.slice(2..); // no copy: two owners now
/// assert!(buffer.get_mut().is_none());
/// drop(tail);
/// buffer.get_mut().unwrap()[0] = 9; // one owner again
/// assert_eq!(*buffer, [9, 2, 3, 4]);
/// ```
pub struct Buffer {
    place: Place,
    len: usize,
    /// `None` if the bytes are in `place`.
    owner: Option<Owner>,
}

/// The longest bytes that are in the buffer itself: any number but a `Complex<f64>`.
const MAX_INLINE_BYTES: usize = size_of::<NonNull<u8>>();

/// Where the bytes of a buffer are.
#[derive(Clone, Copy)]
union Place {
    /// With an owner. Invariant: valid for reads of `len` bytes as long as `owner` lives, and for writes too
    /// if `owner` is writable. No other buffer covers any of these bytes unless it has the same `owner`.
    memory: NonNull<u8>,
    /// Without an owner. Invariant: all bytes are initialized, and `len` is at most their number.
    inline: [u8; MAX_INLINE_BYTES],
}

impl Buffer {
    /// The alignment in bytes of all memory that Teleport allocates: a cache line, and the widest vector.
    /// A copy of up to 8 bytes needs no memory: its bytes are in the buffer itself, aligned to 8.
    pub const ALIGNMENT: usize = memory::ALIGNMENT;

    /// Creates an empty buffer. Does not allocate.
    pub const fn empty() -> Buffer {
        Buffer { place: Place { inline: [0; MAX_INLINE_BYTES] }, len: 0, owner: None }
    }

    /// Copies at most [`MAX_INLINE_BYTES`] into a buffer.
    #[inline]
    fn inline(bytes: &[u8]) -> Buffer {
        let mut inline = [0; MAX_INLINE_BYTES];
        // The lengths of numbers, for which a call to copy them costs more than the copy.
        match *bytes {
            [a] => inline[0] = a,
            [a, b, c, d] => inline[..4].copy_from_slice(&[a, b, c, d]),
            [a, b, c, d, e, f, g, h] => inline = [a, b, c, d, e, f, g, h],
            _ => inline[..bytes.len()].copy_from_slice(bytes),
        }
        Buffer { place: Place { inline }, len: bytes.len(), owner: None }
    }

    /// Creates a buffer on the `bytes` of an owner.
    #[inline]
    fn owned(bytes: NonNull<[u8]>, owner: Owner) -> Buffer {
        Buffer { place: Place { memory: bytes.cast() }, len: bytes.len(), owner: Some(owner) }
    }

    /// Returns where the bytes are, if there is an owner.
    #[inline]
    fn memory(&self) -> Option<NonNull<u8>> {
        // SAFETY: with an owner, the place is a pointer.
        self.owner.as_ref().map(|_| unsafe { self.place.memory })
    }

    /// Allocates `len` zero bytes, aligned to [`ALIGNMENT`](Buffer::ALIGNMENT).
    ///
    /// Large buffers come from the operating system as untouched zero pages.
    ///
    /// # Panics
    /// Panics if `len` exceeds `isize::MAX`. Aborts if the memory cannot be allocated, as `Vec` does.
    pub fn zeroed(len: usize) -> Buffer {
        if len > small::MAX_SMALL_BYTES {
            return Buffer::from_owner_mut(Allocation::zeroed(len));
        }
        let mut zeros = Buffer::fresh(len);
        zeros.bytes_mut().fill(0);
        zeros.into_buffer()
    }

    /// Copies `bytes` into new memory, aligned to [`ALIGNMENT`](Buffer::ALIGNMENT). Up to 8 bytes are copied
    /// into the buffer itself, aligned to 8, and move with it.
    #[inline]
    pub fn copy_from(bytes: &[u8]) -> Buffer {
        if bytes.len() <= MAX_INLINE_BYTES {
            return Buffer::inline(bytes);
        }
        let mut copy = Buffer::fresh(bytes.len());
        copy.bytes_mut().copy_from_slice(bytes);
        copy.into_buffer()
    }

    /// Returns `len` bytes with any values, which the caller must overwrite: small memory is used again. They
    /// are aligned to [`ALIGNMENT`](Buffer::ALIGNMENT).
    #[inline]
    pub(crate) fn fresh(len: usize) -> Fresh {
        if len == 0 {
            return Fresh(Buffer::empty());
        }
        if len > small::MAX_SMALL_BYTES {
            return Fresh(Buffer::from_owner_mut(Allocation::zeroed(len)));
        }
        let (owner, bytes) = small::take(len);
        Fresh(Buffer::owned(NonNull::slice_from_raw_parts(bytes, len), owner))
    }

    /// Takes over the memory of `items`, without a copy. It keeps the alignment that it has.
    pub fn from_vec<T: Element>(items: Vec<T>) -> Buffer {
        Buffer::with_owner(items, true, |items| {
            let bytes = size_of_val(items.as_slice());
            NonNull::slice_from_raw_parts(NonNull::from(items.as_mut_slice()).cast::<u8>(), bytes)
        })
    }

    /// Shares the bytes of `owner` without a copy, for reading only: [`get_mut`](Buffer::get_mut) returns
    /// `None`.
    ///
    /// Calls `as_ref` once. The owner is dropped with the last buffer that shares it, on any thread.
    pub fn from_owner<T: AsRef<[u8]> + Send + Sync + 'static>(owner: T) -> Buffer {
        Buffer::with_owner(owner, false, |owner| NonNull::from((*owner).as_ref()))
    }

    /// Shares the bytes of `owner` without a copy, writable while there is one owner.
    ///
    /// Calls `as_mut` once. The owner is dropped with the last buffer that shares it, on any thread; this is
    /// how a pool gets its memory back.
    pub fn from_owner_mut<T: AsMut<[u8]> + Send + Sync + 'static>(owner: T) -> Buffer {
        Buffer::with_owner(owner, true, |owner| NonNull::from(owner.as_mut()))
    }

    /// Moves `owner` to its final address, and only then asks it for its bytes. `find` must derive its result
    /// from its argument, and from a unique borrow if `is_writable`.
    fn with_owner<T: Send + Sync + 'static>(
        owner: T,
        is_writable: bool,
        find: impl FnOnce(&mut T) -> NonNull<[u8]>,
    ) -> Buffer {
        let (owner, mut value) = Owner::new(owner, is_writable);
        // SAFETY: the owner was just made, so it keeps the value alive and nobody else has a pointer to it.
        let bytes = find(unsafe { value.as_mut() });
        if bytes.is_empty() {
            return Buffer::empty();
        }
        Buffer::owned(bytes, owner)
    }

    /// Returns the bytes of `range`, which share this buffer's memory, if it has some.
    ///
    /// # Panics
    /// Panics if `range` does not lie within the buffer.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Buffer {
        let Range { start, end } = bounds(range, self.len);
        assert!(start <= end && end <= self.len, "range {start}..{end} of a buffer of {} bytes", self.len);
        self.clone().narrowed(start..end)
    }

    /// Cuts this buffer down to `range`, which must lie within it.
    fn narrowed(mut self, range: Range<usize>) -> Buffer {
        if range.is_empty() {
            return Buffer::empty();
        }
        let Some(memory) = self.memory() else { return Buffer::inline(&self[range]) };
        // SAFETY: `range` lies within the `len` bytes that `memory` is valid for.
        self.place.memory = unsafe { memory.add(range.start) };
        self.len = range.len();
        self
    }

    /// Returns true if no other buffer shares this memory.
    pub fn is_unique(&self) -> bool {
        self.owner.as_ref().is_none_or(Owner::is_unique)
    }

    /// Returns the bytes for writing, if there is one owner and its memory is writable.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        let writable = self.owner.as_ref().is_none_or(Owner::is_writable);
        if !writable || !self.is_unique() {
            return None;
        }
        // SAFETY: the owner, if there is one, is writable. This buffer alone holds it.
        Some(unsafe { self.write() })
    }

    /// Returns the bytes for writing.
    ///
    /// # Safety
    /// If there is an owner, it must be writable, and no other buffer may hold it.
    #[inline]
    unsafe fn write(&mut self) -> &mut [u8] {
        let start = self.memory().map_or((&raw mut self.place).cast(), NonNull::as_ptr);
        // SAFETY: `start` is valid for reads and writes of `len` bytes: those of a writable owner, or those
        // in this buffer. Nobody can clone the owner while this buffer is borrowed uniquely, and only its
        // holders cover any of these bytes: so the slice is the only access to them.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }

    /// Returns the bytes for writing. Copies them first if they are shared or read-only.
    pub fn make_mut(&mut self) -> &mut [u8] {
        if self.get_mut().is_none() {
            *self = Buffer::copy_from(self);
        }
        self.get_mut().expect("it has one owner, or was copied")
    }

    /// Splits a buffer that has one owner into buffers that each have one owner, and so are writable in
    /// place.
    ///
    /// The ranges must be disjoint and ascending. Gaps and empty ranges are allowed. Each part keeps the
    /// whole memory alive. Allocates once for each part, or not at all for a single range.
    ///
    /// ```
    /// use teleport_wire::Buffer;
    ///
    /// let mut parts = Buffer::zeroed(100).split(&[0..10, 64..100]).unwrap();
    /// parts[1].get_mut().unwrap().fill(7);
    /// assert_eq!(parts[0].len(), 10);
    /// assert_eq!(*parts[1], [7; 36]);
    /// ```
    ///
    /// # Errors
    /// Returns the buffer unchanged if it is shared.
    ///
    /// # Panics
    /// Panics if the ranges overlap, descend or leave the buffer.
    pub fn split(self, ranges: &[Range<usize>]) -> Result<Vec<Buffer>, Buffer> {
        if !self.is_unique() {
            return Err(self);
        }
        let mut end = 0;
        for range in ranges {
            let fits = end <= range.start && range.start <= range.end && range.end <= self.len;
            assert!(fits, "range {range:?} of a buffer of {} bytes, after one that ends at {end}", self.len);
            end = range.end;
        }
        if let [range] = ranges {
            return Ok(vec![self.narrowed(range.clone())]);
        }
        Ok(ranges.iter().map(|range| self.part(range.clone())).collect())
    }

    /// Returns one part of a split, with an owner of its own. The caller drops `self` afterwards, and parts
    /// do not overlap: so no two buffers with different owners cover the same bytes.
    fn part(&self, range: Range<usize>) -> Buffer {
        let Some(whole) = self.owner.as_ref().filter(|_| !range.is_empty()) else { return self.slice(range) };
        let (owner, _) = Owner::new(whole.clone(), whole.is_writable());
        Buffer { owner: Some(owner), ..*self }.narrowed(range)
    }
}

/// Memory that was just made.
#[derive(Debug)]
pub(crate) struct Fresh(
    /// Invariant: it is writable and has one owner.
    Buffer,
);

impl Fresh {
    /// Returns the bytes for writing.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory, if there is some, is writable and has one owner.
        unsafe { self.0.write() }
    }

    #[inline]
    pub(crate) fn into_buffer(self) -> Buffer {
        self.0
    }
}

/// Resolves `range` in a sequence of `len` items. The result may still leave the sequence.
pub(crate) fn bounds(range: impl RangeBounds<usize>, len: usize) -> Range<usize> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    start..end
}

// SAFETY: owners are `Send + Sync`, and the pointer is used under the rules of a reference: shared through
// `&Buffer`, unique through `&mut Buffer` after the count was seen to be one.
unsafe impl Send for Buffer {}
// SAFETY: as above; `&Buffer` gives `&[u8]` and counts, which are atomic.
unsafe impl Sync for Buffer {}

impl Clone for Buffer {
    /// Shares the memory and counts one more owner.
    fn clone(&self) -> Buffer {
        Buffer { owner: self.owner.clone(), ..*self }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start =
            self.memory().map_or((&raw const self.place).cast(), |memory| memory.as_ptr().cast_const());
        // SAFETY: `start` is valid for reads of `len` bytes while the owner and this buffer live, which this
        // borrow ensures. Writes need `&mut` of the only buffer with this owner, so none happen during the
        // borrow.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::empty()
    }
}

/// Takes over the vector's memory, without a copy.
impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        Buffer::from_vec(bytes)
    }
}

/// Copies the bytes.
impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Buffer {
        Buffer::copy_from(bytes)
    }
}

/// Compares the bytes.
impl PartialEq for Buffer {
    fn eq(&self, other: &Buffer) -> bool {
        **self == **other
    }
}

impl Eq for Buffer {}

/// Shows the length only: a buffer may hold gigabytes.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Weak};

    /// An owner whose drop can be observed. Its bytes are inline: they would move if it did.
    struct Watched([u8; 8], #[expect(dead_code, reason = "tests watch its count")] Arc<()>);

    impl Watched {
        fn new() -> (Watched, Weak<()>) {
            let alive = Arc::new(());
            let seen = Arc::downgrade(&alive);
            (Watched([1, 2, 3, 4, 5, 6, 7, 8], alive), seen)
        }
    }

    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl AsMut<[u8]> for Watched {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    fn is_aligned(buffer: &Buffer) -> bool {
        buffer.as_ptr().addr().is_multiple_of(Buffer::ALIGNMENT)
    }

    #[test]
    fn own_memory_is_aligned_and_zero() {
        for len in [0, 1, 63, 64, 65, 4096, 1 << 20] {
            let mut buffer = Buffer::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(is_aligned(&buffer) || len == 0);
            // Whole slices are compared: a loop over all bytes takes minutes under Miri.
            assert_eq!(buffer[..], vec![0; len]);
            buffer.get_mut().unwrap().fill(7);
            assert!(is_aligned(&Buffer::copy_from(&buffer)) || len <= MAX_INLINE_BYTES);
            assert_eq!(Buffer::copy_from(&buffer), buffer);
        }
    }

    #[test]
    fn short_copies_are_in_the_buffer() {
        for len in 0..=MAX_INLINE_BYTES {
            let bytes = &[1, 2, 3, 4, 5, 6, 7, 8][..len];
            let mut buffer = Buffer::copy_from(bytes);
            let clone = buffer.clone();
            let place = (&raw const buffer).addr()..(&raw const buffer).addr() + size_of::<Buffer>();
            assert!(place.contains(&buffer.as_ptr().addr()) && buffer.as_ptr().cast::<u64>().is_aligned());
            assert!(buffer.is_unique() && buffer.make_mut().as_ptr().addr() == buffer.as_ptr().addr());
            buffer.get_mut().unwrap().fill(9);
            assert_eq!((&*buffer, &*clone), (&[9; 8][..len], bytes));
            assert_eq!(*clone.slice(len / 2..), bytes[len / 2..]);
            let parts = clone.split(&[0..len / 2, len / 2..len]).unwrap();
            assert_eq!((&*parts[0], &*parts[1]), bytes.split_at(len / 2));
        }
        let long = Buffer::copy_from(&[1; MAX_INLINE_BYTES + 1]);
        assert_eq!(long.clone().as_ptr(), long.as_ptr());
    }

    #[test]
    fn vectors_are_not_copied() {
        let items = vec![1u32, 2, 3];
        let start = items.as_ptr().cast::<u8>();
        let mut buffer = Buffer::from_vec(items);
        assert_eq!((buffer.as_ptr(), buffer.len()), (start, 12));
        buffer.get_mut().unwrap()[4] = 9;
        assert_eq!(buffer[..8], [1, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(Buffer::from_vec(Vec::<f64>::new()).len(), 0);
        assert_eq!(*Buffer::from_vec(vec![true, false]), [1, 0]);
    }

    #[test]
    fn owners_live_as_long_as_their_bytes() {
        let (owner, alive) = Watched::new();
        let buffer = Buffer::from_owner(owner);
        let tail = buffer.slice(6..);
        drop(buffer);
        assert_eq!(*tail, [7, 8]);
        assert_eq!(alive.strong_count(), 1);
        drop(tail);
        assert_eq!(alive.strong_count(), 0);
    }

    #[test]
    fn written_only_with_one_owner() {
        let mut buffer = Buffer::from_owner_mut(Watched::new().0);
        let clone = buffer.clone();
        assert!(!buffer.is_unique() && buffer.get_mut().is_none());
        drop(clone);
        buffer.get_mut().unwrap()[0] = 9;
        assert_eq!(buffer[..2], [9, 2]);
    }

    #[test]
    fn read_only_memory_is_never_written() {
        let mut buffer = Buffer::from_owner(b"static".as_slice());
        assert!(buffer.is_unique() && buffer.get_mut().is_none());
        let before = buffer.clone();
        buffer.make_mut()[0] = b'S';
        assert_eq!((&*before, &*buffer), (b"static".as_slice(), b"Static".as_slice()));
    }

    #[test]
    fn make_mut_copies_only_what_is_shared() {
        let mut buffer = Buffer::from(vec![1, 2, 3, 4]);
        let start = buffer.as_ptr();
        buffer.make_mut()[0] = 9;
        assert_eq!(buffer.as_ptr(), start);
        let mut tail = buffer.slice(2..);
        tail.make_mut()[0] = 8;
        assert_eq!((&*buffer, &*tail), ([9, 2, 3, 4].as_slice(), [8, 4].as_slice()));
        assert!(buffer.is_unique() && tail.is_unique());
    }

    #[test]
    fn parts_are_written_apart_and_keep_the_whole() {
        let (owner, alive) = Watched::new();
        let mut parts = Buffer::from_owner_mut(owner).split(&[0..2, 2..2, 3..8]).unwrap();
        parts[2].get_mut().unwrap().fill(0);
        parts[0].get_mut().unwrap().fill(9);
        assert!(parts[1].is_empty() && parts[1].is_unique());
        assert_eq!((&*parts[0], &*parts[2]), ([9, 9].as_slice(), [0; 5].as_slice()));
        let last = parts.swap_remove(2).split(&[1..2, 3..5]).unwrap().swap_remove(1);
        drop(parts);
        assert_eq!((alive.strong_count(), &*last), (1, [0, 0].as_slice()));
        drop(last);
        assert_eq!(alive.strong_count(), 0);
    }

    #[test]
    fn shared_buffers_do_not_split() {
        let buffer = Buffer::zeroed(8);
        let clone = buffer.clone();
        assert_eq!(buffer.split(&[0..4, 4..8]).unwrap_err().as_ptr(), clone.as_ptr());
        let parts = Buffer::from_owner(Watched::new().0).split(&[0..4, 4..8]).unwrap();
        assert!(parts.into_iter().all(|mut part| part.is_unique() && part.get_mut().is_none()));
        assert_eq!(Buffer::empty().split(&[0..0, 0..0]), Ok(vec![Buffer::empty(); 2]));
    }

    #[test]
    #[should_panic = "range 3..6 of a buffer of 8 bytes, after one that ends at 4"]
    fn overlapping_parts_are_refused() {
        let _ = Buffer::zeroed(8).split(&[0..4, 3..6]);
    }

    #[test]
    #[should_panic = "range 3..9 of a buffer of 8 bytes"]
    fn slices_stay_inside() {
        Buffer::zeroed(8).slice(3..=8);
    }

    #[test]
    fn parts_go_to_threads() {
        let parts = Buffer::zeroed(1 << 12).split(&[0..1 << 11, 1 << 11..1 << 12]).unwrap();
        let write = |(value, mut part): (usize, Buffer)| {
            std::thread::spawn(move || {
                part.get_mut().unwrap().fill(value as u8 + 1);
                part
            })
        };
        let threads: Vec<_> = parts.into_iter().enumerate().map(write).collect();
        let parts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!((&parts[0][..], &parts[1][..]), ([1; 1 << 11].as_slice(), [2; 1 << 11].as_slice()));
    }
}
