//! Blocks of memory: from the allocator, or mapped, with huge pages advised.
//!
//! Flow: [`Memory::zeroed`] -> bytes through `as_mut_slice` -> returned to its source when dropped. Holds the
//! pool's unsafe code. Never keeps memory; the pool does.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use teleport_wire::Buffer;

/// Blocks of this size or more are mapped, so that the system gets them back at once.
const MIN_MAPPED_BYTES: usize = 1 << 20;
/// A multiple of the page size of every system.
const PAGE_BYTES: usize = 64 << 10;
/// The largest size of a page that is not huge.
pub(crate) const SMALL_PAGE_BYTES: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { PAGE_BYTES };
/// The huge page of x86-64, and of AArch64 with pages of 4 KiB.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A block of initialized memory with one owner.
///
/// It is aligned to 64 bytes, from 1 MiB on to a page, and from 2 MiB on to a huge page.
#[derive(Debug)]
pub(crate) enum Memory {
    Allocated(Allocation),
    Mapped(Mapping),
    /// Mapped with small pages.
    Sparse(Mapping),
}

impl Memory {
    /// Returns `bytes` zero bytes, or `None` if the system refuses. From 1 MiB on, `bytes` must be whole
    /// pages.
    pub(crate) fn zeroed(bytes: usize) -> Option<Memory> {
        if bytes >= HUGE_PAGE_BYTES {
            Mapping::with_huge_pages(bytes).map(Memory::Mapped)
        } else if bytes >= MIN_MAPPED_BYTES {
            Mapping::new(bytes).map(Memory::Mapped)
        } else {
            Allocation::zeroed(bytes).map(Memory::Allocated)
        }
    }

    /// Returns at least `bytes` zero bytes. Pages that are never written cost no memory.
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
        // SAFETY: `start` is valid for `bytes` bytes until the block is dropped. All are initialized: the
        // allocator or the kernel zeroed them, and later writes went through a slice of `u8`. The block is
        // borrowed uniquely while the slice lives, and nothing else points there.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.bytes()) }
    }
}

/// A block from the allocator.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// Invariant: allocated with `layout`, and freed only when this is dropped.
    start: NonNull<u8>,
    /// Invariant: its size is not zero.
    layout: Layout,
}

// SAFETY: it is the only owner of its memory, which is not bound to a thread.
unsafe impl Send for Allocation {}
// SAFETY: a shared reference gives access only to the size.
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
        // SAFETY: it was allocated with this layout, and nothing refers to it.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Whole pages from the kernel, readable and writable.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Invariant: `bytes` bytes from here on are mapped, and only this value unmaps them.
    start: NonNull<c_void>,
    /// Invariant: whole pages, at most `isize::MAX`.
    bytes: usize,
}

