//! Limits of the resources that a layer may take.

use super::path::LayerPath;
use crate::compress::decompress::Bounds;
use crate::error::{Error, Result};
use crate::tar::pax;
use crate::tar::read::TarEntry;

/// Limits of a layer. The error names the limit, and the entry that passed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest uncompressed size, with the holes of sparse files and whatever follows the end mark; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Largest number of entries; `None` for no limit.
    pub max_entries: Option<u64>,
    /// Most bytes of tar for each byte of blob, from 64 MiB of tar on; `None` for no limit.
    pub max_ratio: Option<u64>,
    /// Most components in the name of an entry. Larger than any tree seen in practice.
    pub max_depth: usize,
    /// Largest PAX or GNU header. The default is Go's.
    pub max_header_bytes: u64,
}

impl Default for Limits {
    /// Returns limits that no honest layer reaches: 1 TiB, 10 million entries, and a ratio that gzip cannot reach.
    fn default() -> Self {
        Self {
            max_bytes: Some(1 << 40),
            max_entries: Some(10_000_000),
            max_ratio: Some(1100),
            max_depth: 16_384,
            max_header_bytes: pax::MAX_BYTES as u64,
        }
    }
}

impl Limits {
    /// Returns the limits of the stream as a whole.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { max_bytes: self.max_bytes, max_ratio: self.max_ratio }
    }

    /// Judges the entry number `count` before anything of it is done.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`].
    pub(crate) fn check(&self, entry: &TarEntry, path: &LayerPath, count: u64) -> Result<()> {
        let passed = |limit, value, max| {
            Err(Error::LimitExceeded { limit, value, max, path: path.as_path().into(), offset: entry.offset })
        };
        let depth = path.components().count();
        match (self.max_entries, self.max_bytes) {
            (Some(max), _) if count > max => passed("max_entries", count, max),
            (_, Some(max)) if entry.end > max => passed("max_bytes", entry.end, max),
            _ if depth > self.max_depth => passed("max_depth", depth as u64, self.max_depth as u64),
            _ => Ok(()),
        }
    }
}
