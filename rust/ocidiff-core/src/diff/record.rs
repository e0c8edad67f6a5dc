//! From changes to the entries of tars: parents first, hard links, whiteouts (containerd pkg/archive, `ChangeWriter`).

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use super::live::{Live, Taken, settle};
use super::partition::Partition;
use super::parts::{Finished, Parts, refused};
use super::sparse::SparseReader;
use crate::cause::Cause;
use crate::change::{Ancestor, Change, ChangeKind, Rules, Subject, UpperEntry};
use crate::compress::blob::BlobWriter;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::metadata::{FileType, InodeKey, Metadata};
use crate::tar::header::{EntryType, Header};
use crate::tree::{Lost, TreeDir};
use crate::whiteout;

/// The names of one inode with several of them, as far as they were seen.
#[derive(Default)]
struct Group {
    /// The name that carries the data, and what it was when it was read, unless as the walk saw it.
    source: Option<(Vec<u8>, Option<UpperEntry>)>,
    /// The layer of the source.
    layer: usize,
    /// Unchanged names that were seen before any source.
    waiting: Vec<(Vec<u8>, Rc<Ancestor>)>,
    seen: u32,
}

/// The outcome of writing an entry.
enum Written {
    /// It is of the file that the walk saw; with what it was when it was read, unless the same.
    Source(Option<UpperEntry>),
    /// Something else, or nothing, had its name.
    Other,
}

/// Writes changes as entries of one layer, or of several.
pub struct LayerWriter {
    parts: Parts,
    partition: Partition,
    rules: Rules,
    groups: HashMap<InodeKey, Group>,
    /// Hash of which names are one file, and which files are large, if there are several parts.
    placement: blake3::Hasher,
    sockets: u64,
    lost: Lost,
    /// Reads files that may be changing, if that is no error.
    live: Option<Live>,
    control: Arc<Control>,
}

impl LayerWriter {
    /// Returns a recorder that writes a layer to each of `blobs`, and none for `None`; without `live`, a file that changes is an
    /// error.
    pub fn new(blobs: Vec<Option<BlobWriter>>, rules: Rules, live: Option<Live>, control: Arc<Control>) -> Self {
        Self {
            partition: Partition::new(blobs.len()),
            parts: Parts::new(blobs),
            rules,
            groups: HashMap::new(),
            placement: blake3::Hasher::new(),
            sockets: 0,
            lost: Lost::default(),
            live,
            control,
        }
    }

    /// Returns a hash of which names are one file, and which files are large. Files of equal hashes are in equal layers.
    pub fn placement(&self) -> [u8; 32] {
        *self.placement.finalize().as_bytes()
    }

    /// Sockets left out so far.
    pub fn sockets(&self) -> u64 {
        self.sockets
    }

    /// Attributes of the entries so far that the rules leave out, those of a file once.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Ends the tars; see [`Parts::finish`].
    pub fn finish(self) -> Result<Vec<Option<Finished>>> {
        self.parts.finish()
    }

    /// Takes the next change.
    pub fn record(&mut self, change: &Change) -> Result<()> {
        self.parts.at = match &change.subject {
            Subject::Directory(_) => self.partition.of_directories(),
            Subject::Gone => self.partition.of(&change.path, 0),
            Subject::Leaf { entry, .. } => self.layer_of(change, entry),
        };
        match &change.subject {
            Subject::Gone => {
                self.parts.count(change.kind);
                self.whiteout(change)
            }
            Subject::Directory(directory) => {
                self.parts.count(change.kind);
                self.directory(directory)
            }
            Subject::Leaf { entry, .. } if entry.metadata.file_type == FileType::Socket => {
                self.parts.count(change.kind);
                self.sockets += u64::from(change.kind != ChangeKind::Unmodified);
                Ok(())
            }
            Subject::Leaf { entry, .. } if entry.metadata.links > 1 => self.linked(change, entry),
            Subject::Leaf { .. } if change.kind == ChangeKind::Unmodified => Ok(()),
            Subject::Leaf { entry, .. } => {
                self.parts.count(change.kind);
                self.leaf(change, entry).map(|_| ())
            }
        }
    }

