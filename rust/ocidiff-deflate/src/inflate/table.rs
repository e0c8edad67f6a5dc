//! Tables by which prefix codes are decoded: a first one for the next bits, and further ones for longer codes.
//!
//! Law: which codes are refused is what zlib refuses. Both engines must call the same blobs broken.

use std::io::{self, BufRead};

use super::Broken;
use super::input::Bits;
use crate::block::{DISTANCE_BASE, END, LENGTH_BASE};

/// Says what to do with the next bits. From the lowest bit on:
///
/// - bits 0 to 7: how many bits it takes in all, extra bits included;
/// - bits 8 to 12: how many of them are the code; of a [`FURTHER`] entry, how many bits the further table decodes;
/// - bits 13 to 15: the flags below;
/// - bits 16 to 31: the literal, the base of a length or distance, or where a further table begins.
pub(super) type Entry = u32;

/// A literal.
pub(super) const LITERAL: Entry = 1 << 13;
/// Neither a literal nor a base: one of the two below, or a code that nothing has.
pub(super) const SPECIAL: Entry = 1 << 14;
/// With [`SPECIAL`]: the code is longer, and a further table has the rest of it.
pub(super) const FURTHER: Entry = 1 << 15;
/// With [`SPECIAL`], but not [`FURTHER`]: the block ends.
pub(super) const BLOCK_END: Entry = 1 << 16;

/// The longest code.
const MAX_BITS: usize = 15;
/// Symbols of the largest code.
const MAX_SYMBOLS: usize = 288;

/// A table of `SIZE` entries, the first `1 << BITS` of which are for the next bits.
pub(super) struct Table<const BITS: u32, const SIZE: usize>(Box<[Entry; SIZE]>);

/// Literals and lengths. At most 2342 entries are used: zlib's `enough.c` counts them.
pub(super) type Literals = Table<11, 4096>;
/// Distances; at most 402 entries.
pub(super) type Distances = Table<8, 512>;
/// The lengths of the codes of the other two.
pub(super) type Lengths = Table<7, 128>;

/// Returns how many bits `entry` takes.
#[inline(always)]
pub(super) fn bits_of(entry: Entry) -> u32 {
    entry & 0xff
}

/// Returns how many of them are the code.
#[inline(always)]
pub(super) fn code_bits_of(entry: Entry) -> u32 {
    entry >> 8 & 0x1f
}

/// Returns the value of an entry that is no special one, by its extra bits in `bits`, which begin with its code.
#[inline(always)]
pub(super) fn value_of(entry: Entry, bits: u64) -> usize {
    (entry >> 16) as usize + ((bits & ((1 << bits_of(entry)) - 1)) >> code_bits_of(entry)) as usize
}

impl<const BITS: u32, const SIZE: usize> Default for Table<BITS, SIZE> {
    fn default() -> Self {
        Self(Box::new([0; SIZE]))
    }
}

impl<const BITS: u32, const SIZE: usize> Table<BITS, SIZE> {
    /// Returns the entry for the next bits.
    #[inline(always)]
    pub fn first(&self, bits: u64) -> Entry {
        self.0[bits as usize & ((1 << BITS) - 1)]
    }

    /// Returns the entry for the bits behind those of `entry`, which is [`FURTHER`].
    #[inline(always)]
    pub fn further(&self, entry: Entry, bits: u64) -> Entry {
        let rest = bits as usize & ((1 << code_bits_of(entry)) - 1);
        self.0[((entry >> 16) as usize + rest) & (SIZE - 1)]
    }

    /// Returns the entry of the next code, all bits of which are in `bits` then, but perhaps not its extra bits.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::UnexpectedEof`] if the input ends before; what the input says.
    pub fn next(&self, bits: &mut Bits, input: &mut impl BufRead) -> io::Result<Entry> {
        loop {
            let entry = self.first(bits.hold);
            let is_further = entry & FURTHER != 0 && BITS <= bits.count;
            let (before, entry) = if is_further { (BITS, self.further(entry, bits.hold >> BITS)) } else { (0, entry) };
            if entry & FURTHER == 0 && before + code_bits_of(entry) <= bits.count {
                bits.skip(before);
                return Ok(entry);
            }
            bits.need(bits.count + 1, input)?;
        }
    }

