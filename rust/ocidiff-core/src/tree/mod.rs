//! Reading a tree: directory handles and names, never whole paths, nothing followed.

pub mod extents;
mod names;
pub mod overlay;
mod xattr;

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, SeekFrom, Statx, StatxFlags, openat, openat2, readlinkat, seek, statx,
};
use rustix::io::Errno;

pub use names::Names;
pub use xattr::{CAPABILITY, Xattr, XattrPolicy, XattrReader};

use crate::error::{Error, Result};
use crate::idmap::{IdMaps, OutsideMap, UNMAPPED};
use crate::metadata::Metadata;

const WANTED: StatxFlags = StatxFlags::BASIC_STATS;
/// PATH_MAX (linux/limits.h), with the final NUL.
const MAX_PATH_BYTES: usize = 4096;

/// An open directory of a tree, and its path for messages.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    ids: Option<Arc<IdMaps>>,
    /// What the names of the attributes begin with that an overlay keeps for itself in this tree.
    marks: Option<&'static [u8]>,
}

impl Directory {
    /// Opens the root of a tree. The path itself may be a symbolic link; nothing below is followed.
    ///
    /// # Errors
    /// [`Error::Io`] when it is missing, no directory, or not readable.
    pub fn open_root(path: &Path) -> Result<Arc<Self>> {
        Self::open_mapped(path, None)
    }

