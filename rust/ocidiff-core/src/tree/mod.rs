//! Reads a tree by directory handles and names, never by whole paths. Nothing is followed.

mod access;
pub mod extents;
mod handle;
mod names;
pub mod overlay;
mod view;
mod xattr;

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, Statx, StatxFlags, makedev, openat, readlinkat, seek, statx};
use rustix::io::Errno;

pub use names::Names;
pub(crate) use names::c_string;
pub use xattr::{Xattr, XattrReader, Xattrs};

pub use crate::rules::xattr::{Lost, XattrPolicy};

use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::idmap::{IdMaps, OutsideMap, UNMAPPED};
use crate::metadata::{InodeKey, Metadata};
use crate::rules::open;
use crate::rules::xattr::{Class, FUSE_OF_ROOT, Owner, mark_of};
use handle::{Handle, Origin};
use view::View;

const WANTED: StatxFlags = StatxFlags::BASIC_STATS;

/// A directory of a tree. It is open whenever it is needed, and may be closed in between.
#[derive(Debug)]
pub struct TreeDir {
    handle: Handle,
    /// The path of a root, for messages; empty for all others.
    root: PathBuf,
    view: Arc<View>,
    /// The key to give its mode back by, if that had to be opened. Such a directory stays open.
    opened: Option<InodeKey>,
}

impl Drop for TreeDir {
    fn drop(&mut self) {
        if let (Some(key), Some(fd)) = (self.opened, self.handle.open_fd()) {
            access::release(&fd, key);
        }
        // Parents are dropped one by one: a deep tree would take a deep stack.
        let mut above = self.handle.take_parent();
        while let Some(mut last) = above.and_then(Arc::into_inner) {
            above = last.handle.take_parent();
        }
    }
}

impl TreeDir {
    /// Opens the root of a tree. The path itself may be a symbolic link; nothing below is followed.
    ///
    /// # Errors
    /// [`Error::Io`] when it is missing, no directory, or not readable.
    pub fn open_root(path: &Path) -> Result<Arc<Self>> {
        Self::open_mapped(path, None)
    }

