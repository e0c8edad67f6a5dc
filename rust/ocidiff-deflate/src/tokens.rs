//! Literals and matches as numbers: what the search found, in the form that is counted and written.

use crate::matches::Match;
use crate::window::{Window, load8};

/// One or two literals, or a match, from the lowest bit on:
///
/// - 9 bits: a literal, or 256 and the length of a match, less 3;
/// - 9 bits: the symbol of the distance, 30 for nothing, or 32 and a second literal;
/// - 13 bits: the extra bits of the distance.
#[derive(Clone, Copy)]
pub struct Token(u32);

/// Values of the first part, and of the second.
pub const PARTS: usize = 512;
/// The first part of a match of three bytes.
pub const FIRST_LENGTH: usize = 256;
/// A second part that stands for nothing.
const NOTHING: u32 = 30;
/// The second part of the literal 0.
pub const SECOND_LITERAL: usize = 32;

impl Token {
    /// Returns the literal, or 256 and the length of a match, less 3.
    #[inline(always)]
    pub fn first(self) -> usize {
        self.0 as usize & (PARTS - 1)
    }

    /// Returns the symbol of the distance, 30 for nothing, or 32 and a literal.
    #[inline(always)]
    pub fn second(self) -> usize {
        (self.0 >> 9) as usize & (PARTS - 1)
    }

    /// Returns the extra bits of the distance.
    #[inline(always)]
    pub fn extra(self) -> u32 {
        self.0 >> 18
    }

    #[inline(always)]
    fn literal(byte: u8) -> Self {
        Self(u32::from(byte) | NOTHING << 9)
    }

    #[inline(always)]
    fn pair(pair: u16) -> Self {
        let pair = u32::from(pair);
        Self(pair & 0xff | ((pair >> 8) + SECOND_LITERAL as u32) << 9)
    }

    #[inline(always)]
    fn matched(found: Match) -> Self {
        // RFC 1951 section 3.2.5: two symbols for each power of two of the distance less one.
        let past = found.distance as u32 - 1;
        let extra_bits = (past | 2).ilog2() - 1;
        let symbol = 2 * extra_bits + (past >> extra_bits);
        let extra = past & ((1 << extra_bits) - 1);
        Self((found.length + FIRST_LENGTH - 3) as u32 | symbol << 9 | extra << 18)
    }
}

/// Literals are taken in steps of this, which most runs need one of.
const STEP: usize = 16;

/// The tokens that are in no block yet.
#[derive(Default)]
pub struct Tokens {
    /// The tokens, and room behind them.
    buffer: Vec<Token>,
    count: usize,
}

impl Tokens {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Forgets the first `count` tokens.
    pub fn remove_first(&mut self, count: usize) {
        self.buffer.copy_within(count..self.count, 0);
        self.count -= count;
    }

    /// Returns the tokens.
    pub fn all(&self) -> &[Token] {
        &self.buffer[..self.count]
    }

    /// Adds `count` literals from `from` on, and then a match.
    #[inline(always)]
    pub fn push(&mut self, window: &Window, from: usize, count: usize, found: Match) {
        self.push_literals(window, from, count);
        // There is room for it: literals leave some behind them.
        self.buffer[self.count] = Token::matched(found);
        self.count += 1;
    }

    /// Adds `count` literals from `from` on.
    #[inline(always)]
    pub fn push_literals(&mut self, window: &Window, from: usize, count: usize) {
        let end = self.count + count / 2 + 2 + STEP / 2;
        if self.buffer.len() < end {
            self.buffer.resize(end.next_multiple_of(1 << 14), Token(0));
        }
        let mut done = 0;
        loop {
            let tokens = &mut self.buffer[self.count + done / 2..][..STEP / 2];
            let (low, high) = (load8(window, from + done), load8(window, from + done + 8));
            for index in 0..4 {
                tokens[index] = Token::pair((low >> (16 * index)) as u16);
                tokens[index + 4] = Token::pair((high >> (16 * index)) as u16);
            }
            done += STEP;
            if done >= count {
                break;
            }
        }
        // The last of an odd number stands alone. For an even number, what comes next takes the place.
        self.buffer[self.count + count / 2] = Token::literal(load8(window, (from + count).wrapping_sub(1)) as u8);
        self.count += count.div_ceil(2);
    }
}
