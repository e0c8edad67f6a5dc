//! Earlier places with the same bytes: hash tables of small buckets, whose candidates are all compared without a branch.

use crate::compare::{COMPARED, common};
use crate::level::Search;
use crate::window::{DICTIONARY_BYTES, Window, load, load8};

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

/// Two tables: one of buckets, and one of the last place of a shorter hash, which is near.
#[derive(Default)]
pub struct Tables<B: Bucket, const N: usize, const M: usize> {
    table: Table<B, N>,
    near: Table<u16, M>,
}

impl<B: Bucket, const N: usize, const M: usize> Tables<B, N, M> {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.table.clear();
        self.near.clear();
    }

    /// Puts `at` into both tables.
    #[inline(always)]
    pub fn insert(&mut self, search: &Search, window: &Window, at: usize) {
        let word = load8(window, at);
        self.table.insert(word, search.hash_bytes, at);
        if search.near_bytes > 0 {
            self.near.insert(word, search.near_bytes, at);
        }
    }

    /// Puts `at` into both tables, and returns the longest match there; the nearest of equal ones. The second table is asked
    /// only if `asks_near`.
    #[inline(always)]
    pub fn find(&mut self, search: &Search, window: &Window, at: usize, end: usize, asks_near: bool) -> Option<Match> {
        let word = load8(window, at);
        let bucket = self.table.insert(word, search.hash_bytes, at);
        let near = if search.near_bytes > 0 { self.near.insert(word, search.near_bytes, at) } else { 0 };
        let ways = B::WAYS + usize::from(asks_near && search.near_bytes > 0);
        let reach = at.min(DICTIONARY_BYTES);
        let distance_of = |way| {
            let place = if way < B::WAYS { bucket.place(way) } else { near };
            usize::from((at as u16).wrapping_sub(place))
        };
        let mut best = Match { length: 0, distance: 0 };
        // Bits of the candidates that are the same for all that was loaded.
        let mut long = 0u32;
        for way in 0..ways {
            let distance = distance_of(way);
            let difference = load8(window, at.wrapping_sub(distance)) ^ word;
            let length = (difference.trailing_zeros() >> 3) as usize;
            // What is in both tables is compared once.
            let is_known = way == B::WAYS && near == bucket.place(0);
            let length = if distance.wrapping_sub(1) < reach && !is_known { length } else { 0 };
            let is_nearer = way == B::WAYS && length == best.length && distance < best.distance;
            best.distance = if length > best.length || is_nearer { distance } else { best.distance };
            best.length = best.length.max(length);
            long |= (length as u32 >> 3) << way;
        }
        if best.length < 4 && (search.near_bytes != 3 || best.length < 3 || best.distance > FARTHEST_SHORT) {
            return None;
        }
        if best.length == LOADED {
            // Bytes behind the block must not decide which candidate is the longest.
            let most = end - at;
            best.length = 0;
            while long != 0 {
                let distance = distance_of(long.trailing_zeros() as usize);
                let length = length_of(window, at - distance, at).min(most);
                if length > best.length {
                    best = Match { length, distance };
                }
                long &= long - 1;
            }
            best.length = best.length.min(LONGEST);
        }
        Some(best)
    }
}

/// Returns how many bytes before `at` and `distance` before it are the same: eight at most, and none before `anchor`.
#[inline(always)]
pub fn length_before(window: &Window, anchor: usize, at: usize, distance: usize) -> usize {
    let difference = load8(window, at.wrapping_sub(LOADED)) ^ load8(window, at.wrapping_sub(distance + LOADED));
    let most = if at >= distance + LOADED { at - anchor } else { 0 };
    ((difference.leading_zeros() >> 3) as usize).min(most)
}

/// Returns how many bytes at `a` and `b` are the same, [`LONGEST`] at most.
#[inline(always)]
pub fn length_of(window: &Window, a: usize, b: usize) -> usize {
    let length = common(load(window, a), load(window, b));
    if length < COMPARED { length } else { length_beyond(window, a, b, COMPARED).min(LONGEST) }
}

/// Returns how many bytes at `a` and `b` are the same; the first `length` are known to be.
#[inline(always)]
pub fn length_beyond(window: &Window, a: usize, b: usize, mut length: usize) -> usize {
    loop {
        let difference = load8(window, a + length) ^ load8(window, b + length);
        length += (difference.trailing_zeros() >> 3) as usize;
        if difference != 0 || length >= LONGEST {
            return length;
        }
    }
}
