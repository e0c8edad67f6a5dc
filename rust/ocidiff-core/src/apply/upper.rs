//! What a target is besides a tree when it is the upperdir of an overlay: what hides lower layers is kept in it, as overlayfs
//! reads it. Spec: Linux overlayfs.rst, "whiteouts and opaque directories".

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, XattrFlags, fsetxattr, getxattr, mknodat, openat, setxattr};
use rustix::io::{Errno, Result};

use super::handle::{Directory, OWNER_ALL, proc_path};
use crate::metadata::InodeKey;

/// The upperdir of one apply. What it says is read from it: a record of inodes would outlive them.
#[derive(Debug)]
pub(super) struct Upper {
    prefix: &'static str,
}

impl Upper {
    /// Keeps overlayfs's own attributes under `prefix`.
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix }
    }

    /// Hides all that lower layers have below `directory`.
    pub fn make_opaque(&self, directory: &Directory) -> Result<()> {
        setxattr(proc_path(directory.as_fd()), self.name("opaque"), b"y", XattrFlags::empty())
    }

    fn is_opaque(&self, directory: &Directory) -> bool {
        let mut value = [0; 8];
        let length = getxattr(proc_path(directory.as_fd()), self.name("opaque"), &mut value);
        length.is_ok_and(|length| &value[..length] == b"y")
    }

    /// Hides `name`, which is free, in `parent`, somewhere below `top`; tells whether it had to.
    pub fn hide(&self, parent: &Directory, name: &[u8], top: InodeKey) -> Result<bool> {
        if self.is_hidden(parent, top)? {
            return Ok(false);
        }
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            // Before Linux 5.8 only root could; where that is so, a sandbox does not know that this device is none.
            Err(Errno::PERM) => self.hide_by_attribute(parent, name)?,
            other => other?,
        }
        Ok(true)
    }

    /// Whether nothing of a lower layer can show in `directory`: a whiteout would show itself there.
    fn is_hidden(&self, directory: &Directory, top: InodeKey) -> Result<bool> {
        let mut here = directory.enter(b".")?;
        while here.key() != top {
            if self.is_opaque(&here) {
                return Ok(true);
            }
            here = here.enter(b"..")?;
        }
        Ok(false)
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
