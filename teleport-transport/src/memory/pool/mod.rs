//! Warm memory for messages: what a message leaves behind, the next one of about its size gets.
//!
//! Flow: [`Pool::alloc`] -> a [`Buffer`] with one owner -> dropped by its last owner, on any thread -> idle
//! here -> the next `alloc` of its size class, or back to the system once idle memory would exceed its bound
//! (what has been idle longest goes first). Receiving into memory whose pages are there already is two to
//! four times as fast as into fresh pages, which the kernel must find and clear.
//!
//! Never bounds or keeps memory that someone uses: that is for budgets. Bounds: idle memory is at most
//! `max_idle_bytes` at any time, and the memory behind a buffer is less than a quarter larger than the
//! buffer.
//!
//! Locks: one for each size class, held to push or pop one entry; memory is mapped, cleared and unmapped
//! outside them.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use teleport_wire::{Array, Buffer, DType, Element, Shape};
use thiserror::Error;

use crate::memory::machine::machine_memory_bytes;
use crate::memory::size_class::{MAX_UNPOOLED_BYTES, SizeClass};
use crate::sys::{HUGE_PAGE_BYTES, Memory};

/// The process's pool keeps this part of the machine's memory idle ...
const IDLE_DIVISOR: u64 = 8;
/// ... but no more than what a few large messages under way need.
const MAX_GLOBAL_IDLE_BYTES: u64 = 4 << 30;

/// Memory that is used again. Clones share it; it ends with the last clone and the last buffer.
///
/// Buffers of up to 4 KiB come from the system's allocator and are not counted; those of 1 MiB and more are
/// mapped, and from 2 MiB on the system is advised to use huge pages.
///
/// # Example
/// ```
/// use teleport_transport::Pool;
///
/// let pool = Pool::new(64 << 20);
/// let mut buffer = pool.alloc(1_000_000)?;
/// buffer.get_mut().ok_or("it has one owner")?[0] = 7;
/// let place = buffer.as_ptr();
/// drop(buffer);
/// assert_eq!(pool.alloc(1_000_000)?.as_ptr(), place);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// The system has no memory for a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "the system gives no memory for {bytes} bytes; send less at once, or raise the limit of this process or container"
)]
pub struct MemoryError {
    /// How much was asked for.
    pub bytes: usize,
}

/// What a [`Pool`] has, and how well it works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PoolStats {
    /// Bytes behind buffers that are alive.
    pub in_use_bytes: u64,
    /// Bytes that wait for their next buffer.
    pub idle_bytes: u64,
    /// The most that wait.
    pub max_idle_bytes: u64,
    /// Buffers that got memory which was idle.
    pub hits: u64,
    /// Buffers that got fresh memory.
    pub misses: u64,
}

impl Pool {
    /// A pool that keeps at most `max_idle_bytes` for later; 0 keeps nothing.
    pub fn new(max_idle_bytes: u64) -> Pool {
        Pool { shared: Arc::new(Shared::new(max_idle_bytes)) }
    }

