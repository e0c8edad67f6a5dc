//! Applies the entries of layers to a model of a directory, in memory.
//!
//! Law: after a layer, the model is what a directory is after an apply with owners, on a file system that keeps all that the
//! layer says. Memory is taken for every name, never for contents.
//!
//! Below the layers may be a base that is not known. Then the model also says what the layers hide of it (names, and all that
//! directories had), and which directories the layers describe.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rustix::io::Errno;

use super::path::{LayerPath, Way};
use super::plan::{Action, IMPLIED_MODE, Kind, Link, Object, plan};
use crate::cause::{Cause, escaped};
use crate::error::{Error, Result};
use crate::metadata::FileType;
use crate::rules::linux::MAX_NAME_BYTES;
use crate::rules::xattr::{CAPABILITY, Class};
use crate::tar::header::EntryType;
use crate::tar::read::TarEntry;
use crate::tree::{Lost, XattrPolicy};
use crate::whiteout::{PSEUDO_LINKS, Whiteout};

/// The longest target of a symbolic link is one byte shorter than a path (linux/limits.h).
const MAX_TARGET_BYTES: usize = 4095;

/// Names an inode.
pub type Number = usize;
/// The root, which is never removed.
pub const ROOT: Number = 0;

/// An inode: everything that all names of a file share. `C` is what the caller keeps of the content of a file.
#[derive(Debug)]
pub struct Inode<C> {
    /// The kind; `None` for an inode that is free.
    pub file_type: Option<FileType>,
    /// The low 12 bits of the mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content, or of a target.
    pub size: u64,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Number of a device.
    pub device: (u32, u32),
    /// The content of a file that is not empty.
    pub content: Option<C>,
    /// The target of a symbolic link.
    pub target: Box<[u8]>,
    /// The attributes that can count; see [`Purpose`].
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The names in a directory.
    pub children: BTreeMap<Box<[u8]>, Child>,
    /// The number of names.
    pub links: usize,
    /// False for a directory that is as the base has it.
    pub is_described: bool,
    /// True for a directory that shows nothing of the base.
    pub is_opaque: bool,
    /// The last layer of which is known that nothing of those before is left below this directory. It keeps repeated
    /// whiteouts from looking again.
    settled: usize,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    /// Its inode.
    pub number: Number,
    /// The layer that wrote it.
    layer: usize,
}

/// The purpose of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An index, which says nothing of the root, and has the attributes that layers of the profile `oci` have, unless empty.
    Index,
    /// A layer, which has all that an apply sets.
    Layer {
        /// There is a base below the layers.
        onto_base: bool,
    },
}

/// Says what becomes of a missing directory on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is made.
    Made,
    /// The base may have it. If not, the way ends.
    OfBase,
    /// The way ends.
    End,
}

/// The tree so far.
#[derive(Debug)]
pub struct Model<C> {
    inodes: Vec<Inode<C>>,
    free: Vec<Number>,
    purpose: Purpose,
    /// The names in directories of the base that are gone.
    hidden: HashMap<Number, BTreeSet<Box<[u8]>>>,
    layer: usize,
    /// The directory of files that this layer keeps aside is there.
    has_aside: bool,
    lost: Lost,
}

impl<C> Model<C> {
    /// Returns an empty tree, or one on a base that is not known.
    pub fn new(purpose: Purpose) -> Self {
        let mut root = Inode { file_type: Some(FileType::Directory), mode: IMPLIED_MODE, links: 1, ..Inode::default() };
        root.is_opaque = purpose != Purpose::Layer { onto_base: true };
        let (inodes, hidden) = (vec![root], HashMap::new());
        Self { inodes, free: Vec::new(), purpose, hidden, layer: 0, has_aside: false, lost: Lost::default() }
    }

    /// Returns the names in a directory of the base that are gone, in order.
    pub fn hidden(&self, directory: Number) -> impl Iterator<Item = &[u8]> {
        self.hidden.get(&directory).into_iter().flatten().map(|name| &**name)
    }

    /// Attributes of entries that are left out.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Returns an inode.
    pub fn inode(&self, number: Number) -> &Inode<C> {
        &self.inodes[number]
    }

