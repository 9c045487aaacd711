//! The owners of a buffer's memory.
//!
//! An [`Owner`] counts the buffers that share some memory, as an `Arc` does. It differs in three ways: it is
//! one word, it says without a call whether its memory may be written, and its last one is dropped without an
//! atomic change of the count. What the last one does is kept beside the count: it frees a value, or keeps
//! small memory for its next use.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The alignment of allocated memory in bytes.
pub(super) const ALIGNMENT: usize = 64;

/// Has the alignment of allocated memory.
#[repr(align(64))]
pub(super) struct Line;

const _: () = assert!(align_of::<Line>() == ALIGNMENT);

/// The count of the buffers that share some memory, and what is done with the memory when there are none.
pub(super) struct Header {
    count: AtomicUsize,
    is_writable: bool,
    /// Frees the memory. It is called once, with the pointer of the last owner.
    free: unsafe fn(NonNull<Header>),
}

impl Header {
    /// Creates the header of memory with one owner.
    ///
    /// # Safety
    /// `free` must be safe to call once, on any thread, when the last owner of the header is dropped.
    pub(super) unsafe fn new(is_writable: bool, free: unsafe fn(NonNull<Header>)) -> Header {
        Header { count: AtomicUsize::new(1), is_writable, free }
    }
}

/// One of the counted owners of some memory. It keeps the memory alive.
pub(super) struct Owner(
    /// Invariant: it points to a header, and may be used for all that lies behind the header too. The header
    /// counts this owner.
    NonNull<Header>,
);

impl Owner {
    /// Takes over the one owner that a new header counts.
    ///
    /// # Safety
    /// The pointer must be valid for all that the header's `free` does with it, and that must be sound on any
    /// thread.
    #[inline]
    pub(super) unsafe fn from_raw(header: NonNull<Header>) -> Owner {
        Owner(header)
    }

    /// Moves `value` to its final address, which the pointer has as long as an owner lives.
    pub(super) fn new<T: Send + Sync + 'static>(value: T, is_writable: bool) -> (Owner, NonNull<T>) {
        // SAFETY: `free_value` drops what is made here, once. A `T: Send` may be dropped on any thread.
        let header = unsafe { Header::new(is_writable, free_value::<T>) };
        let counted = NonNull::from(Box::leak(Box::new(Counted { header, value })));
        // SAFETY: the box is alive, and nobody else has a pointer to it.
        let value = NonNull::from(unsafe { &mut (*counted.as_ptr()).value });
        // SAFETY: the header comes first, and the pointer is that of the whole box.
        (unsafe { Owner::from_raw(counted.cast()) }, value)
    }

    /// Returns the memory that a value and the count of its owners take.
    pub(super) const fn taken_bytes<T>() -> usize {
        size_of::<Counted<T>>()
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: this owner keeps the header alive, and headers are only read.
        unsafe { self.0.as_ref() }
    }

    /// Returns true if the only owner of the memory may write it.
    #[inline]
    pub(super) fn is_writable(&self) -> bool {
        self.header().is_writable
    }

    /// Returns true if this is the only owner.
    #[inline]
    pub(super) fn is_unique(&self) -> bool {
        // Pairs with the release by which an owner on another thread was dropped: its reads are over.
        self.header().count.load(Ordering::Acquire) == 1
    }
}

impl Clone for Owner {
    #[inline]
    fn clone(&self) -> Owner {
        // Whoever has an owner knows the memory already, so nothing is ordered.
        let count = self.header().count.fetch_add(1, Ordering::Relaxed);
        if count > isize::MAX as usize {
            // Owners were forgotten in a loop: the count would wrap.
            std::process::abort();
        }
        Owner(self.0)
    }
}

impl Drop for Owner {
    #[inline]
    fn drop(&mut self) {
        // Nobody can clone the only owner while it is borrowed uniquely, so its count does not change.
        if self.is_unique() || self.header().count.fetch_sub(1, Ordering::AcqRel) == 1 {
            let free = self.header().free;
            // SAFETY: this was the last owner, and it is not used again.
            unsafe { free(self.0) }
        }
    }
}

// SAFETY: the count is atomic, the rest of a header does not change, and `free` may run on any thread.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

/// A value that owns memory, behind the count of its owners.
#[repr(C)]
struct Counted<T> {
    header: Header,
    value: T,
}

/// Drops a value and frees the memory of both.
///
/// # Safety
/// The pointer must come from a box of a `Counted<T>`, which is not used again.
unsafe fn free_value<T>(header: NonNull<Header>) {
    // SAFETY: as this function's.
    drop(unsafe { Box::from_raw(header.cast::<Counted<T>>().as_ptr()) });
}

/// Aligned memory from the global allocator.
pub(super) struct Allocation {
    /// Invariant: allocated with `layout` by the global allocator, and initialized.
    bytes: NonNull<u8>,
    /// Invariant: its size is not zero.
    layout: Layout,
}

impl Allocation {
    /// Allocates `len` bytes, which must not be zero.
    pub(super) fn zeroed(len: usize) -> Allocation {
        assert!(len > 0, "an allocation of no bytes");
        let layout = Layout::from_size_align(len, ALIGNMENT);
        let Ok(layout) = layout else { panic!("a buffer of {len} bytes exceeds the address space") };
        // SAFETY: the layout's size is not zero, as asserted.
        let bytes = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(bytes) = NonNull::new(bytes) else { std::alloc::handle_alloc_error(layout) };
        Allocation { bytes, layout }
    }
}

impl AsMut<[u8]> for Allocation {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the allocation has this size and is initialized; `self` owns it and is borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout by the same allocator, and not freed before.
        unsafe { std::alloc::dealloc(self.bytes.as_ptr(), self.layout) }
    }
}

// SAFETY: it owns its memory alone, as a `Box<[u8]>` does.
unsafe impl Send for Allocation {}
// SAFETY: `&Allocation` gives no access to the memory.
unsafe impl Sync for Allocation {}