    /// The pool of this process, which all connections share. It keeps at most an eighth of the [memory of
    /// this machine](machine_memory_bytes) idle, and at most 4 GiB; call [`trim`](Pool::trim) to give it
    /// back.
    pub fn global() -> &'static Pool {
        static GLOBAL: LazyLock<Pool> =
            LazyLock::new(|| Pool::new((machine_memory_bytes() / IDLE_DIVISOR).min(MAX_GLOBAL_IDLE_BYTES)));
        &GLOBAL
    }

    /// A writable buffer of `bytes` bytes with one owner, which starts at a multiple of 64.
    ///
    /// Its content is initialized but unspecified: it may be what an earlier message of this process left
    /// there, so fill it before handing it on.
    ///
    /// # Errors
    /// [`MemoryError`] when the system refuses, even after this pool has given back all that is idle.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer, MemoryError> {
        Ok(match self.shared.take(bytes)? {
            Taken::Unpooled => Buffer::zeroed(bytes),
            Taken::Fresh(memory) | Taken::Used(memory) => self.buffer(memory, bytes),
        })
    }

    /// As [`alloc`](Pool::alloc), where much may never be written, and memory is short: what is not written costs none. From
    /// 2 MiB on it is fresh memory with small pages, which is slower, and which is not kept for others.
    ///
    /// # Errors
    /// As for `alloc`.
    pub fn alloc_sparse(&self, bytes: usize) -> Result<Buffer, MemoryError> {
        if bytes < HUGE_PAGE_BYTES {
            return self.alloc(bytes);
        }
        let memory = self.shared.fresh(|| Memory::sparse(bytes)).ok_or(MemoryError { bytes })?;
        self.shared.misses.fetch_add(1, Relaxed);
        self.shared.in_use_bytes.fetch_add(size(&memory), Relaxed);
        Ok(self.buffer(memory, bytes))
    }

    /// As [`alloc`](Pool::alloc), with all bytes zero.
    ///
    /// # Errors
    /// As for `alloc`.
    pub fn alloc_zeroed(&self, bytes: usize) -> Result<Buffer, MemoryError> {
        Ok(match self.shared.take(bytes)? {
            Taken::Unpooled => Buffer::zeroed(bytes),
            Taken::Fresh(memory) => self.buffer(memory, bytes),
            Taken::Used(mut memory) => {
                memory.as_mut_slice()[..bytes].fill(0);
                self.buffer(memory, bytes)
            }
        })
    }

    /// An array with one owner, to be filled. Its content is what was there before, save that bools are false.
    ///
    /// # Errors
    /// As for [`alloc`](Pool::alloc); also for a shape whose size overflows.
    pub fn alloc_array<T: Element>(&self, shape: impl Into<Shape>) -> Result<Array, MemoryError> {
        let shape = shape.into();
        let bytes = T::DTYPE.array_bytes(&shape).ok_or(MemoryError { bytes: usize::MAX })?;
        // Bytes that are neither 0 nor 1 are no bools.
        let buffer = if T::DTYPE == DType::Bool { self.alloc_zeroed(bytes)? } else { self.alloc(bytes)? };
        Ok(Array::from_buffer(T::DTYPE, shape, buffer).expect("the buffer has the bytes of the shape"))
    }

    /// Gives all idle memory back to the system, and says how many bytes that were.
    pub fn trim(&self) -> u64 {
        self.shared.trim()
    }

    /// Numbers of this moment; with other threads at work they need not fit each other exactly.
    pub fn stats(&self) -> PoolStats {
        let shared = &*self.shared;
        PoolStats {
            in_use_bytes: shared.in_use_bytes.load(Relaxed),
            idle_bytes: shared.idle_bytes.load(Relaxed),
            max_idle_bytes: shared.max_idle_bytes,
            hits: shared.hits.load(Relaxed),
            misses: shared.misses.load(Relaxed),
        }
    }

    fn buffer(&self, memory: Memory, bytes: usize) -> Buffer {
        Buffer::from_owner_mut(Block { memory: Some(memory), bytes, shared: Arc::clone(&self.shared) })
    }
}

impl Debug for Pool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.stats()).finish()
    }
}

/// What stands behind a buffer from the pool.
struct Block {
    /// `None` only while it is dropped.
    memory: Option<Memory>,
    /// At most the memory's size.
    bytes: usize,
    shared: Arc<Shared>,
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        let memory = self.memory.as_mut().expect("it is there until the block is dropped");
        &mut memory.as_mut_slice()[..self.bytes]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.shared.give_back(memory);
        }
    }
}

enum Taken {
    /// Too small for the pool.
    Unpooled,
    /// All zero.
    Fresh(Memory),
    /// With what its last user left.
    Used(Memory),
}

/// The counters are `Relaxed`: they order nothing, memory changes hands under the locks of the shelves.
struct Shared {
    /// One for each class.
    shelves: Box<[Shelf]>,
    max_idle_bytes: u64,
    /// Invariant: at most `max_idle_bytes`, and at least what is on the shelves: added before memory is put
    /// there, taken off after it left.
    idle_bytes: AtomicU64,
    in_use_bytes: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Counts what was ever put on a shelf, to tell what has been there longest.
    clock: AtomicU64,
}

/// The idle memory of one size class.
struct Shelf {
    /// In the order in which it came: the newest, which is warm in the caches, is used first.
    idle: Mutex<VecDeque<Idle>>,
    /// When the first of `idle` came, [`NEVER`] if there is none. Written under the lock, and read without it
    /// to find the shelf to evict from: an old value costs another search.
    oldest: AtomicU64,
}

const NEVER: u64 = u64::MAX;

struct Idle {
    memory: Memory,
    /// The time of `Shared::clock`; ascending on a shelf.
    since: u64,
}

impl Shared {
    fn new(max_idle_bytes: u64) -> Shared {
        Shared {
            shelves: (0..SizeClass::COUNT).map(|_| Shelf::new()).collect(),
            max_idle_bytes,
            idle_bytes: AtomicU64::new(0),
            in_use_bytes: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            clock: AtomicU64::new(0),
        }
    }

