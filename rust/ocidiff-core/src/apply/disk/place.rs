//! The place of an entry, and the errors of calls on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::handle::WritableDir;
use super::removal::Failure;
use crate::apply::path::{LayerPath, show};
use crate::cause::Cause;
use crate::error::Error;

/// A name in a directory below the root.
pub(super) struct Place<'a> {
    /// The target as the caller knows it; for messages only.
    pub root: &'a Path,
    pub parent: Arc<WritableDir>,
    pub path: LayerPath,
}

impl Place<'_> {
    /// Returns the last component.
    pub fn name(&self) -> &[u8] {
        self.path.split().1
    }

    /// Returns the error of a call on this place.
    pub fn failed(&self, op: &'static str) -> impl Fn(Errno) -> Error + '_ {
        move |errno| Error::io(op, below(self.root, self.path.as_bytes()), errno)
    }

    /// Returns the error of a removal here.
    pub fn failed_removal(&self, failure: Failure) -> Error {
        match failure {
            Failure::Cancelled => Error::Cancelled,
            Failure::System(errno) => self.failed("remove")(errno),
        }
    }

    /// Returns the error for something that this target cannot hold.
    pub fn unsupported(&self, reason: Cause) -> Error {
        Error::Unsupported { path: self.path.as_path().into(), reason }
    }

    /// Returns the error for an entry that is never applied.
    pub fn unsafe_entry(&self, reason: Cause) -> Error {
        self.path.unsafe_entry(reason)
    }

    /// Returns the error for a name that this layer wrote under another one, as the file system sees it.
    pub fn collision(&self) -> Error {
        self.unsafe_entry(Cause::NameCollides)
    }
}

/// Returns a path below the root as the caller knows it.
pub(super) fn below(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(show(path)) }
}