    /// Opens the root of a tree, with all ids below it mapped.
    pub fn open_mapped(path: &Path, ids: Option<Arc<IdMaps>>) -> Result<Arc<Self>> {
        let failed = |errno| Error::io("open", path, errno);
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(Errno::INVAL))?;
        let (fd, opened) = match access::is_bound() {
            // Pins the target of the path, if it is a symbolic link, rather than the link.
            true => match openat(CWD, path, open::ROOT_HANDLE, Mode::empty()) {
                Ok(pinned) => access::open_directory(pinned.as_fd(), c".", open::ROOT).map_err(failed)?,
                Err(errno) => return Err(failed(errno)),
            },
            false => (openat(CWD, name.as_c_str(), open::ROOT, Mode::empty()).map_err(failed)?, None),
        };
        let view = View::of(&fd, ids).map_err(|errno| Error::io("stat", path, errno))?;
        handle::learn_limit();
        Ok(Self::new(fd, opened, path.to_owned(), Arc::new(view), None))
    }

    fn new(fd: OwnedFd, opened: Option<InodeKey>, root: PathBuf, view: Arc<View>, origin: Option<Origin>) -> Arc<Self> {
        let may_close = origin.is_some() && opened.is_none();
        let directory = Arc::new_cyclic(|this| Self { handle: Handle::new(fd, origin, this.clone()), root, view, opened });
        if may_close {
            handle::note_open(Arc::downgrade(&directory));
        }
        directory
    }

    /// Returns the descriptor of this directory.
    ///
    /// # Errors
    /// See [`Handle::fd`].
    fn fd(&self) -> rustix::io::Result<Arc<OwnedFd>> {
        self.handle.fd()
    }

    fn open_fd(&self) -> Result<Arc<OwnedFd>> {
        self.fd().map_err(|errno| self.failed("open", c"", errno))
    }

    /// Returns this directory as one in which attributes that begin with `marks` are those of an overlay.
    pub fn with_marks(&self, marks: &'static [&'static [u8]]) -> Result<Arc<Self>> {
        let view = View::of(&*self.open_fd()?, self.view.ids.clone());
        let mut view = view.map_err(|errno| self.failed("stat", c"", errno))?;
        view.marks = marks;
        self.reopened(Arc::new(view))
    }

    /// Opens the directory `name` in this one.
    pub fn open_child(&self, name: &CStr) -> Result<Arc<Self>> {
        let (fd, opened) = self.open_directory(name, open::DIRECTORY).map_err(|errno| self.failed("open", name, errno))?;
        let origin = Origin { parent: self.itself()?, name: name.to_owned() };
        Ok(Self::new(fd, opened, PathBuf::new(), self.view.clone(), Some(origin)))
    }

    fn open_directory(&self, name: &CStr, flags: OFlags) -> rustix::io::Result<(OwnedFd, Option<InodeKey>)> {
        let fd = self.fd()?;
        match self.view.is_bound {
            true => access::open_directory(fd.as_fd(), name, flags),
            false => openat(&*fd, name, flags, Mode::empty()).map(|fd| (fd, None)),
        }
    }

    /// Returns a handle of its own on this directory, seen as `view` says; it stays open.
    fn reopened(&self, view: Arc<View>) -> Result<Arc<Self>> {
        let (fd, opened) = self.open_directory(c".", open::ROOT).map_err(|errno| self.failed("open", c"", errno))?;
        Ok(Self::new(fd, opened, self.path_of(c""), view, None))
    }

    /// This directory, whose names are read from the first one on.
    pub fn rewound(self: &Arc<Self>) -> Result<Arc<Self>> {
        seek(&*self.open_fd()?, SeekFrom::Start(0)).map_err(|errno| self.failed("seek", c"", errno))?;
        Ok(self.clone())
    }

    /// Opens the directory at `path` below this one, through directories alone.
    pub fn open_below(&self, path: &CStr) -> Result<Arc<Self>> {
        let view = self.view.clone();
        match self.open_through(path, open::DIRECTORY) {
            Ok(fd) if !self.view.is_bound => {
                let origin = Origin { parent: self.itself()?, name: path.to_owned() };
                Ok(Self::new(fd, None, PathBuf::new(), view, Some(origin)))
            }
            Err(Errno::ACCESS) | Ok(_) if self.view.is_bound => {
                let (parent, name) = self.step_down(path)?;
                parent.as_deref().unwrap_or(self).open_child(&name)?.reopened(view)
            }
            Ok(_) | Err(Errno::ACCESS) => Err(self.failed("open", path, Errno::ACCESS)),
            Err(errno) => Err(self.failed("open", path, errno)),
        }
    }

    /// Opens the directories on the way to `path` one by one, as far as they are closed to us by their modes; the last of
    /// them, `None` for this one, and the name in it.
    fn step_down(&self, path: &CStr) -> Result<(Option<Arc<Self>>, CString)> {
        let mut names = path.to_bytes().split(|&byte| byte == b'/').map(c_string);
        let mut name = names.next().unwrap_or_default();
        let mut here: Option<Arc<Self>> = None;
        for next in names {
            here = Some(here.as_deref().unwrap_or(self).open_child(&name)?);
            name = next;
        }
        Ok((here, name))
    }

    /// Returns the result of lstat for `path` below this directory; `None` if there is nothing, or a link or file on the
    /// way.
    pub fn find_below(&self, path: &CStr) -> Result<Option<Metadata>> {
        match self.open_through(path, open::HANDLE) {
            Ok(file) => self.open_metadata(&file, path).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(Errno::ACCESS) if self.view.is_bound => {
                let (parent, name) = self.step_down(path)?;
                parent.as_deref().unwrap_or(self).find(&name)
            }
            Err(errno) => Err(self.failed("open", path, errno)),
        }
    }

    fn open_through(&self, path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        handle::open_below(self.fd()?.as_fd(), path.to_bytes(), flags)
    }

    /// Opens the regular file `name`, or a path through directories alone, for reading, without following, blocking, or
    /// touching its access time if allowed.
    pub fn open_file(&self, name: &CStr) -> Result<OwnedFd> {
        let is_path = name.to_bytes().contains(&b'/');
        let open_as = |flags| match is_path {
            true => self.open_through(name, flags),
            false => openat(&*self.fd()?, name, flags, Mode::empty()),
        };
        let fd = match open_as(open::FILE | OFlags::NOATIME) {
            Err(Errno::PERM) => open_as(open::FILE),
            other => other,
        };
        match fd {
            Err(Errno::ACCESS) if self.view.is_bound && is_path => {
                let (parent, name) = self.step_down(name)?;
                parent.as_deref().unwrap_or(self).open_file(&name)
            }
            Err(Errno::ACCESS) if self.view.is_bound => {
                // The path through /proc is a link.
                let flags = open::FILE.difference(OFlags::NOFOLLOW) | OFlags::NOATIME;
                let here = self.open_fd()?;
                access::while_open(here.as_fd(), name, |path| openat(CWD, path, flags, Mode::empty()))
                    .map_err(|errno| self.failed("open", name, errno))
            }
            fd => fd.map_err(|errno| self.failed("open", name, errno)),
        }
    }

    /// Returns the result of lstat for `name`, as this tree is seen.
    pub fn metadata(&self, name: &CStr) -> Result<Metadata> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let here = self.open_fd()?;
        let found = self.look(|| statx(&*here, name, flags, WANTED)).map_err(|errno| self.failed("stat", name, errno))?;
        let metadata = self.metadata_of(found, name)?;
        self.view.of_name(here.as_fd(), name, metadata).map_err(|errno| self.failed("read xattr", name, errno))
    }

    /// Returns the result of lstat for `name`; `None` if there is no such name.
    pub fn find(&self, name: &CStr) -> Result<Option<Metadata>> {
        match self.metadata(name) {
            Err(Error::SourceChanged { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Returns the result of fstat for an open file, as this tree is seen, for comparison with its lstat.
    pub fn open_metadata(&self, file: &OwnedFd, name: &CStr) -> Result<Metadata> {
        let found = self.look(|| statx(file, c"", AtFlags::EMPTY_PATH, WANTED));
        let metadata = self.metadata_of(found.map_err(|errno| self.failed("stat", name, errno))?, name)?;
        self.view.of_open(file, metadata).map_err(|errno| self.failed("read xattr", name, errno))
    }

    /// Returns a stat, with the mode that a directory has where another one is open for the moment.
    fn look(&self, stat: impl FnOnce() -> rustix::io::Result<Statx>) -> rustix::io::Result<(Statx, Option<u32>)> {
        if !self.view.is_bound {
            return stat().map(|found| (found, None));
        }
        access::look(|| {
            let found = stat()?;
            let key = (makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino);
            Ok((found, key))
        })
    }

    fn metadata_of(&self, (found, mode): (Statx, Option<u32>), name: &CStr) -> Result<Metadata> {
        let unknown = || Error::Unrepresentable { path: self.path_of(name), reason: Cause::UnknownKind };
        let metadata = Metadata::from_statx(&found).ok_or_else(unknown)?;
        Ok(Metadata { mode: mode.unwrap_or(metadata.mode), ..metadata })
    }

    /// Refuses a name with an owner or group outside the id map; `metadata` is what this directory told of it.
    pub fn check_ids(&self, name: &CStr, metadata: &Metadata) -> Result<()> {
        let Some(ids) = self.view.ids.as_ref().filter(|_| metadata.uid == UNMAPPED || metadata.gid == UNMAPPED) else {
            return Ok(());
        };
        let found = statx(&*self.open_fd()?, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, WANTED)
            .map_err(|errno| self.failed("stat", name, errno))?;
        match ids.check(found.stx_uid, found.stx_gid) {
            Err(outside) => Err(self.outside(name, outside)),
            Ok(()) => Err(Error::SourceChanged { path: self.path_of(name), reason: Cause::MetadataChanged }),
        }
    }

    /// Returns an attribute's value, with ids of the container.
    fn mapped(&self, name: &CStr, key: &CStr, value: &[u8]) -> Result<Box<[u8]>> {
        let Some(ids) = &self.view.ids else { return Ok(value.into()) };
        let mut value = value.to_vec();
        ids.xattr(key.to_bytes(), &mut value).map_err(|outside| self.outside(name, outside))?;
        Ok(value.into())
    }

    fn outside(&self, name: &CStr, OutsideMap { kind, id }: OutsideMap) -> Error {
        Error::Unrepresentable { path: self.path_of(name), reason: Cause::OutsideIdMap { kind, id } }
    }

    /// Returns true if what notes on files say counts.
    pub fn reads_notes(&self) -> bool {
        self.view.reads_notes()
    }

    /// Returns true if the attribute `key` is not one of the files of this tree: it says what they are, or is of the
    /// overlay that the tree is a layer of.
    fn keeps_for_itself(&self, key: &[u8]) -> bool {
        match Class::of(key).owner {
            Owner::File => false,
            Owner::Note => self.view.reads_notes(),
            // A mount of fuse-overlayfs shows its own.
            Owner::FuseOverlay if key.starts_with(FUSE_OF_ROOT) => true,
            Owner::FuseOverlay | Owner::Overlay => self.view.marks.iter().any(|marks| mark_of(key, marks).is_some()),
        }
    }

    /// Returns the target of the symbolic link `name`, exactly as stored.
    pub fn link_target(&self, name: &CStr) -> Result<CString> {
        readlinkat(&*self.open_fd()?, name, Vec::with_capacity(256)).map_err(|errno| self.failed("readlink", name, errno))
    }

    /// This directory, for those in it to be opened again.
    fn itself(&self) -> Result<Arc<Self>> {
        self.handle.of().ok_or_else(|| self.failed("open", c"", Errno::STALE))
    }

    /// Returns the path of `name` in this directory, for messages.
    pub fn path_of(&self, name: &CStr) -> PathBuf {
        let mut names = if name.is_empty() { Vec::new() } else { vec![name] };
        let mut here = self;
        while let Some(origin) = here.handle.origin() {
            names.push(&origin.name);
            here = &origin.parent;
        }
        let mut path = here.root.clone();
        path.extend(names.iter().rev().map(|name| OsStr::from_bytes(name.to_bytes())));
        path
    }

    /// Returns the error of a failed call on `name`. A name that was listed and is gone now is reported as a change of the
    /// tree.
    fn failed(&self, op: &'static str, name: &CStr, errno: Errno) -> Error {
        let path = self.path_of(name);
        match errno {
            Errno::NOENT => Error::SourceChanged { path, reason: Cause::Vanished },
            _ => Error::io(op, path, errno),
        }
    }
}