    /// Builds the table for codes of these lengths.
    ///
    /// # Errors
    /// [`Broken`] if two codes would be one, or some bits no code, except for a code of one symbol or, unless it must be
    /// whole, of none.
    fn build(&mut self, lengths: &[u8], entry_of: impl Fn(usize) -> Entry, must_be_whole: bool) -> Result<(), Broken> {
        let mut counts = [0u16; MAX_BITS + 1];
        lengths.iter().for_each(|&length| counts[usize::from(length) & MAX_BITS] += 1);
        counts[0] = 0;
        // Where the symbols of each length begin, and the codes that are left at that length.
        let (mut begins, mut codes) = ([0u16; MAX_BITS + 1], [0u16; MAX_BITS + 1]);
        let mut left = 1i32;
        for length in 1..=MAX_BITS {
            left = 2 * left - i32::from(counts[length]);
            if left < 0 {
                return Err(Broken);
            }
            begins[length] = begins[length - 1] + counts[length - 1];
            codes[length] = (codes[length - 1] + counts[length - 1]) << 1;
        }
        let used = usize::from(begins[MAX_BITS] + counts[MAX_BITS]);
        let is_lone = used == usize::from(counts[1]);
        if left > 0 && !is_lone || left > 0 && must_be_whole && used > 0 {
            return Err(Broken);
        }
        // A code that nothing has takes one bit.
        self.0[..1 << BITS].fill(SPECIAL | 1 << 8 | 1);
        let mut sorted = [(0u16, 0u16, 0u8); MAX_SYMBOLS];
        for (symbol, &length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let at = usize::from(length) & MAX_BITS;
            let code = codes[at].reverse_bits() >> (16 - at);
            sorted[usize::from(begins[at])] = (symbol as u16, code, length);
            (begins[at], codes[at]) = (begins[at] + 1, codes[at] + 1);
        }
        self.fill(&sorted[..used], entry_of);
        Ok(())
    }

    /// Writes the entries of symbols with their codes and lengths, the shorter codes first.
    fn fill(&mut self, sorted: &[(u16, u16, u8)], entry_of: impl Fn(usize) -> Entry) {
        let is_short = |&(_, _, length): &(u16, u16, u8)| u32::from(length) <= BITS;
        let (short, long) = sorted.split_at(sorted.partition_point(is_short));
        for &(symbol, code, length) in short {
            let entry = entry_of(usize::from(symbol)) + u32::from(length) * 0x101;
            let first = &mut self.0[..1 << BITS];
            first[usize::from(code)..].iter_mut().step_by(1 << length).for_each(|place| *place = entry);
        }
        let mut end = 1 << BITS;
        // The longest code of those that begin alike comes first, and says how large their table is.
        for &(symbol, code, length) in long.iter().rev() {
            let place = &mut self.0[usize::from(code) & ((1 << BITS) - 1)];
            if *place & FURTHER == 0 {
                let rest = u32::from(length) - BITS;
                *place = SPECIAL | FURTHER | (end as u32) << 16 | rest << 8 | BITS;
                end += 1 << rest;
            }
            let (begin, bits) = ((*place >> 16) as usize, code_bits_of(*place));
            let rest = u32::from(length) - BITS;
            let entry = entry_of(usize::from(symbol)) + rest * 0x101;
            let further = &mut self.0[begin..begin + (1 << bits)];
            further[usize::from(code >> BITS)..].iter_mut().step_by(1 << rest).for_each(|place| *place = entry);
        }
    }
}

impl Literals {
    /// Builds the table from the lengths of the codes of literals and lengths.
    ///
    /// # Errors
    /// [`Broken`] as in [`Table::build`], and if no code ends the block.
    pub fn set(&mut self, lengths: &[u8]) -> Result<(), Broken> {
        if lengths[END] == 0 {
            return Err(Broken);
        }
        self.build(lengths, literal_entry, false)
    }
}

impl Distances {
    /// Builds the table from the lengths of the codes of distances; errors as in [`Table::build`].
    pub fn set(&mut self, lengths: &[u8]) -> Result<(), Broken> {
        self.build(lengths, distance_entry, false)
    }
}

impl Lengths {
    /// Builds the table from the lengths of the codes of lengths; errors as in [`Table::build`].
    pub fn set(&mut self, lengths: &[u8]) -> Result<(), Broken> {
        self.build(lengths, |symbol| (symbol as u32) << 16, true)
    }
}

fn literal_entry(symbol: usize) -> Entry {
    match symbol {
        0..END => LITERAL | (symbol as u32) << 16,
        END => SPECIAL | BLOCK_END,
        _ => LENGTH_BASE.get(symbol - END).map_or(SPECIAL, |&base| based(base)),
    }
}

fn distance_entry(symbol: usize) -> Entry {
    DISTANCE_BASE.get(symbol).map_or(SPECIAL, |&base| based(base))
}

fn based((base, extra): (u16, u8)) -> Entry {
    u32::from(base) << 16 | u32::from(extra)
}
