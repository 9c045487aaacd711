//! Small memory, which threads reuse: a small message needs no allocation for its arrays.
//!
//! Flow: [`take`] -> a buffer -> its last part is dropped, on any thread -> that thread's stock -> [`take`]
//! on that thread. A block holds its bytes behind the count of their owners. The sizes of blocks are powers
//! of two. The stock of a thread is freed when the thread ends. Bound: 64 KiB of blocks of each size, which
//! is 448 KiB for each thread.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;

use super::memory::{ALIGNMENT, Header, Owner};

/// The longest small memory.
pub(super) const MAX_SMALL_BYTES: usize = 4 << 10;

/// The bytes of all blocks of one size that a thread keeps.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// The number of sizes: 64 bytes to 4 KiB.
const SIZES: usize = 7;

const _: () = assert!(ALIGNMENT << (SIZES - 1) == MAX_SMALL_BYTES);

/// What comes before the bytes of a block. It is one line, so that the bytes are aligned too.
#[repr(C, align(64))]
struct Block {
    header: Header,
    /// The index of the size.
    size: usize,
    /// The next free block, while this one is free.
    next: Option<NonNull<Block>>,
}

const _: () = assert!(size_of::<Block>() == ALIGNMENT);

impl Block {
    const fn layout(size: usize) -> Layout {
        match Layout::from_size_align(size_of::<Block>() + (ALIGNMENT << size), ALIGNMENT) {
            Ok(layout) => layout,
            Err(_) => panic!("a small block fits the address space"),
        }
    }

    #[cold]
    fn new(size: usize) -> NonNull<Block> {
        let layout = Block::layout(size);
        // SAFETY: the layout's size is not zero.
        let block = unsafe { alloc_zeroed(layout) };
        let Some(block) = NonNull::new(block.cast::<Block>()) else { handle_alloc_error(layout) };
        // SAFETY: `keep` may be called on any thread: nothing in a block belongs to a thread.
        let header = unsafe { Header::new(true, keep) };
        // SAFETY: the memory has the size and the alignment of a block.
        unsafe { block.write(Block { header, size, next: None }) };
        block
    }

    /// # Safety
    /// The block must be from [`Block::new`], and is not used again.
    #[cold]
    unsafe fn free(block: NonNull<Block>) {
        // SAFETY: the block is alive.
        let layout = Block::layout(unsafe { (*block.as_ptr()).size });
        // SAFETY: it was allocated with this layout. Nothing in it has a drop.
        unsafe { dealloc(block.as_ptr().cast(), layout) }
    }
}

/// The free blocks of a thread.
struct Stock {
    /// The free block of each size that was kept last. Invariant: it and those that follow it are alive, and
    /// nothing else points to them. Their count is one: that of the owner that was dropped, and is made again
    /// with the next buffer.
    last: [Cell<Option<NonNull<Block>>>; SIZES],
    /// The number of free blocks of each size.
    kept: [Cell<usize>; SIZES],
}

thread_local! {
    static STOCK: Stock = const {
        Stock { last: [const { Cell::new(None) }; SIZES], kept: [const { Cell::new(0) }; SIZES] }
    };
}

impl Stock {
    #[inline]
    fn pop(&self, size: usize) -> Option<NonNull<Block>> {
        let block = self.last[size].get()?;
        // SAFETY: blocks of the stock are alive, and nobody else uses them.
        self.last[size].set(unsafe { (*block.as_ptr()).next });
        self.kept[size].set(self.kept[size].get() - 1);
        Some(block)
    }

    /// Returns false if there is no room for the block.
    ///
    /// # Safety
    /// The block must be alive, and is not used again.
    #[inline]
    unsafe fn push(&self, block: NonNull<Block>) -> bool {
        // SAFETY: the block is alive.
        let size = unsafe { (*block.as_ptr()).size };
        let kept = self.kept[size].get();
        if kept == MAX_KEPT[size] {
            return false;
        }
        // SAFETY: nobody else uses the block.
        unsafe { (*block.as_ptr()).next = self.last[size].replace(Some(block)) };
        self.kept[size].set(kept + 1);
        true
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        for size in 0..SIZES {
            while let Some(block) = self.pop(size) {
                // SAFETY: nothing else points to a free block.
                unsafe { Block::free(block) }
            }
        }
    }
}

/// Returns the index of the smallest size that holds `len` bytes, which must be 1 to [`MAX_SMALL_BYTES`].
#[inline]
const fn size_of_len(len: usize) -> usize {
    (usize::BITS - ((len - 1) / ALIGNMENT).leading_zeros()) as usize
}

