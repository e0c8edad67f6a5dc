//! Reading a tar: USTAR, PAX, GNU long names and old tar, as Go's `archive/tar` does, and strict where it matters.
//!
//! Law: every prefix of an archive is either whole or fails with [`Error::MalformedLayer`]; where two headers disagree on
//! how long an entry is, the PAX record decides for its content and for where the next entry begins.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::fields::{Time, field_text, number, verify_checksum};
use super::header::{BLOCK_BYTES, EntryType, padding};
use super::records::{Overrides, parse};
use crate::error::{Error, Result};

/// One entry as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where its header begins, in bytes of the tar.
    pub offset: u64,
    /// Its name as it stands: not cleaned, perhaps absolute.
    pub name: Vec<u8>,
    /// What it is.
    pub entry_type: EntryType,
    /// The low 12 bits of the mode.
    pub mode: u32,
    /// Owner, not yet checked for range.
    pub uid: i64,
    /// Group, not yet checked for range.
    pub gid: i64,
    /// Bytes of data; 0 for all but regular files.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Access time, where a PAX record gives one.
    pub atime: Option<Time>,
    /// Target of a hard or symbolic link, as it stands.
    pub link_name: Vec<u8>,
    /// Major and minor number, not yet checked for range.
    pub device: (i64, i64),
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Takes a tar apart, entry by entry.
pub struct Reader<R> {
    inner: R,
    max_header_bytes: u64,
    /// How much of the tar was taken.
    offset: u64,
    /// Of the current entry's data.
    remaining: u64,
    padding: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the start of a tar; no PAX or GNU header may be longer than `max_header_bytes`.
    pub fn new(inner: R, max_header_bytes: u64) -> Self {
        Self { inner, max_header_bytes, offset: 0, remaining: 0, padding: 0 }
    }

