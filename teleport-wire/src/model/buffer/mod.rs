//! Reference-counted bytes: the memory behind arrays, strings and messages.
//!
//! A [`Buffer`] is a pointer, a length and a counted owner that keeps the memory alive: an allocation, a
//! `Vec`, a block of a pool, a mapped file. Clones and slices count the same owner and share its bytes. Bytes
//! are written only through `&mut Buffer` while the count is one, so a shared buffer never changes. A copy of
//! up to [`MAX_INLINE_BYTES`] is in the buffer itself, in the place of the pointer: a number needs no memory
//! of its own.

pub(crate) mod list;
mod memory;
mod small;

use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::ptr::NonNull;

use crate::model::element::Element;
use memory::{ALIGNMENT, Allocation, Line, Owner};

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
    pub const ALIGNMENT: usize = ALIGNMENT;

    /// Creates an empty buffer. Does not allocate.
    pub const fn empty() -> Buffer {
        Buffer { place: Place { inline: [0; MAX_INLINE_BYTES] }, len: 0, owner: None }
    }

    /// Copies at most [`MAX_INLINE_BYTES`] into a buffer.
    #[inline(always)]
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

    /// Returns true if the bytes are in the buffer itself.
    #[inline]
    pub(crate) fn is_inline(&self) -> bool {
        self.owner.is_none()
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
    #[inline(always)]
    pub fn copy_from(bytes: &[u8]) -> Buffer {
        if bytes.len() <= MAX_INLINE_BYTES {
            return Buffer::inline(bytes);
        }
        Buffer::copy_long(bytes)
    }

    /// Copies `bytes` into new memory.
    #[inline(never)]
    fn copy_long(bytes: &[u8]) -> Buffer {
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

    /// Returns the memory that `len` new bytes take, with the count of their owners.
    pub(crate) const fn taken_bytes(len: usize) -> usize {
        match len {
            0 => 0,
            1..=small::MAX_SMALL_BYTES => small::taken_bytes(len),
            _ => len + Owner::taken_bytes::<Allocation>(),
        }
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
#[derive(Debug, Default)]
pub(crate) struct Fresh(
    /// Invariant: it is writable and has one owner, unless it is empty.
    Buffer,
);

impl Fresh {
    /// Returns the number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    /// Returns where the bytes are. They are valid for reads and writes as long as this memory lives. The
    /// pointer is aligned to [`ALIGNMENT`](Buffer::ALIGNMENT), even if there are none.
    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.0.memory().unwrap_or(NonNull::<Line>::dangling().cast())
    }

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
mod tests;
