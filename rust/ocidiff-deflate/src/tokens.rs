//! Literals and matches as numbers: what the search found, in the form that is counted and written.

use crate::matches::{LONGEST, Match};
use crate::window::{Window, load, load8};

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
        // The upper byte moves up by one bit.
        Self(pair + (pair & 0xff00) + ((SECOND_LITERAL as u32) << 9))
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

    /// Adds these tokens.
    pub fn extend(&mut self, tokens: &[Token]) {
        self.buffer.truncate(self.count);
        self.buffer.extend(tokens);
        self.count = self.buffer.len();
    }

    /// Returns room for the tokens of `bytes` bytes, and of a match that reaches beyond them.
    #[inline(always)]
    pub fn room(&mut self, bytes: usize) -> Room<'_> {
        // Two bytes or more make a token.
        let end = self.count + bytes.div_ceil(2) + LONGEST + STEP;
        if self.buffer.len() < end {
            self.buffer.resize(end.next_multiple_of(1 << 14), Token(0));
        }
        let Self { buffer, count } = self;
        Room { next: *count, buffer, count }
    }

    /// Adds `count` literals from `from` on, and then a match.
    #[inline(always)]
    pub fn push(&mut self, window: &Window, from: usize, count: usize, found: Match) {
        let mut room = self.room(count);
        if count > 0 {
            room.push_literals(window, from, count);
        }
        room.push_match(found);
    }

    /// Adds `count` literals from `from` on.
    #[inline(always)]
    pub fn push_literals(&mut self, window: &Window, from: usize, count: usize) {
        self.room(count).push_literals(window, from, count);
    }
}

/// Tokens and the room behind them.
pub struct Room<'a> {
    buffer: &'a mut [Token],
    next: usize,
    count: &'a mut usize,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.count = self.next;
    }
}

impl Room<'_> {
    /// Adds a match.
    #[inline(always)]
    pub fn push_match(&mut self, found: Match) {
        self.buffer[self.next] = Token::matched(found);
        self.next += 1;
    }

    /// Adds `count` literals from `from` on.
    #[inline(always)]
    pub fn push_literals(&mut self, window: &Window, from: usize, count: usize) {
        let mut done = 0;
        loop {
            let tokens = &mut self.buffer[self.next + done / 2..][..STEP / 2];
            let bytes: &[u8; STEP] = load(window, from + done);
            for (token, &pair) in tokens.iter_mut().zip(bytes.as_chunks().0) {
                *token = Token::pair(u16::from_le_bytes(pair));
            }
            done += STEP;
            if done >= count {
                break;
            }
        }
        // The last of an odd number stands alone. For an even number, what comes next takes the place.
        self.buffer[self.next + count / 2] = Token::literal(load8(window, (from + count).wrapping_sub(1)) as u8);
        self.next += count.div_ceil(2);
    }
}
