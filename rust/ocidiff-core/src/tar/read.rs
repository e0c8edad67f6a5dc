//! Reading a tar: USTAR, PAX, GNU long names and old tar, as Go's `archive/tar` does, and strict where it matters.
//!
//! Law: every prefix of an archive is either whole or fails with [`Error::MalformedLayer`]; where two headers disagree on
//! how long an entry is, the PAX record decides for its content and for where the next entry begins.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::fields::{Fields, Time, field_text, verify_checksum};
use super::foreign;
use super::header::{BLOCK_BYTES, EntryType, padding};
use super::records::{Overrides, parse};
use super::sparse::{Form, MapReader, Segment, segments};
use crate::cause::{Cause, escaped};
use crate::error::{Error, Result};

/// An entry as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Offset of its header, in bytes of the tar.
    pub offset: u64,
    /// Its name as it stands: not cleaned, perhaps absolute.
    pub name: Vec<u8>,
    /// The type of the entry.
    pub entry_type: EntryType,
    /// The low 12 bits of the mode.
    pub mode: u32,
    /// Owner, not yet checked for range.
    pub uid: i64,
    /// Group, not yet checked for range.
    pub gid: i64,
    /// Length of a regular file, holes included; 0 for all else.
    pub size: u64,
    /// True for a file of which the tar leaves out the holes.
    pub is_sparse: bool,
    /// Offset of the end of its data, in bytes of the tar and of the holes that the tar leaves out.
    pub end: u64,
    /// Modification time.
    pub mtime: Time,
    /// Access time, where a header gives one.
    pub atime: Option<Time>,
    /// Target of a hard or symbolic link, as it stands.
    pub link_name: Vec<u8>,
    /// Major and minor number, not yet checked for range.
    pub device: (i64, i64),
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// So many zeros, which the tar leaves out.
    Hole(u64),
}

/// Takes a tar apart, entry by entry.
pub struct Reader<R> {
    inner: R,
    max_header_bytes: u64,
    /// Bytes of the tar that were taken.
    offset: u64,
    /// The rest of the current file.
    segment: Segment,
    segments: std::vec::IntoIter<Segment>,
    padding: u64,
    holes: u64,
    has_end: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the start of a tar; no PAX or GNU header may be longer than `max_header_bytes`.
    pub fn new(inner: R, max_header_bytes: u64) -> Self {
        let (segment, segments) = (Segment::default(), Vec::new().into_iter());
        Self { inner, max_header_bytes, offset: 0, segment, segments, padding: 0, holes: 0, has_end: false }
    }

    /// Returns the bytes of holes that the tar has left out so far.
    pub fn holes(&self) -> u64 {
        self.holes
    }

    /// Checks that the tar ended with its end mark, without which it may have been cut off.
    ///
    /// # Errors
    /// [`Error::MalformedLayer`] if the stream ended without.
    pub fn check_end(&self) -> Result<()> {
        if self.has_end { Ok(()) } else { Err(self.malformed(Cause::NoEndMark)) }
    }

    /// Returns the next entry, after what is left of the one before; `None` at the end mark, or where the stream ends
    /// between entries.
    ///
    /// # Errors
    /// [`Error::MalformedLayer`]; [`Error::Unsupported`] for an unknown form of PAX sparse files, and for a stream that is
    /// compressed data; [`Error::LimitExceeded`] for a long PAX or GNU header; what the stream itself says.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>> {
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
                return if described { Err(self.malformed(Cause::HeaderWithoutEntry)) } else { Ok(None) };
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