// SAFETY: it is the only owner of its pages, which are not bound to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives access only to the size.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> Option<Mapping> {
        let length = NonZeroUsize::new(bytes).filter(|bytes| isize::try_from(bytes.get()).is_ok())?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without an address and without `MAP_FIXED` the kernel picks unused addresses.
        let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }.ok()?;
        Some(Mapping { start, bytes })
    }

    /// Maps pages that are aligned to a huge page and may become huge. The kernel finds and clears a huge
    /// page about twice as fast as 512 small ones.
    fn with_huge_pages(bytes: usize) -> Option<Mapping> {
        if cfg!(miri) {
            // Miri unmaps whole mappings only.
            return Mapping::new(bytes);
        }
        let mut mapping = Mapping::new(bytes.checked_add(HUGE_PAGE_BYTES)?)?;
        let front = mapping.start.as_ptr().align_offset(HUGE_PAGE_BYTES);
        mapping.cut_front(front)?;
        mapping.cut_back(mapping.bytes - bytes)?;
        // SAFETY: the advice changes no content.
        let advised = unsafe { mapping.advise(MmapAdvise::MADV_HUGEPAGE) };
        if let Err(error) = advised {
            // A kernel without huge pages is slower on first use, otherwise the same.
            tracing::trace!(%error, "huge pages are not available");
        }
        Some(mapping)
    }

    /// Maps pages that never become huge.
    fn with_small_pages(bytes: usize) -> Option<Mapping> {
        let mapping = Mapping::new(bytes)?;
        // SAFETY: the advice changes no content.
        let advised = unsafe { mapping.advise(MmapAdvise::MADV_NOHUGEPAGE) };
        if let Err(error) = advised {
            tracing::trace!(%error, "the advice against huge pages was refused");
        }
        Some(mapping)
    }

    /// Gives the kernel this advice about all pages.
    ///
    /// # Safety
    /// The advice changes no content in this process.
    unsafe fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        if cfg!(miri) {
            // Miri does not know this system call.
            return Err(nix::Error::ENOSYS);
        }
        // SAFETY: the range is this mapping, whose content stays, by the caller's promise.
        unsafe { madvise(self.start, self.bytes, advice) }
    }

    /// Unmaps the first `bytes` bytes: whole pages, and not all. Returns `None` if the kernel refuses.
    fn cut_front(&mut self, bytes: usize) -> Option<()> {
        debug_assert!(bytes < self.bytes);
        if bytes > 0 {
            // SAFETY: these pages belong to this mapping, and nothing refers to them, since it is borrowed
            // uniquely.
            unsafe { munmap(self.start, bytes) }.ok()?;
            // SAFETY: the new start is inside the mapping, whose size fits `isize`.
            self.start = unsafe { self.start.byte_add(bytes) };
            self.bytes -= bytes;
        }
        Some(())
    }

    /// Unmaps the last `bytes` bytes: whole pages, and not all. Returns `None` if the kernel refuses.
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
        // SAFETY: the pages belong to this mapping, and nothing refers to them.
        let unmapped = unsafe { munmap(self.start, self.bytes) };
        // The kernel refuses only if unmapping would split an area and the process has too many. The pages
        // stay then.
        if let Err(error) = unmapped {
            tracing::debug!(%error, bytes = self.bytes, "memory stays mapped");
        }
    }
}

/// Returns a number that starts at zero and that the kernel resets to zero in every forked child. It lives as
/// long as the process. Returns `None` if the system does not support this.
pub(crate) fn number_cleared_by_fork() -> Option<&'static AtomicU32> {
    let mapping = Mapping::new(PAGE_BYTES)?;
    // SAFETY: the advice clears the pages in forked children only.
    unsafe { mapping.advise(MmapAdvise::MADV_WIPEONFORK) }.ok()?;
    let number = mapping.start.cast::<AtomicU32>();
    // Never unmapped.
    std::mem::forget(mapping);
    // SAFETY: it is the start of a page of zeros, which is a valid number, lives as long as the process, and
    // is accessed only through this reference.
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
        // Whole slices are compared: a loop over all bytes takes minutes under Miri.
        assert_eq!(slice, vec![0; bytes]);
        slice.fill(7);
        assert_eq!(memory.as_mut_slice(), vec![7; bytes]);
    }

    #[test]
    fn blocks_are_zero_and_aligned() {
        check(1, 64);
        check(5 << 10, 64);
        check(MIN_MAPPED_BYTES - 64, 64);
        check(MIN_MAPPED_BYTES, 4096);
        check(MIN_MAPPED_BYTES * 7 / 4, 4096);
        // Under Miri, no mapping is aligned to a huge page, and each MiB takes a second.
        let (alignment, max_half_mib) = if cfg!(miri) { (4096, 5) } else { (HUGE_PAGE_BYTES, 11) };
        for half_mib in 4..=max_half_mib {
            check(half_mib << 19, alignment);
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        // Miri does not refuse memory: it ends itself.
        let refused = [1 << 60, isize::MAX as usize].into_iter().filter(|_| !cfg!(miri));
        for bytes in [0, usize::MAX].into_iter().chain(refused) {
            assert!(Memory::zeroed(bytes).is_none());
        }
    }
}
