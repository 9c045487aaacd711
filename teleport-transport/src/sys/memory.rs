//! Memory by the block: from the allocator, or mapped with huge pages advised.
//!
//! Flow: [`Memory::zeroed`] -> bytes through `as_mut_slice` -> back to where it came from when dropped. Holds
//! the pool's unsafe code. Never keeps memory: that is the pool's part.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use teleport_wire::Buffer;

/// From here on a block is mapped, so that giving it back really gives it back.
const MIN_MAPPED_BYTES: usize = 1 << 20;
/// A multiple of every system's page.
const PAGE_BYTES: usize = 64 << 10;
/// The most that a page takes which is not huge.
pub(crate) const SMALL_PAGE_BYTES: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { PAGE_BYTES };
/// The huge page of x86-64, and of AArch64 with pages of 4 KiB.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A block of memory with one owner, all of whose bytes are initialized.
///
/// It starts at a multiple of 64, from 1 MiB on of a page, and from 2 MiB on of a huge page.
#[derive(Debug)]
pub(crate) enum Memory {
    Allocated(Allocation),
    Mapped(Mapping),
    /// Mapped too, with pages as small as they come.
    Sparse(Mapping),
}

impl Memory {
    /// `bytes` zero bytes; `None` when the system has none. A size of 1 MiB or more must be whole pages.
    pub(crate) fn zeroed(bytes: usize) -> Option<Memory> {
        if bytes >= HUGE_PAGE_BYTES {
            Mapping::with_huge_pages(bytes).map(Memory::Mapped)
        } else if bytes >= MIN_MAPPED_BYTES {
            Mapping::new(bytes).map(Memory::Mapped)
        } else {
            Allocation::zeroed(bytes).map(Memory::Allocated)
        }
    }

    /// At least `bytes` zero bytes, of which those that are never written cost no memory, but for the pages that what is written lies in.
    pub(crate) fn sparse(bytes: usize) -> Option<Memory> {
        Mapping::with_small_pages(bytes.checked_next_multiple_of(PAGE_BYTES)?).map(Memory::Sparse)
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Memory::Allocated(allocation) => allocation.layout.size(),
            Memory::Mapped(mapping) | Memory::Sparse(mapping) => mapping.bytes,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        let start = match self {
            Memory::Allocated(allocation) => allocation.start,
            Memory::Mapped(mapping) | Memory::Sparse(mapping) => mapping.start.cast(),
        };
        // SAFETY: `start` is valid for `bytes` bytes until the block is dropped, and all are initialized: the
        // allocator or the kernel zeroed them, and whoever wrote since wrote through a slice of `u8`. The
        // block is borrowed uniquely for as long as the slice lives, and nothing else points there.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.bytes()) }
    }
}

/// A block of the allocator.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// Invariant: allocated with `layout`, and freed only when this is dropped.
    start: NonNull<u8>,
    /// Invariant: its size is not zero.
    layout: Layout,
}

// SAFETY: it owns its memory alone, which no thread has a claim to.
unsafe impl Send for Allocation {}
// SAFETY: through a shared reference it gives out nothing but its size.
unsafe impl Sync for Allocation {}