    /// Hands what is left of the current file to `sink`, in pieces.
    ///
    /// # Errors
    /// [`Error::MalformedLayer`] when the stream ends too early; what `sink` says.
    pub fn read_data(&mut self, mut sink: impl FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        loop {
            if self.segment.hole > 0 {
                sink(Piece::Hole(std::mem::take(&mut self.segment.hole)))?;
            }
            while self.segment.data > 0 {
                let available = self.inner.fill_buf().map_err(Error::of_stream)?;
                if available.is_empty() {
                    return Err(self.malformed(Cause::EndInData));
                }
                let count = available.len().min(usize::try_from(self.segment.data).unwrap_or(usize::MAX));
                sink(Piece::Data(&available[..count]))?;
                self.consume(count);
                self.segment.data -= count as u64;
            }
            let Some(next) = self.segments.next() else { return Ok(()) };
            self.segment = next;
        }
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
            let available = self.inner.fill_buf().map_err(Error::of_stream)?.len();
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
            let available = self.inner.fill_buf().map_err(Error::of_stream)?;
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

    /// Returns a block, or `None` where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        match self.fill(&mut block)? {
            BLOCK_BYTES => Ok(Some(block)),
            0 => Ok(None),
            _ => Err(self.not_a_header(&block, Cause::EndInHeader)),
        }
    }

    /// Returns the error of a block that is no header; the first one may be compressed data.
    fn not_a_header(&self, block: &[u8; BLOCK_BYTES], reason: Cause) -> Error {
        match foreign::compression_of(block) {
            Some(name) if self.offset <= BLOCK_BYTES as u64 => foreign::unsupported(name),
            _ => self.malformed(reason),
        }
    }

    /// Returns a header with the right checksum; `None` at the end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
        const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let Some(block) = self.block()? else { return Ok(None) };
        if block == ZEROS {
            return match self.block()? {
                Some(second) if second != ZEROS => Err(self.malformed(Cause::DataAfterZeros)),
                second => {
                    self.has_end = second.is_some();
                    Ok(None)
                }
            };
        }
        verify_checksum(&block).map_err(|reason| self.not_a_header(&block, reason))?;
        Ok(Some(block))
    }

    /// Returns the content of a header that describes the entry after it.
    fn special(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<Vec<u8>> {
        let fields = Fields::read(block).map_err(|reason| self.malformed(reason))?;
        let size = u64::try_from(fields.size).map_err(|_| self.malformed(Cause::NegativeHeaderSize))?;
        if size > self.max_header_bytes {
            return Err(self.header_limit(size, &[], self.offset - BLOCK_BYTES as u64));
        }
        let mut content = vec![0; size as usize];
        if self.fill(&mut content)? < content.len() || !self.skip(padding(size) as u64)? {
            return Err(self.malformed(Cause::EndInHeader));
        }
        Ok(content)
    }

    fn header_limit(&self, value: u64, name: &[u8], offset: u64) -> Error {
        Error::LimitExceeded { limit: "max_header_bytes", value, max: self.max_header_bytes, path: path_of(name), offset }
    }

    fn entry(&mut self, block: &[u8; BLOCK_BYTES], overrides: Overrides, offset: u64) -> Result<TarEntry> {
        let wrong = |reason: Cause| Error::MalformedLayer { offset, reason };
        let fields = Fields::read(block).map_err(wrong)?;
        let Overrides { pax, long_name, long_link } = overrides;
        let mut name = field_text(&block[..100]).to_vec();
        if !fields.prefix.is_empty() {
            name = [&fields.prefix, &b"/"[..], &name].concat();
        }
        let name = long_name.filter(|name| !name.is_empty()).or_else(|| pax.text(b"path")).unwrap_or(name);
        let link_name = long_link.filter(|name| !name.is_empty()).or_else(|| pax.text(b"linkpath"));
        let (uid, gid) = (pax.number(b"uid").map_err(wrong)?, pax.number(b"gid").map_err(wrong)?);
        let (mtime, atime) = (pax.time(b"mtime").map_err(wrong)?, pax.time(b"atime").map_err(wrong)?);
        pax.time(b"ctime").map_err(wrong)?;
        let size = pax.number(b"size").map_err(wrong)?;
        let entry_type = type_of(block[156], &name, offset)?;
        // Go reads no data behind anything but files, whatever the header says.
        let stored = if entry_type == EntryType::File { size.unwrap_or(fields.size) } else { 0 };
        if entry_type == EntryType::File && stored.min(fields.size) < 0 {
            return Err(wrong(Cause::NegativeSize { size: stored.min(fields.size) }.of(&name)));
        }
        let mut entry = TarEntry {
            offset,
            entry_type,
            mode: (fields.mode & 0o7777) as u32,
            uid: uid.unwrap_or(fields.uid),
            gid: gid.unwrap_or(fields.gid),
            size: stored.unsigned_abs(),
            is_sparse: false,
            end: 0,
            mtime: mtime.unwrap_or(Time::from_seconds(fields.mtime)),
            atime: atime.or(fields.atime.map(Time::from_seconds)),
            link_name: link_name.unwrap_or_else(|| field_text(&block[157..257]).to_vec()),
            device: fields.device,
            xattrs: pax.xattrs,
            name: pax.sparse.name().unwrap_or(name),
        };
        self.padding = padding(entry.size) as u64;
        self.segment = Segment { hole: 0, data: entry.size };
        self.segments = Vec::new().into_iter();
        self.open_sparse(&mut entry, &pax.sparse)?;
        entry.end = offset.saturating_add(self.holes).saturating_add(stored.unsigned_abs());
        Ok(entry)
    }

    /// Finds the holes of a sparse file.
    fn open_sparse(&mut self, entry: &mut TarEntry, records: &super::sparse::Records) -> Result<()> {
        let (offset, name) = (entry.offset, entry.name.clone());
        let wrong = |reason: Cause| Error::MalformedLayer { offset, reason: reason.of(&name) };
        let form = records.form();
        match &form {
            Form::None => return Ok(()),
            Form::Unknown(version) => {
                let reason = Cause::UnknownSparseForm { version: version.clone() };
                return Err(Error::Unsupported { path: path_of(&entry.name), reason });
            }
            _ if entry.entry_type != EntryType::File => return Err(wrong(Cause::SparseIsNoFile)),
            _ => {}
        }
        let size = records.size().map_err(wrong)?.unwrap_or(entry.size);
        let map = match form {
            Form::InData => self.map_in_data(entry)?.map(),
            _ => records.map(),
        };
        let stored = self.segment.data;
        let found = map.and_then(|map| segments(&map, size, stored)).map_err(wrong)?;
        (entry.size, entry.is_sparse) = (size, true);
        self.holes = self.holes.saturating_add(size - stored);
        (self.segment, self.segments) = (Segment::default(), found.into_iter());
        Ok(())
    }

    /// Returns the map that stands before the data, in whole blocks.
    fn map_in_data(&mut self, entry: &TarEntry) -> Result<MapReader> {
        let wrong = |reason: Cause| Error::MalformedLayer { offset: entry.offset, reason: reason.of(&entry.name) };
        let mut reader = MapReader::default();
        while !reader.is_whole() {
            let size = reader.size() + BLOCK_BYTES as u64;
            if size > self.max_header_bytes {
                return Err(self.header_limit(size, &entry.name, entry.offset));
            }
            if self.segment.data < BLOCK_BYTES as u64 {
                return Err(wrong(Cause::SparseMapHasNoEnd));
            }
            let mut block = [0; BLOCK_BYTES];
            if self.fill(&mut block)? < BLOCK_BYTES {
                return Err(self.malformed(Cause::EndInData));
            }
            self.segment.data -= BLOCK_BYTES as u64;
            reader.add(&block).map_err(wrong)?;
        }
        Ok(reader)
    }

    fn malformed(&self, reason: Cause) -> Error {
        Error::MalformedLayer { offset: self.offset, reason }
    }
}

/// Returns the type of an entry, by its flag and, in old tar, by its name.
fn type_of(flag: u8, name: &[u8], offset: u64) -> Result<EntryType> {
    Ok(match flag {
        0 if name.ends_with(b"/") => EntryType::Directory,
        // A contiguous file is a file that an old system would lay out in one piece.
        0 | b'0' | b'7' => EntryType::File,
        b'1' => EntryType::Link,
        b'2' => EntryType::Symlink,
        b'3' => EntryType::CharDevice,
        b'4' => EntryType::BlockDevice,
        b'5' => EntryType::Directory,
        b'6' => EntryType::Fifo,
        other => {
            let reason = match other {
                b'S' => Cause::OldSparseForm,
                _ => Cause::UnknownEntryType { flag: escaped(&[other]) },
            };
            return Err(Error::MalformedLayer { offset, reason: reason.of(name) });
        }
    })
}

fn path_of(name: &[u8]) -> PathBuf {
    OsStr::from_bytes(name).into()
}
