//! Small memory, which threads reuse: a small message needs no allocation for its arrays.
//!
//! Flow: [`take`] -> a buffer -> its last part is dropped, on any thread -> that thread's stock -> [`take`]
//! on that thread. Where one thread takes and another drops, full lists go from one stock to the other
//! through the depot. A block holds its bytes behind the count of their owners. The sizes of blocks are
//! powers of two. The stock of a thread is freed when the thread ends. Bound: 64 KiB of blocks of each size,
//! which is 448 KiB for each thread, and twice as much for the depot.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Mutex;

use super::memory::{ALIGNMENT, Header, Owner};

/// The longest small memory.
pub(super) const MAX_SMALL_BYTES: usize = 4 << 10;

/// The bytes of all blocks of one size that a thread keeps.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// The full lists of one size in the depot.
const MAX_FULL_LISTS: usize = 4;

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

/// Blocks that are linked by `next`. Invariant: they are alive, and nothing else points to them. Their count
/// is one: that of the owner that was dropped, and is made again with the next buffer.
type List = Option<NonNull<Block>>;

/// Frees the blocks of a list.
fn free(mut list: List) {
    while let Some(block) = list {
        // SAFETY: the blocks of a list are alive.
        list = unsafe { (*block.as_ptr()).next };
        // SAFETY: nothing else points to it.
        unsafe { Block::free(block) }
    }
}

/// The free blocks of a thread.
struct Stock([Shelf; SIZES]);

/// The free blocks of one size.
struct Shelf {
    list: Cell<List>,
    /// The number of blocks in `list`. Invariant: at most [`FULL`].
    kept: Cell<usize>,
    /// A list of [`FULL`] blocks, or no list.
    full: Cell<List>,
}

/// Full lists that no thread holds. It is never waited for: a thread that finds it locked does without it.
struct Depot(Mutex<[[List; MAX_FULL_LISTS]; SIZES]>);

// SAFETY: nothing in a block belongs to a thread, and the lock lets in one thread at a time.
unsafe impl Sync for Depot {}

thread_local! {
    static STOCK: Stock = const { Stock::new() };
}

static DEPOT: Depot = Depot::new();

impl Stock {
    const fn new() -> Stock {
        Stock([const { Shelf { list: Cell::new(None), kept: Cell::new(0), full: Cell::new(None) } }; SIZES])
    }

    #[inline]
    fn pop(&self, size: usize, depot: &Depot) -> Option<NonNull<Block>> {
        let shelf = &self.0[size];
        let block = shelf.list.get().or_else(|| shelf.refill(size, depot))?;
        // SAFETY: the blocks of a list are alive, and nobody else uses them.
        shelf.list.set(unsafe { (*block.as_ptr()).next });
        shelf.kept.set(shelf.kept.get() - 1);
        Some(block)
    }

    /// # Safety
    /// The block must be alive, and is not used again.
    #[inline]
    unsafe fn push(&self, block: NonNull<Block>, depot: &Depot) {
        // SAFETY: the block is alive.
        let size = unsafe { (*block.as_ptr()).size };
        let shelf = &self.0[size];
        if shelf.kept.get() == FULL[size] {
            shelf.set_aside(size, depot);
        }
        // SAFETY: nobody else uses the block.
        unsafe { (*block.as_ptr()).next = shelf.list.replace(Some(block)) };
        shelf.kept.set(shelf.kept.get() + 1);
    }
}

impl Shelf {
    /// Fills the empty list. Returns its first block.
    #[cold]
    fn refill(&self, size: usize, depot: &Depot) -> List {
        let list = self.full.take().or_else(|| depot.take(size))?;
        self.list.set(Some(list));
        self.kept.set(FULL[size]);
        Some(list)
    }

    /// Empties the full list.
    #[cold]
    fn set_aside(&self, size: usize, depot: &Depot) {
        if let Some(full) = self.full.replace(self.list.take()) {
            depot.give(size, full);
        }
        self.kept.set(0);
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        for shelf in &self.0 {
            free(shelf.list.take());
            free(shelf.full.take());
        }
    }
}

impl Depot {
    const fn new() -> Depot {
        Depot(Mutex::new([[None; MAX_FULL_LISTS]; SIZES]))
    }

    fn take(&self, size: usize) -> List {
        self.0.try_lock().ok()?[size].iter_mut().find_map(Option::take)
    }

    /// Takes over a full list. Frees it if there is no room.
    fn give(&self, size: usize, full: NonNull<Block>) {
        if let Ok(mut lists) = self.0.try_lock()
            && let Some(room) = lists[size].iter_mut().find(|list| list.is_none())
        {
            *room = Some(full);
            return;
        }
        free(Some(full));
    }
}

impl Drop for Depot {
    fn drop(&mut self) {
        let lists = self.0.get_mut().map_or_else(|poisoned| *poisoned.into_inner(), |lists| *lists);
        lists.as_flattened().iter().copied().for_each(free);
    }
}

