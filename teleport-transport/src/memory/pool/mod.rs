//! A pool of warm memory: a message gets memory that an earlier one of similar size used.
//!
//! Flow: [`Pool::alloc`] -> a [`Buffer`] with one owner -> its last owner drops it, on any thread -> it is
//! idle here -> the next `alloc` of its size class takes it. When idle memory would exceed its limit, the
//! memory that has been idle longest returns to the system. Receiving into pages that exist already is two to
//! four times as fast as into fresh pages, which the kernel must find and clear.
//!
//! The pool does not limit memory that is in use; budgets do. Bounds: idle memory never exceeds
//! `max_idle_bytes`, and the memory behind a buffer is less than a quarter larger than the buffer.
//!
//! Locks: one for each size class, held to push or pop one entry. Memory is mapped, cleared and unmapped
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

/// The pool of the process keeps at most this fraction of the machine's memory idle, ...
const IDLE_DIVISOR: u64 = 8;
/// ... and at most this much, which a few large messages need.
const MAX_GLOBAL_IDLE_BYTES: u64 = 4 << 30;

/// A pool of memory for messages. Clones share it. It ends with its last clone and its last buffer.
///
/// Buffers of up to 4 KiB come from the system's allocator and are not counted. Buffers of 1 MiB or more are
/// mapped; from 2 MiB on, the system is advised to use huge pages.
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
    inner: Arc<PoolInner>,
}

/// An allocation that the system refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "the system gives no memory for {bytes} bytes; send less at once, or raise the limit of this process or container"
)]
pub struct MemoryError {
    /// The bytes that were requested.
    pub bytes: usize,
}

/// The state of a [`Pool`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PoolStats {
    /// Bytes of live buffers.
    pub in_use_bytes: u64,
    /// Bytes that are idle.
    pub idle_bytes: u64,
    /// The limit on idle bytes.
    pub max_idle_bytes: u64,
    /// Allocations that reused idle memory.
    pub hits: u64,
    /// Allocations that took fresh memory.
    pub misses: u64,
}

impl Pool {
    /// Creates a pool that keeps at most `max_idle_bytes` of idle memory; 0 keeps nothing.
    pub fn new(max_idle_bytes: u64) -> Pool {
        Pool { inner: Arc::new(PoolInner::new(max_idle_bytes)) }
    }

    /// Returns the pool of this process, which all connections share. It keeps at most an eighth of the
    /// [memory of this machine](machine_memory_bytes) idle, and at most 4 GiB. [`trim`](Pool::trim) returns
    /// that to the system.
    pub fn global() -> &'static Pool {
        static GLOBAL: LazyLock<Pool> =
            LazyLock::new(|| Pool::new((machine_memory_bytes() / IDLE_DIVISOR).min(MAX_GLOBAL_IDLE_BYTES)));
        &GLOBAL
    }

    /// Allocates a writable buffer of `bytes` bytes with one owner, aligned to 64 bytes.
    ///
    /// Its content is initialized but unspecified: it may hold bytes of an earlier message of this process.
    /// Fill it before passing it on.
    ///
    /// # Errors
    /// Returns [`MemoryError`] if the system refuses, even after this pool has returned all of its idle
    /// memory.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer, MemoryError> {
        Ok(match self.inner.take(bytes)? {
            Taken::Unpooled => Buffer::zeroed(bytes),
            Taken::Fresh(memory) | Taken::Used(memory) => self.buffer(memory, bytes),
        })
    }

    /// Allocates like [`alloc`](Pool::alloc) when memory is short and much of the buffer may never be
    /// written: unwritten pages cost no memory. From 2 MiB on, this is fresh memory with small pages. It is
    /// slower, and is not reused.
    ///
    /// # Errors
    /// Returns the same error as `alloc`.
    pub fn alloc_sparse(&self, bytes: usize) -> Result<Buffer, MemoryError> {
        if bytes < HUGE_PAGE_BYTES {
            return self.alloc(bytes);
        }
        let memory = self.inner.fresh(|| Memory::sparse(bytes)).ok_or(MemoryError { bytes })?;
        self.inner.misses.fetch_add(1, Relaxed);
        self.inner.in_use_bytes.fetch_add(size(&memory), Relaxed);
        Ok(self.buffer(memory, bytes))
    }

    /// Allocates like [`alloc`](Pool::alloc), with all bytes zero.
    ///
    /// # Errors
    /// Returns the same error as `alloc`.
    pub fn alloc_zeroed(&self, bytes: usize) -> Result<Buffer, MemoryError> {
        Ok(match self.inner.take(bytes)? {
            Taken::Unpooled => Buffer::zeroed(bytes),
            Taken::Fresh(memory) => self.buffer(memory, bytes),
            Taken::Used(mut memory) => {
                memory.as_mut_slice()[..bytes].fill(0);
                self.buffer(memory, bytes)
            }
        })
    }

    /// Allocates an array with one owner. Its content is unspecified, except that bools are false.
    ///
    /// # Errors
    /// Returns the same error as [`alloc`](Pool::alloc), also for a shape whose size overflows.
    pub fn alloc_array<T: Element>(&self, shape: impl Into<Shape>) -> Result<Array, MemoryError> {
        let shape = shape.into();
        let bytes = T::DTYPE.array_bytes(&shape).ok_or(MemoryError { bytes: usize::MAX })?;
        // A byte other than 0 and 1 is not a valid bool.
        let buffer = if T::DTYPE == DType::Bool { self.alloc_zeroed(bytes)? } else { self.alloc(bytes)? };
        Ok(Array::from_buffer(T::DTYPE, shape, buffer).expect("the buffer has the bytes of the shape"))
    }

    /// Returns all idle memory to the system. Returns how many bytes that was.
    pub fn trim(&self) -> u64 {
        self.inner.trim()
    }

    /// Returns the current numbers. While other threads allocate, they may not match each other exactly.
    pub fn stats(&self) -> PoolStats {
        let inner = &*self.inner;
        PoolStats {
            in_use_bytes: inner.in_use_bytes.load(Relaxed),
            idle_bytes: inner.idle_bytes.load(Relaxed),
            max_idle_bytes: inner.max_idle_bytes,
            hits: inner.hits.load(Relaxed),
            misses: inner.misses.load(Relaxed),
        }
    }

    fn buffer(&self, memory: Memory, bytes: usize) -> Buffer {
        Buffer::from_owner_mut(Block { memory: Some(memory), bytes, inner: Arc::clone(&self.inner) })
    }
}

