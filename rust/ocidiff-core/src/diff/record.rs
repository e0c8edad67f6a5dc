//! From changes to the entries of a tar: parents first, hard links, whiteouts (containerd pkg/archive, `ChangeWriter`).

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::live::{Live, Taken, settle};
use super::sparse::SparseReader;
use crate::cause::Cause;
use crate::change::{Ancestor, Change, ChangeKind, Rules, Subject, UpperEntry};
use crate::compress::blob::{BlobSummary, BlobWriter};
use crate::compress::segments::Segment;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::metadata::{FileType, InodeKey, Metadata};
use crate::tar::header::{END, EntryType, Header, pad};
use crate::tree::{Lost, TreeDir};
use crate::whiteout;

/// The names of one inode with several of them, as far as they were seen.
#[derive(Default)]
struct Group {
    /// The name that carries the data, and what it was when it was read, unless as the walk saw it.
    source: Option<(Vec<u8>, Option<UpperEntry>)>,
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

/// Writes changes as entries.
pub struct LayerWriter {
    blob: BlobWriter,
    rules: Rules,
    groups: HashMap<InodeKey, Group>,
    header: Vec<u8>,
    entries: u64,
    sockets: u64,
    lost: Lost,
    vanished: (u64, u64),
    /// Reads files that may be changing, if that is no error.
    live: Option<Live>,
    control: Arc<Control>,
}

impl LayerWriter {
    /// Returns a recorder that writes to `blob`; without `live`, a file that changes is an error.
    pub fn new(blob: BlobWriter, rules: Rules, live: Option<Live>, control: Arc<Control>) -> Self {
        Self {
            blob,
            rules,
            groups: HashMap::new(),
            header: Vec::new(),
            entries: 0,
            sockets: 0,
            lost: Lost::default(),
            vanished: (0, 0),
            live,
            control,
        }
    }

