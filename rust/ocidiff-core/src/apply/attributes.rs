//! What an entry says of an object besides its content: owner, extended attributes, mode and times, set in this order.
//!
//! A new owner clears set-id bits and capabilities, so those come after it; writing changes times, so they come last.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, fchmod,
    fchown, flistxattr, fremovexattr, fsetxattr, fstat, futimens, llistxattr, lremovexattr, lsetxattr, openat, utimensat,
};
use rustix::io::{Errno, Result};

use super::handle::{ACCESS_ACL, Directory, proc_path};
use crate::tar::Time;
use crate::tar::read::Entry;

/// The kernel's limit on the list of one inode's attributes (linux/limits.h).
const LIST_BYTES: usize = 64 << 10;
const SET_IDS: RawMode = 0o6000;

/// An object that was made, merged or linked: by its descriptor where it has one that can be written, else by its name.
pub(super) struct Node<'a> {
    pub parent: &'a Directory,
    pub name: &'a [u8],
    pub fd: Option<BorrowedFd<'a>>,
    pub file_type: FileType,
    /// What it was before this entry; `None` when the entry made it.
    pub before: Option<Stat>,
}

impl Node<'_> {
    /// Gives the object its owner, unless it has it: the kernel would clear capabilities that no entry sets again.
    pub fn set_owner(&self, uid: u32, gid: u32) -> Result<()> {
        if self.before.is_some_and(|before| (before.st_uid, before.st_gid) == (uid, gid)) {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self.fd {
            Some(fd) => fchown(fd, uid, gid),
            None => chownat(self.parent, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    /// Removes the attributes that a layer can carry and this entry does not, where there can be any.
    pub fn remove_other_xattrs(&self, entry: &Entry) -> Result<()> {
        if self.file_type == FileType::Directory && self.before.is_some() {
            for name in self.xattrs()?.split(|&byte| byte == 0) {
                if is_portable(name) && !entry.xattrs.contains_key(name) {
                    self.remove_xattr(name)?;
                }
            }
        }
        let inherits = self.before.is_none() && !matches!(self.file_type, FileType::Directory | FileType::Symlink);
        if inherits && self.parent.has_default_acl() && !entry.xattrs.contains_key(ACCESS_ACL.as_bytes()) {
            return self.remove_xattr(ACCESS_ACL.as_bytes());
        }
        Ok(())
    }

    fn xattrs(&self) -> Result<Vec<u8>> {
        let mut list = vec![0; LIST_BYTES];
        let length = match self.fd {
            Some(fd) => flistxattr(fd, &mut list[..]),
            None => llistxattr(self.parent.proc_path_of(self.name), &mut list[..]),
        };
        match length {
            Ok(length) => list.truncate(length),
            Err(Errno::OPNOTSUPP) => list.clear(),
            Err(errno) => return Err(errno),
        }
        Ok(list)
    }

    /// Sets one attribute.
    pub fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        match self.fd {
            Some(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            None => lsetxattr(self.parent.proc_path_of(self.name), name, value, XattrFlags::empty()),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let removed = match self.fd {
            Some(fd) => fremovexattr(fd, name),
            None => lremovexattr(self.parent.proc_path_of(self.name), name),
        };
        match removed {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    /// Changes the mode; a symbolic link has none.
    pub fn set_mode(&self, mode: RawMode) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self.fd {
            Some(fd) => fchmod(fd, mode),
            None if self.file_type == FileType::Symlink => Ok(()),
            None => {
                // There is no chmod that does not follow before Linux 6.6: pin the inode and look at it.
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let pinned = openat(self.parent, self.name, flags, Mode::empty())?;
                if FileType::from_raw_mode(fstat(&pinned)?.st_mode) != self.file_type {
                    return Err(Errno::LOOP);
                }
                chmod(proc_path(pinned.as_fd()), mode)
            }
        }
    }

    /// Sets both times.
    pub fn set_times(&self, times: &Timestamps) -> Result<()> {
        match self.fd {
            Some(fd) => futimens(fd, times),
            None => utimensat(self.parent, self.name, times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }
}

/// The mode of an entry, without set-id bits where its owner was not kept: they would lend the rights of somebody else.
pub(super) fn mode_of(entry: &Entry, owner_kept: bool) -> RawMode {
    if owner_kept { entry.mode } else { entry.mode & !SET_IDS }
}

/// The times of an entry, whole: the file system rounds or bounds what it cannot hold. Reading counts as no later than
/// writing where the entry does not say.
pub(super) fn times_of(entry: &Entry) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    let atime = entry.atime.map_or(entry.mtime, |atime| atime.max(entry.mtime));
    Timestamps { last_access: spec(atime), last_modification: spec(entry.mtime) }
}

/// Whether an attribute must not come from a layer: it belongs to the host, or means something to overlayfs.
pub(super) fn is_of_the_host(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.")
}

/// Whether a layer can carry an attribute, so that its absence from an entry says that it is gone.
fn is_portable(name: &[u8]) -> bool {
    name.starts_with(b"user.") && !is_of_the_host(name)
        || name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
}