/// The most blocks of each size that a thread keeps.
const MAX_KEPT: [usize; SIZES] = {
    let mut max_kept = [0; SIZES];
    let mut size = 0;
    while size < SIZES {
        max_kept[size] = MAX_KEPT_BYTES / Block::layout(size).size();
        size += 1;
    }
    max_kept
};

/// Returns the only owner of at least `len` writable bytes, and their start. `len` must be 1 to
/// [`MAX_SMALL_BYTES`]. The bytes have any values.
#[inline]
pub(super) fn take(len: usize) -> (Owner, NonNull<u8>) {
    let size = size_of_len(len);
    // Fails while the thread ends.
    let block = STOCK.try_with(|stock| stock.pop(size)).ok().flatten().unwrap_or_else(|| Block::new(size));
    // SAFETY: the bytes follow the block in its memory.
    let bytes = unsafe { block.add(1) };
    // SAFETY: the header comes first, and counts one owner, which is made here. The pointer is that of the
    // whole memory, which `keep` needs.
    (unsafe { Owner::from_raw(block.cast()) }, bytes.cast())
}

/// Keeps a block for this thread, or frees it if there is no room.
///
/// # Safety
/// The header must be that of a block, and is not used again.
unsafe fn keep(header: NonNull<Header>) {
    let block = header.cast::<Block>();
    // Fails while the thread ends. SAFETY: as this function's.
    let is_kept = STOCK.try_with(|stock| unsafe { stock.push(block) });
    if !is_kept.unwrap_or(false) {
        // SAFETY: as this function's, and it was not kept.
        unsafe { Block::free(block) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::model::buffer::Buffer;

    fn kept() -> [usize; SIZES] {
        STOCK.with(|stock| stock.kept.each_ref().map(Cell::get))
    }

    /// Runs a test on a thread of its own, whose stock is empty.
    fn on_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn each_length_has_the_smallest_size() {
        for len in 1..=MAX_SMALL_BYTES {
            let bytes = ALIGNMENT << size_of_len(len);
            assert!(len <= bytes && (bytes == ALIGNMENT || len > bytes / 2), "{len}");
        }
    }

    #[test]
    fn memory_is_used_again_and_starts_as_zeros() {
        on_thread(|| {
            for len in [1, 64, 65, 1000, 4096] {
                let mut buffer = Buffer::zeroed(len);
                let start = buffer.as_ptr();
                buffer.make_mut().fill(7);
                drop(buffer.slice(len / 2..));
                drop(buffer);
                let again = Buffer::zeroed(len);
                assert_eq!((again.as_ptr(), &*again), (start, &*vec![0; len]));
                assert!(again.is_unique() && again.as_ptr().addr().is_multiple_of(ALIGNMENT));
            }
        });
    }

    #[test]
    fn parts_keep_a_block_from_being_used_again() {
        on_thread(|| {
            let buffer = Buffer::copy_from(&[1; 64]);
            let part = buffer.slice(60..);
            drop(buffer);
            let other = Buffer::copy_from(&[2; 64]);
            assert_eq!((&*part, &*other), ([1; 4].as_slice(), [2; 64].as_slice()));
            drop(part);
            assert_eq!(kept()[0], 1);
            let parts = other.split(&[0..1, 1..2]).unwrap();
            drop(Buffer::copy_from(&[3; 64]));
            assert_eq!((&*parts[0], &*parts[1]), ([2].as_slice(), [2].as_slice()));
        });
    }

    #[test]
    fn a_stock_is_bounded() {
        on_thread(|| {
            let lens = (0..SIZES).map(|size| ALIGNMENT << size);
            let buffers = |len| (0..1000).map(|_| Buffer::zeroed(len)).collect::<Vec<_>>();
            drop(lens.map(buffers).collect::<Vec<_>>());
            assert_eq!(kept(), MAX_KEPT);
            let bytes = |size| MAX_KEPT[size] * Block::layout(size).size();
            assert!((0..SIZES).map(bytes).sum::<usize>() <= 448 << 10);
        });
    }

    #[test]
    fn a_block_stays_with_the_thread_that_drops_it() {
        on_thread(|| {
            let buffer = Buffer::zeroed(64);
            let clone = buffer.clone();
            on_thread(move || {
                assert_eq!(clone[0], 0);
                drop(clone);
            });
            on_thread(move || {
                drop(buffer);
                assert_eq!(kept()[0], 1);
            });
            assert_eq!(kept()[0], 0);
        });
    }

    #[test]
    fn buffers_may_be_dropped_while_their_thread_ends() {
        thread_local! {
            static LAST: RefCell<Option<Buffer>> = const { RefCell::new(None) };
        }
        on_thread(|| {
            // The stock is destroyed before or after this value, in an order that the platform chooses.
            LAST.set(Some(Buffer::zeroed(64)));
            drop(Buffer::zeroed(64));
        });
    }
}
