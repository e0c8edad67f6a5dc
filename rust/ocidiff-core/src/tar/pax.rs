//! PAX headers: what does not fit a USTAR block, as records before it.

use super::header::{BLOCK_BYTES, put_octal, seal, trim_slashes};

/// Go's `archive/tar` neither writes nor reads more than this in one header.
pub const MAX_BYTES: usize = 1 << 20;

/// The records of one entry.
#[derive(Debug, Default)]
pub struct Records {
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    /// Adds `key=value`.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts itself: its digits are added until they no longer change it.
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        loop {
            let with_digits = rest + decimal_digits(length);
            if with_digits == length {
                break;
            }
            length = with_digits;
        }
        let record = [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat();
        self.records.push((key.to_vec(), record));
    }

    /// Returns the records, sorted by key; `None` when they are too large.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        self.records.sort();
        let bytes: Vec<u8> = self.records.into_iter().flat_map(|(_, record)| record).collect();
        (bytes.len() <= MAX_BYTES).then_some(bytes)
    }
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Returns the block before `size` bytes of records for the entry `name`.
pub fn header_block(name: &[u8], size: usize) -> [u8; BLOCK_BYTES] {
    let (directory, base) = match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => name.split_at(slash + 1),
        None => (&b""[..], name),
    };
    let mut own_name = [directory, b"PaxHeaders.0"].concat();
    if !base.is_empty() {
        own_name.push(b'/');
        own_name.extend_from_slice(base);
    }
    own_name.retain(u8::is_ascii);
    own_name.truncate(100);
    let own_name = trim_slashes(&own_name);

    let mut block = [0; BLOCK_BYTES];
    block[..own_name.len()].copy_from_slice(own_name);
    for field in [100..108, 108..116, 116..124, 136..148] {
        put_octal(&mut block[field], 0);
    }
    put_octal(&mut block[124..136], size as u64);
    block[156] = b'x';
    seal(&mut block);
    block
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 4, 5, 90, 91, 92, 93, 990, 991, 992, 993, 9988] {
            let mut records = Records::default();
            records.add(b"k", &vec![b'v'; length]);
            let bytes = records.finish().unwrap();
            let said: usize = std::str::from_utf8(&bytes).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, bytes.len());
        }
    }

    #[test]
    fn the_header_is_named_after_its_entry() {
        let name = |entry: &[u8]| {
            let block = header_block(entry, 0);
            block[..100].iter().copied().take_while(|&byte| byte != 0).collect::<Vec<u8>>()
        };
        assert_eq!(name(b"usr/ping"), b"usr/PaxHeaders.0/ping");
        assert_eq!(name(b"a/"), b"a/PaxHeaders.0");
        assert_eq!(name(b"x"), b"PaxHeaders.0/x");
    }
}
