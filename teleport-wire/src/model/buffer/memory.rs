//! The owners of a buffer's memory.

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

/// The alignment of allocated memory in bytes.
pub(super) const ALIGNMENT: usize = 64;

/// Has the alignment of allocated memory.
#[repr(align(64))]
pub(super) struct Line;

const _: () = assert!(align_of::<Line>() == ALIGNMENT);

/// Keeps memory alive.
pub(super) trait Memory: Send + Sync {
    /// Returns true if the only holder of the memory may write it.
    fn is_writable(&self) -> bool;

    /// Returns the start of small memory, for a block that is used again, and the index of its size. Its
    /// bytes are valid for reads and writes as long as the owner lives.
    fn small(&self) -> Option<(NonNull<u8>, usize)> {
        None
    }
}

/// A value that owns memory, at its final address. The cell allows writes through the pointer that was taken
/// from it, while the reference count shares it.
pub(super) struct Owner<T, const WRITABLE: bool>(pub(super) UnsafeCell<T>);

// SAFETY: the cell is opened once, uniquely, when its buffer is made. After that `&Owner` gives no access to
// it, and a `T: Send` may be dropped on any thread.
unsafe impl<T: Send + Sync, const WRITABLE: bool> Sync for Owner<T, WRITABLE> {}

impl<T: Send + Sync, const WRITABLE: bool> Memory for Owner<T, WRITABLE> {
    fn is_writable(&self) -> bool {
        WRITABLE
    }
}

/// The owner of one part of a split. No other part has it.
pub(super) struct Part(pub(super) Arc<dyn Memory>);

impl Memory for Part {
    fn is_writable(&self) -> bool {
        self.0.is_writable()
    }
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