    /// Returns the number of additions and modifications of names that vanished before their turn.
    pub fn vanished(&self) -> (u64, u64) {
        self.vanished
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Sockets left out so far.
    pub fn sockets(&self) -> u64 {
        self.sockets
    }

    /// Attributes of the entries so far that the rules leave out, those of a file once.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Ends the tar. Returns the segments of the blob too.
    pub fn finish(mut self) -> Result<(BlobSummary, Vec<Segment>)> {
        self.blob.write(&END)?;
        self.blob.finish()
    }

    /// Takes the next change.
    pub fn record(&mut self, change: &Change) -> Result<()> {
        match &change.subject {
            Subject::Gone => self.whiteout(change),
            Subject::Directory(directory) => self.directory(directory),
            Subject::Leaf { entry, .. } if entry.metadata.file_type == FileType::Socket => {
                self.sockets += u64::from(change.kind != ChangeKind::Unmodified);
                Ok(())
            }
            Subject::Leaf { entry, .. } if entry.metadata.links > 1 => self.linked(change, entry),
            Subject::Leaf { .. } if change.kind == ChangeKind::Unmodified => Ok(()),
            Subject::Leaf { entry, .. } => self.leaf(change, entry).map(|_| ()),
        }
    }

    fn whiteout(&mut self, change: &Change) -> Result<()> {
        self.parents(&change.parent)?;
        let start = change.path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = change.path.split_at(start);
        let name = [directory, whiteout::PREFIX, name].concat();
        self.put(&Header::empty_file(&name))
    }

    fn directory(&mut self, directory: &Rc<Ancestor>) -> Result<()> {
        if let Some(parent) = &directory.parent {
            self.parents(parent)?;
        }
        directory.written.set(true);
        self.check_name(&directory.path)?;
        let name = [&directory.path[..], b"/"].concat();
        self.put_entry(&name, &directory.entry, EntryType::Directory)
    }

    /// Writes the directories above an entry that are not written yet, top down.
    fn parents(&mut self, parent: &Rc<Ancestor>) -> Result<()> {
        let mut missing = Vec::new();
        let mut next = Some(parent);
        while let Some(directory) = next.filter(|directory| !directory.written.get()) {
            missing.push(directory);
            next = directory.parent.as_ref();
        }
        missing.into_iter().rev().try_for_each(|directory| self.directory(directory))
    }

    /// Writes an entry with its data.
    fn leaf(&mut self, change: &Change, entry: &UpperEntry) -> Result<Written> {
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
                self.blob.begin_content(metadata.size)?;
                live.read(&mut content, |block| self.blob.write(block))?;
                self.end_content(metadata.size)?;
                Ok(if is_same_file { Written::Source(now) } else { Written::Other })
            }
            Taken::Other(now) if now.metadata.file_type == FileType::Socket => {
                self.sockets += 1;
                Ok(Written::Other)
            }
            Taken::Other(now) => self.resting(change, &now, None).map(|_| Written::Other),
            Taken::Gone => {
                self.control.add_vanished();
                if change.kind == ChangeKind::Add {
                    self.vanished.0 += 1;
                } else {
                    self.vanished.1 += 1;
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
        if let Some((source, now)) = &group.source {
            self.link(&change.path, &change.parent, source, now.as_ref().unwrap_or(entry))?;
        } else if change.kind == ChangeKind::Unmodified {
            group.waiting.push((change.path.clone(), change.parent.clone()));
        } else if let Written::Source(now) = self.leaf(change, entry)? {
            for (path, parent) in std::mem::take(&mut group.waiting) {
                self.link(&path, &parent, &change.path, now.as_ref().unwrap_or(entry))?;
            }
            group.source = Some((change.path.clone(), now));
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
        self.put(&Header { link_name: source, size: 0, ..header })
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
        self.put(&self.header_of(name, entry, entry_type))
    }

    fn put(&mut self, header: &Header<'_>) -> Result<()> {
        self.header.clear();
        header.write(&mut self.header).map_err(|error| match error {
            Error::Unrepresentable { reason, .. } => refused(header.name.strip_suffix(b"/").unwrap_or(header.name), reason),
            other => other,
        })?;
        self.blob.begin_entry(header.name)?;
        self.blob.write(&self.header)?;
        self.entries += 1;
        Ok(())
    }

    /// Copies exactly the bytes that the header promised, of exactly the file that was seen; `file` if it has been opened.
    fn content(&mut self, directory: &TreeDir, name: &CStr, expected: &Metadata, file: Option<OwnedFd>) -> Result<()> {
        if expected.size == 0 {
            return Ok(());
        }
        let file = file.map_or_else(|| self.open_unchanged(directory, name, expected), Ok)?;
        let failed = |errno| Error::io("read", directory.path_of(name), errno);
        self.blob.begin_content(expected.size)?;
        let mut reader = SparseReader::new(&file, expected.size);
        let mut left = expected.size;
        while left > 0 {
            match self.blob.fill_with(left, |space| reader.read(space).map_err(failed))? {
                0 => return Err(Error::SourceChanged { path: directory.path_of(name), reason: Cause::BecameShorter }),
                count => left -= count as u64,
            }
        }
        check_unchanged(directory, name, expected, &directory.open_metadata(&file, name)?)?;
        self.end_content(expected.size)
    }

    /// Opens a file that is still what was seen of it.
    fn open_unchanged(&self, directory: &TreeDir, name: &CStr, expected: &Metadata) -> Result<OwnedFd> {
        let file = directory.open_file(name)?;
        check_unchanged(directory, name, expected, &settle(&file, directory, name, &self.control)?.0)?;
        Ok(file)
    }

    /// Ends the content of a file of `size` bytes, and fills up its last record.
    fn end_content(&mut self, size: u64) -> Result<()> {
        self.blob.end_content(size)?;
        self.header.clear();
        pad(&mut self.header, size);
        self.blob.write(&self.header)
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

fn refused(path: &[u8], reason: Cause) -> Error {
    Error::Unrepresentable { path: PathBuf::from(OsStr::from_bytes(path)), reason }
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
