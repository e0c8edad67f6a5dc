//! The parameters of the levels; `docs/decisions/0006-a-deflate-of-our-own.md` has the frontier that they were chosen
//! from.

/// The effort of the search for matches: 1 (fast) to 9 (small).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub(crate) usize);

/// The settings of a level.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Search {
    /// The number of earlier places with the same hash to look at: 1, 2, 4 or 8.
    pub ways: usize,
    /// Bytes that a hash covers, 4 to 8: with more of them, fewer and longer matches are found.
    pub hash_bytes: u32,
    /// Bytes that the hash of the second table covers, which has the last place only: 3, 4, or 0 for no such table.
    pub near_bytes: u32,
    /// True if the next place is tried too, and the longer match taken.
    pub lazy: bool,
    /// A match of this length is taken without trying the next place.
    pub nice_bytes: usize,
    /// The step grows by so many 256ths with each byte without a match.
    pub growth: usize,
    /// Within a match every so many places can be found later. At levels 1 and 2 these are the second one, the one so many behind it, and
    /// the last one.
    pub insert_step: usize,
    /// In the dictionary every so many places can be found.
    pub dictionary_step: usize,
    /// Input after which the end of a block is considered.
    pub segment_bytes: usize,
}

const FAST: Search = Search {
    ways: 1,
    hash_bytes: 5,
    near_bytes: 0,
    lazy: false,
    nice_bytes: 32,
    growth: 14,
    insert_step: 2,
    dictionary_step: 2,
    segment_bytes: 32 << 10,
};
const NORMAL: Search = Search {
    ways: 2,
    hash_bytes: 5,
    near_bytes: 3,
    lazy: true,
    nice_bytes: 16,
    growth: 4,
    insert_step: 2,
    dictionary_step: 2,
    segment_bytes: 16 << 10,
};
const THOROUGH: Search = Search { ways: 4, hash_bytes: 4, nice_bytes: 32, growth: 1, insert_step: 1, ..NORMAL };
/// Of text. It repeats long strings, and short ones so often that their last two places say little.
const TEXT: Search =
    Search { hash_bytes: 8, near_bytes: 4, nice_bytes: 32, growth: 1, insert_step: 1, segment_bytes: 8 << 10, ..NORMAL };

/// From 1 to 9, and then those of text from 6 to 9.
pub(crate) const SEARCHES: [Search; 13] = [
    FAST,
    Search { growth: 5, insert_step: 1, ..FAST },
    Search { ways: 1, lazy: false, near_bytes: 0, ..NORMAL },
    Search { hash_bytes: 4, lazy: false, near_bytes: 0, ..NORMAL },
    Search { hash_bytes: 4, near_bytes: 0, ..NORMAL },
    NORMAL,
    Search { nice_bytes: 12, insert_step: 2, ..THOROUGH },
    THOROUGH,
    Search { ways: 8, nice_bytes: 128, segment_bytes: 8 << 10, ..THOROUGH },
    TEXT,
    Search { ways: 4, nice_bytes: 24, ..TEXT },
    Search { ways: 4, hash_bytes: 7, nice_bytes: 64, ..TEXT },
    Search { ways: 8, hash_bytes: 7, nice_bytes: 128, ..TEXT },
];

impl Level {
    /// Returns the level `number`; numbers out of range mean the nearest level.
    pub fn new(number: i32) -> Self {
        Self(number.clamp(1, 9) as usize)
    }
}
