//! Decides where one deflate block ends and the next begins: segments share a block as long as one code for both costs no
//! more.

use crate::bits::BitWriter;
use crate::block::{self, Histogram};
use crate::tokens::Tokens;
use crate::window::Window;

/// About what a block's header takes beyond its codes.
const HEADER_BITS: i64 = 100;
/// About what one more symbol takes in the header.
const SYMBOL_BITS: i64 = 4;

/// The block that is to be written next.
#[derive(Default)]
pub struct Splitter {
    start: usize,
    end: usize,
    /// The number of its tokens.
    count: usize,
    histogram: Option<(Histogram, i64)>,
}

impl Splitter {
    /// Begins a new stretch of bytes at `start`.
    pub fn begin(&mut self, start: usize) {
        *self = Self { start, end: start, count: 0, histogram: None };
    }

    /// Takes the tokens behind those that it has: the next segment, which ends at `end`. Removes tokens that were written.
    pub fn add(&mut self, window: &Window, tokens: &mut Tokens, end: usize, out: &mut BitWriter<'_>) {
        let histogram = Histogram::of(&tokens.all()[self.count..]);
        let cost = cost(&histogram);
        match &mut self.histogram {
            None => self.histogram = Some((histogram, cost)),
            Some((pending, pending_cost)) => {
                let both = pending.sum(&histogram);
                let both_cost = self::cost(&both);
                if both_cost <= *pending_cost + cost {
                    (*pending, *pending_cost) = (both, both_cost);
                } else {
                    block::write(out, &window[self.start..self.end], &tokens.all()[..self.count], pending, false);
                    (*pending, *pending_cost) = (histogram, cost);
                    tokens.remove_first(self.count);
                    self.start = self.end;
                }
            }
        }
        self.count = tokens.all().len();
        self.end = end;
    }

    /// Writes what is left.
    pub fn finish(&mut self, window: &Window, tokens: &Tokens, last: bool, out: &mut BitWriter<'_>) {
        if let Some((histogram, _)) = &mut self.histogram {
            block::write(out, &window[self.start..self.end], tokens.all(), histogram, last);
        }
    }
}

/// Returns about what a block costs beyond extra bits, in 1/256 bits.
fn cost(histogram: &Histogram) -> i64 {
    entropy(&histogram.literals) + entropy(&histogram.distances) + (HEADER_BITS << 8)
}

fn entropy<const N: usize>(counts: &[u32; N]) -> i64 {
    let (mut total, mut sum) = (0, 0);
    for &count in counts.iter().filter(|count| **count > 0) {
        total += count;
        sum += (SYMBOL_BITS << 8) - i64::from(count) * log2(count);
    }
    sum + i64::from(total) * log2(total.max(1))
}

/// Returns the logarithm of a number that is not 0, in 1/256.
fn log2(value: u32) -> i64 {
    let whole = value.ilog2();
    let fraction = (u64::from(value) << 8 >> whole) & 0xff;
    i64::from(whole << 8) + i64::from(FRACTIONS[fraction as usize])
}

/// 256 · log2(1 + i / 256), rounded down.
static FRACTIONS: [u8; 256] = fractions();

const fn fractions() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        // Squaring doubles the logarithm; whenever the number reaches 2, the next bit is 1. There are 30 bits of fraction.
        let mut number = (256 + index as u64) << 22;
        let (mut value, mut bit) = (0, 0);
        while bit < 8 {
            number = (number * number) >> 30;
            value <<= 1;
            if number >= 2 << 30 {
                number >>= 1;
                value |= 1;
            }
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_one_256th() {
        for value in [1u32, 2, 3, 5, 255, 256, 257, 1000, 65535, 1 << 20, u32::MAX] {
            let exact = f64::from(value).log2() * 256.0;
            let difference = exact - log2(value) as f64;
            assert!((-0.01..2.5).contains(&difference), "{value}: {difference}");
        }
    }
}
