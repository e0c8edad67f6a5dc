//! The records of a PAX header, as they are read; strictly, because a reader that guesses can be led to another entry.

use std::collections::BTreeMap;

use super::fields::{Time, decimal};
use super::sparse;

use crate::cause::{Cause, escaped};
use crate::rules::xattr::CAPABILITY;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The fields that headers before an entry's own say of it. The last header of each kind counts, as in Go.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub pax: Records,
    pub long_name: Option<Vec<u8>>,
    pub long_link: Option<Vec<u8>>,
}

/// The records that matter. The last record of a key counts; an empty value leaves the field to the entry's own header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    texts: BTreeMap<&'static [u8], Vec<u8>>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: sparse::Records,
}

/// The keys whose values are kept as they stand until the entry is read.
const KEYS: [&[u8]; 10] = [b"path", b"linkpath", b"uname", b"gname", b"size", b"uid", b"gid", b"mtime", b"atime", b"ctime"];
/// Those whose values hold no NUL.
const TEXTS: usize = 4;

/// Reads `LEN SP key=value LF`, one after the other; says what is wrong otherwise.
pub(super) fn parse(mut content: &[u8]) -> Result<Records, Cause> {
    let mut records = Records::default();
    while !content.is_empty() {
        let (key, value, rest) = split(content).ok_or(Cause::NotPaxRecord)?;
        content = rest;
        if !records.take(key, value) {
            return Err(wrong(key));
        }
    }
    Ok(records)
}

/// Returns key and value of the first record, and what follows it.
fn split(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().position(|&byte| byte == b' ')?;
    if content.starts_with(b"-") {
        return None;
    }
    let length = usize::try_from(decimal(&content[..space])?).ok()?;
    let record = content.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=').filter(|&equals| equals > 0)?;
    Some((&record[..equals], &record[equals + 1..], &content[length..]))
}

fn wrong(key: &[u8]) -> Cause {
    Cause::WrongPaxValue { key: escaped(key) }
}

impl Records {
    /// Takes one record; false when its value can be none.
    fn take(&mut self, key: &[u8], value: &[u8]) -> bool {
        if key.contains(&0) {
            return false;
        }
        if let Some(name) = key.strip_prefix(XATTR) {
            // The kernel would set an empty capability, and refuse to read it ever after.
            match name == CAPABILITY.to_bytes() && value.is_empty() {
                true => self.xattrs.remove(name),
                false => self.xattrs.insert(name.to_vec(), value.to_vec()),
            };
            return true;
        }
        if let Some(name) = key.strip_prefix(sparse::PREFIX) {
            return self.sparse.take(name, value);
        }
        let Some(position) = KEYS.iter().position(|known| *known == key) else { return true };
        if position < TEXTS && value.contains(&0) {
            return false;
        }
        match value.is_empty() {
            true => self.texts.remove(KEYS[position]),
            false => self.texts.insert(KEYS[position], value.to_vec()),
        };
        true
    }

    /// Returns a text.
    pub fn text(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.texts.get(key).cloned()
    }

    /// Returns a decimal number; an error says what is wrong with it.
    pub fn number(&self, key: &[u8]) -> Result<Option<i64>, Cause> {
        self.texts.get(key).map(|text| decimal(text).ok_or_else(|| wrong(key))).transpose()
    }

    /// Returns a time; an error says what is wrong with it.
    pub fn time(&self, key: &[u8]) -> Result<Option<Time>, Cause> {
        self.texts.get(key).map(|text| Time::parse(text).ok_or_else(|| wrong(key))).transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_record_of_a_key_counts_and_an_empty_one_takes_it_back() {
        let records =
            parse(b"9 path=a\n9 path=b\n9 size=x\n9 size=3\n9 uid=12\n7 uid=\n26 SCHILY.xattr.user.a=v\n\n").unwrap();
        assert_eq!(records.text(b"path").as_deref(), Some(&b"b"[..]));
        assert_eq!((records.number(b"size"), records.number(b"uid")), (Ok(Some(3)), Ok(None)));
        assert_eq!(records.xattrs, BTreeMap::from([(b"user.a".to_vec(), b"v\n".to_vec())]));
    }

    #[test]
    fn a_number_may_have_any_number_of_zeros_before_it() {
        let zeros = "0".repeat(5000);
        let body = format!(" size={zeros}7\n");
        let records = parse(format!("{}{body}", body.len() + 4).as_bytes()).unwrap();
        assert_eq!(records.number(b"size"), Ok(Some(7)));
        assert_eq!(parse(b"0000000018 path=a\n").unwrap().text(b"path").as_deref(), Some(&b"a"[..]));
    }

    #[test]
    fn records_that_do_not_say_what_they_are_are_refused() {
        let cases: [&[u8]; 16] = [
            b"0 path=a\n",
            b"9path=a\n",
            b"8 path=a\n",
            b"11 path=a\n",
            b"99999999999999999999 path=a\n",
            b"-9 path=a\n",
            b"+9 path=a\n",
            b" 9 path=a\n",
            b"9 path=a ",
            b"8 patha\n",
            b"4 =\n",
            b"5 =a\n",
            b"1 ",
            b"9 path=\0\n",
            b"14 linkpath=\0\n",
            b"11 pat\0h=a\n",
        ];
        for case in cases {
            assert!(parse(case).is_err(), "{}", case.escape_ascii());
        }
        let records = parse(b"9 size=x\n12 mtime=1x\n12 ctime=1x\n").unwrap();
        assert!(records.number(b"size").is_err());
        assert!(records.time(b"mtime").is_err());
        assert!(records.time(b"ctime").is_err());
    }
}
