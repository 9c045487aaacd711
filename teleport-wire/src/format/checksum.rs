//! CRC32C of headers, metadata and, on request, payload.
//!
//! The crate `crc32c` is made for long inputs. For the 28 bytes of a header it takes several times as long as
//! the processor's own instruction. So short inputs are computed here, if the processor has the instruction.

/// Up to this length, a single chain of the instruction is faster than several in parallel.
const MAX_SHORT_BYTES: usize = 256;

/// Continues a CRC32C over more bytes. The first call starts with 0.
#[inline]
pub fn checksum(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= MAX_SHORT_BYTES && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instruction, as was just checked.
        return unsafe { short(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short(crc: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let state =
        words.iter().fold(u64::from(!crc), |state, word| _mm_crc32_u64(state, u64::from_le_bytes(*word)));
    let (half, rest) = rest.as_chunks::<4>();
    let state = half.iter().fold(state as u32, |state, half| _mm_crc32_u32(state, u32::from_le_bytes(*half)));
    !rest.iter().fold(state, |state, byte| _mm_crc32_u8(state, *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_agree() {
        let bytes: Vec<u8> = (0..600u32).map(|index| (index * 37 + index / 7) as u8).collect();
        for length in 0..bytes.len() {
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
}
