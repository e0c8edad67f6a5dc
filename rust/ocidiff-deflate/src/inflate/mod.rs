//! Inflate (RFC 1951): streams of other encoders, and broken ones.
//!
//! Law: what is refused, and at which place, is what zlib refuses there.

mod fast;
mod input;
mod table;

use std::io::{BufRead, ErrorKind, Result};

use crate::block::{FIXED_DISTANCES, FIXED_LITERALS, PRECODE_ORDER};
use crate::matches::LONGEST;
use crate::window::DICTIONARY_BYTES;
use fast::Stop;
use input::{Bits, filled};
use table::{BLOCK_END, Distances, Entry, LITERAL, Lengths, Literals, SPECIAL, bits_of, value_of};

/// Room for what was decoded before and what is decoded next; a power of two, so that a masked index needs no check.
pub const INFLATED_BYTES: usize = 1 << 18;
/// Matches are copied in steps of this.
const STEP: usize = 16;
/// A window of the content. What is behind the decoded bytes has no meaning.
pub type Inflated = [u8; INFLATED_BYTES + STEP];
/// Literals and a match, and all that is written behind them, have room from here.
const LAST_START: usize = INFLATED_BYTES - LONGEST - 5 * STEP;
/// The data is broken.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

impl From<Broken> for std::io::Error {
    fn from(Broken: Broken) -> Self {
        ErrorKind::InvalidData.into()
    }
}

/// The next part of a stream.
#[derive(Clone, Copy)]
enum Next {
    /// The header of a block.
    Header,
    /// So many bytes of a stored block.
    Stored(usize),
    /// Symbols.
    Symbols,
    /// Nothing.
    End,
}

/// The reason for which decoding paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The window is full.
    Full,
    /// The stream has ended.
    End,
}

/// Decodes streams that are read from one input.
pub struct Inflater {
    bits: Bits,
    next: Next,
    is_last: bool,
    /// Bytes of this stream so far, as far as matches reach.
    reach: usize,
    /// The codes of this block.
    codes: Codes,
    /// The codes that need no description, ready since some blocks are a few bits long.
    fixed: Codes,
    is_fixed: bool,
    lengths: Lengths,
}

/// The codes of a block.
#[derive(Default)]
struct Codes {
    literals: Literals,
    distances: Distances,
}

impl Codes {
    /// Sets both from the lengths of their codes.
    fn set(&mut self, literals: &[u8], distances: &[u8]) -> std::result::Result<(), Broken> {
        self.literals.set(literals)?;
        self.distances.set(distances)
    }

    /// Decodes one literal or match, where the input may be about to end; true if it ended the block.
    fn read_one(
        &self,
        bits: &mut Bits,
        input: &mut impl BufRead,
        out: &mut Inflated,
        at: &mut usize,
        first: usize,
    ) -> Result<bool> {
        let entry = self.literals.next(bits, input)?;
        if entry & LITERAL != 0 {
            bits.skip(bits_of(entry));
            out[*at] = (entry >> 16) as u8;
            *at += 1;
            return Ok(false);
        }
        if entry & SPECIAL != 0 {
            bits.skip(bits_of(entry));
            return if entry & BLOCK_END != 0 { Ok(true) } else { Err(Broken.into()) };
        }
        let length = take_value(entry, bits, input)?;
        let entry = self.distances.next(bits, input)?;
        if entry & SPECIAL != 0 {
            return Err(Broken.into());
        }
        let distance = take_value(entry, bits, input)?;
        if distance > *at - first {
            return Err(Broken.into());
        }
        fast::copy(out, *at, distance, length);
        *at += length;
        Ok(false)
    }
}

/// Takes a length or distance, whose code is `entry`.
fn take_value(entry: Entry, bits: &mut Bits, input: &mut impl BufRead) -> Result<usize> {
    bits.need(bits_of(entry), input)?;
    let value = value_of(entry, bits.hold);
    bits.skip(bits_of(entry));
    Ok(value)
}

impl Default for Inflater {
    /// Returns a decoder that is between streams.
    fn default() -> Self {
        let (codes, mut fixed, lengths) = <(Codes, Codes, Lengths)>::default();
        // These lengths are right.
        let _ = fixed.set(&FIXED_LITERALS, &FIXED_DISTANCES);
        Self { bits: Bits::default(), next: Next::End, is_last: false, reach: 0, codes, fixed, is_fixed: false, lengths }
    }
}

impl Inflater {
    /// Begins a stream.
    pub fn begin(&mut self) {
        (self.next, self.is_last, self.reach) = (Next::Header, false, 0);
    }

    /// Returns true if the input has ended, between streams.
    ///
    /// # Errors
    /// Those of the input.
    pub fn is_at_end(&mut self, input: &mut impl BufRead) -> Result<bool> {
        Ok(self.bits.count == 0 && filled(input)?.is_empty())
    }

    /// Takes `count` whole bytes, at most four, between streams. The first one is the lowest.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] if the input ends before; what the input says.
    pub fn take_bytes(&mut self, count: u32, input: &mut impl BufRead) -> Result<u32> {
        self.bits.take(8 * count, input)
    }

