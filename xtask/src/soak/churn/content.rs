//! The payload of a churn: arrays that follow from a seed, so that the receiver can check every byte.
//!
//! An array repeats a block of random words; the first word of each block holds its position. This reveals
//! bytes that are lost, duplicated, moved, or left over from another message, at the speed of memory. The
//! memory comes from the pool, which can be trimmed: memory that the system's allocator keeps would hide
//! growth.

use teleport::{Array, BoxError, Pool};

const BLOCK_WORDS: usize = 512;

/// A random number generator; the same seed gives the same numbers.
#[derive(Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Draw {
        // A zero state would stay zero, and small seeds would give similar first numbers.
        Draw((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd134_2543_de82_ef95) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number from `from` to `to`, without `to`.
    pub(super) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + (self.next() >> 11) % (to - from)
    }
}

/// Makes an array of `words` words that follow from `seed`.
pub(super) fn make(seed: u64, words: usize) -> Result<Array, BoxError> {
    let mut block = block(seed);
    let mut content = Pool::global().alloc_array::<u64>([words])?;
    for (place, chunk) in content.as_mut_slice::<u64>()?.chunks_mut(BLOCK_WORDS).enumerate() {
        block[0] = seed ^ place as u64;
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
    Ok(content)
}

/// Checks that `content` is what [`make`] returns.
pub(super) fn check(content: &Array, seed: u64, words: usize) -> Result<(), String> {
    let content = content.as_slice::<u64>().map_err(|error| error.to_string())?;
    if content.len() != words {
        return Err(format!("received {} words instead of {words}", content.len()));
    }
    let mut block = block(seed);
    for (place, chunk) in content.chunks(BLOCK_WORDS).enumerate() {
        block[0] = seed ^ place as u64;
        if let Some(wrong) = (chunk != &block[..chunk.len()])
            .then(|| chunk.iter().zip(&block).position(|(came, meant)| came != meant))
            .flatten()
        {
            return Err(format!(
                "word {} of {words} is {:#x} instead of {:#x} (seed {seed})",
                place * BLOCK_WORDS + wrong,
                chunk[wrong],
                block[wrong]
            ));
        }
    }
    Ok(())
}

fn block(seed: u64) -> [u64; BLOCK_WORDS] {
    let mut draw = Draw::new(seed);
    std::array::from_fn(|_| draw.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_content_passes_the_check() {
        let good = make(7, 2000).unwrap();
        assert_eq!(check(&good, 7, 2000), Ok(()));
        assert!(check(&good, 8, 2000).is_err() && check(&good, 7, 1999).is_err());
        let mut words = good.to_vec::<u64>().unwrap();
        words[1700] ^= 1 << 40;
        assert!(check(&Array::from(words.clone()), 7, 2000).unwrap_err().starts_with("word 1700 of 2000"));
        words[1700] ^= 1 << 40;
        words.rotate_left(512);
        assert!(check(&Array::from(words), 7, 2000).unwrap_err().starts_with("word 0 of 2000"));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut draw = Draw::new(0);
        assert!((0..1000).map(|_| draw.within(3, 9)).all(|number| (3..9).contains(&number)));
        assert_ne!(Draw::new(1).next(), Draw::new(2).next());
    }
}
