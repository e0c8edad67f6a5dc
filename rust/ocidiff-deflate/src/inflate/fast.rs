//! The loop that decodes nearly all symbols: it needs input ahead and room behind, so that it has to look at neither often.

use super::input::Bits;
use super::table::{BLOCK_END, Entry, FURTHER, LITERAL, SPECIAL, bits_of, value_of};
use super::{Broken, Codes, INFLATED_BYTES, Inflated, LAST_START, STEP};

/// Input that one turn may take: two loads, the second at most seven bytes after the first.
const TURN_BYTES: usize = 15;

/// The reason for which the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The block ended.
    Block,
    /// Input or room may not be enough for another turn.
    Edge,
}

/// Decodes symbols of `input` to `out` at `at`, in which matches may begin at `first`. Returns how many bytes of input
/// were taken.
pub(super) fn run(
    codes: &Codes,
    bits: &mut Bits,
    input: &[u8],
    out: &mut Inflated,
    at: &mut usize,
    first: usize,
) -> (usize, Result<Stop, Broken>) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("bmi2") {
        // SAFETY: this processor has the instructions.
        return unsafe { run_with_bmi2(codes, bits, input, out, at, first) };
    }
    turns(codes, bits, input, out, at, first)
}

/// Does as [`run`], with shifts that need no particular register.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi2")]
fn run_with_bmi2(
    codes: &Codes,
    bits: &mut Bits,
    input: &[u8],
    out: &mut Inflated,
    at: &mut usize,
    first: usize,
) -> (usize, Result<Stop, Broken>) {
    turns(codes, bits, input, out, at, first)
}

/// Decodes symbols until the block ends or input or room may run out.
#[inline(always)]
fn turns(
    Codes { literals, distances }: &Codes,
    bits: &mut Bits,
    input: &[u8],
    out: &mut Inflated,
    at: &mut usize,
    first: usize,
) -> (usize, Result<Stop, Broken>) {
    let (mut hold, mut count, mut position) = (bits.hold, bits.count, *at);
    let mut rest = input;
    let stop = loop {
        if rest.len() < TURN_BYTES || position > LAST_START {
            break Ok(Stop::Edge);
        }
        refill(&mut hold, &mut count, &mut rest);
        let mut entry = literals.first(hold);
        // Three codes take 33 bits at most, and a length 20 more: no more than there are.
        for _ in 0..3 {
            if entry & LITERAL == 0 {
                break;
            }
            put(out, &mut position, entry);
            skip(&mut hold, &mut count, entry);
            entry = literals.first(hold);
        }
        if entry & SPECIAL != 0 {
            if entry & FURTHER != 0 {
                skip(&mut hold, &mut count, entry);
                entry = literals.further(entry, hold);
            }
            if entry & LITERAL != 0 {
                put(out, &mut position, entry);
                skip(&mut hold, &mut count, entry);
                continue;
            }
            if entry & SPECIAL != 0 {
                skip(&mut hold, &mut count, entry);
                break if entry & BLOCK_END != 0 { Ok(Stop::Block) } else { Err(Broken) };
            }
        }
        if entry & LITERAL != 0 {
            // There are more of them.
            continue;
        }
        let length = value_of(entry, hold);
        skip(&mut hold, &mut count, entry);
        refill(&mut hold, &mut count, &mut rest);
        let mut entry = distances.first(hold);
        if entry & SPECIAL != 0 {
            if entry & FURTHER == 0 {
                break Err(Broken);
            }
            skip(&mut hold, &mut count, entry);
            entry = distances.further(entry, hold);
            if entry & SPECIAL != 0 {
                break Err(Broken);
            }
        }
        let distance = value_of(entry, hold);
        skip(&mut hold, &mut count, entry);
        if distance > position - first {
            break Err(Broken);
        }
        copy(out, position, distance, length);
        position += length;
    };
    // What was loaded of the next byte is loaded again.
    (bits.hold, bits.count, *at) = (hold & ((1 << count) - 1), count, position);
    (input.len() - rest.len(), stop)
}

/// Loads bits until 56 to 63 are there; the input has eight bytes or more.
#[inline(always)]
fn refill(hold: &mut u64, count: &mut u32, rest: &mut &[u8]) {
    if let Some(word) = rest.first_chunk() {
        *hold |= u64::from_le_bytes(*word) << *count;
        *rest = &rest[((63 - *count) >> 3) as usize..];
        *count |= 56;
    }
}

#[inline(always)]
fn skip(hold: &mut u64, count: &mut u32, entry: Entry) {
    *hold >>= bits_of(entry) & 63;
    *count -= bits_of(entry);
}

#[inline(always)]
fn put(out: &mut Inflated, position: &mut usize, literal: Entry) {
    out[*position & (INFLATED_BYTES - 1)] = (literal >> 16) as u8;
    *position += 1;
}

/// Copies `length` bytes, which were written `distance` before `at`, to `at`, and some that have no meaning behind
/// them.
#[inline(always)]
pub(super) fn copy(out: &mut Inflated, at: usize, distance: usize, length: usize) {
    let (mut from, mut to) = (at - distance, at);
    // Near ones are doubled until a step does not read what it writes.
    while to - from < STEP {
        copy_step(out, from, to);
        to += to - from;
    }
    // Most matches need no more than two steps, and so no branch.
    copy_step(out, from, to);
    copy_step(out, from + STEP, to + STEP);
    let end = at + length;
    while to + 2 * STEP < end {
        (from, to) = (from + 2 * STEP, to + 2 * STEP);
        copy_step(out, from, to);
        copy_step(out, from + STEP, to + STEP);
    }
}

#[inline(always)]
fn copy_step(out: &mut Inflated, from: usize, to: usize) {
    let (from, to) = (from & (INFLATED_BYTES - 1), to & (INFLATED_BYTES - 1));
    let mut step = [0; STEP];
    step.copy_from_slice(&out[from..from + STEP]);
    out[to..to + STEP].copy_from_slice(&step);
}
