//! Writing an index: one pass, from start to end.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use twox_hash::XxHash3_128;

use super::format::{Block, CHECKSUM_BYTES, Extent, HEADER_BYTES, Header, TRAILER_BYTES, Trailer};
use crate::cause::Cause;
use crate::control::Control;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::stream::Stream;
use crate::tree::Lost;

/// Writes are gathered up to this many bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// An index that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSummary {
    /// sha256 of the file.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// Names in the tree.
    pub entries: u64,
    /// Bytes of all files; one with several names counts for each.
    pub file_bytes: u64,
    /// Attributes that are left out, of each name.
    pub lost: Lost,
}

/// Writes blocks in the order in which they get their places.
pub struct IndexWriter {
    stream: Stream,
    control: Arc<Control>,
    buffer: Vec<u8>,
    checksum: XxHash3_128,
    digest: Hasher,
    /// The place of the next block that gets one.
    next: u64,
    entries: u64,
    file_bytes: u64,
    lost: Lost,
}

impl IndexWriter {
    /// Begins an index.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn start(sink: OwnedFd, header: &Header, control: &Arc<Control>) -> Result<Self> {
        let mut writer = Self {
            stream: Stream::new(sink, control.clone())?,
            control: control.clone(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            checksum: XxHash3_128::new(),
            digest: Hasher::default(),
            next: HEADER_BYTES as u64,
            entries: 0,
            file_bytes: 0,
            lost: Lost::default(),
        };
        writer.put(&header.encode())?;
        Ok(writer)
    }

    /// Counts an entry of a file of `bytes`, or of anything else with 0.
    pub fn count(&mut self, bytes: u64) {
        self.entries += 1;
        self.file_bytes = self.file_bytes.saturating_add(bytes);
    }

    /// Counts attributes that are left out.
    pub fn leave_out(&mut self, lost: &Lost) {
        self.lost.add(lost);
    }

    /// Gives the next block its place.
    ///
    /// # Errors
    /// [`Error::Unrepresentable`] when it has 4 GiB or more.
    pub fn place(&mut self, block: &Block) -> Result<Extent> {
        if block.is_empty() {
            return Ok(Extent::default());
        }
        let length = u32::try_from(block.len())
            .map_err(|_| Error::Unrepresentable { path: "index".into(), reason: Cause::DirectoryTooLarge })?;
        let extent = Extent { offset: self.next, length };
        self.next += u64::from(length);
        Ok(extent)
    }

    /// Writes the next block.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cancelled`].
    pub fn write(&mut self, block: Block) -> Result<()> {
        self.put(&block.finish())
    }

    /// Ends the index, whose root is at `root`.
    ///
    /// # Errors
    /// As [`IndexWriter::write`].
    pub fn finish(mut self, root: Extent) -> Result<IndexSummary> {
        let trailer = Trailer { root, entries: self.entries, file_bytes: self.file_bytes };
        self.put(&trailer.encode())?;
        let checksum: [u8; CHECKSUM_BYTES] = self.checksum.finish_128().to_be_bytes();
        self.put(&checksum)?;
        self.flush()?;
        let (digest, size) = self.digest.finish();
        debug_assert_eq!(size, self.next + TRAILER_BYTES as u64);
        Ok(IndexSummary { digest, size, entries: self.entries, file_bytes: self.file_bytes, lost: self.lost })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.checksum.write(bytes);
        self.digest.update(bytes);
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES {
            self.control.add_blob(bytes.len() as u64);
            return self.stream.write_all(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.control.add_blob(self.buffer.len() as u64);
        self.stream.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
