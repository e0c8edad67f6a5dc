//! Prefix codes: lengths from frequencies, and codes from lengths (RFC 1951 section 3.2.2).

/// A code for up to `N` symbols.
#[derive(Clone)]
pub struct Code<const N: usize> {
    /// Bits of each symbol's code; 0 for a symbol that does not occur.
    pub lengths: [u8; N],
    /// Each symbol's code, its first bit lowest.
    pub codes: [u16; N],
}

impl<const N: usize> Code<N> {
    /// Returns the code of least total length for `frequencies`, no code longer than `limit` bits (at most 15).
    ///
    /// There are always two symbols or more, which the oldest readers want.
    pub fn optimal(frequencies: &[u32; N], limit: u8) -> Self {
        let mut leaves: Vec<(u32, u16)> =
            frequencies.iter().zip(0..).filter(|(count, _)| **count > 0).map(|(&count, symbol)| (count, symbol)).collect();
        for symbol in 0..2 {
            if leaves.len() < 2 && frequencies[usize::from(symbol)] == 0 {
                leaves.push((1, symbol));
            }
        }
        leaves.sort_unstable();
        let counts = limited_counts(&leaves, usize::from(limit));
        let mut lengths = [0; N];
        // The rarest symbols come first, and get the longest codes.
        let longest_first = (1..=15).rev().flat_map(|length| std::iter::repeat_n(length, counts[usize::from(length)]));
        for (&(_, symbol), length) in leaves.iter().zip(longest_first) {
            lengths[usize::from(symbol)] = length;
        }
        Self::from_lengths(lengths)
    }

    /// Returns the codes that belong to `lengths`.
    pub fn from_lengths(lengths: [u8; N]) -> Self {
        let mut counts = [0u16; 16];
        lengths.iter().for_each(|&length| counts[usize::from(length)] += 1);
        counts[0] = 0;
        let mut next = [0u16; 16];
        for length in 1..16 {
            next[length] = (next[length - 1] + counts[length - 1]) << 1;
        }
        let mut codes = [0; N];
        for (code, &length) in codes.iter_mut().zip(&lengths) {
            if length > 0 {
                let place = &mut next[usize::from(length)];
                *code = place.reverse_bits() >> (16 - length);
                *place += 1;
            }
        }
        Self { lengths, codes }
    }

    /// Returns the code of `symbol`, and its length.
    pub fn word(&self, symbol: usize) -> (u32, u32) {
        (u32::from(self.codes[symbol]), u32::from(self.lengths[symbol]))
    }

    /// Returns the bits that symbols of these frequencies take.
    pub fn cost_bits(&self, frequencies: &[u32; N]) -> u64 {
        frequencies.iter().zip(&self.lengths).map(|(&count, &length)| u64::from(count) * u64::from(length)).sum()
    }
}

/// Returns the number of codes of each length, for leaves sorted by frequency (Moffat and Katajainen, "In-place
/// calculation of minimum-redundancy codes"), then shortened to `limit` at little cost.
fn limited_counts(leaves: &[(u32, u16)], limit: usize) -> [usize; 16] {
    let count = leaves.len();
    // First the weights of inner nodes, made from the front; then, in the same places, their parents.
    let mut nodes = [0u32; 288];
    let (mut leaf, mut root) = (0, 0);
    for next in 0..count - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if leaf < count && (root >= next || leaves[leaf].0 <= nodes[root]) {
                weight += leaves[leaf].0;
                leaf += 1;
            } else {
                weight += nodes[root];
                nodes[root] = next as u32;
                root += 1;
            }
        }
        nodes[next] = weight;
    }
    // Depths of inner nodes from the root down, and from them how many leaves each depth has.
    let mut counts = [0; 16];
    nodes[count - 2] = 0;
    for node in (0..count - 2).rev() {
        nodes[node] = nodes[nodes[node] as usize] + 1;
    }
    let (mut available, mut depth, mut node) = (1, 0, count as isize - 2);
    while available > 0 {
        let mut inner = 0;
        while node >= 0 && nodes[node as usize] == depth {
            inner += 1;
            node -= 1;
        }
        counts[(depth as usize).min(limit)] += available - inner;
        available = 2 * inner;
        depth += 1;
    }
    // Codes that were cut short take too much room: push others down until all fit (Kraft's sum is at most one).
    let mut total: usize = (1..=limit).map(|length| counts[length] << (limit - length)).sum();
    while total > 1 << limit {
        counts[limit] -= 1;
        if let Some(length) = (1..limit).rev().find(|&length| counts[length] > 0) {
            counts[length] -= 1;
            counts[length + 1] += 2;
        }
        total -= 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kraft(lengths: &[u8]) -> u32 {
        lengths.iter().filter(|&&length| length > 0).map(|&length| 1 << (15 - length)).sum()
    }

    #[test]
    fn codes_are_complete_and_within_the_limit() {
        let mut fibonacci = [0u32; 40];
        let (mut a, mut b) = (1, 1);
        for frequency in &mut fibonacci {
            *frequency = a;
            (a, b) = (b, a + b);
        }
        for limit in [7, 9, 15] {
            let code = Code::optimal(&fibonacci, limit);
            assert_eq!(kraft(&code.lengths), 1 << 15);
            assert!(code.lengths.iter().all(|&length| (1..=limit).contains(&length)));
        }
    }

    #[test]
    fn frequent_symbols_have_the_shorter_codes() {
        let code = Code::optimal(&[5, 0, 100, 5, 40], 15);
        assert_eq!(code.lengths, [3, 0, 1, 3, 2]);
        assert_eq!(code.codes, [0b011, 0, 0, 0b111, 0b01]);
        assert_eq!(code.cost_bits(&[5, 0, 100, 5, 40]), 15 + 100 + 15 + 80);
    }

    #[test]
    fn there_are_always_two_codes() {
        assert_eq!(Code::optimal(&[0, 0, 0], 15).lengths, [1, 1, 0]);
        assert_eq!(Code::optimal(&[0, 7, 0], 15).lengths, [1, 1, 0]);
        assert_eq!(Code::optimal(&[0, 0, 7], 15).lengths, [1, 0, 1]);
    }
}
