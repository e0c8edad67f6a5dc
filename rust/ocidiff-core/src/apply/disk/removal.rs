//! Removing what lower layers left: whole trees, or all of a tree but what this layer wrote.
//!
//! Law: no recursion, and two descriptors whatever the depth. The way back up is `..`, taken only when it leads to the very
//! directory that the way down came from.

use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, seek, statat, unlinkat};
use rustix::io::Errno;

use super::directories::Directories;
use super::handle::WritableDir;
use crate::control::Control;
use crate::metadata::InodeKey;

/// Room for some hundred names a system call.
const BUFFER_BYTES: usize = 32 << 10;

/// Why a removal ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The caller cancelled.
    Cancelled,
    /// The system refused.
    System(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// Removes objects; with a record of what this layer wrote, spares that and the directories above it.
pub(super) struct Remover<'a> {
    pub control: &'a Control,
    pub spare: Option<&'a mut Directories>,
}

/// A directory on the way down.
struct Level {
    key: InodeKey,
    /// Its name in the directory above.
    name: Vec<u8>,
    /// Directories in it that are still to be removed.
    pending: Vec<Vec<u8>>,
    /// True if something in it stays.
    kept: bool,
}

impl Remover<'_> {
    /// Removes `name` in `parent` with all below it; missing is fine.
    pub fn remove(&mut self, parent: &WritableDir, name: &[u8]) -> Result<()> {
        let written = self.is_written(parent.key(), name);
        let answer = if written { Err(Errno::ISDIR) } else { unlinkat(parent, name, AtFlags::empty()) };
        match answer {
            Err(Errno::ISDIR) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        let directory = match parent.open(name) {
            // This layer wrote it, and it is no directory, or a directory that is gone again.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) if written => return Ok(()),
            other => other?,
        };
        if self.empty(directory)? || written {
            return Ok(());
        }
        Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes everything below `directory`. Returns true if something was spared.
    pub fn empty(&mut self, directory: WritableDir) -> Result<bool> {
        if self.is_clear(directory.key()) {
            return Ok(true);
        }
        let mut levels = vec![self.read(&directory, Vec::new())?];
        let mut here = directory;
        while let Some(level) = levels.last_mut() {
            self.control.check().map_err(|_| Failure::Cancelled)?;
            if let Some(name) = level.pending.pop() {
                let child = match here.open(&name) {
                    Err(Errno::NOENT) => continue,
                    other => other?,
                };
                if self.is_clear(child.key()) {
                    level.kept = true;
                    self.keep(level.key, &name);
                    continue;
                }
                levels.push(self.read(&child, name)?);
                here = child;
                continue;
            }
            let Some(done) = levels.pop() else { break };
            if done.kept
                && let Some(known) = &mut self.spare
            {
                known.clear(done.key);
            }
            let Some(above) = levels.last_mut() else { return Ok(done.kept) };
            here = here.open(b"..")?;
            if here.key() != above.key {
                return Err(Errno::AGAIN.into());
            }
            if done.kept || self.is_written(above.key, &done.name) {
                above.kept = true;
                self.keep(above.key, &done.name);
                continue;
            }
            unlinkat(&here, done.name.as_slice(), AtFlags::REMOVEDIR)?;
        }
        Ok(false)
    }

    /// Notes a directory that stays for what this layer wrote in it: the one above, once clear, has no other names.
    fn keep(&mut self, above: InodeKey, name: &[u8]) {
        if let Some(known) = &mut self.spare {
            known.write(above, name);
        }
    }

    /// Removes what is no directory and notes what is.
    fn read(&mut self, directory: &WritableDir, name: Vec<u8>) -> Result<Level> {
        let mut level = Level { key: directory.key(), name, pending: Vec::new(), kept: false };
        // Removing while reading can hide names from the reader on some file systems: read until there is nothing to remove.
        while self.read_once(directory, &mut level)? {
            seek(directory, SeekFrom::Start(0))?;
            level.pending.clear();
        }
        Ok(level)
    }

    /// Removes what can be removed in one pass over a directory. Returns true if something was removed.
    fn read_once(&mut self, directory: &WritableDir, level: &mut Level) -> Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut has_removed = false;
        while let Some(entry) = entries.next() {
            self.control.check().map_err(|_| Failure::Cancelled)?;
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => FileType::from_raw_mode(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
                known => known,
            };
            if file_type == FileType::Directory {
                level.pending.push(name.to_vec());
            } else if self.is_written(level.key, name) {
                level.kept = true;
            } else {
                match unlinkat(directory, name, AtFlags::empty()) {
                    Ok(()) => has_removed = true,
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(has_removed)
    }

    fn is_written(&self, directory: InodeKey, name: &[u8]) -> bool {
        self.spare.as_ref().is_some_and(|known| known.has_written(directory, name))
    }

    fn is_clear(&self, directory: InodeKey) -> bool {
        self.spare.as_ref().is_some_and(|known| known.is_clear(directory))
    }
}
