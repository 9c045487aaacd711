//! What is sent in a churn: arrays that follow from a number, so that either side can tell whether every byte of what
//! it got is what was meant.
//!
//! An array is made of equal blocks of drawn words; the first word of each is the block's place. So what is lost, doubled,
//! moved, or left over from another message shows, and both making and checking run at the speed of memory. Memory comes
//! from the pool, which can give it back: what the system's allocator keeps of such sizes would hide any growth.

use teleport::{Array, BoxError, Pool};

const BLOCK_WORDS: usize = 512;

/// Numbers drawn one after the other; the same seed gives the same numbers.
#[derive(Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Draw {
        // Zero would stay zero, and small seeds would begin alike.
        Draw((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd134_2543_de82_ef95) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from `from` to `to`, without `to`.
    pub(super) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + (self.next() >> 11) % (to - from)
    }
}

/// `words` words that follow from `seed`.
pub(super) fn make(seed: u64, words: usize) -> Result<Array, BoxError> {
    let mut block = block(seed);
    let mut content = Pool::global().alloc_array::<u64>([words])?;
    for (place, chunk) in content.as_mut_slice::<u64>()?.chunks_mut(BLOCK_WORDS).enumerate() {
        block[0] = seed ^ place as u64;
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
    Ok(content)
}

/// Checks that this is what `make` makes.
pub(super) fn check(content: &Array, seed: u64, words: usize) -> Result<(), String> {
    let content = content.as_slice::<u64>().map_err(|error| error.to_string())?;
    if content.len() != words {
        return Err(format!("{} words came, and {words} were meant", content.len()));
    }
    let mut block = block(seed);
    for (place, chunk) in content.chunks(BLOCK_WORDS).enumerate() {
        block[0] = seed ^ place as u64;
        if let Some(wrong) = (chunk != &block[..chunk.len()])
            .then(|| chunk.iter().zip(&block).position(|(came, meant)| came != meant))
            .flatten()
        {
            return Err(format!(
                "word {} of {words} is {:#x}, and {:#x} was meant (seed {seed})",
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
    fn what_was_made_is_good_and_nothing_else() {
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