    /// The next entry, after what is left of the one before; `None` at the end mark, or where the stream ends between entries.
    ///
    /// # Errors
    /// [`Error::MalformedLayer`]; [`Error::LimitExceeded`] for a long PAX or GNU header; what the stream itself says.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.read_data(|_| Ok(()))?;
        if !self.skip(self.padding)? {
            return Ok(None);
        }
        self.padding = 0;
        let mut overrides = Overrides::default();
        let mut described = false;
        loop {
            let offset = self.offset;
            let Some(block) = self.header_block()? else {
                return if described { Err(self.malformed("a header that describes no entry")) } else { Ok(None) };
            };
            match block[156] {
                b'x' => overrides.pax = parse(&self.special(&block)?).map_err(|reason| self.malformed(reason))?,
                b'L' => overrides.long_name = Some(field_text(&self.special(&block)?).to_vec()),
                b'K' => overrides.long_link = Some(field_text(&self.special(&block)?).to_vec()),
                b'g' => {
                    // Global records carry nothing that a layer needs (git writes its commit there).
                    self.special(&block)?;
                    continue;
                }
                _ => return self.entry(&block, overrides, offset).map(Some),
            }
            described = true;
        }
    }

    /// Hands what is left of the current entry's data to `sink`, in pieces.
    ///
    /// # Errors
    /// [`Error::MalformedLayer`] when the stream ends too early; what `sink` says.
    pub fn read_data(&mut self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.remaining > 0 {
            let available = self.inner.fill_buf().map_err(from_stream)?;
            if available.is_empty() {
                return Err(self.malformed("unexpected end inside the data of an entry"));
            }
            let count = available.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            sink(&available[..count])?;
            self.consume(count);
            self.remaining -= count as u64;
        }
        Ok(())
    }

    /// Reads the stream to its end, whatever follows.
    pub fn drain(&mut self) -> Result<()> {
        self.skip(u64::MAX).map(drop)
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Skips bytes; false when the stream ends before.
    fn skip(&mut self, mut bytes: u64) -> Result<bool> {
        while bytes > 0 {
            let available = self.inner.fill_buf().map_err(from_stream)?.len();
            if available == 0 {
                return Ok(false);
            }
            let count = available.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.consume(count);
            bytes -= count as u64;
        }
        Ok(true)
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.offset += count as u64;
    }

    /// Fills `buffer`; tells how much of it, which is less only at the end of the stream.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let available = self.inner.fill_buf().map_err(from_stream)?;
            let count = available.len().min(buffer.len() - done);
            if count == 0 {
                break;
            }
            buffer[done..done + count].copy_from_slice(&available[..count]);
            self.consume(count);
            done += count;
        }
        Ok(done)
    }

    /// A block, or `None` where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        match self.fill(&mut block)? {
            BLOCK_BYTES => Ok(Some(block)),
            0 => Ok(None),
            _ => Err(self.malformed("unexpected end inside a header")),
        }
    }

    /// A header with the right checksum; `None` at the end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
        const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let Some(block) = self.block()? else { return Ok(None) };
        if block == ZEROS {
            return match self.block()? {
                Some(second) if second != ZEROS => Err(self.malformed("data after a block of zeros")),
                _ => Ok(None),
            };
        }
        verify_checksum(&block).map_err(|reason| self.malformed(reason))?;
        Ok(Some(block))
    }

    /// The content of a header that describes the entry after it.
    fn special(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<Vec<u8>> {
        let size = number(&block[124..136]).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.malformed("wrong size of an extended header"))?;
        if size > self.max_header_bytes {
            let (limit, max, offset) = ("max_header_bytes", self.max_header_bytes, self.offset - BLOCK_BYTES as u64);
            return Err(Error::LimitExceeded { limit, value: size, max, path: "".into(), offset });
        }
        let mut content = vec![0; size as usize];
        if self.fill(&mut content)? < content.len() || !self.skip(padding(size) as u64)? {
            return Err(self.malformed("unexpected end inside an extended header"));
        }
        Ok(content)
    }

    fn entry(&mut self, block: &[u8; BLOCK_BYTES], overrides: Overrides, offset: u64) -> Result<Entry> {
        let wrong = |reason: &str| Error::MalformedLayer { offset, reason: reason.into() };
        let field = |range: std::ops::Range<usize>, what| {
            number(&block[range]).ok_or_else(|| wrong(&format!("the field {what} is no number")))
        };
        let pax = overrides.pax;
        let (is_ustar, is_gnu) = (&block[257..263] == b"ustar\0", &block[257..265] == b"ustar  \0");

        let mut name = field_text(&block[..100]).to_vec();
        let prefix = if &block[508..512] == b"tar\0" { &block[345..476] } else { &block[345..500] };
        if is_ustar && prefix[0] != 0 {
            name = [field_text(prefix), b"/", &name].concat();
        }
        let name = overrides.long_name.or(pax.path).unwrap_or(name);
        let link_name = overrides.long_link.or(pax.link_path);
        let entry_type = match block[156] {
            0 if name.ends_with(b"/") => EntryType::Directory,
            0 | b'0' => EntryType::File,
            b'1' => EntryType::Link,
            b'2' => EntryType::Symlink,
            b'3' => EntryType::CharDevice,
            b'4' => EntryType::BlockDevice,
            b'5' => EntryType::Directory,
            b'6' => EntryType::Fifo,
            other => {
                return Err(wrong(&format!("unknown entry type {:?} of {}", char::from(other), name.escape_ascii())));
            }
        };
        if pax.sparse {
            use std::os::unix::ffi::OsStrExt;
            let path = std::ffi::OsStr::from_bytes(&name).into();
            return Err(Error::Unsupported { path, what: "sparse files in a layer are not supported".into() });
        }
        // Go reads no data behind anything but files, whatever the header says.
        let size = match (entry_type, pax.size) {
            (EntryType::File, Some(size)) => size,
            (EntryType::File, None) => field(124..136, "size")?,
            _ => 0,
        };
        let size = u64::try_from(size).map_err(|_| wrong(&format!("size {size} of {}", name.escape_ascii())))?;
        let device = if is_ustar || is_gnu { (field(329..337, "devmajor")?, field(337..345, "devminor")?) } else { (0, 0) };
        let entry = Entry {
            offset,
            entry_type,
            mode: (field(100..108, "mode")? & 0o7777) as u32,
            uid: pax.uid.map_or_else(|| field(108..116, "uid"), Ok)?,
            gid: pax.gid.map_or_else(|| field(116..124, "gid"), Ok)?,
            size,
            mtime: pax.mtime.map_or_else(|| field(136..148, "mtime").map(Time::from_seconds), Ok)?,
            atime: pax.atime,
            link_name: link_name.unwrap_or_else(|| field_text(&block[157..257]).to_vec()),
            device,
            xattrs: pax.xattrs,
            name,
        };
        (self.remaining, self.padding) = (entry.size, padding(entry.size) as u64);
        Ok(entry)
    }

    fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::MalformedLayer { offset: self.offset, reason: reason.into() }
    }
}

/// The stream's own error, which has passed through [`BufRead`] as an `io::Error`.
fn from_stream(error: std::io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|source| Error::Io { op: "read", path: "".into(), source })
}
