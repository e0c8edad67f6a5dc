//! Reading ahead: the files of the next changes are asked for while the current one is written, so that the disk works on many.
//!
//! Opening a file to ask for it is wasted if it is in memory. So a few files of each batch are looked at, and the others are asked
//! for where one of these is not in memory.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io::IoSliceMut;
use std::iter::Fuse;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::change::{Change, ChangeKind, Changes, Subject};
use crate::error::{Error, Result};
use crate::metadata::FileType;
use crate::tree::TreeDir;

/// Changes that are looked at before they are due.
const AHEAD: usize = 64;
/// Changes that are taken at a time, because waking the thread costs more than opening a file.
const BATCH: usize = 16;
/// The first of so many files of a batch is looked at.
const SAMPLED: usize = 8;
/// Batches of files that wait for the thread.
const WAITING: usize = AHEAD / BATCH;
/// Bytes to ask for of one file. The kernel itself reads ahead in longer ones.
const FIRST_BYTES: NonZeroU64 = NonZeroU64::MIN.saturating_add((1 << 20) - 1);

/// A file that will be read.
type Wish = (Arc<TreeDir>, CString);

/// Changes in their order, with their files on the way into memory.
pub struct Ahead {
    changes: Fuse<Changes>,
    queue: VecDeque<Result<Change>>,
    wishes: Option<SyncSender<Vec<Wish>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Starts a thread that asks.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be started.
    pub fn start(changes: Changes) -> Result<Self> {
        let (wishes, inbox) = sync_channel(WAITING);
        let started = std::thread::Builder::new().name("ahead".into()).spawn(move || ask(&inbox));
        let thread = started.map_err(|source| Error::Io { op: "start thread", path: "ahead".into(), source })?;
        Ok(Self { changes: changes.fuse(), queue: VecDeque::new(), wishes: Some(wishes), thread: Some(thread) })
    }

    /// Takes the next changes, and asks for their files.
    fn fill(&mut self) {
        let mut wanted = Vec::new();
        while self.queue.len() < AHEAD && !matches!(self.queue.back(), Some(Err(_))) {
            let Some(change) = self.changes.next() else { break };
            wanted.extend(change.as_ref().ok().and_then(wish));
            self.queue.push_back(change);
        }
        if let Some(wishes) = self.wishes.as_ref().filter(|_| !wanted.is_empty()) {
            // If asking cannot keep up, reading itself does the work.
            let _ = wishes.try_send(wanted);
        }
    }
}

/// Returns the file of a change, if it will be read.
fn wish(change: &Change) -> Option<Wish> {
    let Subject::Leaf { entry, directory: Some(directory), name, content } = &change.subject else { return None };
    let metadata = content.as_deref().unwrap_or(&entry.metadata);
    let is_read = metadata.file_type == FileType::File && metadata.size > 0 && change.kind != ChangeKind::Unmodified;
    is_read.then(|| (directory.clone(), name.clone()))
}

impl Iterator for Ahead {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.queue.len() <= AHEAD - BATCH {
            self.fill();
        }
        self.queue.pop_front()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.wishes = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn ask(wishes: &Receiver<Vec<Wish>>) {
    for batch in wishes {
        for files in batch.chunks(SAMPLED) {
            for (number, (directory, name)) in files.iter().enumerate() {
                // A failure here happens again where it is reported.
                let Ok(file) = directory.open_file(name) else { continue };
                if number == 0 && is_in_memory(&file) {
                    break;
                }
                let _ = fadvise(&file, 0, Some(FIRST_BYTES), Advice::WillNeed);
            }
        }
    }
}

/// Returns true if a file can be read without waiting for a disk, judged by its first byte; false if its file system does not
/// tell.
fn is_in_memory(file: &OwnedFd) -> bool {
    preadv2(file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    /// Returns true if the kernel says that the first page of the file is in memory.
    fn has_first_page(file: &OwnedFd) -> bool {
        use std::os::fd::AsRawFd;
        let mut page = 0;
        // SAFETY: The mapping is of one byte of an open file that is not empty, nobody reads it, and it ends here. `mincore` writes
        // one byte for its one page.
        unsafe {
            let at = libc::mmap(std::ptr::null_mut(), 1, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
            assert_ne!(at, libc::MAP_FAILED);
            assert_eq!((libc::mincore(at, 1, &raw mut page), libc::munmap(at, 1)), (0, 0));
        }
        page & 1 == 1
    }

    #[test]
    fn only_a_file_in_memory_is_taken_for_one() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let file = OwnedFd::from(file);
        // Advice: the kernel may keep the page, and a file system in memory has no other place for it.
        assert!(!is_in_memory(&file) || has_first_page(&file));
        let mut bytes = [0; 10_000];
        rustix::io::pread(&file, &mut bytes, 0).unwrap();
        let can_tell = preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT) == Ok(10_000);
        assert_eq!(is_in_memory(&file), can_tell);
    }
}
