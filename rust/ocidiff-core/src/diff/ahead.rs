//! Reading ahead: the files of the next changes are asked for while the current one is written, so that the disk works on many.

use std::collections::VecDeque;
use std::ffi::CString;
use std::iter::Fuse;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{Advice, fadvise};

use crate::change::{Change, ChangeKind, Changes, Subject};
use crate::error::{Error, Result};
use crate::metadata::FileType;
use crate::tree::Directory;

/// Changes that are looked at before they are due.
const AHEAD: usize = 64;
/// What is asked for of one file; the kernel itself reads ahead in those that are longer.
const FIRST_BYTES: NonZeroU64 = NonZeroU64::MIN.saturating_add((1 << 20) - 1);

/// A file that will be read.
type Wish = (Arc<Directory>, CString);

/// Changes in their order, with their files on the way into memory.
pub struct Ahead {
    changes: Fuse<Changes>,
    queue: VecDeque<Result<Change>>,
    wishes: Option<Sender<Wish>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Starts a thread that asks.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be started.
    pub fn start(changes: Changes) -> Result<Self> {
        let (wishes, inbox) = bounded(AHEAD);
        let started = std::thread::Builder::new().name("ahead".into()).spawn(move || ask(&inbox));
        let thread = started.map_err(|source| Error::Io { op: "start thread", path: "ahead".into(), source })?;
        Ok(Self { changes: changes.fuse(), queue: VecDeque::new(), wishes: Some(wishes), thread: Some(thread) })
    }

    fn wish(&self, change: &Change) {
        let Subject::Leaf { entry, directory: Some(directory), name, content } = &change.subject else { return };
        let metadata = content.as_deref().unwrap_or(&entry.metadata);
        let is_read = metadata.file_type == FileType::File && metadata.size > 0 && change.kind != ChangeKind::Unmodified;
        if let Some(wishes) = self.wishes.as_ref().filter(|_| is_read) {
            // Where nobody keeps up with asking, reading itself does.
            let _ = wishes.try_send((directory.clone(), name.clone()));
        }
    }
}

impl Iterator for Ahead {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.queue.len() < AHEAD && !matches!(self.queue.back(), Some(Err(_))) {
            let Some(change) = self.changes.next() else { break };
            if let Ok(change) = &change {
                self.wish(change);
            }
            self.queue.push_back(change);
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

fn ask(wishes: &Receiver<Wish>) {
    for (directory, name) in wishes {
        // What fails here fails again where it is told.
        if let Ok(file) = directory.open_file(&name) {
            let _ = fadvise(&file, 0, Some(FIRST_BYTES), Advice::WillNeed);
        }
    }
}
