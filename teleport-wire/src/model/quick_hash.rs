//! A fast hash for maps whose keys come from peers: ids, and names of a few bytes.
//!
//! The hasher of the standard library costs more than the rest of a lookup. This one multiplies once for each
//! eight bytes. State and factor are random numbers of this process that no peer knows, so a peer cannot
//! choose keys that collide.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// A hasher with the secrets of this process, which also creates its copies.
#[derive(Clone, Copy, Debug)]
pub struct QuickHash {
    state: u64,
    factor: u64,
}

impl Default for QuickHash {
    fn default() -> QuickHash {
        static SECRETS: LazyLock<QuickHash> = LazyLock::new(|| {
            let random = RandomState::new();
            QuickHash { state: random.hash_one(0), factor: random.hash_one(1) | 1 }
        });
        *SECRETS
    }
}

impl BuildHasher for QuickHash {
    type Hasher = QuickHash;

    fn build_hasher(&self) -> QuickHash {
        *self
    }
}

impl Hasher for QuickHash {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.state ^ number) * u128::from(self.factor);
        self.state = (product as u64) ^ (product >> 64) as u64;
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_le_bytes(last) ^ (rest.len() as u64) << 56);
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        // Without this, keys that differ in few bits, or by a power of two, share the bits that maps use.
        let mixed = (self.state ^ (self.state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Counts the different values of the bits that maps use: the highest seven, and the lowest.
    fn spread<T: std::hash::Hash>(keys: impl Iterator<Item = T>) -> (usize, usize) {
        let hashes: Vec<u64> = keys.map(|key| QuickHash::default().hash_one(key)).collect();
        let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        let low: HashSet<u64> = hashes.iter().map(|hash| hash & 0xfff).collect();
        (high.len(), low.len())
    }

    #[test]
    fn similar_keys_are_spread() {
        for (high, low) in [
            spread(0..4096u64),
            spread((0..4096u64).map(|id| id << 32)),
            spread((0..4096u64).map(|id| id * 4096)),
            spread((0..4096).map(|index| format!("layer {index}"))),
            spread((0..4096).map(|index| format!("a long name that differs in its end {index}"))),
        ] {
            // 4,096 random numbers occupy 2,589 of 4,096 places.
            assert!(high == 128 && low > 1500, "{high} {low}");
        }
    }

    #[test]
    fn length_changes_the_hash() {
        let hash = |bytes: &[u8]| {
            let mut hasher = QuickHash::default().build_hasher();
            hasher.write(bytes);
            hasher.finish()
        };
        let hashes: HashSet<u64> = (0..64).map(|length| hash(&[0; 64][..length])).collect();
        assert_eq!(hashes.len(), 64);
    }
}
