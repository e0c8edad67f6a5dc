//! A directory as a descriptor. Everything that is done to an object below the root is done by such a handle and one name.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{
    Mode, RawDir, RawMode, Stat, XattrFlags, chmod, fchown, fremovexattr, fstat, getxattr, mkdirat, openat, setxattr,
};
use rustix::io::{Errno, Result};
use rustix::process::{getegid, geteuid};

use crate::metadata::InodeKey;
use crate::note::Note;
use crate::rules::linux::MODE_BITS;
use crate::rules::open::{DIRECTORY, DIRECTORY_HANDLE, proc_path, proc_path_below};
use crate::rules::xattr::{ACCESS_ACL, DEFAULT_ACL, NOTE};

/// The rights that the owner needs in a directory that is written into.
pub(super) const OWNER_ALL: RawMode = 0o700;

/// An open directory that is written into.
#[derive(Debug)]
pub(super) struct WritableDir {
    fd: OwnedFd,
    /// The stat of the directory when it was opened.
    stat: Stat,
    default_acl: OnceLock<bool>,
}

impl WritableDir {
    /// Takes an open directory.
    pub fn new(fd: OwnedFd) -> Result<Self> {
        let stat = fstat(&fd)?;
        Ok(Self { fd, stat, default_acl: OnceLock::new() })
    }

    /// Returns device and inode number.
    pub fn key(&self) -> InodeKey {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// Returns the stat of the directory when it was opened.
    pub fn stat(&self) -> Stat {
        self.stat
    }

    /// Returns a handle on the directory `name`; ENOTDIR or ELOOP when it is something else, a link included.
    pub fn enter(&self, name: &[u8]) -> Result<Self> {
        Self::new(openat(&self.fd, name, DIRECTORY_HANDLE, Mode::empty())?)
    }

    /// Opens the directory `name` for reading, so that everything in it can be removed.
    pub fn open(&self, name: &[u8]) -> Result<Self> {
        let opened = match openat(&self.fd, name, DIRECTORY, Mode::empty()) {
            Err(Errno::ACCESS) => {
                self.enter(name)?.grant()?;
                openat(&self.fd, name, DIRECTORY, Mode::empty())?
            }
            other => other?,
        };
        let directory = Self::new(opened)?;
        directory.grant()?;
        Ok(directory)
    }

    /// Makes the directory `name`, for its owner alone, and without the ACLs and the group that it would inherit.
    pub fn make(&self, name: &[u8]) -> Result<Self> {
        mkdirat(&self.fd, name, Mode::from_raw_mode(OWNER_ALL))?;
        let mut made = self.open(name)?;
        if self.has_default_acl() {
            remove_acl(&made.fd, ACCESS_ACL)?;
            remove_acl(&made.fd, DEFAULT_ACL)?;
        }
        let group = getegid();
        if made.stat.st_gid != group.as_raw() {
            fchown(&made.fd, None, Some(group))?;
            made.stat.st_gid = group.as_raw();
        }
        Ok(made)
    }

    /// Gives the owner, when that is us, the right to work in this directory, and tells the mode it had if that was new.
    pub fn grant(&self) -> Result<Option<RawMode>> {
        let mode = self.stat.st_mode & MODE_BITS;
        if mode & OWNER_ALL == OWNER_ALL || self.stat.st_uid != geteuid().as_raw() {
            return Ok(None);
        }
        self.set_mode(mode | OWNER_ALL)?;
        Ok(Some(mode))
    }

    /// Returns true if the directory is empty; false if it may not be read.
    pub fn is_empty(&self) -> Result<bool> {
        let listing = match openat(&self.fd, c".", DIRECTORY, Mode::empty()) {
            Err(Errno::ACCESS) => return Ok(false),
            other => other?,
        };
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut entries = RawDir::new(&listing, &mut buffer);
        while let Some(entry) = entries.next() {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Changes the mode.
    pub fn set_mode(&self, mode: RawMode) -> Result<()> {
        chmod(proc_path(self.fd.as_fd()), Mode::from_raw_mode(mode))
    }

    /// Notes that this is root's, with `mode`; a directory that can have no note goes without.
    pub fn note(&self, mode: RawMode) -> Result<()> {
        let note = Note { uid: 0, gid: 0, mode, kind: None };
        match setxattr(proc_path(self.fd.as_fd()), NOTE, &note.encode(), XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(()),
            done => done,
        }
    }

    /// Returns true if this has a note.
    pub fn has_note(&self) -> bool {
        getxattr(proc_path(self.fd.as_fd()), NOTE, &mut [0u8; 0]).is_ok()
    }

    /// Returns true if new files inherit ACLs here, which their entries do not have.
    pub fn has_default_acl(&self) -> bool {
        *self.default_acl.get_or_init(|| getxattr(proc_path(self.fd.as_fd()), DEFAULT_ACL, &mut [0u8; 0]).is_ok())
    }

    /// Returns a path to `name` in this directory, for calls that take no directory.
    pub fn proc_path_of(&self, name: &[u8]) -> Vec<u8> {
        proc_path_below(self.fd.as_fd(), name)
    }
}

impl AsFd for WritableDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn remove_acl(fd: &OwnedFd, name: &CStr) -> Result<()> {
    match fremovexattr(fd, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}