impl Allocation {
    fn zeroed(bytes: usize) -> Option<Allocation> {
        let bytes = NonZeroUsize::new(bytes)?;
        let layout = Layout::from_size_align(bytes.get(), Buffer::ALIGNMENT).ok()?;
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        Some(Allocation { start: NonNull::new(start)?, layout })
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nothing refers to it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Whole pages from the kernel, readable and writable.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Invariant: `bytes` bytes from here on are mapped, and unmapped only by this value.
    start: NonNull<c_void>,
    /// Invariant: whole pages, at most `isize::MAX`.
    bytes: usize,
}

// SAFETY: it owns its pages alone, which no thread has a claim to.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference it gives out nothing but its size.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> Option<Mapping> {
        let length = NonZeroUsize::new(bytes).filter(|bytes| isize::try_from(bytes.get()).is_ok())?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without an address and without `MAP_FIXED` the kernel picks addresses that nobody uses.
        let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }.ok()?;
        Some(Mapping { start, bytes })
    }

    /// Pages that start at a huge page's border and may become huge. The kernel finds and clears one huge
    /// page about twice as fast as the 512 small ones that it stands for.
    fn with_huge_pages(bytes: usize) -> Option<Mapping> {
        let mut mapping = Mapping::new(bytes.checked_add(HUGE_PAGE_BYTES)?)?;
        let front = mapping.start.as_ptr().align_offset(HUGE_PAGE_BYTES);
        mapping.cut_front(front)?;
        mapping.cut_back(mapping.bytes - bytes)?;
        // SAFETY: the range is this mapping, and the advice changes no content.
        let advised = unsafe { madvise(mapping.start, mapping.bytes, MmapAdvise::MADV_HUGEPAGE) };
        if let Err(error) = advised {
            // A kernel without huge pages: slower on first use, otherwise the same.
            tracing::trace!(%error, "huge pages are not to be had");
        }
        Some(mapping)
    }

    /// Pages that do not become huge, whatever the system does with others.
    fn with_small_pages(bytes: usize) -> Option<Mapping> {
        let mapping = Mapping::new(bytes)?;
        // SAFETY: the range is this mapping, and the advice changes no content.
        let advised = unsafe { madvise(mapping.start, mapping.bytes, MmapAdvise::MADV_NOHUGEPAGE) };
        if let Err(error) = advised {
            tracing::trace!(%error, "there are no huge pages to be avoided");
        }
        Some(mapping)
    }

    /// Unmaps the first `bytes` bytes, which are whole pages and not all; `None` if the kernel refuses.
    fn cut_front(&mut self, bytes: usize) -> Option<()> {
        debug_assert!(bytes < self.bytes);
        if bytes > 0 {
            // SAFETY: these pages belong to this mapping, and nothing was given out of it yet, as it is
            // borrowed uniquely.
            unsafe { munmap(self.start, bytes) }.ok()?;
            // SAFETY: the new start is inside the mapping, whose size fits `isize`.
            self.start = unsafe { self.start.byte_add(bytes) };
            self.bytes -= bytes;
        }
        Some(())
    }

    /// Unmaps the last `bytes` bytes, which are whole pages and not all; `None` if the kernel refuses.
    fn cut_back(&mut self, bytes: usize) -> Option<()> {
        debug_assert!(bytes < self.bytes);
        if bytes > 0 {
            // SAFETY: the offset is inside the mapping, whose size fits `isize`.
            let back = unsafe { self.start.byte_add(self.bytes - bytes) };
            // SAFETY: as for the front.
            unsafe { munmap(back, bytes) }.ok()?;
            self.bytes -= bytes;
        }
        Some(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the pages belong to this mapping, and nothing refers to them any more.
        let unmapped = unsafe { munmap(self.start, self.bytes) };
        // The kernel refuses only what would split an area when the process has too many: then the pages
        // stay.
        if let Err(error) = unmapped {
            tracing::debug!(%error, bytes = self.bytes, "memory stays mapped");
        }
    }
}

/// A number that is zero at first, and again in every copy that `fork` makes of this process; none where the system does not do
/// that. It is there for as long as the process.
pub(crate) fn number_cleared_by_fork() -> Option<&'static AtomicU32> {
    let mapping = Mapping::new(PAGE_BYTES)?;
    // SAFETY: the range is this mapping, and the advice changes its content in copies alone, to zeros.
    unsafe { madvise(mapping.start, mapping.bytes, MmapAdvise::MADV_WIPEONFORK) }.ok()?;
    let number = mapping.start.cast::<AtomicU32>();
    // Never unmapped.
    std::mem::forget(mapping);
    // SAFETY: it is the start of a page of zeros, which is a number, lives as long as the process, and is used through this
    // reference alone.
    Some(unsafe { number.as_ref() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: usize, alignment: usize) {
        let mut memory = Memory::zeroed(bytes).unwrap();
        assert_eq!(memory.bytes(), bytes);
        let slice = memory.as_mut_slice();
        assert_eq!(slice.len(), bytes);
        assert!(slice.as_ptr().addr().is_multiple_of(alignment));
        assert!(slice.iter().all(|&byte| byte == 0));
        slice.fill(7);
        assert!(memory.as_mut_slice().iter().all(|&byte| byte == 7));
    }

    #[test]
    fn blocks_are_zero_and_aligned() {
        check(1, 64);
        check(5 << 10, 64);
        check(MIN_MAPPED_BYTES - 64, 64);
        check(MIN_MAPPED_BYTES, 4096);
        check(MIN_MAPPED_BYTES * 7 / 4, 4096);
        for half_mib in 4..12 {
            check(half_mib << 19, HUGE_PAGE_BYTES);
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for bytes in [0, 1 << 60, isize::MAX as usize, usize::MAX] {
            assert!(Memory::zeroed(bytes).is_none());
        }
    }
}
