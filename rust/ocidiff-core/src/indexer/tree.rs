//! Writes the index of a tree.
//!
//! One thread takes what the walk tells, in order, and puts blocks together. Contents are hashed by others; since a hash has
//! the same length whatever it is, places are given at once, and blocks are written when their hashes have come.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::change::{Ancestor, Change, Changes, Rules, Scope, Subject, Trees, UpperEntry};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::index::{
    Block, Extent, Fingerprint, Header, IndexSummary, IndexWriter, Kept, Stamp, Wanted, XattrDigests, fingerprint_file,
};
use crate::metadata::{FileType, Metadata};
use crate::tree::TreeDir;

/// Files that are handed over together, at most, and their bytes: many small ones, or one large one.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;
/// Batches that wait for a thread; each holds a file descriptor.
const BATCHES_AHEAD: usize = 64;
/// Finished blocks that wait for their hashes, in bytes.
const BLOCKS_AHEAD_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 128 << 10;
/// Files that changed later than this before the start get no stamp: a change time is that of the last tick of the clock,
/// up to 2 seconds ago on some file systems, so that a change to come could have the same one.
const SETTLED_SECONDS: i64 = 3;

/// Files of one directory to hash.
struct Batch {
    directory: Arc<TreeDir>,
    files: Vec<(CString, Metadata)>,
    answer: Sender<Result<Vec<Fingerprint>>>,
}

/// Hashes to come, and where in the block they go.
struct Awaited {
    places: Vec<usize>,
    answer: Receiver<Result<Vec<Fingerprint>>>,
}

/// Files of one directory that are not handed over yet.
struct Gathered {
    directory: Arc<TreeDir>,
    files: Vec<(CString, Metadata)>,
    places: Vec<usize>,
    bytes: u64,
}

/// A directory whose entries are being told.
struct Frame {
    /// The directory; `None` for the root.
    directory: Option<Rc<Ancestor>>,
    block: Block,
    gathered: Option<Gathered>,
    awaited: Vec<Awaited>,
}

/// Options of an index.
#[derive(Debug, Clone, Copy)]
pub struct IndexOptions {
    /// The header: which hashes contents get, and which layers the index stands for.
    pub header: Header,
    /// True if files get stamps, by which a comparison with this very tree knows what has not changed since.
    pub stamps: bool,
    /// True if what is mounted in the tree counts. Otherwise the index says only where it is.
    pub cross_mounts: bool,
    /// Threads that walk, and as many that hash.
    pub threads: usize,
}

/// Writes the index of the tree `upper` of `trees`, which has no lower, to `sink`.
///
/// # Errors
/// [`Error`]; what was written is then no index.
pub fn write_index(trees: Trees, sink: OwnedFd, options: IndexOptions, control: &Arc<Control>) -> Result<IndexSummary> {
    let IndexOptions { header, stamps, cross_mounts, threads } = options;
    let wanted = header.wanted();
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let settled_before = stamps.then(|| since_epoch.as_secs().cast_signed() - SETTLED_SECONDS);
    let writer = IndexWriter::start(sink, &header, control)?;
    let changes = Changes::start(trees, Rules::OCI, Some(Arc::new(Scope::all(cross_mounts))), threads, control.clone())?;
    let (batches, taken) = bounded(BATCHES_AHEAD);
    std::thread::scope(|scope| {
        for number in 0..threads.max(1) {
            let taken = taken.clone();
            let hash = move || serve(&taken, wanted, control);
            let thread = std::thread::Builder::new().name(format!("hash-{number}")).spawn_scoped(scope, hash);
            thread.map_err(|source| Error::Io { op: "start thread", path: "hash".into(), source })?;
        }
        drop(taken);
        let frames = vec![Frame::new(None)];
        let waiting = VecDeque::new();
        let teller =
            Teller { writer, control, wanted, settled_before, cross_mounts, batches, frames, waiting, waiting_bytes: 0 };
        teller.tell(changes)
    })
}

/// Hashes batches until there are no more.
fn serve(batches: &Receiver<Batch>, wanted: Wanted, control: &Control) {
    let mut buffer = vec![0; READ_BYTES];
    for Batch { directory, files, answer } in batches {
        let hash =
            |(name, seen): &(CString, Metadata)| fingerprint_file((&directory, name), seen, wanted, &mut buffer, control);
        // Nobody waits for it when the call has failed.
        let _ = answer.send(files.iter().map(hash).collect());
    }
}

/// Takes the entries in order.
struct Teller<'a> {
    writer: IndexWriter,
    control: &'a Control,
    wanted: Wanted,
    /// Files that have not changed since this time, in seconds since 1970, get a stamp.
    settled_before: Option<i64>,
    cross_mounts: bool,
    batches: Sender<Batch>,
    frames: Vec<Frame>,
    /// Blocks that have their places, first one first.
    waiting: VecDeque<(Block, Vec<Awaited>)>,
    waiting_bytes: usize,
}

