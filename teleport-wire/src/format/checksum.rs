//! CRC32C of headers, metadata and, on request, payload.
//!
//! The crate `crc32c` is made for long inputs. For the 28 bytes of a header it takes several times as long as
//! the processor's own instruction. So short inputs are computed here, if the processor has the instruction.

/// Up to this length, a single chain of the instruction is faster than several in parallel.
const MAX_SHORT_BYTES: usize = 256;

/// Continues a CRC32C over more bytes. The first call starts with 0.
#[inline]
pub fn checksum(crc: u32, bytes: &[u8]) -> u32 {
    if bytes.len() <= MAX_SHORT_BYTES && processor::has_instruction() {
        // SAFETY: the processor has the instruction, as was just checked.
        return unsafe { processor::short(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

/// Returns the CRC32C of 28 bytes: three words and a half, little-endian.
#[inline]
pub(crate) fn checksum_of_words(first: u64, second: u64, third: u64, half: u32) -> u32 {
    if processor::has_instruction() {
        // SAFETY: the processor has the instruction, as was just checked.
        return unsafe { processor::words(first, second, third, half) };
    }
    words(first, second, third, half)
}

/// As [`checksum_of_words`], without the processor's instruction.
#[cold]
fn words(first: u64, second: u64, third: u64, half: u32) -> u32 {
    let crc = crc32c::crc32c([first, second, third].map(u64::to_le_bytes).as_flattened());
    crc32c::crc32c_append(crc, &half.to_le_bytes())
}

/// Defines the functions of a processor with instructions for 8, 4 and 1 bytes.
macro_rules! processor {
    ($feature:tt, $detected:ident, $($path:ident)::+, $eight:ident, $four:ident, $one:ident, $state:ty) => {
        mod processor {
            use std::arch::$($path)::+::{$eight, $four, $one};

            #[inline]
            pub(super) fn has_instruction() -> bool {
                !cfg!(miri) && std::arch::$detected!($feature)
            }

            #[target_feature(enable = $feature)]
            pub(super) fn short(crc: u32, bytes: &[u8]) -> u32 {
                let (words, rest) = bytes.as_chunks::<8>();
                let state = words
                    .iter()
                    .fold(<$state>::from(!crc), |state, word| $eight(state, u64::from_le_bytes(*word)));
                let (half, rest) = rest.as_chunks::<4>();
                let state =
                    half.iter().fold(state as u32, |state, half| $four(state, u32::from_le_bytes(*half)));
                !rest.iter().fold(state, |state, byte| $one(state, *byte))
            }

            #[target_feature(enable = $feature)]
            pub(super) fn words(first: u64, second: u64, third: u64, half: u32) -> u32 {
                let state = $eight($eight($eight(<$state>::from(u32::MAX), first), second), third);
                !$four(state as u32, half)
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
processor! { "sse4.2", is_x86_feature_detected, x86_64, _mm_crc32_u64, _mm_crc32_u32, _mm_crc32_u8, u64 }

#[cfg(target_arch = "aarch64")]
processor! { "crc", is_aarch64_feature_detected, aarch64, __crc32cd, __crc32cw, __crc32cb, u32 }

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod processor {
    pub(super) const fn has_instruction() -> bool {
        false
    }

    pub(super) unsafe fn short(crc: u32, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc, bytes)
    }

    pub(super) unsafe fn words(first: u64, second: u64, third: u64, half: u32) -> u32 {
        super::words(first, second, third, half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_agree() {
        let bytes: Vec<u8> = (0..600u32).map(|index| (index * 37 + index / 7) as u8).collect();
        // Miri takes minutes for all lengths. These have every remainder of 4 and 8.
        for length in (0..bytes.len()).step_by(if cfg!(miri) { 37 } else { 1 }) {
            for crc in [0, 1, 0xdead_beef] {
                assert_eq!(
                    checksum(crc, &bytes[..length]),
                    crc32c::crc32c_append(crc, &bytes[..length]),
                    "{length}"
                );
            }
        }
        assert_eq!(checksum(0, b"123456789"), 0xe306_9283, "the check value of the standard");
    }

    #[test]
    fn words_are_their_bytes() {
        let (first, second, third) = (0x0123_4567_89ab_cdef, u64::MAX, 1);
        let bytes =
            [[first, second, third].map(u64::to_le_bytes).as_flattened(), &77u32.to_le_bytes()].concat();
        assert_eq!(checksum_of_words(first, second, third, 77), crc32c::crc32c(&bytes));
        assert_eq!(words(first, second, third, 77), crc32c::crc32c(&bytes));
    }
}
