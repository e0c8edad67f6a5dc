//! Writes one deflate block: its literals and matches as bits, in the shortest of the three forms (RFC 1951 section
//! 3.2.3).

use crate::bits::BitWriter;
use crate::huffman::Code;
use crate::tokens::{FIRST_LENGTH, PARTS, SECOND_LITERAL, Token};

/// Counts of each symbol.
#[derive(Clone)]
pub struct Histogram {
    /// Literals, the end of the block (256), and lengths (257 to 285).
    pub literals: [u32; 288],
    /// Distances (0 to 29).
    pub distances: [u32; 32],
}

/// The symbol that ends a block.
pub const END: usize = 256;
/// The most that one stored block can hold.
const STORED_BYTES: usize = 0xffff;
/// The order in which the code of code lengths is sent.
pub const PRECODE_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Bits of each symbol in the codes that need no description (RFC 1951 section 3.2.6).
pub const FIXED_LITERALS: [u8; 288] = fixed_literals();
pub const FIXED_DISTANCES: [u8; 32] = [5; 32];

const fn fixed_literals() -> [u8; 288] {
    let mut lengths = [8; 288];
    let mut symbol = 144;
    while symbol < 280 {
        lengths[symbol] = if symbol < 256 { 9 } else { 7 };
        symbol += 1;
    }
    lengths
}

/// Symbol above 256 of each match length.
static LENGTH_SYMBOL: [u8; 259] = length_symbols();
/// The base of each symbol, and the number of its extra bits.
pub static LENGTH_BASE: [(u16, u8); 30] = length_bases();
pub static DISTANCE_BASE: [(u16, u8); 30] = distance_bases();

const fn length_bases() -> [(u16, u8); 30] {
    let mut bases = [(0, 0); 30];
    let (mut base, mut symbol) = (3, 1);
    while symbol < 29 {
        let extra = if symbol < 9 { 0 } else { (symbol as u8 - 5) / 4 };
        bases[symbol] = (base, extra);
        base += 1 << extra;
        symbol += 1;
    }
    bases[29] = (258, 0);
    bases
}

const fn distance_bases() -> [(u16, u8); 30] {
    let mut bases = [(0, 0); 30];
    let (mut base, mut symbol) = (1, 0);
    while symbol < 30 {
        let extra = if symbol < 4 { 0 } else { (symbol as u8 - 2) / 2 };
        bases[symbol] = (base, extra);
        base += 1 << extra;
        symbol += 1;
    }
    bases
}

const fn length_symbols() -> [u8; 259] {
    let bases = length_bases();
    let mut symbols = [0; 259];
    let (mut symbol, mut length) = (1, 3);
    while length < 259 {
        while symbol < 29 && bases[symbol + 1].0 as usize <= length {
            symbol += 1;
        }
        symbols[length] = symbol as u8;
        length += 1;
    }
    symbols
}

impl Histogram {
    /// Counts the symbols of `tokens`.
    pub fn of(tokens: &[Token]) -> Self {
        // Equal neighbours would wait for one another's count: every second token has a table of its own.
        let (mut first, mut second) = ([[0; PARTS]; 2], [[0; PARTS]; 2]);
        let pairs = tokens.chunks_exact(2);
        let mut count = |which: usize, token: Token| {
            first[which][token.first()] += 1;
            second[which][token.second()] += 1;
        };
        pairs.remainder().iter().for_each(|&token| count(0, token));
        pairs.for_each(|pair| {
            count(0, pair[0]);
            count(1, pair[1]);
        });
        let mut histogram = Self { literals: [0; 288], distances: [0; 32] };
        let firsts = |part: usize| first[0][part] + first[1][part];
        let seconds = |part: usize| second[0][part] + second[1][part];
        for byte in 0..256 {
            histogram.literals[byte] = firsts(byte) + seconds(SECOND_LITERAL + byte);
        }
        for (&symbol, part) in LENGTH_SYMBOL[3..].iter().zip(FIRST_LENGTH..) {
            histogram.literals[END + usize::from(symbol)] += firsts(part);
        }
        for symbol in 0..30 {
            histogram.distances[symbol] = seconds(symbol);
        }
        histogram
    }

    /// Returns the counts of both.
    pub fn sum(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.literals.iter_mut().zip(&other.literals).for_each(|(count, other)| *count += other);
        sum.distances.iter_mut().zip(&other.distances).for_each(|(count, other)| *count += other);
        sum
    }

