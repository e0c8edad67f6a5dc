//! Header blocks, byte for byte as Go's `archive/tar` writes them: USTAR where it fits, else one PAX header before it.

use super::pax;
use crate::cause::{Cause, escaped};
use crate::error::{Error, Result};

/// The unit of a tar.
pub const BLOCK_BYTES: usize = 512;
/// The end of a tar: two blocks of zeros.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// The largest number in a field of 8 bytes, and in one of 12 (octal digits and a NUL).
const MAX_OCTAL_8: u64 = 0o7_777_777;
const MAX_OCTAL_12: u64 = 0o77_777_777_777;

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryType {
    /// Regular file.
    File = b'0',
    /// Hard link to an earlier entry.
    Link = b'1',
    /// Symbolic link.
    Symlink = b'2',
    /// Character device.
    CharDevice = b'3',
    /// Block device.
    BlockDevice = b'4',
    /// Directory; its name ends in a slash.
    Directory = b'5',
    /// Named pipe.
    Fifo = b'6',
}

/// An entry's header.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    /// Name relative to the root; a directory's ends in a slash.
    pub name: &'a [u8],
    /// The type of the entry.
    pub entry_type: EntryType,
    /// Permission bits, 12 of them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of data that follow.
    pub size: u64,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Target of a hard or symbolic link.
    pub link_name: &'a [u8],
    /// Major and minor number.
    pub device: (u32, u32),
    /// Extended attributes, sorted by name.
    pub xattrs: &'a [crate::tree::Xattr],
}

impl<'a> Header<'a> {
    /// Returns the header of an empty file without rights: what a whiteout is.
    pub fn empty_file(name: &'a [u8]) -> Self {
        Self {
            name,
            entry_type: EntryType::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link_name: b"",
            device: (0, 0),
            xattrs: &[],
        }
    }
}

impl Header<'_> {
    /// Appends the header's blocks to `out`.
    ///
    /// # Errors
    /// [`Error::Unrepresentable`] for what no tar header can say: large device numbers, more than 1 MiB of attributes.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let (major, minor) = self.device;
        if u64::from(major.max(minor)) > MAX_OCTAL_8 {
            return Err(self.unrepresentable(Cause::DeviceTooLarge { major, minor }));
        }
        let split = split_name(self.name);
        let fits = |text: &[u8]| text.is_ascii() && text.len() <= NAME_BYTES;
        let ustar = self.xattrs.is_empty()
            && (fits(self.name) || split.is_some())
            && fits(self.link_name)
            && u64::from(self.uid.max(self.gid)) <= MAX_OCTAL_8
            && self.size <= MAX_OCTAL_12
            && octal_time(self.mtime).is_some();
        if ustar {
            let (prefix, name) = split.unwrap_or((b"", self.name));
            out.extend_from_slice(&self.block(name, prefix));
            return Ok(());
        }
        let mut records = pax::Records::default();
        for (name, value) in self.xattrs {
            let name = name.to_bytes();
            let key = [b"SCHILY.xattr.", name].concat();
            if key.contains(&b'=') {
                return Err(self.unrepresentable(Cause::XattrNameHasEquals { name: escaped(name) }));
            }
            records.add(&key, value);
        }
        let number = |value: u64, fits: bool| (!fits).then(|| value.to_string());
        let late = octal_time(self.mtime).is_none().then(|| self.mtime.to_string());
        for (key, value) in [
            ("gid", number(self.gid.into(), u64::from(self.gid) <= MAX_OCTAL_8)),
            ("mtime", late),
            ("size", number(self.size, self.size <= MAX_OCTAL_12)),
            ("uid", number(self.uid.into(), u64::from(self.uid) <= MAX_OCTAL_8)),
        ] {
            if let Some(value) = value {
                records.add(key.as_bytes(), value.as_bytes());
            }
        }
        for (key, value) in [("path", self.name), ("linkpath", self.link_name)] {
            if !fits(value) {
                records.add(key.as_bytes(), value);
            }
        }
        let records = records.finish().ok_or_else(|| self.unrepresentable(Cause::TooManyXattrs))?;
        out.extend_from_slice(&pax::header_block(self.name, records.len()));
        out.extend_from_slice(&records);
        pad(out, records.len() as u64);
        let ascii = |text: &[u8]| -> Vec<u8> { text.iter().copied().filter(u8::is_ascii).collect() };
        let main = Header { link_name: &ascii(self.link_name), ..self.clone() };
        out.extend_from_slice(&main.block(&ascii(self.name), b""));
        Ok(())
    }

    fn block(&self, name: &[u8], prefix: &[u8]) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        put_text(&mut block[0..100], name);
        put_octal(&mut block[100..108], self.mode.into());
        put_octal(&mut block[108..116], self.uid.into());
        put_octal(&mut block[116..124], self.gid.into());
        put_octal(&mut block[124..136], self.size);
        put_octal(&mut block[136..148], octal_time(self.mtime).unwrap_or(0));
        block[156] = self.entry_type as u8;
        put_text(&mut block[157..257], self.link_name);
        put_octal(&mut block[329..337], self.device.0.into());
        put_octal(&mut block[337..345], self.device.1.into());
        put_text(&mut block[345..500], prefix);
        seal(&mut block);
        block
    }

    fn unrepresentable(&self, reason: Cause) -> Error {
        use std::os::unix::ffi::OsStrExt;
        Error::Unrepresentable { path: std::ffi::OsStr::from_bytes(self.name).into(), reason }
    }
}

