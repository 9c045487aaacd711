//! Maps whose keys are numbers of calls and connections.
//!
//! The hasher of the standard library costs more than the look-up. This one multiplies once, with a number that no peer knows:
//! ids come from peers, who must not be able to choose such as meet in one place. Each map holds as many as its owner says.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// A map by id.
pub type IdMap<V> = HashMap<u64, V, IdHash>;

/// Hashes ids and short names with a secret of this process.
#[derive(Clone, Copy, Debug)]
pub struct IdHash {
    secret: u64,
    factor: u64,
}

impl Default for IdHash {
    fn default() -> IdHash {
        static SECRETS: LazyLock<IdHash> = LazyLock::new(|| {
            let random = RandomState::new();
            IdHash { secret: random.hash_one(0), factor: random.hash_one(1) | 1 }
        });
        *SECRETS
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { state: self.secret, factor: self.factor }
    }
}

/// One hash of [`IdHash`].
#[derive(Clone, Copy, Debug)]
pub struct IdHasher {
    state: u64,
    factor: u64,
}

impl Hasher for IdHasher {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        // High and low half together, since maps use bits of both ends.
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
        self.state
    }
}
