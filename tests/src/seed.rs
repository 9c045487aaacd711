//! Random numbers that can be drawn again: from the seed in `TELEPORT_TEST_SEED`, else from a fixed one.

/// A stream of random bytes (SplitMix64). A test that fails prints the seed, since making one prints it.
#[derive(Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts from the seed in `TELEPORT_TEST_SEED`, or 0, and prints it; the test harness shows that on failure.
    pub fn from_environment() -> Random {
        let seed = std::env::var("TELEPORT_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
        println!("TELEPORT_TEST_SEED={seed}");
        Random::new(seed)
    }

    /// Starts from this seed.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next number, any.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next_u64().to_le_bytes()).take(len).collect()
    }
}
