//! The patterns of a scope: an automaton that reads a path one byte after the other.
//!
//! Law: reading a byte costs one pass over the rows, whatever the patterns and the path are; nothing is tried again.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::cause::Cause;
use crate::error::{Error, Result};

const WORD_BITS: usize = u64::BITS as usize;

/// States of the automaton; number N is bit N, from the lowest on.
pub type States = Vec<u64>;

/// Patterns, compiled. Each is a chain of states; those of later patterns are higher.
#[derive(Debug, Default)]
pub struct Patterns {
    /// For each byte which of `moves` is its own.
    move_of: Vec<u16>,
    /// States that a byte can lead to, each from the one below it.
    moves: Vec<States>,
    rows: Rows,
    fitted: Arc<Fitted>,
}

/// The patterns that have fitted a path, by their last states.
#[derive(Debug, Default)]
pub struct Fitted(Vec<AtomicU64>);

impl Fitted {
    /// Returns the last states of these patterns.
    pub fn states(&self) -> States {
        self.0.iter().map(|word| word.load(Relaxed)).collect()
    }

    fn note(&self, index: usize, found: u64) {
        // Threads share the word, and hardly any path is the first that a pattern fits.
        if found & !self.0[index].load(Relaxed) != 0 {
            self.0[index].fetch_or(found, Relaxed);
        }
    }
}

/// The rows that do not depend on a byte.
#[derive(Debug, Default)]
pub struct Rows {
    /// States before the first byte.
    pub start: States,
    /// States that stay active over every byte but a slash.
    pub name_loops: States,
    /// States that stay active over every byte.
    pub path_loops: States,
    /// States that activate the next one when they are reached.
    pub skips: States,
    /// Last states of patterns.
    pub accepts: States,
    /// Those of `accepts` that fit nothing but directories.
    pub directories_only: States,
    /// Those of `accepts` that exclude.
    pub excludes: States,
}

impl Patterns {
    /// Takes what bytes lead to: the states of each byte in `moves`, and those of all others.
    ///
    /// # Errors
    /// [`Error::Usage`] if the rows are not of one length.
    pub fn new(moves: Vec<(u8, States)>, other_moves: States, rows: Rows) -> Result<Self> {
        let Rows { start, name_loops, path_loops, skips, accepts, directories_only, excludes } = &rows;
        let fixed = [start, name_loops, path_loops, skips, accepts, directories_only, excludes];
        let fits = |row: &States| row.len() == other_moves.len();
        if !fixed.into_iter().all(fits) || !moves.iter().all(|(_, row)| fits(row)) {
            return Err(Error::Usage(Cause::UnevenPatterns));
        }
        let fitted = Arc::new(Fitted(rows.accepts.iter().map(|_| AtomicU64::new(0)).collect()));
        let mut patterns = Self { move_of: vec![0; 256], moves: vec![other_moves], rows, fitted };
        for (byte, row) in moves {
            patterns.move_of[usize::from(byte)] = patterns.moves.len() as u16;
            patterns.moves.push(row);
        }
        Ok(patterns)
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.start.is_empty()
    }

    /// Returns the patterns that have fitted a path, which grow while paths are read.
    pub fn fitted(&self) -> Arc<Fitted> {
        self.fitted.clone()
    }

    /// Returns the states before a name in the directory at `path`, which is empty for the root.
    pub fn enter(&self, path: &[u8]) -> States {
        let mut states = self.rows.start.clone();
        if !path.is_empty() {
            self.read(&mut states, path);
            self.read(&mut states, b"/");
        }
        states
    }

    /// Returns true if a name is excluded by the last pattern that fits it; `states` are those before it.
    pub fn exclude(&self, states: &States, name: &[u8], is_directory: bool) -> bool {
        let mut states = states.clone();
        self.read(&mut states, name);
        let rows = &self.rows;
        let mut is_excluded = None;
        for index in (0..states.len()).rev() {
            let only = if is_directory { 0 } else { rows.directories_only[index] };
            let found = states[index] & rows.accepts[index] & !only;
            if found != 0 {
                self.fitted.note(index, found);
                is_excluded.get_or_insert(rows.excludes[index] >> found.ilog2() & 1 == 1);
            }
        }
        is_excluded.unwrap_or(false)
    }

