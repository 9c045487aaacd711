use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::sys;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn place(buffer: &Buffer) -> usize {
    buffer.as_ptr().addr()
}

/// Compares the bytes with themselves, one further on. This is fast in unoptimized builds too.
fn is_filled(bytes: &[u8], mark: u8) -> bool {
    bytes.first().is_none_or(|&first| first == mark && bytes[1..] == bytes[..bytes.len() - 1])
}

#[track_caller]
fn check_stats(pool: &Pool, in_use: usize, idle: usize, hits: u64, misses: u64) {
    let stats = pool.stats();
    let found = (stats.in_use_bytes, stats.idle_bytes, stats.hits, stats.misses);
    assert_eq!(found, (in_use as u64, idle as u64, hits, misses));
}

#[test]
fn buffers_are_writable_and_aligned() {
    let pool = Pool::new(0);
    for bytes in [1, 63, 4 * KIB, 4 * KIB + 1, 64 * KIB, MIB - 1, MIB, 2 * MIB, 5 * MIB + 1] {
        for mut buffer in [pool.alloc(bytes).unwrap(), pool.alloc_zeroed(bytes).unwrap()] {
            assert_eq!(buffer.len(), bytes);
            // Under Miri, no mapping is aligned to a huge page.
            let is_huge = bytes >= 2 * MIB && !cfg!(miri);
            let alignment = if is_huge { 2 * MIB } else { Buffer::ALIGNMENT };
            assert!(place(&buffer).is_multiple_of(alignment));
            buffer.get_mut().unwrap().fill(7);
            assert!(is_filled(&buffer, 7));
        }
    }
    assert!(pool.alloc(0).unwrap().is_empty());
    assert!(pool.alloc_zeroed(0).unwrap().is_empty());
}

#[test]
fn memory_is_used_again() {
    for bytes in [5 * KIB, 64 * KIB, MIB, 256 * MIB] {
        let pool = Pool::new(bytes as u64);
        let first = pool.alloc(bytes).unwrap();
        let first_place = place(&first);
        check_stats(&pool, bytes, 0, 0, 1);
        let view = first.slice(1..);
        drop(first);
        check_stats(&pool, bytes, 0, 0, 1); // still in use by its view
        drop(view);
        check_stats(&pool, 0, bytes, 0, 1);
        let second = pool.alloc(bytes - 100).unwrap();
        assert_eq!(place(&second), first_place);
        assert_eq!(second.len(), bytes - 100);
        check_stats(&pool, bytes, 0, 1, 1);
    }
}

#[test]
fn sparse_memory_goes_back_to_the_system() {
    let pool = Pool::new(64 << 20);
    let mut buffer = pool.alloc_sparse(5 * MIB + 1).unwrap();
    assert_eq!(buffer.len(), 5 * MIB + 1);
    assert!(is_filled(&buffer, 0));
    buffer.get_mut().unwrap().fill(7);
    assert!(is_filled(&buffer, 7));
    check_stats(&pool, 5 * MIB + 64 * KIB, 0, 0, 1);
    drop(buffer);
    check_stats(&pool, 0, 0, 0, 1);
    // If no page can be huge, this is memory like any other.
    drop(pool.alloc_sparse(MIB).unwrap());
    check_stats(&pool, 0, MIB, 0, 2);
    assert!(pool.alloc_sparse(usize::MAX).is_err());
}

#[test]
fn used_memory_is_zeroed_where_asked_for() {
    let pool = Pool::new(1 << 20);
    let mut buffer = pool.alloc(100_000).unwrap();
    buffer.get_mut().unwrap().fill(7);
    drop(buffer);
    let buffer = pool.alloc_zeroed(100_000).unwrap();
    assert!(is_filled(&buffer, 0));
    assert_eq!(pool.stats().hits, 1);
}

#[test]
fn small_buffers_are_not_counted() {
    let pool = Pool::new(1 << 20);
    drop(pool.alloc(4 * KIB).unwrap());
    check_stats(&pool, 0, 0, 0, 0);
}

