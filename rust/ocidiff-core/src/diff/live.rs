//! Taking a file whole while somebody may be writing to it: its content goes aside first, and its header is made of what it
//! was at that moment (layer-semantics, section 7).

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs;

use crate::cause::Cause;
use crate::change::{self, Rules, UpperEntry};
use crate::control::{ATTEMPTS, Control};
use crate::error::{Error, Result};
use crate::metadata::{FileType, Metadata};
use crate::tree::{TreeDir, XattrReader, Xattrs};

/// Larger files go aside into a file without a name, and only where they have to.
const IN_MEMORY_BYTES: u64 = 4 << 20;
/// Larger files cost more to copy than it is worth to foresee a change.
const COPIED_BYTES: u64 = 256 << 20;
const BLOCK_BYTES: usize = 128 << 10;
/// A file that changed so lately may well change again.
pub const LATELY: Duration = Duration::from_secs(60);
/// Change times are those of the last tick of a clock: within one, two changes look like one (CONFIG_HZ is 100 or more).
const TICK: Duration = Duration::from_millis(20);
/// They are set when a call begins to write. It is done after this, so long for each MiB.
const WRITE: Duration = Duration::from_millis(1);
const LONGEST_WRITE: Duration = Duration::from_secs(1);

/// The state of a name at one moment.
pub enum Taken {
    /// Nothing, or a directory: one took the place of a file at a moment at which there was nothing.
    Gone,
    /// A regular file with its content. It has its attributes if they are not as the walk saw them.
    File { metadata: Metadata, xattrs: Option<Xattrs>, content: Content },
    /// Something else that took its place.
    Other(UpperEntry),
}

/// The content of a file, apart from it; see [`Live::read`].
pub enum Content {
    /// Bytes in the memory of the reader.
    Memory(usize),
    Spool(File),
}

/// Reads files of a tree that may be changing.
pub struct Live {
    xattrs: XattrReader,
    memory: Vec<u8>,
    streamed_after: Option<Duration>,
    /// The directory of files without a name.
    spool: PathBuf,
}

impl Live {
    /// Returns a reader for the tree of `probe`. Files that have rested for `streamed_after` are not put aside;
    /// `None` when nothing that was written can be taken back. What is put aside and does not fit into memory goes into
    /// the directory `spool`; `None` for that of temporary files.
    pub fn new(rules: Rules, probe: &TreeDir, streamed_after: Option<Duration>, spool: Option<&Path>) -> Self {
        let spool = spool.map_or_else(std::env::temp_dir, Path::to_owned);
        Self { xattrs: XattrReader::new(rules.xattrs, probe), memory: Vec::new(), streamed_after, spool }
    }

    /// Returns true if a file can be written as it is read: it changed long ago, or a copy of it would cost too much. If it
    /// changes after all, everything is written again.
    pub fn may_stream(&self, metadata: &Metadata) -> bool {
        self.streamed_after.is_some_and(|least| metadata.size > COPIED_BYTES || age(metadata).is_some_and(|age| age > least))
    }

    /// Takes the file `name`, which the walk saw as `expected`, once it holds still for as long as it takes to read it.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] when it never does.
    pub fn take(&mut self, directory: &TreeDir, name: &CStr, expected: &Metadata, control: &Control) -> Result<Taken> {
        for attempt in 0..ATTEMPTS {
            control.pause(attempt)?;
            let taken = self.attempt(directory, name, expected, control);
            control.set_aside(0);
            let taken = match taken {
                Err(error) if error.is_change() => None,
                taken => taken?,
            };
            if let Some(taken) = taken {
                let is_new = matches!(&taken, Taken::File { xattrs: Some(_), .. } | Taken::Other(_));
                if is_new || attempt > 0 && !matches!(&taken, Taken::Gone) {
                    control.add_retried();
                }
                return Ok(taken);
            }
        }
        Err(Error::SourceChanged { path: directory.path_of(name), reason: Cause::NeverRested })
    }

    /// Reads a name once; `None` if it changed meanwhile.
    fn attempt(
        &mut self,
        directory: &TreeDir,
        name: &CStr,
        expected: &Metadata,
        control: &Control,
    ) -> Result<Option<Taken>> {
        let file = match directory.open_file(name) {
            Err(error) if error.is_change() => None,
            file => Some(file?),
        };
        let settled = file.as_ref().map(|file| settle(file, directory, name, control)).transpose()?;
        // Directories and fifos can be opened, links and sockets cannot.
        let (file, seen, shows_changes) = match (file, settled) {
            (Some(file), Some((seen, shows_changes))) if seen.file_type == FileType::File => (file, seen, shows_changes),
            _ => {
                return match directory.find(name)? {
                    Some(found) if found.file_type == FileType::File => Ok(None),
                    Some(found) if !found.is_directory() && !found.is_overlay_whiteout() => {
                        self.other(directory, name, found).map(|entry| Some(Taken::Other(entry)))
                    }
                    _ => Ok(Some(Taken::Gone)),
                };
            }
        };
        control.set_aside(seen.size);
        let Some(mut content) = self.put_aside(&file, seen.size, directory, name, control)? else { return Ok(None) };
        let now = directory.open_metadata(&file, name)?;
        let has_grown = now.size > seen.size && (now.mode, now.uid, now.gid) == (seen.mode, seen.uid, seen.gid);
        if now != seen && !has_grown {
            return Ok(None);
        }
        // Content that is read twice existed between the two readings.
        let is_sure = now == seen && shows_changes;
        if !is_sure && !self.is_same_again(&file, &mut content, directory, name, control)? {
            return Ok(None);
        }
        if seen == *expected {
            return Ok(Some(Taken::File { metadata: seen, xattrs: None, content }));
        }
        directory.check_ids(name, &seen)?;
        let xattrs = Some(self.xattrs.read(directory, name)?);
        // They were read by name: they are of this file if it still has the name, and nobody changed them.
        let is_still = |found: Metadata| found.key == seen.key && (found == seen || found.size > seen.size);
        let taken = Taken::File { metadata: seen, xattrs, content };
        Ok(directory.find(name)?.is_some_and(is_still).then_some(taken))
    }

