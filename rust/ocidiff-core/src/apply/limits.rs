//! How much of the machine a layer may take.

use super::path::LayerPath;
use crate::error::{Error, Result};
use crate::tar::pax;
use crate::tar::read::Entry;

/// What a layer may not pass; a limit that is passed is named, with the entry that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest uncompressed size, whatever follows the end mark included; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Largest number of entries; `None` for no limit.
    pub max_entries: Option<u64>,
    /// Most components in the name of an entry. The default is what a path of PATH_MAX bytes can hold.
    pub max_depth: usize,
    /// Largest PAX or GNU header. The default is Go's.
    pub max_header_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: None, max_entries: None, max_depth: 2048, max_header_bytes: pax::MAX_BYTES as u64 }
    }
}

impl Limits {
    /// Judges the entry number `count` before anything of it is done.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`].
    pub(super) fn check(&self, entry: &Entry, path: &LayerPath, count: u64) -> Result<()> {
        let passed = |limit, value| Err(Error::LimitExceeded { limit, value, path: path.as_path().into() });
        let depth = path.components().count();
        let end = entry.offset.saturating_add(entry.size);
        if self.max_entries.is_some_and(|max| count > max) {
            return passed("max_entries", count);
        }
        if self.max_bytes.is_some_and(|max| end > max) {
            return passed("max_bytes", end);
        }
        if depth > self.max_depth {
            return passed("max_depth", depth as u64);
        }
        Ok(())
    }
}
