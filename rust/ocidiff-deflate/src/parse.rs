//! From bytes to literals and matches, a segment at a time.

use crate::level::{Level, Search};
use crate::matches::{Bucket, LONGEST, Match, Table, find, find_short};
use crate::segment::Segment;
use crate::window::{Window, load8};

/// Bytes that the search reads at once: it ends before the last of them.
const MARGIN: usize = 8;

/// Buckets of the tables: the fast ones fit into the nearest cache.
type OneWay = Table<u16, { 1 << 14 }>;
type TwoWay = Table<u32, { 1 << 15 }>;
type FourWay = Table<u64, { 1 << 14 }>;
type EightWay = Table<u128, { 1 << 14 }>;
type Short = Table<u16, { 1 << 12 }>;

enum Places {
    One(OneWay),
    Two(TwoWay),
    Four(FourWay),
    Eight(EightWay),
}

/// Finds literals and matches.
pub struct Parser {
    level: Level,
    places: Places,
    short: Short,
    segment: Segment,
}

impl Parser {
    pub fn new(level: Level) -> Self {
        let places = match level.0.ways {
            1 => Places::One(Table::new()),
            2 => Places::Two(Table::new()),
            4 => Places::Four(Table::new()),
            _ => Places::Eight(Table::new()),
        };
        Self { level, places, short: Table::new(), segment: Segment::default() }
    }

    /// Parses `window[start..end]`; `each` gets every segment and where it ends.
    pub fn parse(&mut self, window: &Window, start: usize, end: usize, each: impl FnMut(&Segment, usize)) {
        let Self { level: Level(search), places, short, segment } = self;
        short.clear();
        match places {
            Places::One(table) => Run { search, table, short, segment, window, end }.parse(start, each),
            Places::Two(table) => Run { search, table, short, segment, window, end }.parse(start, each),
            Places::Four(table) => Run { search, table, short, segment, window, end }.parse(start, each),
            Places::Eight(table) => Run { search, table, short, segment, window, end }.parse(start, each),
        }
    }
}

/// One block being parsed.
struct Run<'a, B, const N: usize> {
    search: &'static Search,
    table: &'a mut Table<B, N>,
    short: &'a mut Short,
    segment: &'a mut Segment,
    window: &'a Window,
    end: usize,
}

impl<B: Bucket, const N: usize> Run<'_, B, N> {
    #[inline(never)]
    fn parse(mut self, start: usize, mut each: impl FnMut(&Segment, usize)) {
        let search_end = self.end.saturating_sub(MARGIN);
        self.table.clear();
        self.segment.clear();
        self.insert_all(0, start.min(search_end), 1);
        // The first byte that is in no sequence yet, and the one that is looked at.
        let (mut anchor, mut at) = (start, start);
        let mut segment_end = start + self.search.segment_bytes;
        while at < search_end {
            if let Some(found) = self.find(at, 3) {
                let (begin, found, next) = self.choose(anchor, at, found, search_end);
                self.segment.push(self.window, anchor, begin - anchor, found);
                at = begin + found.length;
                anchor = at;
                self.insert_all(next, at.min(search_end), self.search.insert_step);
            } else {
                at += 1 + ((at - anchor) >> self.search.skip);
            }
            if at >= segment_end {
                let here = at.min(self.end);
                self.push_literals(anchor, here);
                anchor = here;
                each(self.segment, here);
                self.segment.clear();
                segment_end = here + self.search.segment_bytes;
            }
        }
        self.push_literals(anchor, self.end);
        each(self.segment, self.end);
    }

    /// The match at `at` that is longer than `least`.
    #[inline(always)]
    fn find(&mut self, at: usize, least: usize) -> Option<Match> {
        let found = find(self.table, self.search, self.window, at, self.end, least);
        if self.search.short && least == 3 {
            let short = find_short(self.short, self.window, at);
            return found.or(short);
        }
        found
    }

    /// What to make of a match: a longer one at a next place, or a longer one to the left. Returns where the match begins, the
    /// match, and the first place that is not in the table.
    #[inline(always)]
    fn choose(&mut self, anchor: usize, mut at: usize, mut found: Match, search_end: usize) -> (usize, Match, usize) {
        let mut next = at + 1;
        while self.search.lazy && found.length < self.search.nice_bytes && at + 1 < search_end {
            next = at + 2;
            let least = found.length - 1;
            let Some(later) = find(self.table, self.search, self.window, at + 1, self.end, least) else { break };
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
            self.table.insert(load8(self.window, at), self.search.hash_bytes, at);
            at += step;
        }
    }

    fn push_literals(&mut self, from: usize, to: usize) {
        if to > from {
            self.segment.push(self.window, from, to - from, Match { length: 0, distance: 0 });
        }
    }
}