    /// Begins the next layer: what is there now is what its whiteouts remove.
    pub fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Ends a layer: removes what it kept aside for hard links.
    pub fn end_layer(&mut self) {
        if std::mem::take(&mut self.has_aside) {
            self.remove(ROOT, PSEUDO_LINKS);
        }
    }

    /// Does what `entry` says. Returns the file, if it made one, for [`Model::set_content`].
    ///
    /// # Errors
    /// Those of an apply that come from the entry.
    pub fn apply(&mut self, entry: &TarEntry, path: &LayerPath) -> Result<Option<Number>> {
        let whiteout = match plan(entry, path)? {
            Action::DescribeRoot => {
                let object = Object::of(entry, path)?;
                if self.purpose != Purpose::Index {
                    self.inodes[ROOT].describe(entry, object.owner, true, self.purpose, &mut self.lost);
                }
                return Ok(None);
            }
            Action::LeaveOut => return Ok(None),
            Action::KeepAside if !self.keeps_aside() => return Ok(None),
            Action::KeepAside | Action::Make => None,
            Action::Hide(whiteout) => Some(whiteout),
        };
        let (parent, name) = path.split();
        let missing = if whiteout.is_none() { Missing::Made } else { Missing::OfBase };
        // A whiteout makes no directory.
        let Some(parent) = self.resolve(parent, missing)? else { return Ok(None) };
        match whiteout {
            Some(Whiteout::Removal(hidden)) => {
                check_name(path, hidden)?;
                self.hide(parent, hidden);
            }
            Some(_) => self.prune(parent),
            None => {
                let number = self.create(entry, path, parent, name)?;
                return Ok((entry.entry_type == EntryType::File).then_some(number));
            }
        }
        Ok(None)
    }

    /// Returns true if files are kept for hard links. A directory of their name that existed before is left alone.
    fn keeps_aside(&mut self) -> bool {
        self.has_aside = self.has_aside || !self.inodes[ROOT].children.contains_key(PSEUDO_LINKS);
        self.has_aside
    }

    /// Notes the content of a file that is not empty.
    pub fn set_content(&mut self, number: Number, content: C) {
        self.inodes[number].content = Some(content);
    }

    /// Removes what lower layers have under a name.
    fn hide(&mut self, parent: Number, name: &[u8]) {
        if let Some(&child) = self.inodes[parent].children.get(name) {
            if self.is_directory(child.number) {
                self.prune(child.number);
            }
            if child.layer == self.layer || !self.inodes[child.number].children.is_empty() {
                return;
            }
            self.remove(parent, name);
        }
        if !self.inodes[parent].is_opaque {
            self.hidden.entry(parent).or_default().insert(name.into());
        }
    }

    /// Removes all that lower layers have below a directory, but the directories that still hold something.
    fn prune(&mut self, top: Number) {
        let mut all = Vec::new();
        let mut next = vec![top];
        while let Some(directory) = next.pop() {
            if std::mem::replace(&mut self.inodes[directory].settled, self.layer) == self.layer {
                continue;
            }
            self.inodes[directory].is_opaque = true;
            self.hidden.remove(&directory);
            all.push(directory);
            let children = self.inodes[directory].children.values().map(|child| child.number);
            next.extend(children.filter(|&number| self.is_directory(number)));
        }
        // Each after those in it.
        for directory in all.into_iter().rev() {
            let children = &self.inodes[directory].children;
            let goes = |child: &Child| child.layer < self.layer && self.inodes[child.number].children.is_empty();
            let gone: Vec<_> = children.iter().filter(|(_, child)| goes(child)).map(|(name, _)| name.clone()).collect();
            gone.iter().for_each(|name| self.remove(directory, name));
        }
    }

    /// Removes a name with all below it, whoever wrote it.
    fn remove(&mut self, parent: Number, name: &[u8]) {
        let mut todo: Vec<_> = self.inodes[parent].children.remove(name).map(|child| child.number).into_iter().collect();
        while let Some(number) = todo.pop() {
            let inode = &mut self.inodes[number];
            inode.links -= 1;
            if inode.links == 0 {
                self.hidden.remove(&number);
                todo.extend(std::mem::take(inode).children.into_values().map(|child| child.number));
                self.free.push(number);
            }
        }
    }