    fn take(&self, bytes: usize) -> Result<Taken, MemoryError> {
        if bytes <= MAX_UNPOOLED_BYTES {
            return Ok(Taken::Unpooled);
        }
        let class = SizeClass::of(bytes).ok_or(MemoryError { bytes })?;
        let taken = match self.shelves[class.index].take_newest() {
            Some(memory) => {
                self.idle_bytes.fetch_sub(size(&memory), Relaxed);
                self.hits.fetch_add(1, Relaxed);
                Taken::Used(memory)
            }
            None => {
                let memory = self.fresh(|| Memory::zeroed(class.bytes)).ok_or(MemoryError { bytes })?;
                self.misses.fetch_add(1, Relaxed);
                Taken::Fresh(memory)
            }
        };
        self.in_use_bytes.fetch_add(class.bytes as u64, Relaxed);
        Ok(taken)
    }

    /// Memory from the system; if it has none, once more without what is idle here.
    fn fresh(&self, map: impl Fn() -> Option<Memory>) -> Option<Memory> {
        map().or_else(|| {
            self.trim();
            map()
        })
    }

    fn give_back(&self, memory: Memory) {
        let bytes = size(&memory);
        self.in_use_bytes.fetch_sub(bytes, Relaxed);
        if matches!(memory, Memory::Sparse(_)) || !self.make_room(bytes) {
            return;
        }
        let class = SizeClass::of(memory.bytes()).expect("memory has the size of a class");
        self.shelves[class.index].put(memory, &self.clock);
    }

    /// Counts `bytes` as idle, for which what has been idle longest goes; false if they can never be.
    fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.max_idle_bytes {
            return false;
        }
        let fits = |idle: u64| idle.checked_add(bytes).filter(|&sum| sum <= self.max_idle_bytes);
        while self.idle_bytes.fetch_update(Relaxed, Relaxed, fits).is_err() {
            // Nothing to evict: other threads are about to shelve what they have counted. Theirs stays, ours
            // goes.
            if self.evict().is_none() {
                return false;
            }
        }
        true
    }

    /// Gives back what has been idle longest, and says how many bytes it had.
    fn evict(&self) -> Option<u64> {
        loop {
            let shelf = self.shelves.iter().min_by_key(|shelf| shelf.oldest.load(Relaxed))?;
            let since = shelf.oldest.load(Relaxed);
            if since == NEVER {
                return None;
            }
            // Another thread may have taken it meanwhile, which is progress too.
            if let Some(memory) = shelf.take_oldest(since) {
                let bytes = size(&memory);
                self.idle_bytes.fetch_sub(bytes, Relaxed);
                return Some(bytes);
            }
        }
    }

    fn trim(&self) -> u64 {
        let mut freed = 0;
        for shelf in &self.shelves {
            let idle = shelf.take_all();
            let bytes = idle.iter().map(|idle| size(&idle.memory)).sum();
            self.idle_bytes.fetch_sub(bytes, Relaxed);
            freed += bytes;
        }
        freed
    }
}

impl Shelf {
    fn new() -> Shelf {
        Shelf { idle: Mutex::default(), oldest: AtomicU64::new(NEVER) }
    }

    fn put(&self, memory: Memory, clock: &AtomicU64) {
        self.change(|idle| idle.push_back(Idle { memory, since: clock.fetch_add(1, Relaxed) }));
    }

    fn take_newest(&self) -> Option<Memory> {
        // Most shelves are empty most of the time; a stale answer costs a mapping that was not needed, or a
        // lock.
        if self.oldest.load(Relaxed) == NEVER {
            return None;
        }
        Some(self.change(VecDeque::pop_back)?.memory)
    }

    /// The oldest, if it is still the one that came at `since`.
    fn take_oldest(&self, since: u64) -> Option<Memory> {
        let oldest = self.change(|idle| {
            let is_same = idle.front().is_some_and(|oldest| oldest.since == since);
            if is_same { idle.pop_front() } else { None }
        })?;
        Some(oldest.memory)
    }

    fn take_all(&self) -> VecDeque<Idle> {
        self.change(std::mem::take)
    }

    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<Idle>) -> T) -> T {
        let mut idle = self.idle.lock();
        let result = change(&mut idle);
        self.oldest.store(idle.front().map_or(NEVER, |oldest| oldest.since), Relaxed);
        result
    }
}

fn size(memory: &Memory) -> u64 {
    memory.bytes() as u64
}

#[cfg(test)]
mod tests;
