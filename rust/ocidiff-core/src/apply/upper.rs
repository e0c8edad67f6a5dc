//! What a target is besides a tree when it is the upperdir of an overlay: what hides lower layers is kept in it, as overlayfs
//! reads it. Spec: Linux overlayfs.rst, "whiteouts and opaque directories".

use std::collections::HashSet;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, XattrFlags, fsetxattr, mknodat, openat, setxattr};
use rustix::io::{Errno, Result};

use super::handle::{Directory, OWNER_ALL, proc_path};
use crate::metadata::InodeKey;

/// The upperdir of one apply.
#[derive(Debug)]
pub(super) struct Upper {
    prefix: &'static str,
    /// Directories that hide all below them.
    opaque: HashSet<InodeKey>,
}

impl Upper {
    /// Keeps overlayfs's own attributes under `prefix`.
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, opaque: HashSet::new() }
    }

    /// Hides all that lower layers have below `directory`.
    pub fn make_opaque(&mut self, directory: &Directory) -> Result<()> {
        if self.opaque.insert(directory.key()) {
            setxattr(proc_path(directory.as_fd()), self.name("opaque"), b"y", XattrFlags::empty())?;
        }
        Ok(())
    }

    /// Hides `name`, which is free, in `parent`; tells whether it had to.
    pub fn hide(&self, parent: &Directory, name: &[u8]) -> Result<bool> {
        if self.opaque.contains(&parent.key()) {
            return Ok(false);
        }
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            // Before Linux 5.8 only root could; where that is so, a sandbox does not know that this device is none.
            Err(Errno::PERM) => self.hide_by_attribute(parent, name)?,
            other => other?,
        }
        Ok(true)
    }

    /// The form for those who may make no device: an empty file with an attribute, in a directory that says that there are
    /// such. Overlayfs reads it in every layer but the upper and the lowest one, from Linux 6.7 on.
    fn hide_by_attribute(&self, parent: &Directory, name: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::from_raw_mode(OWNER_ALL))?;
        fsetxattr(&file, self.name("whiteout"), b"y", XattrFlags::empty())?;
        setxattr(proc_path(parent.as_fd()), self.name("opaque"), b"x", XattrFlags::empty())
    }

    fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }
}