    fn create(&mut self, entry: &TarEntry, path: &LayerPath, parent: Number, name: &[u8]) -> Result<Number> {
        let object = Object::of(entry, path)?;
        check_name(path, name)?;
        let there = self.inodes[parent].children.get(name).copied();
        let number = match &object.kind {
            Kind::Directory => match there.filter(|child| self.is_directory(child.number)) {
                Some(child) => child.number,
                None => self.replace(parent, name, FileType::Directory),
            },
            Kind::Link(link) => self.link(entry, path, link, parent, name)?,
            Kind::File => self.replace(parent, name, FileType::File),
            Kind::Symlink => {
                check_target(entry, path)?;
                self.replace(parent, name, FileType::Symlink)
            }
            Kind::Fifo => self.replace(parent, name, FileType::Fifo),
            Kind::Device(kind, _) => self.replace(parent, name, *kind),
        };
        self.put(parent, name, number, self.layer);
        let inode = &mut self.inodes[number];
        match &object.kind {
            Kind::File => inode.size = entry.size,
            Kind::Symlink => {
                (inode.size, inode.target) = (entry.link_name.len() as u64, entry.link_name.clone().into());
                inode.mode = 0o777;
            }
            Kind::Device(_, device) => inode.device = *device,
            Kind::Directory | Kind::Fifo | Kind::Link(_) => {}
        }
        match &object.kind {
            Kind::Link(link) if !link.describes => {}
            kind => {
                inode.describe(entry, object.owner, !matches!(kind, Kind::Link(_)), self.purpose, &mut self.lost);
            }
        }
        Ok(number)
    }

    fn put(&mut self, parent: Number, name: &[u8], number: Number, layer: usize) {
        self.inodes[parent].children.insert(name.into(), Child { number, layer });
        if let Some(hidden) = self.hidden.get_mut(&parent) {
            hidden.remove(name);
        }
    }

    /// Returns true if a directory that is made there merges with none of the base.
    fn is_new(&self, parent: Number, name: &[u8]) -> bool {
        let directory = &self.inodes[parent];
        let is_hidden = || self.hidden.get(&parent).is_some_and(|hidden| hidden.contains(name));
        directory.is_opaque || directory.children.contains_key(name) || is_hidden()
    }

    /// Returns a new inode in place of what is there. Its name is not in the directory yet.
    fn replace(&mut self, parent: Number, name: &[u8], file_type: FileType) -> Number {
        let is_new = self.is_new(parent, name);
        self.remove(parent, name);
        let mut inode = Inode { file_type: Some(file_type), links: 1, ..Inode::default() };
        if file_type == FileType::Directory {
            (inode.is_described, inode.is_opaque, inode.mode) = (is_new, is_new, IMPLIED_MODE);
            inode.settled = if is_new { self.layer } else { 0 };
        }
        match self.free.pop() {
            Some(number) => {
                self.inodes[number] = inode;
                number
            }
            None => {
                self.inodes.push(inode);
                self.inodes.len() - 1
            }
        }
    }

    /// Returns the inode that a hard link leads to, with one name more.
    fn link(&mut self, entry: &TarEntry, path: &LayerPath, link: &Link, parent: Number, name: &[u8]) -> Result<Number> {
        let (target_parent, target_name) = link.target.split();
        let target_parent = self.resolve(target_parent, Missing::End)?;
        let find = |model: &Self| model.inodes.get(target_parent?)?.children.get(target_name).map(|child| child.number);
        let there = find(self);
        let is_directory = there.map(|number| self.is_directory(number));
        if there.is_none() && self.purpose == (Purpose::Layer { onto_base: true }) {
            let target = escaped(link.target.as_bytes());
            return Err(Error::Unsupported { path: path.as_path().into(), reason: Cause::TargetBelow { target } });
        }
        link.check(entry, path, is_directory, (target_parent, target_name) == (Some(parent), name))?;
        let number = there.unwrap_or(ROOT);
        self.remove(parent, name);
        // It may have been below what it replaces.
        if find(self) != Some(number) {
            return Err(Error::io("link", path.as_path(), Errno::NOENT));
        }
        self.inodes[number].links += 1;
        Ok(number)
    }