    /// Returns the bits that lengths and distances take beside their codes.
    fn extra_bits(&self) -> u64 {
        let bits = |counts: &[u32], bases: &[(u16, u8)]| -> u64 {
            counts.iter().zip(bases).map(|(&count, &(_, extra))| u64::from(count) * u64::from(extra)).sum()
        };
        bits(&self.literals[END..], &LENGTH_BASE) + bits(&self.distances, &DISTANCE_BASE)
    }
}

/// Writes the block that holds `bytes`, which are `tokens`, whose symbols are counted in `histogram`.
pub fn write(out: &mut BitWriter<'_>, bytes: &[u8], tokens: &[Token], histogram: &mut Histogram, last: bool) {
    histogram.literals[END] = 1;
    let own = Codes { literals: Code::optimal(&histogram.literals, 14), distances: Code::optimal(&histogram.distances, 15) };
    let header = Header::new(&own);
    let own_bits = header.cost_bits() + own.cost_bits(histogram);
    let fixed = Codes::fixed();
    let fixed_bits = fixed.cost_bits(histogram);
    let extra_bits = histogram.extra_bits();
    let stored_bits = (bytes.len() + 5 * bytes.len().div_ceil(STORED_BYTES)) as u64 * 8;
    if stored_bits <= own_bits.min(fixed_bits) + extra_bits {
        write_stored(out, bytes, last);
    } else if fixed_bits <= own_bits {
        out.put(u64::from(last) | 1 << 1, 3);
        write_tokens(out, tokens, &fixed);
    } else {
        out.put(u64::from(last) | 2 << 1, 3);
        header.write(out);
        write_tokens(out, tokens, &own);
    }
}

/// Writes `bytes` as they are.
pub fn write_stored(out: &mut BitWriter<'_>, bytes: &[u8], last: bool) {
    let mut pieces = bytes.chunks(STORED_BYTES).peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        let ends = pieces.peek().is_none();
        out.put(u64::from(last && ends), 3);
        let length = piece.len() as u16;
        let [[a, b], [c, d]] = [length.to_le_bytes(), (!length).to_le_bytes()];
        out.align();
        out.copy(&[a, b, c, d]);
        out.copy(piece);
        if ends {
            return;
        }
    }
}

/// The two codes of a block.
struct Codes {
    /// At most 14 bits a symbol.
    literals: Code<288>,
    distances: Code<32>,
}

impl Codes {
    /// Returns the codes that need no description.
    fn fixed() -> Self {
        Self { literals: Code::from_lengths(FIXED_LITERALS), distances: Code::from_lengths(FIXED_DISTANCES) }
    }

    fn cost_bits(&self, histogram: &Histogram) -> u64 {
        self.literals.cost_bits(&histogram.literals) + self.distances.cost_bits(&histogram.distances)
    }
}

/// The codes of a block as tokens need them.
struct Words {
    /// The bits of each first part, extra bits of a length included, and how many.
    first: [u32; PARTS],
    first_bits: [u8; PARTS],
    /// The code of each second part, how many bits it has, and how many with extra bits.
    second: [u16; PARTS],
    code_bits: [u8; PARTS],
    second_bits: [u8; PARTS],
}

impl Words {
    fn new(codes: &Codes) -> Self {
        let mut words = Self {
            first: [0; PARTS],
            first_bits: [0; PARTS],
            second: [0; PARTS],
            code_bits: [0; PARTS],
            second_bits: [0; PARTS],
        };
        for byte in 0..256 {
            let (code, bits) = (codes.literals.codes[byte], codes.literals.lengths[byte]);
            (words.first[byte], words.first_bits[byte]) = (u32::from(code), bits);
            (words.second[SECOND_LITERAL + byte], words.second_bits[SECOND_LITERAL + byte]) = (code, bits);
        }
        for (index, &symbol) in LENGTH_SYMBOL[3..].iter().enumerate() {
            let (base, extra) = LENGTH_BASE[usize::from(symbol)];
            let (code, bits) = codes.literals.word(END + usize::from(symbol));
            words.first[FIRST_LENGTH + index] = code | (index as u32 + 3 - u32::from(base)) << bits;
            words.first_bits[FIRST_LENGTH + index] = bits as u8 + extra;
        }
        for (symbol, (_, extra)) in DISTANCE_BASE.iter().enumerate() {
            let bits = codes.distances.lengths[symbol];
            words.second[symbol] = codes.distances.codes[symbol];
            words.code_bits[symbol] = bits;
            words.second_bits[symbol] = bits + extra;
        }
        words
    }

