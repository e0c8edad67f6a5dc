//! From bytes to literals and matches, a segment at a time.

use crate::level::{LEVELS, Level, Search};
use crate::matches::{Bucket, LONGEST, Match, Table, find, find_short};
use crate::segment::Segment;
use crate::window::{Window, load8};

/// Bytes that the search reads at once: it ends before the last of them.
const MARGIN: usize = 8;

/// Buckets of the tables: the fast ones fit into the nearest cache.
const ONE_WAY: usize = 1 << 14;
const TWO_WAYS: usize = 1 << 15;
const MORE_WAYS: usize = 1 << 14;
type Short = Table<u16, { 1 << 12 }>;

/// Finds literals and matches.
pub trait Parse: Send {
    /// Parses `window[start..end]`. `each` gets every segment and its end.
    fn parse(&mut self, window: &Window, start: usize, end: usize, each: &mut dyn FnMut(&mut Segment, usize));
}

/// Returns the parser of a level: code of its own for each, in which the settings are constants.
pub fn parser(level: Level) -> Box<dyn Parse> {
    match level.0 {
        1 => Box::<Parser<u16, ONE_WAY, 1>>::default(),
        2 => Box::<Parser<u16, ONE_WAY, 2>>::default(),
        3 => Box::<Parser<u16, ONE_WAY, 3>>::default(),
        4 => Box::<Parser<u32, TWO_WAYS, 4>>::default(),
        5 => Box::<Parser<u32, TWO_WAYS, 5>>::default(),
        6 => Box::<Parser<u32, TWO_WAYS, 6>>::default(),
        7 => Box::<Parser<u64, MORE_WAYS, 7>>::default(),
        8 => Box::<Parser<u64, MORE_WAYS, 8>>::default(),
        _ => Box::<Parser<u128, MORE_WAYS, 9>>::default(),
    }
}

/// `N` buckets `B`, and the settings of `LEVEL`.
#[derive(Default)]
struct Parser<B: Bucket, const N: usize, const LEVEL: usize> {
    table: Table<B, N>,
    short: Short,
    segment: Segment,
}

impl<B: Bucket, const N: usize, const LEVEL: usize> Parse for Parser<B, N, LEVEL> {
    fn parse(&mut self, window: &Window, start: usize, end: usize, each: &mut dyn FnMut(&mut Segment, usize)) {
        let Self { table, short, segment } = self;
        Run::<B, N, LEVEL> { table, short, segment, window, end }.parse(start, each);
    }
}

/// One block being parsed.
struct Run<'a, B, const N: usize, const LEVEL: usize> {
    table: &'a mut Table<B, N>,
    short: &'a mut Short,
    segment: &'a mut Segment,
    window: &'a Window,
    end: usize,
}

impl<B: Bucket, const N: usize, const LEVEL: usize> Run<'_, B, N, LEVEL> {
    const SEARCH: &'static Search = &LEVELS[LEVEL - 1];
    const TABLE_FITS: () = assert!(B::WAYS == Self::SEARCH.ways);

    fn parse(mut self, start: usize, each: &mut dyn FnMut(&mut Segment, usize)) {
        let () = Self::TABLE_FITS;
        let search_end = self.end.saturating_sub(MARGIN);
        self.table.clear();
        self.short.clear();
        self.segment.clear();
        self.insert_all(0, start.min(search_end), 1);
        // The first byte that is in no sequence yet, and the one that is looked at.
        let (mut anchor, mut at) = (start, start);
        let mut segment_end = start + Self::SEARCH.segment_bytes;
        while at < search_end {
            if let Some(found) = self.find(at, 3) {
                let (begin, found, next) = self.choose(anchor, at, found, search_end);
                self.segment.push(self.window, anchor, begin - anchor, found);
                at = begin + found.length;
                anchor = at;
                self.insert_all(next, at.min(search_end), Self::SEARCH.insert_step);
            } else {
                at += 1 + ((at - anchor) >> Self::SEARCH.skip);
            }
            if at >= segment_end {
                let here = at.min(self.end);
                self.push_literals(anchor, here);
                anchor = here;
                each(self.segment, here);
                self.segment.clear();
                segment_end = here + Self::SEARCH.segment_bytes;
            }
        }
        self.push_literals(anchor, self.end);
        each(self.segment, self.end);
    }

    /// Returns the match at `at` that is longer than `least`.
    #[inline(always)]
    fn find(&mut self, at: usize, least: usize) -> Option<Match> {
        let found = find(self.table, Self::SEARCH, self.window, at, self.end, least);
        if Self::SEARCH.short && least == 3 {
            let short = find_short(self.short, self.window, at);
            return found.or(short);
        }
        found
    }

    /// Improves a match: a longer one at a next place, or a longer one to the left. Returns where the match begins, the
    /// match, and the first place that is not in the table.
    #[inline(always)]
    fn choose(&mut self, anchor: usize, mut at: usize, mut found: Match, search_end: usize) -> (usize, Match, usize) {
        let mut next = at + 1;
        while Self::SEARCH.lazy && found.length < Self::SEARCH.nice_bytes && at + 1 < search_end {
            next = at + 2;
            let least = found.length - 1;
            let Some(later) = find(self.table, Self::SEARCH, self.window, at + 1, self.end, least) else { break };
            if later.gain() <= found.gain() + 2 {
                break;
            }
            at += 1;
            found = later;
        }
        let same_before = |at: usize| self.window[at - 1] == self.window[at - 1 - found.distance];
        while at > anchor && at > found.distance && found.length < LONGEST && same_before(at) {
            at -= 1;
            found.length += 1;
        }
        (at, found, next)
    }

    #[inline(always)]
    fn insert_all(&mut self, from: usize, to: usize, step: usize) {
        let mut at = from;
        while at < to {
            self.table.insert(load8(self.window, at), Self::SEARCH.hash_bytes, at);
            at += step;
        }
    }

    fn push_literals(&mut self, from: usize, to: usize) {
        if to > from {
            self.segment.push(self.window, from, to - from, Match { length: 0, distance: 0 });
        }
    }
}