    /// The same, with all ids below it mapped.
    pub fn open_mapped(path: &Path, ids: Option<Arc<IdMaps>>) -> Result<Arc<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(Error::sys("open", path))?;
        Ok(Arc::new(Self { fd, path: path.to_owned(), ids, marks: None }))
    }

    /// Opens the same directory as one in which attributes that begin with `marks` are those of an overlay.
    pub fn with_marks(&self, marks: &'static [u8]) -> Result<Arc<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&self.fd, c".", flags, Mode::empty()).map_err(Error::sys("open", &self.path))?;
        Ok(Arc::new(Self { fd, path: self.path.clone(), ids: self.ids.clone(), marks: Some(marks) }))
    }

    /// True if the attribute `key` belongs to the overlay that this is a layer of.
    pub fn keeps_for_itself(&self, key: &[u8]) -> bool {
        self.marks.is_some_and(|marks| key.starts_with(marks))
    }

    /// Opens the directory `name` in this one.
    pub fn open_child(&self, name: &CStr) -> Result<Arc<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty()).map_err(|errno| self.failed("open", name, errno))?;
        Ok(Arc::new(Self { fd, path: self.path_of(name), ids: self.ids.clone(), marks: self.marks }))
    }

    /// This directory, whose names are read from the first one on.
    pub fn rewound(self: &Arc<Self>) -> Result<Arc<Self>> {
        seek(&self.fd, SeekFrom::Start(0)).map_err(Error::sys("seek", &self.path))?;
        Ok(self.clone())
    }

    /// Opens the directory at `path` below this one, through directories alone.
    pub fn open_below(&self, path: &CStr) -> Result<Self> {
        let fd = self.open_through(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW);
        let fd = fd.map_err(|errno| self.failed("open", path, errno))?;
        Ok(Self { fd, path: self.path_of(path), ids: self.ids.clone(), marks: self.marks })
    }

    /// What lstat says of `path` below this one; `None` where there is nothing, or a link or file on the way.
    pub fn find_below(&self, path: &CStr) -> Result<Option<Metadata>> {
        match self.open_through(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(file) => self.open_metadata(&file, path).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.failed("open", path, errno)),
        }
    }

    /// Opens a path of several names, none of which may be a link or another file system.
    fn open_through(&self, path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let open =
            |from: BorrowedFd<'_>, path: &[u8], flags| openat2(from, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        let (mut rest, mut from) = (path.to_bytes(), None::<OwnedFd>);
        // The kernel takes no longer path at once.
        while rest.len() >= MAX_PATH_BYTES {
            let end = rest[..MAX_PATH_BYTES].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let here = from.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            from = Some(open(here, &rest[..end], OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)?);
            rest = &rest[end + 1..];
        }
        open(from.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd), rest, flags)
    }

    /// Opens the regular file `name`, or a path through directories alone, for reading, without following, blocking, or touching its access time if allowed.
    pub fn open_file(&self, name: &CStr) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |flags| match name.to_bytes().contains(&b'/') {
            true => self.open_through(name, flags),
            false => openat(&self.fd, name, flags, Mode::empty()),
        };
        let fd = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            other => other,
        };
        fd.map_err(|errno| self.failed("open", name, errno))
    }

    /// What lstat says of `name`.
    pub fn metadata(&self, name: &CStr) -> Result<Metadata> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let found = statx(&self.fd, name, flags, WANTED).map_err(|errno| self.failed("stat", name, errno))?;
        self.metadata_of(&found, name)
    }

    /// What lstat says of `name`; `None` where there is no such name.
    pub fn find(&self, name: &CStr) -> Result<Option<Metadata>> {
        match self.metadata(name) {
            Err(Error::SourceChanged { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// What fstat says of an open file, for comparison with its lstat.
    pub fn open_metadata(&self, file: &OwnedFd, name: &CStr) -> Result<Metadata> {
        let found = statx(file, c"", AtFlags::EMPTY_PATH, WANTED).map_err(|errno| self.failed("stat", name, errno))?;
        self.metadata_of(&found, name)
    }

    fn metadata_of(&self, found: &Statx, name: &CStr) -> Result<Metadata> {
        let unknown = || Error::Unsupported { path: self.path_of(name), what: "unknown kind of file".into() };
        let metadata = Metadata::from_statx(found).ok_or_else(unknown)?;
        Ok(self.ids.as_ref().map_or(metadata, |ids| ids.metadata(metadata)))
    }

    /// Refuses a name with an owner or group outside the id map; `metadata` is what this directory told of it.
    pub fn check_ids(&self, name: &CStr, metadata: &Metadata) -> Result<()> {
        let Some(ids) = self.ids.as_ref().filter(|_| metadata.uid == UNMAPPED || metadata.gid == UNMAPPED) else {
            return Ok(());
        };
        let found = statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, WANTED)
            .map_err(|errno| self.failed("stat", name, errno))?;
        match ids.check(found.stx_uid, found.stx_gid) {
            Err(outside) => Err(self.outside(name, outside)),
            Ok(()) => Err(Error::SourceChanged { path: self.path_of(name), reason: "its owner changed" }),
        }
    }

    /// An attribute's value, with ids of the container.
    fn mapped(&self, name: &CStr, key: &CStr, value: &[u8]) -> Result<Box<[u8]>> {
        let Some(ids) = &self.ids else { return Ok(value.into()) };
        let mut value = value.to_vec();
        ids.xattr(key.to_bytes(), &mut value).map_err(|outside| self.outside(name, outside))?;
        Ok(value.into())
    }

    fn outside(&self, name: &CStr, OutsideMap { kind, id }: OutsideMap) -> Error {
        Error::Unsupported { path: self.path_of(name), what: format!("{kind} id {id} is outside the id map") }
    }

    /// The target of the symbolic link `name`, exactly as stored.
    pub fn link_target(&self, name: &CStr) -> Result<CString> {
        readlinkat(&self.fd, name, Vec::with_capacity(256)).map_err(|errno| self.failed("readlink", name, errno))
    }

    /// The path of `name` in this directory, for messages.
    pub fn path_of(&self, name: &CStr) -> PathBuf {
        self.path.join(OsStr::from_bytes(name.to_bytes()))
    }

    /// A failed call on `name`. A name that was listed and is gone now is told as a change of the tree.
    fn failed(&self, op: &'static str, name: &CStr, errno: Errno) -> Error {
        let path = self.path_of(name);
        match errno {
            Errno::NOENT => Error::SourceChanged { path, reason: "it vanished" },
            _ => Error::io(op, path, errno),
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