impl Debug for Pool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.stats()).finish()
    }
}

/// The owner of the memory behind a buffer of the pool.
struct Block {
    /// `None` only during drop.
    memory: Option<Memory>,
    /// At most the memory's size.
    bytes: usize,
    inner: Arc<PoolInner>,
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        let memory = self.memory.as_mut().expect("the memory stays until the block is dropped");
        &mut memory.as_mut_slice()[..self.bytes]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.inner.give_back(memory);
        }
    }
}

enum Taken {
    /// Too small for the pool.
    Unpooled,
    /// All zero.
    Fresh(Memory),
    /// Holds the bytes of its last user.
    Used(Memory),
}

/// The counters are `Relaxed`: they order nothing. The locks of the shelves order the hand-over of memory.
struct PoolInner {
    /// One for each size class.
    shelves: Box<[Shelf]>,
    max_idle_bytes: u64,
    /// Invariant: at most `max_idle_bytes`, and at least the bytes on the shelves: increased before memory is
    /// put there, and decreased after it is taken.
    idle_bytes: AtomicU64,
    in_use_bytes: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Counts the blocks that were put on a shelf, to find the one that has been idle longest.
    clock: AtomicU64,
}

/// The idle memory of one size class.
struct Shelf {
    /// Ordered by age. The newest is warm in the caches and is used first.
    idle: Mutex<VecDeque<Idle>>,
    /// The time of the first of `idle`, or [`NEVER`] without one. Written under the lock, and read without it
    /// to find the shelf to evict from: a stale value costs another search.
    oldest: AtomicU64,
}

const NEVER: u64 = u64::MAX;

struct Idle {
    memory: Memory,
    /// A time of `PoolInner::clock`, ascending on a shelf.
    since: u64,
}

impl PoolInner {
    fn new(max_idle_bytes: u64) -> PoolInner {
        PoolInner {
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

    /// Takes memory from the system. If it refuses, returns all idle memory and tries once more.
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
        let class = SizeClass::of(memory.bytes()).expect("pooled memory has the size of a class");
        self.shelves[class.index].put(memory, &self.clock);
    }

    /// Counts `bytes` as idle, and evicts the oldest idle memory for them. Returns false if they do not fit.
    fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.max_idle_bytes {
            return false;
        }
        let fits = |idle: u64| idle.checked_add(bytes).filter(|&sum| sum <= self.max_idle_bytes);
        while self.idle_bytes.fetch_update(Relaxed, Relaxed, fits).is_err() {
            // Nothing to evict: other threads have counted memory that they have not put on a shelf yet.
            if self.evict().is_none() {
                return false;
            }
        }
        true
    }

    /// Returns the memory that has been idle longest to the system. Returns its size.
    fn evict(&self) -> Option<u64> {
        loop {
            let shelf = self.shelves.iter().min_by_key(|shelf| shelf.oldest.load(Relaxed))?;
            let since = shelf.oldest.load(Relaxed);
            if since == NEVER {
                return None;
            }
            // Another thread may have taken it meanwhile, which is also progress.
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
        // Most shelves are empty most of the time. A stale value costs an unneeded mapping, or a lock.
        if self.oldest.load(Relaxed) == NEVER {
            return None;
        }
        Some(self.change(VecDeque::pop_back)?.memory)
    }

    /// Takes the oldest block, if it is still the one of time `since`.
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
