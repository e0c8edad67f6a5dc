//! Parts: the tars of one change, one for each layer. What is written goes to the current one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::cause::Cause;
use crate::change::ChangeKind;
use crate::compress::blob::{BlobSegments, BlobSummary, BlobWriter};
use crate::error::{Error, Result};
use crate::tar::header::{END, Header, pad};

/// The changes and entries of one layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Paths that only the upper tree has.
    pub added: u64,
    /// Paths that both have, and that differ.
    pub modified: u64,
    /// Paths that only the lower tree has.
    pub deleted: u64,
    /// Entries of the tar.
    pub entries: u64,
}

/// A layer that was written, its segments, and its counts.
pub type Finished = (BlobSummary, BlobSegments, Counts);

/// A layer that is written, or that is left out because it is known.
struct Part {
    blob: Option<BlobWriter>,
    counts: Counts,
}

/// The layers of a change.
pub struct Parts {
    parts: Vec<Part>,
    /// Number of the current layer.
    pub at: usize,
    /// The bytes of one header, or of what fills up a record.
    header: Vec<u8>,
}

impl Parts {
    /// Returns a part for each of `blobs`; one for `None` is left out.
    pub fn new(blobs: Vec<Option<BlobWriter>>) -> Self {
        let parts = blobs.into_iter().map(|blob| Part { blob, counts: Counts::default() }).collect();
        Self { parts, at: 0, header: Vec::new() }
    }

    /// Returns the number of layers, with those that are left out.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// True if the current layer is left out: what is written to it goes nowhere.
    pub fn is_left_out(&self) -> bool {
        self.parts[self.at].blob.is_none()
    }

    /// Counts a change.
    pub fn count(&mut self, kind: ChangeKind) {
        let counts = &mut self.parts[self.at].counts;
        match kind {
            ChangeKind::Add => counts.added += 1,
            ChangeKind::Modify => counts.modified += 1,
            ChangeKind::Delete => counts.deleted += 1,
            ChangeKind::Unmodified => {}
        }
    }

    /// Takes back what was counted for a name that vanished since. Returns true if it counts as deleted now.
    pub fn count_vanished(&mut self, kind: ChangeKind) -> bool {
        let counts = &mut self.parts[self.at].counts;
        if kind == ChangeKind::Add {
            counts.added -= 1;
            return false;
        }
        counts.modified -= 1;
        counts.deleted += 1;
        true
    }

    /// Writes a header, which begins an entry.
    pub fn put(&mut self, header: &Header<'_>) -> Result<()> {
        self.header.clear();
        header.write(&mut self.header).map_err(|error| match error {
            Error::Unrepresentable { reason, .. } => refused(header.name.strip_suffix(b"/").unwrap_or(header.name), reason),
            other => other,
        })?;
        let part = &mut self.parts[self.at];
        let Some(blob) = &mut part.blob else { return Ok(()) };
        blob.begin_entry(header.name)?;
        blob.write(&self.header)?;
        part.counts.entries += 1;
        Ok(())
    }

    /// Begins the content of a file of `size` bytes.
    pub fn begin_content(&mut self, size: u64) -> Result<()> {
        self.blob().map_or(Ok(()), |blob| blob.begin_content(size))
    }

    /// Writes bytes of a content.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.blob().map_or(Ok(()), |blob| blob.write(bytes))
    }

    /// Has `fill` write up to `want` bytes of a content into the blob; returns their number.
    pub fn fill_with(&mut self, want: u64, fill: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<u64> {
        self.blob().map_or(Ok(want), |blob| blob.fill_with(want, fill).map(|count| count as u64))
    }

    /// Ends the content of a file of `size` bytes, and fills up its last record.
    pub fn end_content(&mut self, size: u64) -> Result<()> {
        self.header.clear();
        pad(&mut self.header, size);
        let Some(blob) = &mut self.parts[self.at].blob else { return Ok(()) };
        blob.end_content(size)?;
        blob.write(&self.header)
    }

    /// Ends the tars. Returns the segments of each blob too; `None` for a layer that was left out.
    pub fn finish(self) -> Result<Vec<Option<Finished>>> {
        let finish = |Part { blob, counts }: Part| {
            let Some(mut blob) = blob else { return Ok(None) };
            blob.write(&END)?;
            blob.finish().map(|(blob, segments)| Some((blob, segments, counts)))
        };
        self.parts.into_iter().map(finish).collect()
    }

    fn blob(&mut self) -> Option<&mut BlobWriter> {
        self.parts[self.at].blob.as_mut()
    }
}

/// Returns the error for an entry that no layer can hold.
pub fn refused(path: &[u8], reason: Cause) -> Error {
    Error::Unrepresentable { path: PathBuf::from(OsStr::from_bytes(path)), reason }
}
