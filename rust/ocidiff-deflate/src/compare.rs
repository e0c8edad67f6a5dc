//! Compares bytes: in one step for most matches, whose length no processor can foresee.

/// Bytes that are compared at once.
pub const COMPARED: usize = 32;

/// Returns how many bytes are the same from the first one on.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn common(a: &[u8; COMPARED], b: &[u8; COMPARED]) -> usize {
    // SAFETY: SSE2 is a part of every processor of this kind.
    unsafe { common_sse2(a, b) }
}

#[cfg(not(target_arch = "x86_64"))]
pub use common_of_words as common;

/// [`common`] for processors without vectors.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
pub fn common_of_words(a: &[u8; COMPARED], b: &[u8; COMPARED]) -> usize {
    let words = |bytes: &[u8; COMPARED]| -> [u64; 4] {
        std::array::from_fn(|word| u64::from_le_bytes(std::array::from_fn(|index| bytes[8 * word + index])))
    };
    let (a, b) = (words(a), words(b));
    let first = (0..4).find(|&word| a[word] != b[word]);
    first.map_or(COMPARED, |word| 8 * word + ((a[word] ^ b[word]).trailing_zeros() >> 3) as usize)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn common_sse2(a: &[u8; COMPARED], b: &[u8; COMPARED]) -> usize {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x};
    let (a, b) = (a.as_chunks::<16>().0, b.as_chunks::<16>().0);
    let load = |bytes: [u8; 16]| -> __m128i {
        let bits = u128::from_le_bytes(bytes);
        _mm_set_epi64x((bits >> 64) as i64, bits as i64)
    };
    let same = |half: usize| _mm_movemask_epi8(_mm_cmpeq_epi8(load(a[half]), load(b[half]))).cast_unsigned();
    (!(same(0) | same(1) << 16)).trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_compare_find_the_first_difference() {
        let a: [u8; COMPARED] = std::array::from_fn(|index| (37 * index) as u8);
        assert_eq!((common(&a, &a), common_of_words(&a, &a)), (COMPARED, COMPARED));
        for first in 0..COMPARED {
            for (second, bit) in (first..COMPARED).flat_map(|second| (0..8).map(move |bit| (second, bit))) {
                let mut b = a;
                b[first] ^= 1 << bit;
                b[second] = !a[second];
                assert_eq!((common(&a, &b), common_of_words(&a, &b)), (first, first));
            }
        }
    }
}