#[test]
fn the_longest_idle_memory_is_freed_first() {
    let pool = Pool::new(8 * MIB as u64);
    let sizes = [2 * MIB, 64 * KIB, 4 * MIB, MIB];
    let buffers = sizes.map(|bytes| pool.alloc(bytes).unwrap());
    let places = buffers.each_ref().map(place);
    buffers.into_iter().for_each(drop); // 7 MiB and 64 KiB
    let third = pool.alloc(3 * MIB).unwrap();
    drop(third); // 10 MiB and 64 KiB: both the 2 MiB and the 64 KiB must go
    assert_eq!(pool.stats().idle_bytes, 8 * MIB as u64);
    for (index, bytes) in sizes.iter().enumerate().skip(2) {
        assert_eq!(place(&pool.alloc(*bytes).unwrap()), places[index]);
    }
}

#[test]
fn the_bound_holds_at_its_edges() {
    let pool = Pool::new(MIB as u64);
    drop(pool.alloc(MIB + 1).unwrap()); // can never be idle, and evicts nothing
    check_stats(&pool, 0, 0, 0, 1);
    drop(pool.alloc(MIB).unwrap());
    check_stats(&pool, 0, MIB, 0, 2);
    drop(pool.alloc(2 * MIB).unwrap());
    check_stats(&pool, 0, MIB, 0, 3);
    drop(pool.alloc(5 * KIB).unwrap()); // has room only in the place of the other
    check_stats(&pool, 0, 5 * KIB, 0, 4);
    let nothing = Pool::new(0);
    drop(nothing.alloc(5 * KIB).unwrap());
    check_stats(&nothing, 0, 0, 0, 1);
}

#[test]
fn trimming_gives_all_back() {
    let pool = Pool::new(64 * MIB as u64);
    let kept = pool.alloc(MIB).unwrap();
    drop([pool.alloc(MIB).unwrap(), pool.alloc(10 * KIB).unwrap()]);
    assert_eq!(pool.trim(), (MIB + 10 * KIB) as u64);
    assert_eq!(pool.trim(), 0);
    check_stats(&pool, MIB, 0, 0, 3);
    drop(kept);
    check_stats(&pool, 0, MIB, 0, 3);
}

#[test]
fn a_buffer_may_outlive_its_pool() {
    let pool = Pool::new(64 * MIB as u64);
    let mut buffer = pool.alloc(MIB).unwrap();
    drop(pool);
    buffer.get_mut().unwrap().fill(7);
    assert_eq!(buffer[MIB - 1], 7);
}

#[test]
fn the_process_has_one_pool() {
    assert!(Arc::ptr_eq(&Pool::global().inner, &Pool::global().clone().inner));
    let stats = Pool::global().stats();
    assert!((1..=MAX_GLOBAL_IDLE_BYTES).contains(&stats.max_idle_bytes));
    assert!(format!("{:?}", Pool::global()).contains("max_idle_bytes"));
}

#[test]
fn impossible_sizes_are_errors() {
    let pool = Pool::new(0);
    for bytes in [(1 << 47) + 1, usize::MAX] {
        assert_eq!(pool.alloc(bytes).unwrap_err(), MemoryError { bytes });
        let error = pool.alloc_zeroed(bytes).unwrap_err();
        assert!(error.to_string().contains(&bytes.to_string()), "{error}");
    }
    check_stats(&pool, 0, 0, 0, 0);
}

#[test]
fn idle_memory_makes_way_before_an_allocation_fails() {
    if sys::tests::in_child("memory::pool::tests::idle_memory_makes_way_before_an_allocation_fails") {
        let pool = Pool::new(u64::MAX);
        drop(pool.alloc(256 * MIB).unwrap());
        sys::tests::limit_new_memory(64 * MIB as u64);
        let second = pool.alloc(192 * MIB).unwrap();
        check_stats(&pool, 192 * MIB, 0, 0, 2);
        assert_eq!(pool.alloc(512 * MIB).unwrap_err(), MemoryError { bytes: 512 * MIB });
        drop(second);
        check_stats(&pool, 0, 192 * MIB, 0, 2);
    }
}

