//! The search of the fastest levels: one earlier place for each hash, and the first match is taken.

use crate::level::{SEARCHES, Search};
use crate::matches::{LONGEST, Match, length_before, length_of};
use crate::parse::{Each, MARGIN, Parse, end_segment};
use crate::tokens::{Room, Tokens};
use crate::window::{DICTIONARY_BYTES, WINDOW_BYTES, Window, load8};

/// A shorter match is worth nothing.
const SHORTEST: usize = 4;
/// A block of this size or more is searched in two halves at once, by two lanes.
const HALVED_BYTES: usize = 128 << 10;

/// The search of `LEVEL`, with tables of `N` places.
///
/// The place to look at next depends on the length of the match before, so that a processor mostly waits. Two searches in turns
/// wait at the same time.
#[derive(Default)]
pub struct Fast<const N: usize, const LEVEL: usize> {
    tables: [Places<N, LEVEL>; 2],
    second_tokens: Tokens,
    /// Segments of the second half: the end of each, and the number of tokens before that.
    second_segments: Vec<(usize, usize)>,
}

impl<const N: usize, const LEVEL: usize> Parse for Fast<N, LEVEL> {
    fn parse(&mut self, window: &Window, start: usize, end: usize, tokens: &mut Tokens, each: Each<'_>) {
        let Self { tables: [first_table, second_table], second_tokens, second_segments } = self;
        let mut middle = end;
        if end - start >= HALVED_BYTES {
            middle = start + (end - start) / 2;
        }
        let mut first = Lane::new(window, first_table, start, middle);
        if middle == end {
            first.finish(window, first_table, tokens, each);
            return;
        }
        let mut second = Lane::new(window, second_table, middle, end);
        second_tokens.clear();
        second_segments.clear();
        let mut note = |tokens: &mut Tokens, end| second_segments.push((end, tokens.all().len()));
        while !first.is_done() && !second.is_done() {
            let rooms = [tokens.room(first.left()), second_tokens.room(second.left())];
            search_both(window, [first_table, second_table], [&mut first, &mut second], rooms);
            first.end_segment::<LEVEL>(window, tokens, each);
            second.end_segment::<LEVEL>(window, second_tokens, &mut note);
        }
        first.finish(window, first_table, tokens, each);
        second.finish(window, second_table, second_tokens, &mut note);
        let mut taken = 0;
        for &(end, count) in &*second_segments {
            tokens.extend(&second_tokens.all()[taken..count]);
            taken = count;
            each(tokens, end);
        }
    }
}

/// The last place of each hash.
struct Places<const N: usize, const LEVEL: usize>(Box<[u32; N]>);

impl<const N: usize, const LEVEL: usize> Default for Places<N, LEVEL> {
    fn default() -> Self {
        Self(Box::new([0; N]))
    }
}

impl<const N: usize, const LEVEL: usize> Places<N, LEVEL> {
    const SEARCH: &'static Search = &SEARCHES[LEVEL - 1];
    const FITS: () = assert!(Self::SEARCH.ways == 1 && Self::SEARCH.near_bytes == 0 && !Self::SEARCH.lazy);

