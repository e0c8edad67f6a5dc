//! Writes the marks of an upperdir that hide lower layers, as overlayfs reads them. Spec: Linux overlayfs.rst, "whiteouts
//! and opaque directories".

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, Stat, XattrFlags, fsetxattr, getxattr, lgetxattr, mknodat, openat, setxattr};
use rustix::io::{Errno, Result};

use super::handle::{OWNER_ALL, WritableDir};
use crate::rules::open::{NEW_FILE, proc_path};

/// The marks in the upperdir of one apply.
#[derive(Debug)]
pub(super) struct Upper {
    prefix: &'static [u8],
}

impl Upper {
    /// Keeps overlayfs's own attributes under `prefix`.
    pub fn new(prefix: &'static [u8]) -> Self {
        Self { prefix }
    }

    /// Hides all that lower layers have below `directory`.
    pub fn make_opaque(&self, directory: &WritableDir) -> Result<()> {
        self.set(directory, "opaque", b"y")
    }

    /// Returns true if `directory` hides all that lower layers have below it.
    pub fn is_opaque(&self, directory: &WritableDir) -> bool {
        let mut value = [0; 8];
        let length = getxattr(proc_path(directory.as_fd()), self.name("opaque"), &mut value);
        length.is_ok_and(|length| &value[..length] == b"y")
    }

    /// Hides `name`, which is free, in `parent`.
    pub fn hide(&self, parent: &WritableDir, name: &[u8]) -> Result<()> {
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            // Only root could make this device before Linux 5.8, and a sandbox may still refuse it like any other.
            Err(Errno::PERM) => self.hide_by_attribute(parent, name),
            other => other,
        }
    }

    /// Returns true if `name` in `parent`, whose metadata is `there`, stands for nothing: it is a whiteout.
    pub fn is_whiteout(&self, parent: &WritableDir, name: &[u8], there: &Stat) -> bool {
        match FileType::from_raw_mode(there.st_mode) {
            FileType::CharacterDevice => there.st_rdev == 0,
            FileType::RegularFile if there.st_size == 0 => {
                lgetxattr(parent.proc_path_of(name), self.name("whiteout"), &mut [0u8; 0]).is_ok()
            }
            _ => false,
        }
    }

    /// Marks `directory` as copied up from an unknown place. Overlayfs then leaves whiteouts out of its listing even if no
    /// lower layer has the directory (`ovl_path_check_origin_xattr`).
    pub fn note_whiteouts(&self, directory: &WritableDir) -> Result<()> {
        match setxattr(proc_path(directory.as_fd()), self.name("origin"), b"", XattrFlags::CREATE) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Hides a name where no device may be made: writes an empty file with an attribute, in a directory that says that
    /// there are such. Overlayfs reads it in every layer but the upper and the lowest one, from Linux 6.7 on.
    fn hide_by_attribute(&self, parent: &WritableDir, name: &[u8]) -> Result<()> {
        let file = openat(parent, name, NEW_FILE, Mode::from_raw_mode(OWNER_ALL))?;
        fsetxattr(&file, self.name("whiteout"), b"y", XattrFlags::empty())?;
        self.set(parent, "opaque", b"x")
    }

    fn set(&self, directory: &WritableDir, what: &str, value: &[u8]) -> Result<()> {
        setxattr(proc_path(directory.as_fd()), self.name(what), value, XattrFlags::empty())
    }

    fn name(&self, what: &str) -> Vec<u8> {
        [self.prefix, what.as_bytes()].concat()
    }
}