#[test]
fn threads_share_a_pool() {
    const MAX_IDLE: u64 = 2 * MIB as u64;
    let pool = Pool::new(MAX_IDLE);
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let pool = &pool;
            scope.spawn(move || {
                let mut held = std::collections::VecDeque::new();
                for round in 0..1_000_usize {
                    let bytes = (5 << (round * 7 % 8)) * KIB + round;
                    let mut buffer = pool.alloc(bytes).unwrap();
                    let mark = thread * 64 + (round % 64) as u8;
                    buffer.get_mut().unwrap().fill(mark);
                    held.push_back((buffer, mark));
                    if held.len() > 3 {
                        let (buffer, mark) = held.pop_front().unwrap();
                        assert!(is_filled(&buffer, mark));
                    }
                    assert!(pool.stats().idle_bytes <= MAX_IDLE);
                }
            });
        }
    });
    let stats = pool.stats();
    assert_eq!((stats.in_use_bytes, stats.hits + stats.misses), (0, 4_000));
    assert_eq!(pool.trim(), stats.idle_bytes);
    assert_eq!(pool.stats().idle_bytes, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Alloc { bytes: usize, zeroed: bool },
    Drop { index: usize },
    Trim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![0..10 * KIB, 60 * KIB..70 * KIB, MIB - 10..MIB + 10, 2 * MIB - 10..2 * MIB + 10];
    let alloc = (bytes, any::<bool>()).prop_map(|(bytes, zeroed)| Step::Alloc { bytes, zeroed });
    vec(
        prop_oneof![
            10 => alloc,
            9 => any::<usize>().prop_map(|index| Step::Drop { index }),
            1 => Just(Step::Trim),
        ],
        0..60,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn living_buffers_never_overlap_and_idle_memory_is_bounded(
        steps in steps(),
        max_idle_bytes in 0..6 * MIB as u64,
    ) {
        let pool = Pool::new(max_idle_bytes);
        let mut living: Vec<(Buffer, u8)> = Vec::new();
        for (step, mark) in steps.into_iter().zip((1..=255).cycle()) {
            match step {
                Step::Alloc { bytes, zeroed } => {
                    let buffer = if zeroed { pool.alloc_zeroed(bytes) } else { pool.alloc(bytes) };
                    let mut buffer = buffer.unwrap();
                    prop_assert_eq!(buffer.len(), bytes);
                    prop_assert!(place(&buffer).is_multiple_of(Buffer::ALIGNMENT));
                    prop_assert!(!zeroed || is_filled(&buffer, 0));
                    buffer.get_mut().unwrap().fill(mark);
                    living.push((buffer, mark));
                }
                Step::Drop { index } if !living.is_empty() => {
                    let (buffer, mark) = living.swap_remove(index % living.len());
                    prop_assert!(is_filled(&buffer, mark));
                }
                Step::Drop { .. } => {}
                Step::Trim => { pool.trim(); }
            }
            let stats = pool.stats();
            prop_assert!(stats.idle_bytes <= max_idle_bytes);
            let pooled = living.iter().map(|(buffer, _)| buffer.len()).filter(|&bytes| bytes > 4 * KIB);
            let in_use: usize = pooled.map(|bytes| SizeClass::of(bytes).unwrap().bytes).sum();
            prop_assert_eq!(stats.in_use_bytes, in_use as u64);
        }
        let mut ranges: Vec<_> =
            living.iter().filter(|(b, _)| !b.is_empty()).map(|(b, _)| (place(b), place(b) + b.len())).collect();
        ranges.sort_unstable();
        prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }
}

#[test]
fn arrays_of_bools_are_false_whatever_was_there() {
    let pool = Pool::new(64 << 20);
    let mut dirty = pool.alloc(100_000).unwrap();
    dirty.get_mut().unwrap().fill(7);
    drop(dirty);
    let array = pool.alloc_array::<bool>([10, 10_000]).unwrap();
    assert!(array.as_slice::<bool>().unwrap().iter().all(|item| !item));
    assert!(pool.alloc_array::<f64>([usize::MAX, 2]).is_err());
}
