//! Sparse files in the three forms that GNU tar writes into PAX archives: a map of the data, and the data without holes.
//!
//! Form 0.0 has a record for each number of the map, 0.1 one record for all, 1.0 has the map before the data. The map comes
//! from whoever made the layer, so its length is bounded and every number is checked before a byte is written.

use std::collections::BTreeMap;

use super::fields::decimal;

use crate::cause::Cause;

/// The prefix of the keys of sparse files.
pub(super) const PREFIX: &[u8] = b"GNU.sparse.";
/// More pieces than any file has that tar can describe in a reasonable map; Go's `archive/tar` has the same bound.
const MAX_EXTENTS: usize = 1 << 20;
const KEYS: [&[u8]; 7] = [b"major", b"minor", b"name", b"size", b"realsize", b"numblocks", b"map"];

/// Part of a file: a hole, and the data after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Segment {
    pub hole: u64,
    pub data: u64,
}

/// Data of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    offset: u64,
    length: u64,
}

/// The records of a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    texts: BTreeMap<&'static [u8], Vec<u8>>,
    /// The numbers of form 0.0 as form 0.1 has them.
    pairs: Vec<u8>,
    numbers: usize,
}

/// The place of the map.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The file is not sparse.
    None,
    /// In the records.
    InRecords,
    /// Before the data.
    InData,
    /// Nobody knows; the version as it stands.
    Unknown(String),
}

impl Records {
    /// Takes the record `GNU.sparse.NAME`; false when its value can be none.
    pub fn take(&mut self, name: &[u8], value: &[u8]) -> bool {
        if name == b"offset" || name == b"numbytes" {
            let is_due = (name == b"offset") == self.numbers.is_multiple_of(2);
            if self.numbers > 0 {
                self.pairs.push(b',');
            }
            self.pairs.extend_from_slice(value);
            self.numbers += 1;
            return is_due && !value.contains(&b',');
        }
        let Some(key) = KEYS.into_iter().find(|known| *known == name) else { return true };
        match value.is_empty() {
            true => self.texts.remove(key),
            false => self.texts.insert(key, value.to_vec()),
        };
        !(key == b"name" && value.contains(&0))
    }

    fn text(&self, key: &[u8]) -> Option<&[u8]> {
        self.texts.get(key).map(Vec::as_slice)
    }

    /// Returns the form of these records.
    pub fn form(&self) -> Form {
        match (self.text(b"major"), self.text(b"minor")) {
            (Some(b"0"), Some(b"0" | b"1")) => Form::InRecords,
            (Some(b"1"), Some(b"0")) => Form::InData,
            (None, None) if self.numbers > 0 || self.text(b"map").is_some() => Form::InRecords,
            (None, None) if self.texts.is_empty() => Form::None,
            (major, minor) => {
                let show = |text: Option<&[u8]>| text.unwrap_or(b"?").escape_ascii().to_string();
                Form::Unknown(format!("{}.{}", show(major), show(minor)))
            }
        }
    }

    /// Returns the name of the file. The name of the entry is then another one.
    pub fn name(&self) -> Option<Vec<u8>> {
        self.text(b"name").map(<[u8]>::to_vec)
    }

    /// Returns the length of the file with its holes.
    pub fn size(&self) -> Result<Option<u64>, Cause> {
        let Some(text) = self.text(b"size").or(self.text(b"realsize")) else { return Ok(None) };
        number(text).map(Some).ok_or(Cause::SparseSizeIsNoNumber)
    }

    /// Returns the map, if it is in the records.
    pub fn map(&self) -> Result<Vec<Extent>, Cause> {
        let text = if self.numbers > 0 { &self.pairs } else { self.text(b"map").unwrap_or_default() };
        let count = number(self.text(b"numblocks").unwrap_or_default()).ok_or(Cause::SparseMapIsNoNumbers)?;
        let numbers: &[u8] = text;
        let found = if numbers.is_empty() { 0 } else { numbers.split(|&byte| byte == b',').count() as u64 };
        if count.checked_mul(2) != Some(found) {
            return Err(Cause::SparseMapMiscounts { numbers: found, pieces: count });
        }
        if found == 0 {
            return Ok(Vec::new());
        }
        extents(count, numbers.split(|&byte| byte == b','))
    }
}

/// A map before the data, as it is read block by block.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    text: Vec<u8>,
    lines: u64,
    /// The number of pieces, once it is read.
    count: Option<u64>,
}

impl MapReader {
    /// Bytes read.
    pub fn size(&self) -> u64 {
        self.text.len() as u64
    }

    /// Returns true once the map is complete.
    pub fn is_whole(&self) -> bool {
        // No more of it is read than bounded memory holds, so the product is small.
        self.count.is_some_and(|count| self.lines > 2 * count)
    }

    /// Takes the next block.
    pub fn add(&mut self, block: &[u8]) -> Result<(), Cause> {
        self.text.extend_from_slice(block);
        self.lines += block.iter().filter(|&&byte| byte == b'\n').count() as u64;
        if self.count.is_none() && self.lines > 0 {
            let first = self.text.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let count = number(first).ok_or(Cause::SparseMapIsNoNumbers)?;
            check_count(count)?;
            self.count = Some(count);
        }
        Ok(())
    }