    /// Decodes to `out` at `at`, until the stream ends or the window is full: then a match may not fit any more. Before
    /// `at` are the last [`DICTIONARY_BYTES`] of the content, or as many as there are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] and [`ErrorKind::UnexpectedEof`], with all content before the fault in `out`; what the
    /// input says.
    pub fn inflate(&mut self, input: &mut impl BufRead, out: &mut Inflated, at: &mut usize) -> Result<Pause> {
        let begin = *at;
        let first = begin.saturating_sub(self.reach);
        let result = self.decode(input, out, at, first);
        self.reach = DICTIONARY_BYTES.min(self.reach + (*at - begin));
        result
    }

    fn decode(&mut self, input: &mut impl BufRead, out: &mut Inflated, at: &mut usize, first: usize) -> Result<Pause> {
        loop {
            match self.next {
                Next::End => return Ok(Pause::End),
                _ if *at > LAST_START => return Ok(Pause::Full),
                Next::Header => self.read_header(input)?,
                Next::Stored(left) => {
                    let count = self.copy_stored(left, input, out, at)?;
                    self.next = if count == left { self.after_block() } else { Next::Stored(left - count) };
                }
                Next::Symbols => {
                    if self.read_symbols(input, out, at, first)? {
                        self.next = self.after_block();
                    }
                }
            }
        }
    }

    fn after_block(&mut self) -> Next {
        if !self.is_last {
            return Next::Header;
        }
        self.bits.align();
        Next::End
    }

    fn read_header(&mut self, input: &mut impl BufRead) -> Result<()> {
        self.is_last = self.bits.take(1, input)? == 1;
        self.next = match self.bits.take(2, input)? {
            0 => {
                self.bits.align();
                let sizes = self.bits.take(32, input)?;
                let size = sizes & 0xffff;
                if sizes >> 16 != !size & 0xffff {
                    return Err(Broken.into());
                }
                Next::Stored(size as usize)
            }
            1 => {
                self.is_fixed = true;
                Next::Symbols
            }
            2 => {
                self.read_codes(input)?;
                self.is_fixed = false;
                Next::Symbols
            }
            _ => return Err(Broken.into()),
        };
        Ok(())
    }

    /// Reads the codes of a block (RFC 1951 section 3.2.7).
    fn read_codes(&mut self, input: &mut impl BufRead) -> Result<()> {
        let counts = self.bits.take(14, input)?;
        let (literals, distances) = ((counts & 31) as usize + 257, (counts >> 5 & 31) as usize + 1);
        if literals > 286 || distances > 30 {
            return Err(Broken.into());
        }
        let mut lengths = [0; 19];
        for &symbol in &PRECODE_ORDER[..(counts >> 10) as usize + 4] {
            lengths[symbol] = self.bits.take(3, input)? as u8;
        }
        self.lengths.set(&lengths)?;
        let mut lengths = [0; 286 + 30];
        let (mut at, end) = (0, literals + distances);
        while at < end {
            let entry = self.lengths.next(&mut self.bits, input)?;
            self.bits.skip(bits_of(entry));
            let (value, times) = match entry >> 16 {
                16 => {
                    let times = self.bits.take(2, input)? + 3;
                    let Some(before) = at.checked_sub(1) else { return Err(Broken.into()) };
                    (lengths[before], times)
                }
                17 => (0, self.bits.take(3, input)? + 3),
                18 => (0, self.bits.take(7, input)? + 11),
                length => (length as u8, 1),
            };
            let Some(places) = lengths[..end].get_mut(at..at + times as usize) else { return Err(Broken.into()) };
            places.fill(value);
            at += times as usize;
        }
        Ok(self.codes.set(&lengths[..literals], &lengths[literals..end])?)
    }

    /// Copies up to `left` bytes of a stored block; returns how many.
    fn copy_stored(&mut self, left: usize, input: &mut impl BufRead, out: &mut Inflated, at: &mut usize) -> Result<usize> {
        let most = left.min(INFLATED_BYTES - *at);
        let mut done = 0;
        while done < most {
            if self.bits.count > 0 {
                out[*at] = self.bits.take(8, input)? as u8;
                (*at, done) = (*at + 1, done + 1);
                continue;
            }
            let bytes = filled(input)?;
            let count = bytes.len().min(most - done);
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            out[*at..*at + count].copy_from_slice(&bytes[..count]);
            input.consume(count);
            (*at, done) = (*at + count, done + count);
        }
        Ok(done)
    }

    /// Decodes symbols; true if the block has ended, false if the window is full.
    fn read_symbols(&mut self, input: &mut impl BufRead, out: &mut Inflated, at: &mut usize, first: usize) -> Result<bool> {
        let codes = if self.is_fixed { &self.fixed } else { &self.codes };
        while *at <= LAST_START {
            let (taken, stop) = fast::run(codes, &mut self.bits, filled(input)?, out, at, first);
            input.consume(taken);
            if stop? == Stop::Block || *at <= LAST_START && codes.read_one(&mut self.bits, input, out, at, first)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
