//! Earlier places with the same bytes: hash tables of small buckets, whose candidates are all compared without a branch.

use crate::level::Search;
use crate::window::{DICTIONARY_BYTES, Window, load4, load8};

/// The longest match (RFC 1951 section 3.2.5).
pub const LONGEST: usize = 258;
/// Bytes that one load compares. Shorter matches need no second one.
const LOADED: usize = 8;
/// A match of three bytes farther away than this costs more than three literals.
const FARTHEST_SHORT: usize = 4 << 10;

/// A match: its length, and how far back it is; no match has the distance 0.
#[derive(Clone, Copy)]
pub struct Match {
    pub length: usize,
    pub distance: usize,
}

impl Match {
    /// Returns the worth of the match beside another one that begins where it does, about in bits.
    #[inline(always)]
    pub fn gain(self) -> i32 {
        4 * self.length as i32 - self.distance.ilog2() as i32
    }
}

/// The last places that had one hash, the nearest first, each modulo 65536: twice the window, so that a distance is never
/// ambiguous. A place that was never set, or is too far away, is found out by comparing.
pub trait Bucket: Copy + Default + Send {
    const WAYS: usize;
    /// Puts `at` in front.
    fn push(self, at: usize) -> Self;
    /// Returns the place number `way`.
    fn place(self, way: usize) -> u16;
}

macro_rules! bucket {
    ($($integer:ty),*) => {$(
        impl Bucket for $integer {
            const WAYS: usize = <$integer>::BITS as usize / 16;
            #[inline(always)]
            fn push(self, at: usize) -> Self {
                self.unbounded_shl(16) | (at as u16) as $integer
            }
            #[inline(always)]
            fn place(self, way: usize) -> u16 {
                (self >> (16 * way)) as u16
            }
        }
    )*};
}

bucket!(u16, u32, u64, u128);

/// `N` buckets, a power of two.
pub struct Table<B, const N: usize>(Box<[B; N]>);

impl<B: Bucket, const N: usize> Default for Table<B, N> {
    fn default() -> Self {
        Self(Box::new([B::default(); N]))
    }
}

impl<B: Bucket, const N: usize> Table<B, N> {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.fill(B::default());
    }

    /// Puts `at` into the bucket of the first `bytes` bytes of `word`; returns what the bucket held before.
    #[inline(always)]
    pub fn insert(&mut self, word: u64, bytes: u32, at: usize) -> B {
        // 2^64 divided by the golden ratio: its multiples are spread evenly.
        let hash = (word << (64 - 8 * bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - N.ilog2());
        let bucket = &mut self.0[hash as usize & (N - 1)];
        std::mem::replace(bucket, bucket.push(at))
    }
}

/// Returns the longest match at `at`, if it is longer than `least`; the nearest of equal ones.
#[inline(always)]
pub fn find<B: Bucket, const N: usize>(
    table: &mut Table<B, N>,
    search: &Search,
    window: &Window,
    at: usize,
    end: usize,
    least: usize,
) -> Option<Match> {
    let word = load8(window, at);
    let bucket = table.insert(word, search.hash_bytes, at);
    let reach = at.min(DICTIONARY_BYTES);
    let distance_of = |way| usize::from((at as u16).wrapping_sub(bucket.place(way)));
    let mut best = Match { length: 0, distance: 0 };
    // Bits of the candidates that are the same for all that was loaded.
    let mut long = 0u32;
    for way in 0..B::WAYS {
        let distance = distance_of(way);
        let difference = load8(window, at.wrapping_sub(distance)) ^ word;
        let length = (difference.trailing_zeros() >> 3) as usize;
        let length = if distance.wrapping_sub(1) < reach { length } else { 0 };
        best.distance = if length > best.length { distance } else { best.distance };
        best.length = best.length.max(length);
        long |= (length as u32 >> 3) << way;
    }
    if best.length < 4 {
        return None;
    }
    if best.length == LOADED {
        // Bytes behind the block must not decide which candidate is the longest.
        let most = end - at;
        best.length = length_beyond(window, at - best.distance, at).min(most);
        long &= long - 1;
        while B::WAYS > 1 && long != 0 {
            let distance = distance_of(long.trailing_zeros() as usize);
            let length = length_beyond(window, at - distance, at).min(most);
            if length > best.length {
                best = Match { length, distance };
            }
            long &= long - 1;
        }
        best.length = best.length.min(LONGEST);
    }
    (best.length > least).then_some(best)
}

/// Returns a match of three bytes at `at`.
#[inline(always)]
pub fn find_short<const N: usize>(table: &mut Table<u16, N>, window: &Window, at: usize) -> Option<Match> {
    let word = load4(window, at);
    let place = table.insert(u64::from(word), 3, at);
    let distance = usize::from((at as u16).wrapping_sub(place));
    let same = (load4(window, at.wrapping_sub(distance)) ^ word) << 8 == 0;
    (same && distance.wrapping_sub(1) < at.min(FARTHEST_SHORT)).then_some(Match { length: 3, distance })
}

/// Returns how many bytes at `a` and `b` are the same; the first eight are known to be.
#[inline(always)]
fn length_beyond(window: &Window, a: usize, b: usize) -> usize {
    let mut length = LOADED;
    loop {
        let difference = load8(window, a + length) ^ load8(window, b + length);
        length += (difference.trailing_zeros() >> 3) as usize;
        if difference != 0 || length >= LONGEST {
            return length;
        }
    }
}
