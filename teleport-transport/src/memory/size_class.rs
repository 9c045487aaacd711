//! Size classes: each power of two, and three steps between it and the next. At most a quarter of a block is
//! wasted, and the classes are few enough that memory is reused.

/// Up to this size, the system's allocator is as fast as a pool, and its memory is as warm.
pub(super) const MAX_UNPOOLED_BYTES: usize = 1 << MIN_LOG;
/// A process on a 64-bit machine has 2^47 bytes of address space.
const MAX_CLASS_BYTES: usize = 1 << MAX_LOG;
const MIN_LOG: u32 = 12;
const MAX_LOG: u32 = 47;
const STEPS: usize = 4;

/// A size of the blocks in the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SizeClass {
    /// Below [`SizeClass::COUNT`].
    pub(super) index: usize,
    pub(super) bytes: usize,
}

impl SizeClass {
    pub(super) const COUNT: usize = (MAX_LOG - MIN_LOG) as usize * STEPS;

    /// Returns the smallest class that holds `bytes`, which must exceed [`MAX_UNPOOLED_BYTES`]. Returns
    /// `None` if the address space has no room for them.
    pub(super) fn of(bytes: usize) -> Option<SizeClass> {
        debug_assert!(bytes > MAX_UNPOOLED_BYTES);
        if bytes > MAX_CLASS_BYTES {
            return None;
        }
        let log = (bytes - 1).ilog2();
        let power = 1_usize << log;
        let step_bytes = power / STEPS;
        let steps = (bytes - power).div_ceil(step_bytes);
        let index = (log - MIN_LOG) as usize * STEPS + steps - 1;
        Some(SizeClass { index, bytes: power + steps * step_bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn common_sizes_waste_nothing() {
        for bytes in [8 << 10, 64 << 10, 1 << 20, 3 << 20, 256 << 20, 5 << 30, MAX_CLASS_BYTES] {
            assert_eq!(SizeClass::of(bytes).unwrap().bytes, bytes);
        }
    }

    #[test]
    fn the_ends_are_in_range() {
        assert_eq!(SizeClass::of(MAX_UNPOOLED_BYTES + 1).unwrap(), SizeClass { index: 0, bytes: 5 << 10 });
        assert_eq!(SizeClass::of(MAX_CLASS_BYTES).unwrap().index, SizeClass::COUNT - 1);
        assert_eq!(SizeClass::of(MAX_CLASS_BYTES + 1), None);
        assert_eq!(SizeClass::of(usize::MAX), None);
    }

    proptest! {
        #[test]
        fn a_class_holds_its_sizes_and_wastes_little(log in MIN_LOG..MAX_LOG, part in 0.0..1.0) {
            let bytes = (1_usize << log) + 1 + (part * ((1_usize << log) - 1) as f64) as usize;
            let class = SizeClass::of(bytes).unwrap();
            prop_assert!(bytes <= class.bytes);
            prop_assert!((class.bytes - bytes) * 4 < bytes);
            // A class contains its own size, and the next size belongs to the next class.
            prop_assert_eq!(SizeClass::of(class.bytes), Some(class));
            if let Some(next) = SizeClass::of(class.bytes + 1) {
                prop_assert_eq!(next.index, class.index + 1);
            }
        }
    }
}
