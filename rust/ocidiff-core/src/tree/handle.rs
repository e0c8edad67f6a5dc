//! The handle of a directory: closed while too many are open, and opened again when it is needed.
//!
//! Law: descriptors grow neither with the depth of a tree nor with what waits to be read. What is opened again is the very
//! directory that was closed, or an error says that it is gone.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::{Errno, Result};
use rustix::process::{Resource, getrlimit};

use super::TreeDir;
use crate::metadata::InodeKey;
use crate::rules::open;

/// PATH_MAX (linux/limits.h), with the final NUL.
const MAX_PATH_BYTES: usize = 4096;
/// The part of the descriptors of the process that directories may take, and what they take at least and at most.
const SHARE: u64 = 4;
const FEWEST: usize = 16;
const MOST: usize = 1024;
/// Directories that stay open on the way down to a directory that is opened again: the walk comes back through them.
const KEPT_ON_THE_WAY: usize = 8;

/// The number of directories that may be open, besides those that may not be closed.
static LIMIT: AtomicUsize = AtomicUsize::new(FEWEST);

/// The directories that are open, the longest first. Descriptors belong to the process, so that all calls share this.
static OPEN: Mutex<VecDeque<Weak<TreeDir>>> = Mutex::new(VecDeque::new());

/// An open directory, or how to open it again.
#[derive(Debug)]
pub(super) struct Handle {
    state: RwLock<State>,
    origin: Option<Origin>,
    /// The directory that this is the handle of.
    of: Weak<TreeDir>,
}

#[derive(Debug)]
enum State {
    Open(Arc<OwnedFd>),
    Closed(InodeKey),
}

/// The place at which a directory was found.
#[derive(Debug)]
pub(super) struct Origin {
    pub parent: Arc<TreeDir>,
    /// Its name there, or a path through directories alone.
    pub name: CString,
}

impl Origin {
    fn open(&self, above: BorrowedFd<'_>) -> Result<OwnedFd> {
        match self.name.to_bytes().contains(&b'/') {
            true => open_below(above, self.name.to_bytes(), open::DIRECTORY),
            // It may be a mount point, and the kernel may not know openat2.
            false => openat(above, &self.name, open::DIRECTORY, Mode::empty()),
        }
    }
}

impl Handle {
    /// Returns the handle of the directory `of`, which may be closed once that is noted ([`note_open`]), if it has an
    /// origin.
    pub fn new(fd: OwnedFd, origin: Option<Origin>, of: Weak<TreeDir>) -> Self {
        Self { state: RwLock::new(State::Open(Arc::new(fd))), origin, of }
    }

    /// Returns the directory itself.
    pub fn of(&self) -> Option<Arc<TreeDir>> {
        self.of.upgrade()
    }

    /// Returns the place at which the directory was found; `None` for a root.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Returns the descriptor of the directory, opened again if it was closed.
    ///
    /// # Errors
    /// `ENOENT` and its like if the directory is gone, `ESTALE` if another one has taken its place.
    pub fn fd(&self) -> Result<Arc<OwnedFd>> {
        match self.open_fd() {
            Some(fd) => Ok(fd),
            None => self.reopen(),
        }
    }

    /// Returns the descriptor if it is open.
    pub fn open_fd(&self) -> Option<Arc<OwnedFd>> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(fd) => Some(fd.clone()),
            State::Closed(_) => None,
        }
    }

    /// Opens the directory from the nearest one above it that is open, and keeps the last ones on the way open too.
    fn reopen(&self) -> Result<Arc<OwnedFd>> {
        let mut way = vec![self];
        let mut here = loop {
            let Some(above) = way.last().and_then(|last| last.origin()).map(|origin| &origin.parent.handle) else {
                return Err(Errno::STALE);
            };
            match above.open_fd() {
                Some(fd) => break fd,
                None => way.push(above),
            }
        };
        while let Some(handle) = way.pop() {
            let Some(origin) = handle.origin() else { return Err(Errno::STALE) };
            here = Arc::new(origin.open(here.as_fd())?);
            if way.len() < KEPT_ON_THE_WAY {
                here = handle.opened(here)?;
            }
        }
        Ok(here)
    }

    /// Takes a descriptor that was opened in place of the one that was closed, unless somebody was faster.
    fn opened(&self, fd: Arc<OwnedFd>) -> Result<Arc<OwnedFd>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(fd) => Ok(fd.clone()),
            State::Closed(key) if key_of(&fd)? == *key => {
                *state = State::Open(fd.clone());
                // Noting it may close another one, which must not happen while it is locked.
                drop(state);
                note_open(self.of.clone());
                Ok(fd)
            }
            State::Closed(_) => Err(Errno::STALE),
        }
    }

    /// Closes the descriptor, once nobody uses it any more. One that cannot be told again stays open.
    fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(fd) = &*state
            && let Ok(key) = key_of(fd)
        {
            *state = State::Closed(key);
        }
    }

    /// Returns the directory above, for whoever takes a chain of them apart.
    pub fn take_parent(&mut self) -> Option<Arc<TreeDir>> {
        self.origin.take().map(|origin| origin.parent)
    }
}

/// Notes that a directory is open, and closes the one that was open for longest if there are too many.
pub(super) fn note_open(directory: Weak<TreeDir>) {
    let limit = LIMIT.load(Relaxed);
    let mut closing = Vec::new();
    {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(directory);
        while open.len() > limit {
            closing.extend(open.pop_front());
        }
    }
    for directory in closing.iter().filter_map(Weak::upgrade) {
        directory.handle.close();
    }
}

/// Learns how many descriptors the process may have now; once for each tree, since the limit may have been changed.
pub(super) fn learn_limit() {
    let share = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |soft| soft / SHARE);
    LIMIT.store(usize::try_from(share).unwrap_or(MOST).clamp(FEWEST, MOST), Relaxed);
}

/// Opens a path of several names, none of which may be a link or another file system; it may be of any length.
pub(super) fn open_below(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open_in = |from: BorrowedFd<'_>, path: &[u8], flags| openat2(from, path, flags, Mode::empty(), resolve);
    let (mut rest, mut here) = (path, None::<OwnedFd>);
    // The kernel takes no longer path at once.
    while rest.len() >= MAX_PATH_BYTES {
        let end = rest[..MAX_PATH_BYTES].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        let from = here.as_ref().map_or(from, AsFd::as_fd);
        here = Some(open_in(from, &rest[..end], open::DIRECTORY_HANDLE)?);
        rest = &rest[end + 1..];
    }
    open_in(here.as_ref().map_or(from, AsFd::as_fd), rest, flags)
}

fn key_of(fd: &OwnedFd) -> Result<InodeKey> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}
