//! The threads that write small files, while the stream is read on.
//!
//! Law: what a file becomes does not depend on when its turn comes. A file is handed over only when nothing that may still
//! be read before it ends can notice: [`Writers::wait`] comes before every step that looks at what was written.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use crossbeam_channel::{Sender, TrySendError, bounded};

use super::attributes::{Policy, Tally};
use super::files::write_small;
use super::handle::WritableDir;
use super::place::Place;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tar::read::TarEntry;

/// Batches that wait.
const QUEUE: usize = 8;
/// A batch ends with its directory, or so: two threads that make files in one directory wait for each other.
const BATCH_FILES: usize = 256;
/// Data and headers of a batch; a file with more headers is a batch of its own.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes that an extended attribute takes besides name and value.
const XATTR_BYTES: usize = 128;
/// More threads would wait for the reader of the stream, or for the file system.
const MAX_THREADS: usize = 4;
/// No file has this number.
const NONE: u64 = u64::MAX;

/// A small file and all that becomes of it.
pub(super) struct SmallFile<'a> {
    /// Its place in the layer, so that the first of several failures is reported.
    pub number: u64,
    pub place: Place<'a>,
    pub entry: TarEntry,
    pub owner: (u32, u32),
    /// The file, if it had to be made before.
    pub file: Option<OwnedFd>,
}

/// The values that all threads share.
pub(super) struct Shared<'a> {
    pub policy: Policy,
    pub tally: Tally,
    pub control: &'a Control,
}

/// Files of one directory, in the order of the layer, and their data.
#[derive(Default)]
struct Batch<'a> {
    files: Vec<SmallFile<'a>>,
    data: Vec<u8>,
    /// Bytes of the headers of the files.
    header_bytes: usize,
}

/// The threads, and what is under way.
pub(super) struct Writers<'a> {
    sender: Sender<Batch<'a>>,
    /// The files that are not yet handed over.
    batch: Batch<'a>,
    progress: Arc<Progress>,
    shared: &'a Shared<'a>,
}

struct Progress {
    state: Mutex<State>,
    idle: Condvar,
    /// The first file that failed, in the order of the layer; none after it is begun, all before it are.
    failed: AtomicU64,
}

#[derive(Default)]
struct State {
    pending: usize,
    failure: Option<(u64, Error)>,
}

impl<'a> Writers<'a> {
    /// Starts as many threads, or one for each core if that is 0. They end with this value.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no thread to be had.
    pub fn start<'scope>(scope: &'scope Scope<'scope, 'a>, threads: usize, shared: &'a Shared<'a>) -> Result<Self> {
        let (sender, receiver) = bounded::<Batch<'a>>(QUEUE);
        let progress = Arc::new(Progress { state: Mutex::default(), idle: Condvar::new(), failed: AtomicU64::new(NONE) });
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        };
        for _ in 0..threads.min(MAX_THREADS) {
            let (receiver, progress) = (receiver.clone(), progress.clone());
            let thread = std::thread::Builder::new().name("ocidiff-write".into());
            let work = move || receiver.iter().for_each(|batch| progress.run(batch, shared));
            thread.spawn_scoped(scope, work).map_err(|error| Error::io("spawn", "", error))?;
        }
        Ok(Self { sender, batch: Batch::default(), progress, shared })
    }

    /// Returns the buffer for the data of the next file, which `entry` describes, in `parent`.
    ///
    /// # Errors
    /// The failure of an earlier file.
    pub fn data(&mut self, parent: &WritableDir, entry: &TarEntry) -> Result<&mut Vec<u8>> {
        let batch = &self.batch;
        let header_bytes = header_bytes(entry);
        let bytes = batch.data.len() + batch.header_bytes + entry.size as usize + header_bytes;
        let is_next = batch.files.last().is_some_and(|last| last.place.parent.key() == parent.key());
        if !is_next || batch.files.len() == BATCH_FILES || bytes > BATCH_BYTES {
            self.hand_over()?;
        }
        self.batch.header_bytes += header_bytes;
        Ok(&mut self.batch.data)
    }

    /// Writes a file, at once or soon; its data was added to [`Writers::data`].
    pub fn write(&mut self, file: SmallFile<'a>) {
        self.batch.files.push(file);
    }

    /// Waits until nothing is under way.
    ///
    /// # Errors
    /// The first failure, in the order of the layer.
    pub fn wait(&mut self) -> Result<()> {
        self.hand_over()?;
        self.settle()
    }

    fn hand_over(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if self.progress.failed.load(Relaxed) != NONE {
            return self.settle();
        }
        if batch.files.is_empty() {
            return Ok(());
        }
        self.progress.lock().pending += 1;
        // The threads are busy: do the work here instead of waiting.
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.sender.try_send(batch) {
            self.progress.run(batch, self.shared);
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        let mut state = self.progress.lock();
        while state.pending > 0 {
            state = self.progress.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.take().map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl Progress {
    fn run(&self, batch: Batch<'_>, shared: &Shared<'_>) {
        let mut failure = None;
        let mut data = &batch.data[..];
        for file in batch.files {
            let number = file.number;
            let own;
            (own, data) = data.split_at(file.entry.size as usize);
            if number > self.failed.load(Relaxed) {
                break;
            }
            if let Err(error) = write_small(file, own, shared) {
                failure = Some((number, error));
                break;
            }
        }
        let mut state = self.lock();
        if let Some((number, error)) = failure
            && state.failure.as_ref().is_none_or(|(earlier, _)| number < *earlier)
        {
            state.failure = Some((number, error));
            self.failed.store(number, Relaxed);
        }
        state.pending -= 1;
        if state.pending == 0 {
            self.idle.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns about the bytes that a waiting file takes besides its data. Its name is kept as it stands and cleaned.
fn header_bytes(entry: &TarEntry) -> usize {
    let xattrs: usize = entry.xattrs.iter().map(|(name, value)| XATTR_BYTES + name.len() + value.len()).sum();
    2 * entry.name.len() + entry.link_name.len() + xattrs
}