    /// Returns the layer of a path that is no directory. That of a large file is in the hash of files.
    fn layer_of(&mut self, change: &Change, entry: &UpperEntry) -> usize {
        let size = if entry.metadata.file_type == FileType::File { entry.metadata.size } else { 0 };
        if change.kind != ChangeKind::Unmodified && self.partition.is_large(size) {
            self.placement.update(&change.path).update(&[0, 0, 0]);
        }
        self.partition.of(&change.path, size)
    }

    fn whiteout(&mut self, change: &Change) -> Result<()> {
        self.parents(&change.parent)?;
        let start = change.path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = change.path.split_at(start);
        let name = [directory, whiteout::PREFIX, name].concat();
        self.parts.put(&Header::empty_file(&name))
    }

    /// Writes a directory to the current part, and to that of all directories; those above it are written.
    fn directory(&mut self, directory: &Rc<Ancestor>) -> Result<()> {
        if let Some(parent) = &directory.parent {
            self.parents(parent)?;
        }
        self.check_name(&directory.path)?;
        let name = [&directory.path[..], b"/"].concat();
        let (at, of_all) = (self.parts.at, self.partition.of_directories());
        let written = directory.written.get();
        directory.written.set(written | 1 << at | 1 << of_all);
        let header = self.header_of(&name, &directory.entry, EntryType::Directory);
        if at != of_all {
            self.parts.put(&Header { mtime: 0, ..header })?;
        }
        if written & 1 << of_all == 0 {
            self.parts.at = of_all;
            self.lost.add(&directory.entry.xattrs.lost);
            self.parts.put(&header)?;
            self.parts.at = at;
        }
        Ok(())
    }

    /// Writes the directories above an entry that the part does not have yet, top down.
    fn parents(&mut self, parent: &Rc<Ancestor>) -> Result<()> {
        let mut missing = Vec::new();
        let mut next = Some(parent);
        while let Some(directory) = next.filter(|directory| directory.written.get() & 1 << self.parts.at == 0) {
            missing.push(directory);
            next = directory.parent.as_ref();
        }
        missing.into_iter().rev().try_for_each(|directory| self.directory(directory))
    }

    /// Writes an entry with its data.
    fn leaf(&mut self, change: &Change, entry: &UpperEntry) -> Result<Written> {
        if self.parts.is_left_out() {
            // Said of the whole change, also if this layer is known.
            self.lost.add(&entry.xattrs.lost);
            // Its directories are in another part too.
            return self.parents(&change.parent).map(|()| Written::Source(None));
        }
        match &change.subject {
            // Lower layers of an overlay do not change.
            Subject::Leaf { directory: Some(directory), name, content: None, .. }
                if entry.metadata.file_type == FileType::File && entry.metadata.size > 0 =>
            {
                // For the time of the call, because it lends what it has read.
                let Some(mut live) = self.live.take() else { return self.resting(change, entry, None) };
                let written = self.changing(change, entry, directory, name, &mut live);
                self.live = Some(live);
                written
            }
            _ => self.resting(change, entry, None),
        }
    }