    /// Returns the entry that has taken the place of a file.
    fn other(&mut self, directory: &TreeDir, name: &CStr, metadata: Metadata) -> Result<UpperEntry> {
        directory.check_ids(name, &metadata)?;
        let is_link = metadata.file_type == FileType::Symlink;
        let target = is_link.then(|| directory.link_target(name)).transpose()?;
        Ok(UpperEntry { metadata, xattrs: self.xattrs.read(directory, name)?, target })
    }

    /// Reads the first `size` bytes of a file into memory, or into a file of their own; `None` when there are fewer.
    fn put_aside(
        &mut self,
        file: &OwnedFd,
        size: u64,
        directory: &TreeDir,
        name: &CStr,
        control: &Control,
    ) -> Result<Option<Content>> {
        let room = if size > IN_MEMORY_BYTES { BLOCK_BYTES } else { size as usize };
        if self.memory.len() < room {
            self.memory.resize(room, 0);
        }
        if size <= IN_MEMORY_BYTES {
            return Ok(fill(file, &mut self.memory[..room], directory, name)?.then_some(Content::Memory(room)));
        }
        let mut spool = tempfile::tempfile_in(&self.spool).map_err(|source| Error::temporary(&self.spool, source))?;
        let mut left = size;
        while left > 0 {
            control.check()?;
            let want = room.min(usize::try_from(left).unwrap_or(room));
            if !fill(file, &mut self.memory[..want], directory, name)? {
                return Ok(None);
            }
            let block = &self.memory[..want];
            // Holes stay holes: a file may be mostly of them.
            let done = if block.iter().all(|&byte| byte == 0) {
                spool.seek(SeekFrom::Current(want as i64)).map(|_| ())
            } else {
                spool.write_all(block)
            };
            done.map_err(|source| Error::temporary(&self.spool, source))?;
            left -= want as u64;
        }
        spool.set_len(size).map_err(|source| Error::temporary(&self.spool, source))?;
        Ok(Some(Content::Spool(spool)))
    }

    /// Returns true if a file still begins with what was read of it.
    fn is_same_again(
        &self,
        file: &OwnedFd,
        content: &mut Content,
        directory: &TreeDir,
        name: &CStr,
        control: &Control,
    ) -> Result<bool> {
        fs::seek(file, fs::SeekFrom::Start(0)).map_err(|errno| Error::io("seek", directory.path_of(name), errno))?;
        let mut same = true;
        let mut again = vec![0; BLOCK_BYTES];
        self.read(content, |block| {
            control.check()?;
            let again = &mut again[..block.len()];
            same &= fill(file, again, directory, name)? && again == block;
            Ok(())
        })?;
        Ok(same)
    }

    /// Hands out all of a content that was taken last, block by block, from the beginning.
    pub fn read(&self, content: &mut Content, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let file = match content {
            Content::Memory(size) => return self.memory[..*size].chunks(BLOCK_BYTES).try_for_each(take),
            Content::Spool(file) => file,
        };
        file.rewind().map_err(|source| Error::temporary(&self.spool, source))?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            match file.read(&mut block).map_err(|source| Error::temporary(&self.spool, source))? {
                0 => return Ok(()),
                count => take(&block[..count])?,
            }
        }
    }
}

/// Returns the result of fstat, and true if a change from that moment on would show. Waits a little for that.
pub fn settle(file: &OwnedFd, directory: &TreeDir, name: &CStr, control: &Control) -> Result<(Metadata, bool)> {
    let seen = directory.open_metadata(file, name)?;
    let mebibytes = u32::try_from(seen.size >> 20).unwrap_or(u32::MAX);
    let least = TICK + WRITE.saturating_mul(mebibytes).min(LONGEST_WRITE);
    match age(&seen) {
        Some(age) if age < least => {
            std::thread::sleep(least - age);
            control.check()?;
            let now = directory.open_metadata(file, name)?;
            Ok((now, now == seen))
        }
        // A time in the future is none of this machine's clock.
        _ => Ok((seen, true)),
    }
}

/// Returns the time since the last change; `None` if that is in the future.
fn age(metadata: &Metadata) -> Option<Duration> {
    let (seconds, nanoseconds) = metadata.ctime;
    let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))?;
    SystemTime::now().duration_since(changed).ok()
}

/// Fills the buffer. Returns false if the file ended before that.
fn fill(file: &OwnedFd, buffer: &mut [u8], directory: &TreeDir, name: &CStr) -> Result<bool> {
    change::fill(file, buffer).map_err(|errno| Error::io("read", directory.path_of(name), errno))
}
