//! Reproducible random numbers, from the seed in `TELEPORT_TEST_SEED` or else from a fixed one.

/// A random number generator (SplitMix64).
#[derive(Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts from the seed in `TELEPORT_TEST_SEED`, or 0, and prints it. The test harness shows the output
    /// on failure.
    pub fn from_environment() -> Random {
        let seed = std::env::var("TELEPORT_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
        println!("TELEPORT_TEST_SEED={seed}");
        Random::new(seed)
    }

    /// Starts from `seed`.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// Returns the next number, uniform over all `u64`.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// Returns `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next_u64().to_le_bytes()).take(len).collect()
    }
}