    /// Puts `at` into the table. Returns the place that was there before, and how far away it is.
    ///
    /// A place has 19 bits. Above it there are 13 more bits of the hash: if these differ, the distance is too large for a match, so
    /// that most places of other bytes need not be looked at.
    #[inline(always)]
    fn insert(&mut self, window: &Window, at: usize) -> (usize, usize) {
        // 2^64 divided by the golden ratio: its multiples are spread evenly.
        let hash = (load8(window, at) << (64 - 8 * Self::SEARCH.hash_bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let tag = (hash >> (64 - N.ilog2() - 32)) as u32 & !(WINDOW_BYTES as u32 - 1);
        let place = tag | at as u32;
        let before = std::mem::replace(&mut self.0[(hash >> (64 - N.ilog2())) as usize & (N - 1)], place);
        (before as usize, place.wrapping_sub(before) as usize)
    }
}

/// One of the searches of a block: what it has found, and the part that is left.
#[derive(Clone, Copy)]
struct Lane {
    /// The first byte that is in no token yet.
    anchor: usize,
    /// The place that is looked at next.
    at: usize,
    /// The ends of the segment, of the search, and of the bytes.
    segment_end: usize,
    search_end: usize,
    end: usize,
}

impl Lane {
    /// Begins the search of `window[start..end]`, with what is before `start` as dictionary.
    fn new<const N: usize, const LEVEL: usize>(
        window: &Window,
        places: &mut Places<N, LEVEL>,
        start: usize,
        end: usize,
    ) -> Self {
        let () = Places::<N, LEVEL>::FITS;
        let search = Places::<N, LEVEL>::SEARCH;
        let search_end = end.saturating_sub(MARGIN);
        places.0.fill(0);
        for at in (start.saturating_sub(DICTIONARY_BYTES)..start.min(search_end)).step_by(search.dictionary_step) {
            places.insert(window, at);
        }
        Self { anchor: start, at: start, segment_end: search_end.min(start + search.segment_bytes), search_end, end }
    }

    fn is_done(&self) -> bool {
        self.at >= self.search_end
    }

    /// Returns the bytes up to the end of the segment.
    fn left(&self) -> usize {
        self.segment_end.saturating_sub(self.anchor)
    }

    /// Takes the match at one place, or goes on to the next place.
    #[inline(always)]
    fn step<const N: usize, const LEVEL: usize>(
        &mut self,
        window: &Window,
        places: &mut Places<N, LEVEL>,
        room: &mut Room<'_>,
    ) {
        let Self { anchor, at, .. } = *self;
        let (earlier, distance) = places.insert(window, at);
        if distance.wrapping_sub(1) >= DICTIONARY_BYTES {
            self.at += 1 + ((at - anchor) * Places::<N, LEVEL>::SEARCH.growth / 256);
            return;
        }
        let length = length_of(window, earlier, at);
        if length < SHORTEST {
            self.at += 1;
            return;
        }
        let next = at + length.min(self.end - at);
        let mut begin = at;
        // Foreseen by a processor, because a match came just before or not.
        if at > anchor {
            begin -= length_before(window, anchor, at, distance).min(LONGEST - (next - at));
            room.push_literals(window, anchor, begin - anchor);
        }
        room.push_match(Match { length: next - begin, distance });
        // Three places: a loop of as many rounds as the match is long costs more than it finds.
        for inside in [at + 1, (at + 1 + Places::<N, LEVEL>::SEARCH.insert_step).min(next - 1), next - 1] {
            places.insert(window, inside);
        }
        self.at = next;
        self.anchor = next;
    }

    /// Searches to the end.
    fn finish<const N: usize, const LEVEL: usize>(
        mut self,
        window: &Window,
        places: &mut Places<N, LEVEL>,
        tokens: &mut Tokens,
        each: Each<'_>,
    ) {
        while !self.is_done() {
            let mut room = tokens.room(self.left());
            let mut lane = self;
            while lane.at < lane.segment_end {
                lane.step(window, places, &mut room);
            }
            self = lane;
            drop(room);
            self.end_segment::<LEVEL>(window, tokens, each);
        }
        end_segment(window, self.anchor, self.end, tokens, each);
    }

    /// Ends the segment if the search has passed its end.
    fn end_segment<const LEVEL: usize>(&mut self, window: &Window, tokens: &mut Tokens, each: Each<'_>) {
        if self.at >= self.segment_end && !self.is_done() {
            self.anchor = end_segment(window, self.anchor, self.at, tokens, each);
            self.segment_end = self.search_end.min(self.anchor + SEARCHES[LEVEL - 1].segment_bytes);
        }
    }
}

/// Searches both lanes in turns until one of the segments ends.
#[inline(never)]
fn search_both<const N: usize, const LEVEL: usize>(
    window: &Window,
    [first_table, second_table]: [&mut Places<N, LEVEL>; 2],
    [first, second]: [&mut Lane; 2],
    [mut first_room, mut second_room]: [Room<'_>; 2],
) {
    // Copies, which stay in registers.
    let (mut a, mut b) = (*first, *second);
    while a.at < a.segment_end && b.at < b.segment_end {
        a.step(window, first_table, &mut first_room);
        b.step(window, second_table, &mut second_room);
    }
    (*first, *second) = (a, b);
}