    /// Returns the bits of a token, and how many: at most 19 for a length, 15 and 13 for a distance.
    #[inline(always)]
    fn of(&self, token: Token) -> (u64, u32) {
        // Counts are below 64, so that it is the same as `<<`, which checks that in debug builds.
        let (first, second) = (token.first(), token.second());
        let extra = u64::from(token.extra()).wrapping_shl(self.code_bits[second].into());
        let first_bits = u32::from(self.first_bits[first]);
        let behind = (u64::from(self.second[second]) | extra).wrapping_shl(first_bits);
        (u64::from(self.first[first]) | behind, first_bits + u32::from(self.second_bits[second]))
    }
}

fn write_tokens(out: &mut BitWriter<'_>, tokens: &[Token], codes: &Codes) {
    let words = Words::new(codes);
    out.locally(|out| write_pairs(out, tokens, &words));
    let (code, bits) = codes.literals.word(END);
    out.put(u64::from(code), bits);
    out.flush();
}

#[inline(always)]
fn write_pairs(out: &mut BitWriter<'_>, tokens: &[Token], words: &Words) {
    let pairs = tokens.chunks_exact(2);
    let rest = pairs.remainder();
    for pair in pairs {
        let ((one, one_bits), (other, other_bits)) = (words.of(pair[0]), words.of(pair[1]));
        if one_bits + other_bits > 56 {
            out.put(one, one_bits);
            out.flush();
            out.put(other, other_bits);
        } else {
            out.put(one | other.wrapping_shl(one_bits), one_bits + other_bits);
        }
        out.flush();
    }
    for &token in rest {
        let (bits, count) = words.of(token);
        out.put(bits, count);
        out.flush();
    }
}

/// The description of a block's own codes (RFC 1951 section 3.2.7).
struct Header {
    literal_count: usize,
    distance_count: usize,
    precode: Code<19>,
    precode_count: usize,
    /// Symbol, extra bits, and how many of these.
    items: Vec<(u8, u8, u8)>,
}

impl Header {
    fn new(codes: &Codes) -> Self {
        let Codes { literals, distances } = codes;
        let used =
            |lengths: &[u8], least: usize| lengths.iter().rposition(|&bits| bits > 0).map_or(least, |i| least.max(i + 1));
        let literal_count = used(&literals.lengths, 257);
        let distance_count = used(&distances.lengths, 1);
        let lengths = [&literals.lengths[..literal_count], &distances.lengths[..distance_count]].concat();
        let mut items = Vec::with_capacity(lengths.len());
        let mut rest = &lengths[..];
        while let Some(&value) = rest.first() {
            let run = rest.iter().take_while(|&&length| length == value).count();
            let taken = match (value, run) {
                (0, 11..) => {
                    let run = run.min(138);
                    items.push((18, run as u8 - 11, 7));
                    run
                }
                (0, 3..) => {
                    items.push((17, run as u8 - 3, 3));
                    run
                }
                (1.., 4..) => {
                    let run = run.min(7);
                    items.push((value, 0, 0));
                    items.push((16, run as u8 - 4, 2));
                    run
                }
                _ => {
                    items.push((value, 0, 0));
                    1
                }
            };
            rest = &rest[taken..];
        }
        let mut frequencies = [0; 19];
        items.iter().for_each(|&(symbol, ..)| frequencies[usize::from(symbol)] += 1);
        let precode = Code::optimal(&frequencies, 7);
        let precode_count =
            PRECODE_ORDER.iter().rposition(|&symbol| precode.lengths[symbol] > 0).map_or(4, |i| 4.max(i + 1));
        Self { literal_count, distance_count, precode, precode_count, items }
    }

    fn cost_bits(&self) -> u64 {
        let items: u64 =
            self.items.iter().map(|&(symbol, _, extra)| u64::from(self.precode.lengths[usize::from(symbol)] + extra)).sum();
        14 + 3 * self.precode_count as u64 + items
    }

    fn write(&self, out: &mut BitWriter<'_>) {
        out.put(self.literal_count as u64 - 257, 5);
        out.put(self.distance_count as u64 - 1, 5);
        out.put(self.precode_count as u64 - 4, 4);
        out.flush();
        for &symbol in &PRECODE_ORDER[..self.precode_count] {
            out.put(u64::from(self.precode.lengths[symbol]), 3);
            out.flush();
        }
        for &(symbol, value, extra) in &self.items {
            let symbol = usize::from(symbol);
            out.put(u64::from(self.precode.codes[symbol]), u32::from(self.precode.lengths[symbol]));
            out.put(u64::from(value), u32::from(extra));
            out.flush();
        }
    }
}