impl Teller<'_> {
    fn tell(mut self, changes: Changes) -> Result<IndexSummary> {
        for change in changes {
            self.entry(change?)?;
        }
        while self.frames.len() > 1 {
            self.leave()?;
        }
        self.hand_over()?;
        let root = match self.frames.pop() {
            Some(frame) => self.close(frame)?,
            None => Extent::default(),
        };
        self.write(0)?;
        self.writer.finish(root)
    }

    fn entry(&mut self, change: Change) -> Result<()> {
        while !self.frames.last().is_none_or(|frame| frame.is_of(&change.parent)) {
            self.leave()?;
        }
        match change.subject {
            Subject::Gone => {}
            Subject::Directory(directory) => {
                // Its files first, which keep it open, so that no depth of the tree takes more descriptors than there are.
                self.hand_over()?;
                self.writer.count(0);
                self.writer.leave_out(&directory.entry.xattrs.lost);
                self.frames.push(Frame::new(Some(directory)));
            }
            Subject::Leaf { entry, name, .. } if entry.metadata.mount_root && !self.cross_mounts => {
                self.control.add_mount();
                self.mount_point(entry.metadata.file_type, &name);
            }
            Subject::Leaf { entry, directory, name, .. } => self.leaf(&entry, directory, name)?,
        }
        Ok(())
    }

    fn leaf(&mut self, entry: &UpperEntry, directory: Option<Arc<TreeDir>>, name: CString) -> Result<()> {
        let metadata = &entry.metadata;
        self.writer.leave_out(&entry.xattrs.lost);
        let directory = directory.filter(|_| metadata.file_type == FileType::File && metadata.size > 0);
        let kept = match (&entry.target, &directory) {
            (Some(target), _) => Kept::Target(target.clone()),
            (None, Some(_)) => Kept::Content(self.unknown()),
            (None, None) => Kept::Nothing,
        };
        self.writer.count(if metadata.file_type == FileType::File { metadata.size } else { 0 });
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let plain = Metadata { mount_root: false, ..*metadata };
        let is_settled = self.settled_before.is_some_and(|time| metadata.ctime.0 < time);
        // Reading a file that its owner may not read changes its change time, so that a stamp of it would say nothing.
        let stamp = (is_settled && metadata.mode & 0o400 != 0).then(|| Stamp::of(metadata));
        let place = frame.block.push(name.to_bytes(), &plain, stamp, &XattrDigests::of(&entry.xattrs.kept), &kept);
        let Some(directory) = directory else { return Ok(()) };
        let new = || Gathered { directory, files: Vec::new(), places: Vec::new(), bytes: 0 };
        let gathered = frame.gathered.get_or_insert_with(new);
        gathered.files.push((name, *metadata));
        gathered.places.push(place);
        gathered.bytes = gathered.bytes.saturating_add(metadata.size);
        if gathered.files.len() == BATCH_FILES || gathered.bytes >= BATCH_BYTES {
            self.hand_over()?;
        }
        Ok(())
    }

    fn mount_point(&mut self, file_type: FileType, name: &CStr) {
        self.writer.count(0);
        let Some(frame) = self.frames.last_mut() else { return };
        let kept = if file_type == FileType::Directory { Kept::Children(Extent::default()) } else { Kept::Nothing };
        let metadata = Metadata { mount_root: true, ..Metadata::of_kind(file_type) };
        frame.block.push(name.to_bytes(), &metadata, None, &XattrDigests::default(), &kept);
    }

    /// Returns what stands in a block until the hashes are known.
    fn unknown(&self) -> Fingerprint {
        Fingerprint { xxh3: [0; 16], sha256: (self.wanted == Wanted::Sha256).then_some([0; 32]) }
    }

    /// Hands the files of the current directory to the threads that hash.
    fn hand_over(&mut self) -> Result<()> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let Some(Gathered { directory, files, places, .. }) = frame.gathered.take() else { return Ok(()) };
        let (answer, receiver) = bounded(1);
        frame.awaited.push(Awaited { places, answer: receiver });
        self.batches.send(Batch { directory, files, answer }).map_err(|_| Error::Cancelled)
    }

    /// Ends the current directory, and tells it to the one above.
    fn leave(&mut self) -> Result<()> {
        self.hand_over()?;
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let directory = frame.directory.clone();
        let extent = self.close(frame)?;
        if let (Some(directory), Some(above)) = (directory, self.frames.last_mut()) {
            let UpperEntry { metadata, xattrs, .. } = &directory.entry;
            let name = directory.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            let metadata = Metadata { mount_root: false, ..*metadata };
            above.block.push(name, &metadata, None, &XattrDigests::of(&xattrs.kept), &Kept::Children(extent));
        }
        Ok(())
    }

    /// Gives a block its place.
    fn close(&mut self, frame: Frame) -> Result<Extent> {
        let extent = self.writer.place(&frame.block)?;
        self.waiting_bytes += frame.block.len();
        self.waiting.push_back((frame.block, frame.awaited));
        self.write(BLOCKS_AHEAD_BYTES)?;
        Ok(extent)
    }

    /// Writes blocks, until no more than `ahead` bytes of them wait.
    fn write(&mut self, ahead: usize) -> Result<()> {
        while self.waiting_bytes > ahead
            && let Some((mut block, awaited)) = self.waiting.pop_front()
        {
            self.waiting_bytes -= block.len();
            for Awaited { places, answer } in awaited {
                let hashes = answer.recv().map_err(|_| Error::Cancelled)??;
                places.iter().zip(&hashes).for_each(|(&place, hash)| block.fill(place, hash));
            }
            if !block.is_empty() {
                self.writer.write(block)?;
            }
        }
        Ok(())
    }
}

impl Frame {
    fn new(directory: Option<Rc<Ancestor>>) -> Self {
        Self { directory, block: Block::default(), gathered: None, awaited: Vec::new() }
    }

    /// Returns true if this is the directory `ancestor`.
    fn is_of(&self, ancestor: &Rc<Ancestor>) -> bool {
        match &self.directory {
            Some(directory) => Rc::ptr_eq(directory, ancestor),
            None => ancestor.parent.is_none(),
        }
    }
}
