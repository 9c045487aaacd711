//! Small memory, which threads reuse: a small message needs no allocation for its arrays.
//!
//! Flow: [`take`] -> a buffer -> its last part is dropped, on any thread -> that thread's stock -> [`take`]
//! on that thread. A block holds its bytes beside their reference count. The sizes of blocks are powers of
//! two. The stock of a thread is freed when the thread ends. Bound: 64 KiB of blocks of each size and the
//! lists of them, which is at most 128 x 4 KiB for each thread.

use std::cell::{RefCell, UnsafeCell};
use std::ptr::NonNull;
use std::sync::Arc;

use super::Buffer;
use super::memory::{ALIGNMENT, Memory};

/// The longest small memory.
pub(super) const MAX_SMALL_BYTES: usize = 4 << 10;

/// The bytes of all blocks of one size that a thread keeps.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// The number of sizes: 64 bytes to 4 KiB.
const SIZES: usize = 7;

/// A block with its reference count takes this much more than its size.
const OVERHEAD_BYTES: usize = 64;

const _: () = assert!(ALIGNMENT << (SIZES - 1) == MAX_SMALL_BYTES);

/// Memory of one size, and room to align it: the reference counts before it take 16 bytes.
#[repr(align(16))]
struct Block<const ROOM: usize>(UnsafeCell<[u8; ROOM]>);

// SAFETY: nothing reads or writes the cell through `&Block`. Bytes are accessed under the rules of `Buffer`.
unsafe impl<const ROOM: usize> Sync for Block<ROOM> {}

impl<const ROOM: usize> Memory for Block<ROOM> {
    fn is_writable(&self) -> bool {
        true
    }

    #[inline]
    fn small(&self) -> Option<(NonNull<u8>, usize)> {
        let start = NonNull::from(&self.0).cast::<u8>();
        let skip = start.addr().get().wrapping_neg() % ALIGNMENT;
        // SAFETY: the block starts at a multiple of 16, so it skips at most 48 bytes, which are within it.
        let aligned = unsafe { start.add(skip) };
        Some((aligned, const { size_of_len(ROOM + 16 - OVERHEAD_BYTES) }))
    }
}

/// Allocates a block of a size: 64 bytes, 128 and so on, and 48 bytes to align them.
fn allocate(size: usize) -> Arc<dyn Memory> {
    fn block<const ROOM: usize>() -> Arc<dyn Memory> {
        const { assert!(size_of::<Block<ROOM>>() == ROOM) };
        Arc::new(Block(UnsafeCell::new([0; ROOM])))
    }
    match size {
        0 => block::<112>(),
        1 => block::<176>(),
        2 => block::<304>(),
        3 => block::<560>(),
        4 => block::<1072>(),
        5 => block::<2096>(),
        _ => block::<4144>(),
    }
}

/// The free blocks of a thread.
struct Stock {
    /// Invariant: the buffers of each size are whole blocks with one owner, at most [`MAX_KEPT`] of them.
    sizes: [Vec<Buffer>; SIZES],
}

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock { sizes: [const { Vec::new() }; SIZES] }) };
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
        max_kept[size] = MAX_KEPT_BYTES / ((ALIGNMENT << size) + OVERHEAD_BYTES);
        size += 1;
    }
    max_kept
};

/// Returns a whole block with one owner that holds at least `len` bytes, which must be 1 to
/// [`MAX_SMALL_BYTES`]. Its bytes have any values.
#[inline]
pub(super) fn take(len: usize) -> Buffer {
    let size = size_of_len(len);
    // Fails while the thread ends.
    match STOCK.try_with(|stock| stock.borrow_mut().sizes[size].pop()) {
        Ok(Some(block)) => block,
        _ => new(size),
    }
}

#[cold]
fn new(size: usize) -> Buffer {
    let owner = allocate(size);
    let (bytes, _) = owner.small().expect("it is small memory");
    Buffer { bytes, len: ALIGNMENT << size, owner: Some(owner) }
}

/// Keeps a whole block for this thread, if there is room for it. `owner` is its only one, and is taken then.
#[inline]
pub(super) fn keep(bytes: NonNull<u8>, size: usize, owner: &mut Option<Arc<dyn Memory>>) {
    let _ = STOCK.try_with(|stock| {
        let kept = &mut stock.borrow_mut().sizes[size];
        if kept.len() < MAX_KEPT[size] {
            kept.push(Buffer { bytes, len: ALIGNMENT << size, owner: owner.take() });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> [usize; SIZES] {
        STOCK.with_borrow(|stock| std::array::from_fn(|size| stock.sizes[size].len()))
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
            let bytes = |size| MAX_KEPT[size] * ((ALIGNMENT << size) + OVERHEAD_BYTES);
            // The room of a list doubles.
            let lists = (0..SIZES).map(|size| MAX_KEPT[size].next_power_of_two() * size_of::<Buffer>());
            assert!((0..SIZES).map(bytes).chain(lists).sum::<usize>() <= 128 * 4096);
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