    /// Writes a file that somebody may be writing to.
    fn changing(
        &mut self,
        change: &Change,
        entry: &UpperEntry,
        directory: &TreeDir,
        name: &CStr,
        live: &mut Live,
    ) -> Result<Written> {
        let seen = &entry.metadata;
        if live.may_stream(seen)
            && let Ok(file) = self.open_unchanged(directory, name, seen)
        {
            return self.resting(change, entry, Some(file));
        }
        match live.take(directory, name, seen, &self.control)? {
            Taken::File { metadata, xattrs, mut content } => {
                let is_same_file = metadata.key == seen.key;
                let now = xattrs.map(|xattrs| UpperEntry { metadata, xattrs, target: None });
                self.check_name(&change.path)?;
                self.parents(&change.parent)?;
                self.put_entry(&change.path, now.as_ref().unwrap_or(entry), EntryType::File)?;
                self.parts.begin_content(metadata.size)?;
                live.read(&mut content, |block| self.parts.write(block))?;
                self.parts.end_content(metadata.size)?;
                Ok(if is_same_file { Written::Source(now) } else { Written::Other })
            }
            Taken::Other(now) if now.metadata.file_type == FileType::Socket => {
                self.sockets += 1;
                Ok(Written::Other)
            }
            Taken::Other(now) => self.resting(change, &now, None).map(|_| Written::Other),
            Taken::Gone => {
                self.control.add_vanished();
                if self.parts.count_vanished(change.kind) {
                    self.whiteout(change)?;
                }
                Ok(Written::Other)
            }
        }
    }

    /// Writes an entry as the walk saw it; `file` if it has been opened.
    fn resting(&mut self, change: &Change, entry: &UpperEntry, file: Option<OwnedFd>) -> Result<Written> {
        let entry_type = match entry.metadata.file_type {
            FileType::Symlink => EntryType::Symlink,
            FileType::Fifo => EntryType::Fifo,
            FileType::CharDevice => EntryType::CharDevice,
            FileType::BlockDevice => EntryType::BlockDevice,
            FileType::File | FileType::Directory | FileType::Socket => EntryType::File,
        };
        self.check_name(&change.path)?;
        self.parents(&change.parent)?;
        if entry.metadata.is_overlay_whiteout() {
            return Err(refused(&change.path, Cause::UnwritableDevice));
        }
        self.put_entry(&change.path, entry, entry_type)?;
        match &change.subject {
            Subject::Leaf { directory: Some(directory), name, content, .. } if entry_type == EntryType::File => {
                self.content(directory, name, content.as_deref().unwrap_or(&entry.metadata), file)?;
            }
            _ => {}
        }
        Ok(Written::Source(None))
    }

    /// Returns an entry whose inode has several names: the first changed one carries the data, all others become links to
    /// it.
    fn linked(&mut self, change: &Change, entry: &UpperEntry) -> Result<()> {
        self.check_linked_name(&change.path)?;
        let key = self.rules.link_key(&entry.metadata);
        let mut group = self.groups.remove(&key).unwrap_or_default();
        group.seen += 1;
        let source = group.source.as_ref().map(|(source, _)| &source[..]);
        if source.is_some() {
            // All names of a file are in one layer.
            self.parts.at = group.layer;
        }
        if self.parts.len() > 1 {
            self.placement.update(&change.path).update(&[0]).update(source.unwrap_or_default()).update(&[0]);
        }
        self.parts.count(change.kind);
        if let Some((source, now)) = &group.source {
            self.link(&change.path, &change.parent, source, now.as_ref().unwrap_or(entry))?;
        } else if change.kind == ChangeKind::Unmodified {
            group.waiting.push((change.path.clone(), change.parent.clone()));
        } else if let Written::Source(now) = self.leaf(change, entry)? {
            for (path, parent) in std::mem::take(&mut group.waiting) {
                self.link(&path, &parent, &change.path, now.as_ref().unwrap_or(entry))?;
            }
            group.source = Some((change.path.clone(), now));
            group.layer = self.parts.at;
        }
        // Once all names were seen nothing can refer to the group any more. Without the device in the key two inodes
        // share it, and no count tells when both are through.
        if group.seen < entry.metadata.links || !self.rules.device_in_links {
            self.groups.insert(key, group);
        }
        Ok(())
    }

    fn link(&mut self, path: &[u8], parent: &Rc<Ancestor>, source: &[u8], entry: &UpperEntry) -> Result<()> {
        self.check_name(path)?;
        self.parents(parent)?;
        let header = self.header_of(path, entry, EntryType::Link);
        self.parts.put(&Header { link_name: source, size: 0, ..header })
    }

