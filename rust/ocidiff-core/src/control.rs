//! What a caller sees of a running verb, and how it stops it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};

/// Shared between a running verb and its caller: cancellation in, counters out.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    entries: AtomicU64,
    bytes_plain: AtomicU64,
    bytes_blob: AtomicU64,
    excluded: AtomicU64,
    mounts: AtomicU64,
}

/// The counters of a [`Control`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Directory entries looked at (diff) or layer entries handled (apply).
    pub entries: u64,
    /// Bytes of the uncompressed tar so far.
    pub bytes_plain: u64,
    /// Bytes of the stored blob so far.
    pub bytes_blob: u64,
}

impl Control {
    /// Asks the verb to stop soon; it ends with [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Fails with [`Error::Cancelled`] once somebody asked to stop; for every loop over files or blocks.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// The counters now.
    pub fn progress(&self) -> Progress {
        Progress {
            entries: self.entries.load(Relaxed),
            bytes_plain: self.bytes_plain.load(Relaxed),
            bytes_blob: self.bytes_blob.load(Relaxed),
        }
    }

    /// Counts a path that seems to have changed, and was excluded.
    pub fn add_excluded(&self) {
        self.excluded.fetch_add(1, Relaxed);
    }

    /// Counts a mount point that was not crossed.
    pub fn add_mount(&self) {
        self.mounts.fetch_add(1, Relaxed);
    }

    /// How many paths were excluded, and how many mount points were not crossed.
    pub fn left_out(&self) -> (u64, u64) {
        (self.excluded.load(Relaxed), self.mounts.load(Relaxed))
    }

    /// Counts directory or layer entries.
    pub fn add_entries(&self, count: u64) {
        self.entries.fetch_add(count, Relaxed);
    }

    /// Counts bytes of the uncompressed tar.
    pub fn add_plain(&self, bytes: u64) {
        self.bytes_plain.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes of the stored blob.
    pub fn add_blob(&self, bytes: u64) {
        self.bytes_blob.fetch_add(bytes, Relaxed);
    }
}
