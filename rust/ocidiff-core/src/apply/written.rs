//! What this layer has made, so that its whiteouts touch only what was there before.
//!
//! Objects are known by directory and name, directories by their inode, so that a path through a symbolic link names the
//! same thing. Of an object only a keyed hash is kept: 8 bytes instead of a path, for layers of millions of files. (Two
//! names would share one by a chance of about n²/2⁶⁵, which nobody can raise without the key.)

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::metadata::InodeKey;

/// The record of one apply.
#[derive(Debug, Default)]
pub(super) struct Written {
    names: HashSet<u64>,
    /// Names that stand for whiteouts of overlayfs.
    whiteouts: HashSet<u64>,
    settled: HashSet<InodeKey>,
    hasher: RandomState,
}

impl Written {
    /// Notes that this layer wrote `name` in `directory`.
    pub fn add(&mut self, directory: InodeKey, name: &[u8]) {
        self.names.insert(self.hasher.hash_one((directory, name)));
    }

    /// Whether this layer wrote `name` in `directory`.
    pub fn contains(&self, directory: InodeKey, name: &[u8]) -> bool {
        self.names.contains(&self.hasher.hash_one((directory, name)))
    }

    /// Notes that `name` in `directory` is a whiteout of overlayfs that this layer made.
    pub fn add_whiteout(&mut self, directory: InodeKey, name: &[u8]) {
        self.whiteouts.insert(self.hasher.hash_one((directory, name)));
    }

    /// Whether nothing can have the name `name` in `directory`: nothing was left there, and this layer made none.
    pub fn is_free(&self, directory: InodeKey, name: &[u8]) -> bool {
        let hash = self.hasher.hash_one((directory, name));
        self.is_settled(directory) && !self.names.contains(&hash) && !self.whiteouts.contains(&hash)
    }

    /// Notes that nothing of a lower layer is left below `directory`: it is new, or was emptied by a whiteout.
    pub fn settle(&mut self, directory: InodeKey) {
        self.settled.insert(directory);
    }

    /// Whether nothing of a lower layer is left below `directory`. This keeps repeated whiteouts from looking again.
    pub fn is_settled(&self, directory: InodeKey) -> bool {
        self.settled.contains(&directory)
    }
}