    fn header_of<'a>(&self, name: &'a [u8], entry: &'a UpperEntry, entry_type: EntryType) -> Header<'a> {
        let metadata = &entry.metadata;
        let link_name = entry.target.as_ref().filter(|_| entry_type == EntryType::Symlink);
        Header {
            name,
            entry_type,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            size: if entry_type == EntryType::File { metadata.size } else { 0 },
            mtime: self.rules.stored_mtime(metadata),
            link_name: link_name.map_or(b"", |target| target.to_bytes()),
            device: match metadata.file_type {
                FileType::CharDevice | FileType::BlockDevice => metadata.device,
                _ => (0, 0),
            },
            xattrs: &entry.xattrs.kept,
        }
    }

    fn put_entry(&mut self, name: &[u8], entry: &UpperEntry, entry_type: EntryType) -> Result<()> {
        self.lost.add(&entry.xattrs.lost);
        self.parts.put(&self.header_of(name, entry, entry_type))
    }

    /// Copies exactly the bytes that the header promised, of exactly the file that was seen; `file` if it has been opened.
    fn content(&mut self, directory: &TreeDir, name: &CStr, expected: &Metadata, file: Option<OwnedFd>) -> Result<()> {
        if expected.size == 0 {
            return Ok(());
        }
        let file = file.map_or_else(|| self.open_unchanged(directory, name, expected), Ok)?;
        let failed = |errno| Error::io("read", directory.path_of(name), errno);
        self.parts.begin_content(expected.size)?;
        let mut reader = SparseReader::new(&file, expected.size);
        let mut left = expected.size;
        while left > 0 {
            match self.parts.fill_with(left, |space| reader.read(space).map_err(failed))? {
                0 => return Err(Error::SourceChanged { path: directory.path_of(name), reason: Cause::BecameShorter }),
                count => left -= count,
            }
        }
        check_unchanged(directory, name, expected, &directory.open_metadata(&file, name)?)?;
        self.parts.end_content(expected.size)
    }

    /// Opens a file that is still what was seen of it.
    fn open_unchanged(&self, directory: &TreeDir, name: &CStr, expected: &Metadata) -> Result<OwnedFd> {
        let file = directory.open_file(name)?;
        check_unchanged(directory, name, expected, &settle(&file, directory, name, &self.control)?.0)?;
        Ok(file)
    }

    /// Refuses a name that a reader of the layer would take for something else.
    fn check_name(&self, path: &[u8]) -> Result<()> {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let Some(hidden) = name.strip_prefix(whiteout::PREFIX) else { return Ok(()) };
        match hidden {
            b"" | b"." | b".." => Err(refused(path, Cause::NameOfWhiteoutOfNothing)),
            _ if self.rules.refuse_whiteout_names => Err(refused(path, Cause::NameOfWhiteout)),
            _ => Ok(()),
        }
    }

    /// Refuses a name of a file with several names that no hard link can lead to, since a reader leaves it out.
    fn check_linked_name(&self, path: &[u8]) -> Result<()> {
        let mut names = path.rsplit(|&byte| byte == b'/');
        let is_mark = names.next().is_some_and(|name| name.starts_with(whiteout::PREFIX));
        let is_below_mark = |name: &[u8]| matches!(whiteout::Whiteout::parse(name, 0), Ok(Some(whiteout::Whiteout::Meta)));
        if is_mark || names.any(is_below_mark) { Err(refused(path, Cause::NameOfWhiteout)) } else { Ok(()) }
    }
}

/// Tells what changed of a file, as far as a message can.
fn check_unchanged(directory: &TreeDir, name: &CStr, expected: &Metadata, found: &Metadata) -> Result<()> {
    let reason = match () {
        () if expected == found => return Ok(()),
        () if expected.key != found.key => Cause::Replaced,
        () if expected.size != found.size => Cause::SizeChanged,
        () if (expected.mtime, expected.mtime_ns) != (found.mtime, found.mtime_ns) => Cause::WrittenTo,
        () => Cause::MetadataChanged,
    };
    Err(Error::SourceChanged { path: directory.path_of(name), reason })
}