/// Appends what is missing to a full block after `size` bytes of data.
pub fn pad(out: &mut Vec<u8>, size: u64) {
    out.resize(out.len() + padding(size), 0);
}

/// Returns the number of bytes that fill the last block of `size` bytes of data.
pub fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK_BYTES as u64) - size) as usize
}

/// Writes magic and checksum.
pub(super) fn seal(block: &mut [u8; BLOCK_BYTES]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    put_octal(&mut block[148..155], sum.into());
}

/// Writes octal digits and a NUL; a number that does not fit stands in a PAX record and is 0 here.
pub(super) fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let mut rest = if value >> (3 * digits) == 0 { value } else { 0 };
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    field[digits] = 0;
}

/// Writes text cut to its field. If the cut ends in a slash, the first of those slashes becomes a NUL, or old readers
/// would take the entry for a directory.
fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    if text.len() > field.len() && field[length - 1] == b'/' {
        field[trim_slashes(&text[..length - 1]).len()] = 0;
    }
}

pub(super) fn trim_slashes(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1)]
}

fn octal_time(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok().filter(|&seconds| seconds <= MAX_OCTAL_12)
}

/// Returns prefix and name of a long name, if USTAR can hold it.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_BYTES || !name.is_ascii() {
        return None;
    }
    let head = match name.len() {
        length if length > PREFIX_BYTES + 1 => &name[..=PREFIX_BYTES],
        _ => name.strip_suffix(b"/").unwrap_or(name),
    };
    let slash = head.iter().rposition(|&byte| byte == b'/').filter(|&slash| slash > 0)?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!rest.is_empty() && rest.len() <= NAME_BYTES).then_some((prefix, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::digest::Hasher;

    #[test]
    fn a_whiteout_block_has_the_known_checksum_and_digest() {
        let mut out = Vec::new();
        Header::empty_file(b"etc/.wh.old").write(&mut out).unwrap();
        assert_eq!(&out[148..156], b"011124\0 ");
        let mut hasher = Hasher::default();
        hasher.update(&out);
        assert_eq!(hasher.finish().0.to_string(), "sha256:8af19070cfd28f7c3d6c8ff37553ec9011d194e450d6292f98bed89644bb7613");
    }

    #[test]
    fn long_names_split_at_the_last_slash_that_fits() {
        let (a, b) = ([b'a'; 100], [b'b'; 100]);
        let name = [&a[..], b"/", &b[..]].concat();
        assert_eq!(split_name(&name), Some((&a[..], &b[..])));
        assert_eq!(split_name(&[&a[..], b"/", &b[..], b"b"].concat()), None);
        assert_eq!(split_name(&[&[b'a'; 156][..], b"/b"].concat()), None);
        assert_eq!(split_name(&[b'a'; 120]), None);
    }

    #[test]
    fn what_no_header_can_say_is_refused() {
        let mut header = Header::empty_file(b"dev/x");
        header.device = (1 << 21, 0);
        assert!(matches!(header.write(&mut Vec::new()), Err(Error::Unrepresentable { .. })));
    }
}
