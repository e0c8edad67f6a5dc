//! Where an entry goes, and how its failures are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::handle::Directory;
use super::removal::Failure;
use crate::apply::path::{LayerPath, show};
use crate::cause::Cause;
use crate::error::Error;

/// A name in a directory below the root.
pub(super) struct Place<'a> {
    /// The target as the caller knows it; for messages only.
    pub root: &'a Path,
    pub parent: Arc<Directory>,
    pub path: LayerPath,
}

impl Place<'_> {
    /// The last component.
    pub fn name(&self) -> &[u8] {
        self.path.split().1
    }

    /// The error of a call on this place.
    pub fn failed(&self, op: &'static str) -> impl Fn(Errno) -> Error + '_ {
        move |errno| Error::io(op, below(self.root, self.path.as_bytes()), errno)
    }

    /// The error of a removal here.
    pub fn failed_removal(&self, failure: Failure) -> Error {
        match failure {
            Failure::Cancelled => Error::Cancelled,
            Failure::System(errno) => self.failed("remove")(errno),
        }
    }

    /// What cannot be said of the object here.
    pub fn unsupported(&self, reason: Cause) -> Error {
        Error::Unsupported { path: self.path.as_path().into(), reason }
    }

    /// What is never done.
    pub fn unsafe_entry(&self, reason: Cause) -> Error {
        self.path.unsafe_entry(reason)
    }

    /// Something stands here that this layer wrote under another name, as the file system sees it.
    pub fn collision(&self) -> Error {
        self.unsafe_entry(Cause::NameCollides)
    }
}

/// A path below the root as the caller knows it.
pub(super) fn below(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(show(path)) }
}
