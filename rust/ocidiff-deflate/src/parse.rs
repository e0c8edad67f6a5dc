//! From bytes to literals and matches, a segment at a time.

use crate::fast::Fast;
use crate::level::{Level, SEARCHES, Search};
use crate::matches::{Bucket, LONGEST, Match, Tables, length_before};
use crate::tokens::Tokens;
use crate::window::Window;

/// Bytes that the search reads at once: it ends before the last of them.
pub const MARGIN: usize = 8;

/// Buckets of the tables: the fast ones fit into the nearest cache.
const FASTEST: usize = 1 << 13;
const ONE_WAY: usize = 1 << 14;
const TWO_WAYS: usize = 1 << 15;
const MORE_WAYS: usize = 1 << 14;
/// Places of the second table, for three bytes and for four.
const THREE: usize = 1 << 12;
const FOUR: usize = 1 << 15;

/// Is called at the end of every segment, with the tokens and the end.
pub type Each<'a> = &'a mut dyn FnMut(&mut Tokens, usize);

/// Finds literals and matches.
pub trait Parse: Send {
    /// Parses `window[start..end]` into `tokens`.
    fn parse(&mut self, window: &Window, start: usize, end: usize, tokens: &mut Tokens, each: Each<'_>);
}

/// Returns the parser of a level: code of its own for each, in which the settings are constants.
pub fn parser(level: Level) -> Box<dyn Parse> {
    match level.0 {
        1 => Box::<Fast<FASTEST, 1>>::default(),
        2 => Box::<Fast<ONE_WAY, 2>>::default(),
        3 => Box::<Parser<u16, ONE_WAY, 0, 3>>::default(),
        4 => Box::<Parser<u32, TWO_WAYS, 0, 4>>::default(),
        5 => Box::<Parser<u32, TWO_WAYS, 0, 5>>::default(),
        6 => Box::<Either<Parser<u32, TWO_WAYS, THREE, 6>, Parser<u32, TWO_WAYS, FOUR, 10>>>::default(),
        7 => Box::<Either<Parser<u64, MORE_WAYS, THREE, 7>, Parser<u64, MORE_WAYS, FOUR, 11>>>::default(),
        8 => Box::<Either<Parser<u64, MORE_WAYS, THREE, 8>, Parser<u64, MORE_WAYS, FOUR, 12>>>::default(),
        _ => Box::<Either<Parser<u128, MORE_WAYS, THREE, 9>, Parser<u128, MORE_WAYS, FOUR, 13>>>::default(),
    }
}

/// Ends a segment before `here`: what is in no token yet is literals. Returns where the next one begins.
#[inline(always)]
pub fn end_segment(window: &Window, anchor: usize, here: usize, tokens: &mut Tokens, each: Each<'_>) -> usize {
    tokens.push_literals(window, anchor, here - anchor);
    each(tokens, here);
    here
}

/// One parser for text, and one for everything else.
#[derive(Default)]
struct Either<Other, Text> {
    other: Other,
    text: Text,
}

impl<Other: Parse, Text: Parse> Parse for Either<Other, Text> {
    fn parse(&mut self, window: &Window, start: usize, end: usize, tokens: &mut Tokens, each: Each<'_>) {
        if is_text(&window[start..end]) {
            self.text.parse(window, start, end, tokens, each);
        } else {
            self.other.parse(window, start, end, tokens, each);
        }
    }
}

/// Returns true if nearly all bytes are printable. Zeros fill up a tar, and say nothing.
fn is_text(bytes: &[u8]) -> bool {
    let (mut text, mut other) = (0, 0);
    for &byte in bytes.iter().step_by(61) {
        let is_text = matches!(byte, b'\t'..=b'\r' | b' '..=b'~');
        text += usize::from(is_text);
        other += usize::from(!is_text && byte != 0);
    }
    8 * other < text
}

/// `N` buckets `B`, `M` places of a shorter hash, and the settings number `SEARCH`.
#[derive(Default)]
struct Parser<B: Bucket, const N: usize, const M: usize, const SEARCH: usize> {
    tables: Tables<B, N, M>,
}

impl<B: Bucket, const N: usize, const M: usize, const SEARCH: usize> Parser<B, N, M, SEARCH> {
    const SEARCH: &'static Search = &SEARCHES[SEARCH - 1];
    const TABLES_FIT: () = assert!(B::WAYS == Self::SEARCH.ways && (M > 0) == (Self::SEARCH.near_bytes > 0));

    /// Improves a match: a longer one at a next place, or a longer one to the left. Returns where the match begins, the
    /// match, and the first place that is not in the tables.
    #[inline(always)]
    fn choose(
        &mut self,
        window: &Window,
        anchor: usize,
        mut at: usize,
        mut found: Match,
        end: usize,
    ) -> (usize, Match, usize) {
        let mut next = at + 1;
        while Self::SEARCH.lazy && found.length < Self::SEARCH.nice_bytes && at + 1 < end - MARGIN {
            next = at + 2;
            // What the second table has is too short to be worth a literal.
            let Some(later) = self.tables.find(Self::SEARCH, window, at + 1, end, false) else { break };
            if later.gain() <= found.gain() + 2 {
                break;
            }
            at += 1;
            found = later;
        }
        let before = length_before(window, anchor, at, found.distance);
        (at - before, Match { length: LONGEST.min(found.length + before), ..found }, next)
    }

    #[inline(always)]
    fn insert_all(&mut self, window: &Window, from: usize, to: usize, step: usize) {
        let mut at = from;
        while at < to {
            self.tables.insert(Self::SEARCH, window, at);
            at += step;
        }
    }
}

impl<B: Bucket, const N: usize, const M: usize, const SEARCH: usize> Parse for Parser<B, N, M, SEARCH> {
    fn parse(&mut self, window: &Window, start: usize, end: usize, tokens: &mut Tokens, each: Each<'_>) {
        let () = Self::TABLES_FIT;
        let search_end = end.saturating_sub(MARGIN);
        self.tables.clear();
        self.insert_all(window, 0, start.min(search_end), Self::SEARCH.dictionary_step);
        // The first byte that is in no token yet, and the one that is looked at.
        let (mut anchor, mut at) = (start, start);
        let mut segment_end = start + Self::SEARCH.segment_bytes;
        while at < search_end {
            if let Some(found) = self.tables.find(Self::SEARCH, window, at, end, true) {
                let (begin, found, next) = self.choose(window, anchor, at, found, end);
                tokens.push(window, anchor, begin - anchor, found);
                at = begin + found.length;
                anchor = at;
                self.insert_all(window, next, at.min(search_end), Self::SEARCH.insert_step);
            } else {
                at += 1 + ((at - anchor) * Self::SEARCH.growth / 256);
            }
            if at >= segment_end {
                anchor = end_segment(window, anchor, at.min(end), tokens, each);
                segment_end = anchor + Self::SEARCH.segment_bytes;
            }
        }
        end_segment(window, anchor, end, tokens, each);
    }
}
