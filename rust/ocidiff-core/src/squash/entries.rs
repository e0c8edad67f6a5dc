//! The entries of the new layer, in the order of a walk.

use std::collections::HashMap;

use super::contents::Origin;
use crate::apply::model::{Inode, Model, Number, ROOT};
use crate::apply::told::told_xattrs;
use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::metadata::FileType;
use crate::tar::header::{EntryType, Header};
use crate::whiteout;

type File = Inode<Origin>;

/// The headers of an entry.
pub struct Head {
    /// The name of the entry.
    pub name: Vec<u8>,
    /// The headers, as they stand in the tar.
    pub bytes: Vec<u8>,
}

impl Head {
    fn of(header: &Header<'_>) -> Result<Self> {
        let mut bytes = Vec::new();
        header.write(&mut bytes)?;
        Ok(Self { name: header.name.to_vec(), bytes })
    }
}

/// A directory whose names are being written.
struct Frame<'a> {
    path: Vec<u8>,
    number: Number,
    names: std::vec::IntoIter<&'a [u8]>,
}

/// Gives the entries, one after the other.
pub struct Entries<'a> {
    model: &'a Model<Origin>,
    onto_base: bool,
    has_begun: bool,
    frames: Vec<Frame<'a>>,
    /// The first names of files with several.
    sources: HashMap<Number, Vec<u8>>,
    entries: u64,
    whiteouts: u64,
}

impl<'a> Entries<'a> {
    /// Begins at the root.
    pub fn new(model: &'a Model<Origin>, onto_base: bool) -> Self {
        let sources = HashMap::new();
        Self { model, onto_base, has_begun: false, frames: Vec::new(), sources, entries: 0, whiteouts: 0 }
    }

    /// Returns the number of entries, and of whiteouts among them.
    pub fn counts(&self) -> (u64, u64) {
        (self.entries, self.whiteouts)
    }

    /// Appends the headers of the next name to `out`, and returns the file whose content comes after them. `None` at the end.
    ///
    /// # Errors
    /// [`Error::Unrepresentable`].
    pub fn next(&mut self, out: &mut Vec<Head>) -> Result<Option<Option<&'a File>>> {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.root(out)?;
            return Ok(Some(None));
        }
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        let Some(name) = frame.names.next() else {
            self.frames.pop();
            return Ok(Some(None));
        };
        let directory = self.model.inode(frame.number);
        let Some(&child) = directory.children.get(name) else {
            let path = join(&frame.path, &[whiteout::PREFIX, name].concat());
            self.mark(&path, out)?;
            return Ok(Some(None));
        };
        let (path, number, inode) = (join(&frame.path, name), child.number, self.model.inode(child.number));
        if inode.is_described && name.starts_with(whiteout::PREFIX) {
            return Err(unrepresentable(&path, Cause::NameOfWhiteout));
        }
        if inode.file_type == Some(FileType::Directory) {
            if inode.is_described {
                self.put(&path, inode, None, out)?;
            }
            if inode.is_opaque && !directory.is_opaque {
                self.mark(&join(&path, whiteout::OPAQUE), out)?;
            }
            self.enter(path, number);
            return Ok(Some(None));
        }
        let source = self.sources.get(&number).cloned();
        self.put(&path, inode, source.as_deref(), out)?;
        if source.is_some() {
            return Ok(Some(None));
        }
        if inode.links > 1 {
            self.sources.insert(number, path);
        }
        Ok(Some(Some(inode)))
    }

    fn root(&mut self, out: &mut Vec<Head>) -> Result<()> {
        let root = self.model.inode(ROOT);
        if root.is_described {
            self.put(b".", root, None, out)?;
        }
        if self.onto_base && root.is_opaque {
            self.mark(whiteout::OPAQUE, out)?;
        }
        self.enter(Vec::new(), ROOT);
        Ok(())
    }

    fn enter(&mut self, path: Vec<u8>, number: Number) {
        let children = self.model.inode(number).children.keys().map(|name| &**name);
        let mut names: Vec<&[u8]> = children.chain(self.model.hidden(number)).collect();
        names.sort_unstable();
        self.frames.push(Frame { path, number, names: names.into_iter() });
    }

    fn mark(&mut self, path: &[u8], out: &mut Vec<Head>) -> Result<()> {
        self.whiteouts += 1;
        self.entries += 1;
        let entry_type = EntryType::File;
        let (mode, uid, gid, size, mtime, device) = (0, 0, 0, 0, 0, (0, 0));
        let header = Header { name: path, entry_type, mode, uid, gid, size, mtime, link_name: b"", device, xattrs: &[] };
        out.push(Head::of(&header)?);
        Ok(())
    }

    /// Writes the header of a file, or of a hard link to `source`.
    fn put(&mut self, path: &[u8], inode: &File, source: Option<&[u8]>, out: &mut Vec<Head>) -> Result<()> {
        self.entries += 1;
        let entry_type = match inode.file_type {
            _ if source.is_some() => EntryType::Link,
            Some(FileType::Directory) => EntryType::Directory,
            Some(FileType::Symlink) => EntryType::Symlink,
            Some(FileType::Fifo) => EntryType::Fifo,
            Some(FileType::CharDevice) => EntryType::CharDevice,
            Some(FileType::BlockDevice) => EntryType::BlockDevice,
            Some(FileType::File | FileType::Socket) | None => EntryType::File,
        };
        let name = if entry_type == EntryType::Directory { &[path, b"/"].concat() } else { path };
        let header = Header {
            name,
            entry_type,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: if entry_type == EntryType::File { inode.size } else { 0 },
            mtime: inode.mtime.0,
            link_name: source.unwrap_or(&inode.target),
            device: inode.device,
            xattrs: &told_xattrs(inode),
        };
        let head = Head::of(&header).map_err(|error| match error {
            Error::Unrepresentable { reason, .. } => unrepresentable(path, reason),
            other => other,
        })?;
        out.push(head);
        Ok(())
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn unrepresentable(path: &[u8], reason: Cause) -> Error {
    use std::os::unix::ffi::OsStrExt;
    Error::Unrepresentable { path: std::ffi::OsStr::from_bytes(path).into(), reason }
}
