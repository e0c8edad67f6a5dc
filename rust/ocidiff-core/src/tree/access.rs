//! Reads what belongs to this process and is closed to it by its mode: opens the mode for the moment, and restores it.
//!
//! Law: nobody in this process sees an opened mode. A file is opened, read from its handle and closed again under the lock; a
//! directory, which has to stay open to be searched, is remembered with its own mode until the last handle on it goes.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{PoisonError, RwLock};

use rustix::fs::{FileType, Mode, OFlags, Stat, chmod, fchmod, fstat, openat};
use rustix::io::{Errno, Result};
use rustix::process::geteuid;

use crate::metadata::InodeKey;
use crate::rules::linux::MODE_BITS;
use crate::rules::open;

const FILE_BITS: u32 = 0o400;
const DIRECTORY_BITS: u32 = 0o500;

/// The directories that are open for the moment. Modes belong to the machine, so that all calls of the process share this.
static OPENED: RwLock<BTreeMap<InodeKey, Opened>> = RwLock::new(BTreeMap::new());

struct Opened {
    mode: u32,
    handles: usize,
}

/// Returns true if modes bind this process even for files that it owns.
pub fn is_bound() -> bool {
    !geteuid().is_root()
}

/// Runs `look`, which tells the inode that it found, while no mode is open that its owner did not give; answers the mode of
/// the inode if it is a directory that is open for the moment.
pub fn look<T>(look: impl FnOnce() -> Result<(T, InodeKey)>) -> Result<(T, Option<u32>)> {
    let opened = OPENED.read().unwrap_or_else(PoisonError::into_inner);
    let (found, key) = look()?;
    Ok((found, opened.get(&key).map(|opened| opened.mode)))
}

/// Runs `read` with a path to the file or directory `name` of `parent` while its owner may read it.
///
/// # Errors
/// `EACCES` if it belongs to somebody else, or cannot be read; the error of `read`.
pub fn while_open<T>(parent: BorrowedFd<'_>, name: &CStr, read: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    while_handle_open(&openat(parent, name, open::HANDLE, Mode::empty())?, read)
}

/// Like [`while_open`], for an open file or directory.
pub fn while_handle_open<T>(handle: &OwnedFd, read: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let _opened = OPENED.write().unwrap_or_else(PoisonError::into_inner);
    let stat = fstat(handle)?;
    let is_readable = matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory);
    if stat.st_uid != geteuid().as_raw() || !is_readable {
        return Err(Errno::ACCESS);
    }
    let path = open::proc_path(handle.as_fd());
    chmod(&path, Mode::from_raw_mode(stat.st_mode & MODE_BITS | FILE_BITS))?;
    let _restore = Restore { path: &path, mode: stat.st_mode & MODE_BITS };
    read(&path)
}

/// Opens the directory `name` of `parent` so that it can be read and searched; tells the key to [`release`] it by, if its mode
/// had to be opened.
pub fn open_directory(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<(OwnedFd, Option<InodeKey>)> {
    let first = openat(parent, name, flags, Mode::empty());
    if let Ok(fd) = &first {
        let stat = fstat(fd)?;
        let is_open = stat.st_mode & DIRECTORY_BITS == DIRECTORY_BITS;
        let nothing_opened = OPENED.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        if stat.st_uid != geteuid().as_raw() || is_open && nothing_opened {
            return first.map(|fd| (fd, None));
        }
    } else if !matches!(first, Err(Errno::ACCESS)) {
        return first.map(|fd| (fd, None));
    }
    let mut opened = OPENED.write().unwrap_or_else(PoisonError::into_inner);
    let (pinned, stat) = pin(parent, name)?;
    let (key, mode) = ((stat.st_dev, stat.st_ino), stat.st_mode & MODE_BITS);
    let path = open::proc_path(pinned.as_fd());
    let known = opened.contains_key(&key);
    if !known {
        if mode & DIRECTORY_BITS == DIRECTORY_BITS {
            return openat(parent, name, flags, Mode::empty()).map(|fd| (fd, None));
        }
        chmod(&path, Mode::from_raw_mode(mode | DIRECTORY_BITS))?;
    }
    match openat(&pinned, c".", flags, Mode::empty()) {
        Ok(fd) => {
            opened.entry(key).or_insert(Opened { mode, handles: 0 }).handles += 1;
            Ok((fd, Some(key)))
        }
        Err(errno) => {
            if !known {
                drop(Restore { path: &path, mode });
            }
            Err(errno)
        }
    }
}

/// Gives a directory its own mode back, when this is the last handle on it.
pub fn release(fd: &OwnedFd, key: InodeKey) {
    let mut all = OPENED.write().unwrap_or_else(PoisonError::into_inner);
    let Some(opened) = all.get_mut(&key) else { return };
    opened.handles -= 1;
    if opened.handles == 0 {
        // A file system that turned read-only leaves nothing else to try.
        let _ = fchmod(fd, Mode::from_raw_mode(opened.mode));
        all.remove(&key);
    }
}

/// Returns a handle on what belongs to this process, that needs no right to read.
fn pin(parent: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, Stat)> {
    let pinned = openat(parent, name, open::HANDLE, Mode::empty())?;
    let stat = fstat(&pinned)?;
    if stat.st_uid == geteuid().as_raw() { Ok((pinned, stat)) } else { Err(Errno::ACCESS) }
}

/// Gives an inode its mode back.
struct Restore<'a> {
    path: &'a str,
    mode: u32,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let _ = chmod(self.path, Mode::from_raw_mode(self.mode));
    }
}