/// Returns the index of the smallest size that holds `len` bytes, which must be 1 to [`MAX_SMALL_BYTES`].
#[inline]
const fn size_of_len(len: usize) -> usize {
    (usize::BITS - ((len - 1) / ALIGNMENT).leading_zeros()) as usize
}

/// The blocks of each size in a full list. A thread keeps two lists.
const FULL: [usize; SIZES] = {
    let mut full = [0; SIZES];
    let mut size = 0;
    while size < SIZES {
        full[size] = MAX_KEPT_BYTES / 2 / Block::layout(size).size();
        size += 1;
    }
    full
};

/// Returns the memory that a new block for `len` bytes takes, which must be 1 to [`MAX_SMALL_BYTES`].
pub(super) const fn taken_bytes(len: usize) -> usize {
    Block::layout(size_of_len(len)).size()
}

/// Returns the only owner of at least `len` writable bytes, and their start. `len` must be 1 to
/// [`MAX_SMALL_BYTES`]. The bytes have any values.
#[inline]
pub(super) fn take(len: usize) -> (Owner, NonNull<u8>) {
    let size = size_of_len(len);
    // Fails while the thread ends.
    let free = STOCK.try_with(|stock| stock.pop(size, &DEPOT)).ok().flatten();
    let block = free.unwrap_or_else(|| Block::new(size));
    // SAFETY: the bytes follow the block in its memory.
    let bytes = unsafe { block.add(1) };
    // SAFETY: the header comes first, and counts one owner, which is made here. The pointer is that of the
    // whole memory, which `keep` needs.
    (unsafe { Owner::from_raw(block.cast()) }, bytes.cast())
}

/// Keeps a block for this thread.
///
/// # Safety
/// The header must be that of a block, and is not used again.
unsafe fn keep(header: NonNull<Header>) {
    let block = header.cast::<Block>();
    // SAFETY: as this function's.
    let kept = STOCK.try_with(|stock| unsafe { stock.push(block, &DEPOT) });
    if kept.is_err() {
        // The thread ends. SAFETY: as this function's, and the block was not kept.
        unsafe { Block::free(block) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::model::buffer::Buffer;

    impl Stock {
        fn kept(&self) -> [usize; SIZES] {
            let full = |size: usize| self.0[size].full.get().map_or(0, |_| FULL[size]);
            std::array::from_fn(|size| self.0[size].kept.get() + full(size))
        }
    }

    fn kept() -> [usize; SIZES] {
        STOCK.with(Stock::kept)
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
            let before = kept()[0];
            drop(part);
            assert_eq!(kept()[0], before + 1);
            let parts = other.split(&[0..1, 1..2]).unwrap();
            drop(Buffer::copy_from(&[3; 64]));
            assert_eq!((&*parts[0], &*parts[1]), ([2].as_slice(), [2].as_slice()));
        });
    }

    #[test]
    fn stocks_and_the_depot_are_bounded() {
        let (stock, depot) = (Stock::new(), Depot::new());
        let bytes = |blocks: [usize; SIZES]| {
            blocks.iter().enumerate().map(|(size, blocks)| blocks * Block::layout(size).size()).sum::<usize>()
        };
        for (size, full) in FULL.into_iter().enumerate() {
            for _ in 0..full * (MAX_FULL_LISTS + 4) {
                // SAFETY: the block is new.
                unsafe { stock.push(Block::new(size), &depot) }
            }
            assert_eq!(stock.kept()[size], 2 * full);
        }
        assert!(bytes(stock.kept()) <= 448 << 10);
        let lists = depot.0.lock().unwrap().map(|lists| lists.iter().flatten().count());
        assert_eq!(lists, [MAX_FULL_LISTS; SIZES]);
        assert!(bytes(FULL.map(|full| full * MAX_FULL_LISTS)) <= 2 * (448 << 10));
    }

    #[test]
    fn full_lists_go_from_thread_to_thread() {
        let depot = Depot::new();
        let fill = || {
            let stock = Stock::new();
            for _ in 0..3 * FULL[0] {
                // SAFETY: the block is new.
                unsafe { stock.push(Block::new(0), &depot) }
            }
        };
        std::thread::scope(|scope| scope.spawn(fill).join()).unwrap();
        let stock = Stock::new();
        for left in (0..FULL[0]).rev() {
            let block = stock.pop(0, &depot).unwrap();
            assert_eq!(stock.kept()[0], left);
            // SAFETY: it was taken out.
            unsafe { Block::free(block) }
        }
        assert_eq!(stock.pop(0, &depot), None);
    }

    #[test]
    fn a_block_stays_with_the_thread_that_drops_it() {
        on_thread(|| {
            let buffer = Buffer::zeroed(64);
            let before = kept()[0];
            let clone = buffer.clone();
            on_thread(move || {
                assert_eq!(clone[0], 0);
                drop(clone);
            });
            on_thread(move || {
                drop(buffer);
                assert_eq!(kept()[0], 1);
            });
            assert_eq!(kept()[0], before);
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
