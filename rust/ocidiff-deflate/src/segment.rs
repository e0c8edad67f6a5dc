//! Literals and matches of a stretch of bytes.

use crate::matches::Match;
use crate::window::{Window, load8};

/// Literals, then a match.
#[derive(Clone, Copy)]
pub struct Sequence {
    /// Literals before the match.
    pub literals: u32,
    /// Length of the match, 3 to 258; 0 for none.
    pub length: u16,
    /// The distance of the match, 1 to 32768; 0 for none.
    pub distance: u16,
}

/// Sequences, and their literals in one piece: so both are counted and written without looking at the window again.
#[derive(Default)]
pub struct Segment {
    pub sequences: Vec<Sequence>,
    /// The literals, and what was copied along behind them.
    copied: Vec<u8>,
    literal_count: usize,
}

/// Literals are copied in steps of this, which most runs need one of.
const COPY: usize = 16;

impl Segment {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sequences.clear();
        self.literal_count = 0;
    }

    /// Returns the literals.
    pub fn literals(&self) -> &[u8] {
        &self.copied[..self.literal_count]
    }

    /// Returns the literals, and at least four bytes more if there is any sequence.
    pub fn padded_literals(&self) -> &[u8] {
        &self.copied
    }

    /// Adds `count` literals from `from` on, and then a match.
    #[inline(always)]
    pub fn push(&mut self, window: &Window, from: usize, count: usize, found: Match) {
        let (length, distance) = (found.length as u16, found.distance as u16);
        self.sequences.push(Sequence { literals: count as u32, length, distance });
        let end = self.literal_count + count;
        if self.copied.len() < end + COPY {
            self.copied.resize((end + COPY).next_power_of_two(), 0);
        }
        let mut done = 0;
        loop {
            let (first, second) = self.copied[self.literal_count + done..][..COPY].split_at_mut(8);
            first.copy_from_slice(&load8(window, from + done).to_le_bytes());
            second.copy_from_slice(&load8(window, from + done + 8).to_le_bytes());
            done += COPY;
            if done >= count {
                break;
            }
        }
        self.literal_count = end;
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: &Self) {
        self.sequences.extend_from_slice(&other.sequences);
        self.copied.truncate(self.literal_count);
        self.copied.extend_from_slice(other.literals());
        self.literal_count = self.copied.len();
        self.copied.resize(self.literal_count + COPY, 0);
    }
}