    /// Returns the directory at `path`. Links are followed as if the root were `/`. Where directories are made, what is
    /// none is replaced.
    fn resolve(&mut self, path: &[u8], missing: Missing) -> Result<Option<Number>> {
        let mut way = Way::new(path);
        let mut above: Vec<Number> = Vec::new();
        let mut here = ROOT;
        while let Some(name) = way.next() {
            if name == b".." {
                here = above.pop().unwrap_or(ROOT);
                continue;
            }
            let there = self.inodes[here].children.get(name.as_slice()).map(|child| child.number);
            let next = match there {
                Some(number) if self.is_directory(number) => number,
                Some(number) if self.inodes[number].file_type == Some(FileType::Symlink) => {
                    if way.follow(&self.inodes[number].target)? {
                        here = ROOT;
                        above.clear();
                    }
                    continue;
                }
                _ => {
                    check_name(&LayerPath::clean(path), &name)?;
                    let layer = match missing {
                        Missing::Made => self.layer,
                        Missing::OfBase if !self.is_new(here, &name) => 0,
                        Missing::OfBase | Missing::End => return Ok(None),
                    };
                    let made = self.replace(here, &name, FileType::Directory);
                    self.put(here, &name, made, layer);
                    made
                }
            };
            above.push(here);
            here = next;
        }
        Ok(Some(here))
    }

    fn is_directory(&self, number: Number) -> bool {
        self.inodes[number].file_type == Some(FileType::Directory)
    }
}

impl<C> Default for Inode<C> {
    fn default() -> Self {
        Self {
            file_type: None,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            device: (0, 0),
            content: None,
            target: Box::default(),
            xattrs: BTreeMap::new(),
            children: BTreeMap::new(),
            links: 0,
            is_described: false,
            is_opaque: false,
            settled: 0,
        }
    }
}

impl<C> Inode<C> {
    /// Takes owner, attributes, mode and time of an entry. One that made this, or merges with it, says all of it; a link may
    /// leave out attributes.
    fn describe(&mut self, entry: &TarEntry, owner: (u32, u32), says_all: bool, purpose: Purpose, lost: &mut Lost) {
        self.is_described = true;
        if says_all {
            // A directory keeps those that no layer has.
            self.xattrs.retain(|name, _| !Class::of(name).is_stored(XattrPolicy::Portable));
        } else if (self.uid, self.gid) != owner {
            // A new owner clears it.
            self.xattrs.remove(CAPABILITY.to_bytes());
        }
        (self.uid, self.gid) = owner;
        for (name, value) in &entry.xattrs {
            let class = Class::of(name);
            let fits = self.file_type.is_some_and(|file_type| class.fits(file_type));
            let is_kept = match purpose {
                Purpose::Index => class.is_stored(XattrPolicy::Portable),
                Purpose::Layer { .. } => class.is_accepted,
            };
            if !fits || !is_kept {
                lost.count(name);
                continue;
            }
            match value.is_empty() && purpose == Purpose::Index {
                true => self.xattrs.remove(name),
                false => self.xattrs.insert(name.clone(), value.clone()),
            };
        }
        if self.file_type != Some(FileType::Symlink) {
            self.mode = entry.mode;
        }
        self.mtime = (entry.mtime.seconds, entry.mtime.nanoseconds);
    }
}

fn check_name(path: &LayerPath, name: &[u8]) -> Result<()> {
    match name.len() {
        0..=MAX_NAME_BYTES => Ok(()),
        _ => Err(Error::io("create", path.as_path(), Errno::NAMETOOLONG)),
    }
}

fn check_target(entry: &TarEntry, path: &LayerPath) -> Result<()> {
    let errno = match entry.link_name.len() {
        0 => Errno::NOENT,
        1..=MAX_TARGET_BYTES => return Ok(()),
        _ => Errno::NAMETOOLONG,
    };
    Err(Error::io("symlink", path.as_path(), errno))
}