    fn read(&self, states: &mut States, text: &[u8]) {
        let rows = &self.rows;
        for &byte in text {
            let moves = &self.moves[usize::from(self.move_of[usize::from(byte)])];
            let loops = if byte == b'/' { &rows.path_loops } else { &rows.name_loops };
            let (mut carry, mut skip_carry) = (0, 0);
            let rest = moves.iter().zip(loops).zip(&rows.skips);
            for (state, ((moves, loops), skips)) in states.iter_mut().zip(rest) {
                let reached = (*state << 1 | carry) & moves;
                let skipped = reached & skips;
                carry = *state >> (WORD_BITS - 1);
                *state = reached | skipped << 1 | skip_carry | *state & loops;
                skip_carry = skipped >> (WORD_BITS - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `a/**/b` or, in a directory, `*c`, on states that lie across two words: from number 61 on.
    fn patterns() -> Patterns {
        let row = |states: &[usize]| {
            let mut row = vec![0_u64; 2];
            states.iter().for_each(|state| row[state / WORD_BITS] |= 1 << (state % WORD_BITS));
            row
        };
        // 61 -a-> 62 -/-> 63 (any depth) -/-> 64 -b-> 65; 66 (any depth) -/-> 67 (any name) -c-> 68.
        let moves = vec![(b'a', row(&[62])), (b'/', row(&[63, 64, 67])), (b'b', row(&[65])), (b'c', row(&[68]))];
        let rows = Rows {
            start: row(&[61, 66, 67]),
            name_loops: row(&[63, 66, 67]),
            path_loops: row(&[63, 66]),
            skips: row(&[63, 66]),
            accepts: row(&[65, 68]),
            directories_only: row(&[68]),
            excludes: row(&[65]),
        };
        Patterns::new(moves, row(&[]), rows).unwrap()
    }

    #[test]
    fn states_move_across_words() {
        let patterns = patterns();
        let out = |directory: &[u8], name: &[u8]| patterns.exclude(&patterns.enter(directory), name, false);
        assert!(out(b"a", b"b") && out(b"a/x", b"b") && out(b"a/x/b", b"b"));
        assert!(!out(b"", b"b") && !out(b"a", b"xb") && !out(b"a", b"bb") && !out(b"ab", b"b") && !out(b"x/a", b"b"));
    }

    #[test]
    fn the_last_pattern_that_fits_decides() {
        let mut patterns = patterns();
        patterns.rows.excludes[1] = 1 << (68 - WORD_BITS);
        let at = patterns.enter(b"x/y");
        assert!(patterns.exclude(&at, b"abc", true) && patterns.exclude(&at, b"c", true));
        assert!(!patterns.exclude(&at, b"abc", false) && !patterns.exclude(&at, b"cd", true));
    }

    #[test]
    fn patterns_that_fitted_are_remembered() {
        let patterns = patterns();
        let fitted = patterns.fitted();
        assert!(!patterns.exclude(&patterns.enter(b"x"), b"abc", false));
        assert_eq!(fitted.states(), [0, 0]);
        assert!(!patterns.exclude(&patterns.enter(b"x"), b"abc", true));
        assert_eq!(fitted.states(), [0, 1 << (68 - WORD_BITS)]);
        assert!(patterns.exclude(&patterns.enter(b"a"), b"b", false));
        assert_eq!(fitted.states(), patterns.rows.accepts);
    }

    #[test]
    fn rows_of_several_lengths_are_refused() {
        assert!(Patterns::new(vec![(b'a', vec![0; 2])], vec![0; 1], Rows::default()).is_err());
        assert!(Patterns::default().is_empty());
    }
}
