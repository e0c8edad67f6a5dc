//! The records of a PAX header, as they are read; strictly, because a reader that guesses can be led to another entry.

use std::collections::BTreeMap;

use super::fields::{Time, decimal};

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What headers before an entry's own say of it. Of each kind the last one counts, as in Go.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub pax: Records,
    pub long_name: Option<Vec<u8>>,
    pub long_link: Option<Vec<u8>>,
}

/// The records that matter. An empty value leaves the field to the entry's own header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<Time>,
    pub atime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether the entry's data is a map of holes and what lies between them.
    pub sparse: bool,
}

/// Reads `LEN SP key=value LF`, one after the other; says what is wrong otherwise.
pub(super) fn parse(mut content: &[u8]) -> Result<Records, String> {
    let mut records = Records::default();
    while !content.is_empty() {
        let (key, value, rest) = split(content).ok_or("a PAX record that is not LENGTH KEY=VALUE")?;
        content = rest;
        records.take(key, value).ok_or_else(|| format!("wrong value of the PAX record {}", key.escape_ascii()))?;
    }
    Ok(records)
}

/// Key, value and what follows the first record.
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

impl Records {
    /// Takes one record; `None` when its value is wrong.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if key.contains(&0) {
            return None;
        }
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.insert(name.to_vec(), value.to_vec());
            return Some(());
        }
        self.sparse |= key.starts_with(SPARSE);
        let text = || if value.contains(&0) { None } else { Some((!value.is_empty()).then(|| value.to_vec())) };
        let number = || if value.is_empty() { Some(None) } else { decimal(value).map(Some) };
        let time = || if value.is_empty() { Some(None) } else { Time::parse(value).map(Some) };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.link_path = text()?,
            b"uname" | b"gname" => drop(text()?),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = time()?,
            b"atime" => self.atime = time()?,
            b"ctime" => drop(time()?),
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_record_of_a_key_counts_and_an_empty_one_takes_it_back() {
        let records = parse(b"9 path=a\n9 path=b\n9 size=7\n9 size=3\n8 size=\n26 SCHILY.xattr.user.a=v\n\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"b"[..]));
        assert_eq!(records.size, None);
        assert_eq!(records.xattrs, BTreeMap::from([(b"user.a".to_vec(), b"v\n".to_vec())]));
    }

    #[test]
    fn records_that_do_not_say_what_they_are_are_refused() {
        let cases: [&[u8]; 18] = [
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
            b"9 size=x\n",
            b"12 mtime=1x\n",
        ];
        for case in cases {
            assert!(parse(case).is_err(), "{}", case.escape_ascii());
        }
    }
}
