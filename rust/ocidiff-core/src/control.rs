//! Shows a running verb to its caller, and stops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::{Error, Result};

/// Attempts to read a name that changes, before the error says that it never rests.
pub const ATTEMPTS: u32 = 12;

/// Shared between a running verb and its caller: cancellation in, counters out.
#[derive(Debug, Default)]
pub struct Control {
    /// The control of the verb that this one is a part of.
    whole: Option<Arc<Self>>,
    cancelled: AtomicBool,
    entries: AtomicU64,
    bytes_plain: AtomicU64,
    bytes_blob: AtomicU64,
    excluded: AtomicU64,
    mounts: AtomicU64,
    bytes_aside: AtomicU64,
    retried: AtomicU64,
    vanished: AtomicU64,
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
    /// Returns a control for a part of a verb, which stops with it, and whose counters nobody sees.
    pub fn of_part(whole: Arc<Self>) -> Self {
        Self { whole: Some(whole), ..Self::default() }
    }

    /// Asks the verb to stop soon; it ends with [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Returns true if somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed) || self.whole.as_ref().is_some_and(|whole| whole.is_cancelled())
    }

    /// Fails with [`Error::Cancelled`] once somebody asked to stop; for every loop over files or blocks.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Waits before an attempt, longer before each; the first is 0 and comes at once.
    pub fn pause(&self, attempt: u32) -> Result<()> {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(1 << attempt.min(6)));
        }
        self.check()
    }

    /// Returns the counters now.
    pub fn progress(&self) -> Progress {
        Progress {
            entries: self.entries.load(Relaxed),
            bytes_plain: self.bytes_plain.load(Relaxed) + self.bytes_aside.load(Relaxed),
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

    /// Returns the number of excluded paths, and of mount points that were not crossed.
    pub fn left_out(&self) -> (u64, u64) {
        (self.excluded.load(Relaxed), self.mounts.load(Relaxed))
    }

    /// Sets back what is counted anew when all that was done is thrown away, and done again.
    pub fn start_again(&self) {
        for counter in [&self.entries, &self.bytes_plain, &self.bytes_blob, &self.excluded, &self.mounts] {
            counter.store(0, Relaxed);
        }
    }

    /// Counts bytes of the uncompressed tar that are known before they are written: those of the file that is being copied.
    pub fn set_aside(&self, bytes: u64) {
        self.bytes_aside.store(bytes, Relaxed);
    }

    /// Counts a name that changed while it was read, and was read again.
    pub fn add_retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    /// Counts a name that was there when its directory was listed, and then was gone.
    pub fn add_vanished(&self) {
        self.vanished.fetch_add(1, Relaxed);
    }

    /// Returns the number of names that were read again, and of names that vanished.
    pub fn changes(&self) -> (u64, u64) {
        (self.retried.load(Relaxed), self.vanished.load(Relaxed))
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
