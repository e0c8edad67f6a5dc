//! The view of a tree: with ids of the container, and as the notes on its files say.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{fstat, getxattr, lgetxattr};
use rustix::io::{Errno, Result};
use rustix::process::{getegid, geteuid};

use super::access;
use super::xattr::get_by_handle;
use crate::idmap::IdMaps;
use crate::metadata::{FileType, Metadata};
use crate::note::{MAX_NOTE_BYTES, Note};
use crate::rules::open::{proc_path, proc_path_below};
use crate::rules::xattr::NOTE;

/// The view that all directories of one tree share.
#[derive(Debug, Default)]
pub struct View {
    /// The id maps.
    pub ids: Option<Arc<IdMaps>>,
    /// The way to read notes, if they count.
    notes: Option<Notes>,
    /// Modes bind this process.
    pub is_bound: bool,
    /// The prefixes of the attributes that an overlay keeps for itself in this tree.
    pub marks: &'static [&'static [u8]],
}

/// The notes of a tree.
#[derive(Debug)]
struct Notes {
    /// getxattrat (Linux 6.13); else the path through /proc is taken.
    by_handle: bool,
    /// The tree says itself that it has notes, so that a link without an owner of its own is known to lack one.
    is_marked: bool,
    /// Users and groups that files have which nobody gave an owner.
    users: [u32; 2],
    groups: [u32; 2],
}

impl View {
    /// Returns the view of the tree whose root is `root`. Notes count if its root has one, as after an apply without
    /// owners, or if this process is not root and so could not be misled by them.
    pub fn of(root: &OwnedFd, ids: Option<Arc<IdMaps>>) -> Result<Self> {
        let mut value = [0; MAX_NOTE_BYTES];
        let answer = get_by_handle(root.as_fd(), c".", NOTE, &mut value);
        // A sandbox may answer EPERM for a system call that it does not know.
        let by_handle = !matches!(answer, Err(Errno::NOSYS | Errno::PERM));
        let answer = if by_handle { answer } else { getxattr(proc_path(root.as_fd()), NOTE, &mut value) };
        let is_marked = matches!(answer, Ok(_) | Err(Errno::RANGE | Errno::ACCESS));
        let is_bound = access::is_bound();
        let notes = if is_marked || is_bound {
            let top = fstat(root)?;
            let (users, groups) = ([top.st_uid, geteuid().as_raw()], [top.st_gid, getegid().as_raw()]);
            Some(Notes { by_handle, is_marked, users, groups })
        } else {
            None
        };
        Ok(Self { ids, notes, is_bound, marks: &[] })
    }

    /// Returns true if notes say what files are.
    pub fn reads_notes(&self) -> bool {
        self.notes.is_some()
    }

    /// Returns the view of what lstat said of `name`.
    pub fn of_name(&self, directory: BorrowedFd<'_>, name: &CStr, found: Metadata) -> Result<Metadata> {
        self.seen(found, |notes, value| {
            let answer = match notes.by_handle {
                true => get_by_handle(directory, name, NOTE, value),
                false => lgetxattr(proc_path_below(directory, name.to_bytes()), NOTE, &mut *value),
            };
            self.or_opened(answer, || access::while_open(directory, name, |path| getxattr(path, NOTE, &mut *value)))
        })
    }

    /// Returns the view of what fstat said of an open file.
    pub fn of_open(&self, file: &OwnedFd, found: Metadata) -> Result<Metadata> {
        // A handle without a right to read takes no call on attributes.
        let path = proc_path(file.as_fd());
        self.seen(found, |_, value| {
            let answer = getxattr(&path, NOTE, &mut *value);
            self.or_opened(answer, || access::while_handle_open(file, |path| getxattr(path, NOTE, &mut *value)))
        })
    }

    /// Returns `answer`, or the result of `again` if a mode stood in the way.
    fn or_opened(&self, answer: Result<usize>, again: impl FnOnce() -> Result<usize>) -> Result<usize> {
        match answer {
            Err(Errno::ACCESS) if self.is_bound => again(),
            answer => answer,
        }
    }

    fn seen(&self, found: Metadata, read: impl FnOnce(&Notes, &mut [u8]) -> Result<usize>) -> Result<Metadata> {
        let mut seen = self.ids.as_ref().map_or(found, |ids| ids.metadata(found));
        if self.is_bound && found.file_type == FileType::File && found.mode & 0o400 == 0 {
            // Reading it changes the time of its last change.
            seen.ctime = (seen.mtime, seen.mtime_ns);
        }
        let Some(notes) = &self.notes else { return Ok(seen) };
        let (same_user, same_group) = (notes.users.contains(&found.uid), notes.groups.contains(&found.gid));
        if !matches!(found.file_type, FileType::File | FileType::Directory) {
            seen.lacks_owner = notes.is_marked && same_user && same_group;
            return Ok(seen);
        }
        let mut value = [0; MAX_NOTE_BYTES];
        let note = match read(notes, &mut value) {
            Ok(length) => Note::parse(&value[..length]),
            // A note that is longer than any that is understood.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::ACCESS) => None,
            Err(errno) => return Err(errno),
        };
        let Some(note) = note else { return Ok(seen) };
        let noted = seen.noted(&note);
        // An owner that was given since is meant.
        let (uid, gid) = (if same_user { noted.uid } else { seen.uid }, if same_group { noted.gid } else { seen.gid });
        Ok(Metadata { uid, gid, ..noted })
    }
}
