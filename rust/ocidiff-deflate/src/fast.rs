//! The search of the fastest levels: one earlier place for each hash, and the first match is taken.

use crate::level::{SEARCHES, Search};
use crate::matches::{LONGEST, Match, Table, length_before, length_beyond};
use crate::parse::{Each, MARGIN, Parse, end_segment};
use crate::tokens::Tokens;
use crate::window::{DICTIONARY_BYTES, Window, load8};

/// `N` places, and the settings of `LEVEL`.
#[derive(Default)]
pub struct Fast<const N: usize, const LEVEL: usize> {
    table: Table<u16, N>,
}

impl<const N: usize, const LEVEL: usize> Fast<N, LEVEL> {
    const SEARCH: &'static Search = &SEARCHES[LEVEL - 1];
    const TABLE_FITS: () = assert!(Self::SEARCH.ways == 1 && Self::SEARCH.near_bytes == 0 && !Self::SEARCH.lazy);

    #[inline(always)]
    fn insert(&mut self, window: &Window, at: usize) {
        self.table.insert(load8(window, at), Self::SEARCH.hash_bytes, at);
    }
}

impl<const N: usize, const LEVEL: usize> Parse for Fast<N, LEVEL> {
    fn parse(&mut self, window: &Window, start: usize, end: usize, tokens: &mut Tokens, each: Each<'_>) {
        let () = Self::TABLE_FITS;
        let search_end = end.saturating_sub(MARGIN);
        self.table.clear();
        (0..start.min(search_end)).step_by(Self::SEARCH.dictionary_step).for_each(|at| self.insert(window, at));
        // The first byte that is in no token yet, and the one that is looked at.
        let (mut anchor, mut at) = (start, start);
        let mut segment_end = start + Self::SEARCH.segment_bytes;
        while at < search_end {
            let word = load8(window, at);
            let place = self.table.insert(word, Self::SEARCH.hash_bytes, at);
            let distance = usize::from((at as u16).wrapping_sub(place));
            let difference = load8(window, at.wrapping_sub(distance)) ^ word;
            if difference as u32 == 0 && distance.wrapping_sub(1) < at.min(DICTIONARY_BYTES) {
                let mut length = (difference.trailing_zeros() >> 3) as usize;
                if difference == 0 {
                    length = length_beyond(window, at - distance, at).min(end - at);
                }
                let back = length_before(window, anchor, at, distance);
                let begin = at - back;
                let length = (length + back).min(LONGEST);
                tokens.push(window, anchor, begin - anchor, Match { length, distance });
                let next = begin + length;
                // Three places: a loop of as many rounds as the match is long costs more than it finds.
                let step = Self::SEARCH.insert_step;
                self.insert(window, at + step);
                self.insert(window, (at + 2 * step).min(next - 1));
                self.insert(window, next - step);
                at = next;
                anchor = next;
            } else {
                at += 1 + ((at - anchor) >> Self::SEARCH.skip);
            }
            if at >= segment_end {
                anchor = end_segment(window, anchor, at.min(end), tokens, each);
                segment_end = anchor + Self::SEARCH.segment_bytes;
            }
        }
        end_segment(window, anchor, end, tokens, each);
    }
}