    /// Returns the map.
    pub fn map(self) -> Result<Vec<Extent>, Cause> {
        extents(self.count.unwrap_or_default(), self.text.split(|&byte| byte == b'\n').skip(1))
    }
}

fn number(text: &[u8]) -> Option<u64> {
    decimal(text).and_then(|value| u64::try_from(value).ok())
}

fn check_count(count: u64) -> Result<(), Cause> {
    match count > MAX_EXTENTS as u64 {
        true => Err(Cause::SparseMapTooLong { most: MAX_EXTENTS }),
        false => Ok(()),
    }
}

fn extents<'a>(count: u64, mut numbers: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Extent>, Cause> {
    check_count(count)?;
    let mut extents = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut next = || numbers.next().and_then(number).ok_or(Cause::SparseMapIsNoNumbers);
        extents.push(Extent { offset: next()?, length: next()? });
    }
    Ok(extents)
}

/// Returns the file of `size` bytes as holes and data in order, for a map with exactly `stored` bytes of data.
pub(super) fn segments(map: &[Extent], size: u64, stored: u64) -> Result<Vec<Segment>, Cause> {
    let mut segments = Vec::with_capacity(map.len() + 1);
    let (mut end, mut data) = (0, 0);
    for &Extent { offset, length } in map {
        let hole = offset.checked_sub(end).ok_or(Cause::SparseMapOverlaps)?;
        // Both are below 2^63.
        end = offset + length;
        if end > size {
            return Err(Cause::SparseMapTooFar { end, size });
        }
        data += length;
        segments.push(Segment { hole, data: length });
    }
    if data != stored {
        return Err(Cause::SparseMapLies { told: data, stored });
    }
    segments.push(Segment { hole: size - end, data: 0 });
    Ok(segments)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn records(all: &[(&str, &str)]) -> Records {
        let mut records = Records::default();
        for (name, value) in all {
            assert!(records.take(name.as_bytes(), value.as_bytes()), "{name}={value}");
        }
        records
    }

    fn map_of(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|&(offset, length)| Extent { offset, length }).collect()
    }

    #[test]
    fn the_two_forms_in_records_say_the_same() {
        let pairs = [("offset", "0"), ("numbytes", "5"), ("offset", "10"), ("numbytes", "0")];
        let old = records(&[&[("size", "10"), ("numblocks", "2")], &pairs[..]].concat());
        let new = records(&[("size", "10"), ("numblocks", "2"), ("map", "0,5,10,0"), ("name", "f")]);
        for records in [old, new] {
            assert_eq!((records.form(), records.size()), (Form::InRecords, Ok(Some(10))));
            assert_eq!(records.map().unwrap(), map_of(&[(0, 5), (10, 0)]));
        }
    }

    #[test]
    fn empty_records_say_nothing() {
        let empty = records(&[("major", ""), ("minor", ""), ("map", ""), ("name", ""), ("size", "")]);
        assert_eq!((empty.form(), empty.size(), empty.name()), (Form::None, Ok(None), None));
        assert_eq!(records(&[("major", "2"), ("minor", "0")]).form(), Form::Unknown("2.0".into()));
        assert_eq!(records(&[("realsize", "5")]).form(), Form::Unknown("?.?".into()));
    }

    #[test]
    fn a_map_before_the_data_ends_with_its_last_line() {
        let mut reader = MapReader::default();
        reader.add(b"2\n0\n").unwrap();
        assert!(!reader.is_whole());
        reader.add(b"5\n10\n00").unwrap();
        assert!(!reader.is_whole());
        reader.add(b"0\nrest\n\n").unwrap();
        assert!(reader.is_whole());
        assert_eq!(reader.map().unwrap(), map_of(&[(0, 5), (10, 0)]));
        assert!(MapReader::default().add(b"1048577\n").is_err());
        assert!(MapReader::default().add(b"-1\n").is_err());
        assert!(MapReader::default().add(b"\n").is_err());
    }

    #[test]
    fn maps_that_overlap_lie_or_overflow_are_refused() {
        let cases = [
            (&[(0, 5), (4, 1)][..], 10, 6),
            (&[(5, 1), (0, 1)], 10, 2),
            (&[(0, 5)], 4, 5),
            (&[(i64::MAX as u64, i64::MAX as u64)], i64::MAX as u64, 1),
            (&[(0, 5)], 10, 4),
            (&[(0, 5)], 10, 6),
            (&[], 10, 1),
        ];
        for (pairs, size, stored) in cases {
            assert!(segments(&map_of(pairs), size, stored).is_err(), "{pairs:?}");
        }
        let right = segments(&map_of(&[(2, 3), (5, 0), (7, 1)]), 10, 4).unwrap();
        let expected = [(2, 3), (0, 0), (2, 1), (2, 0)].map(|(hole, data)| Segment { hole, data });
        assert_eq!(right, expected);
    }
}
