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
    /// Bytes that a hash covers, 4 to 6: with more of them, fewer and longer matches are found.
    pub hash_bytes: u32,
    /// True if the next place is tried too, and the longer match taken.
    pub lazy: bool,
    /// True if matches of three bytes are looked for.
    pub short: bool,
    /// A match of this length is taken without trying the next place.
    pub nice_bytes: usize,
    /// Without matches the step grows by one every `1 << skip` bytes.
    pub skip: u32,
    /// Within a match every so many places can be found later.
    pub insert_step: usize,
    /// Input after which the end of a block is considered.
    pub segment_bytes: usize,
}

const FAST: Search = Search {
    ways: 1,
    hash_bytes: 6,
    lazy: false,
    short: false,
    nice_bytes: 32,
    skip: 5,
    insert_step: 6,
    segment_bytes: 32 << 10,
};
const NORMAL: Search = Search {
    ways: 2,
    hash_bytes: 5,
    lazy: true,
    short: true,
    nice_bytes: 16,
    skip: 6,
    insert_step: 2,
    segment_bytes: 16 << 10,
};
const THOROUGH: Search = Search { ways: 4, hash_bytes: 4, nice_bytes: 32, skip: 8, insert_step: 1, ..NORMAL };

/// From 1 to 9.
pub(crate) const LEVELS: [Search; 9] = [
    FAST,
    Search { hash_bytes: 5, insert_step: 4, ..FAST },
    Search { ways: 1, hash_bytes: 4, lazy: false, short: false, ..NORMAL },
    Search { hash_bytes: 4, lazy: false, short: false, ..NORMAL },
    Search { hash_bytes: 4, short: false, ..NORMAL },
    NORMAL,
    Search { nice_bytes: 12, insert_step: 2, ..THOROUGH },
    THOROUGH,
    Search { ways: 8, nice_bytes: 128, segment_bytes: 8 << 10, ..THOROUGH },
];

impl Level {
    /// Returns the level `number`; numbers out of range mean the nearest level.
    pub fn new(number: i32) -> Self {
        Self(number.clamp(1, 9) as usize)
    }
}
