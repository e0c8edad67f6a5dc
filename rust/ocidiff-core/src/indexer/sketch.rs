//! The tree that layers make, in the mind: what [`crate::apply`] does to a directory, done to a model of it.
//!
//! Law: what is here after a layer is what a directory has after an apply with owners, on a file system that keeps all that
//! the layer says. Memory is taken for every name, never for contents.

use std::collections::BTreeMap;

use rustix::io::Errno;

use crate::apply::path::{LayerPath, link_error, show};
use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::index::Fingerprint;
use crate::metadata::FileType;
use crate::rules::xattr::{CAPABILITY, Class};
use crate::tar::header::EntryType;
use crate::tar::read::Entry;
use crate::tree::{Lost, XattrPolicy};
use crate::whiteout::{PSEUDO_LINKS, Whiteout, is_pseudo_link};

/// Links in one path, as the kernel counts them.
const MAX_LINKS: usize = 40;
/// Components that the links of one path may bring in all, as in an apply.
const MAX_LINK_STEPS: usize = 2048;
/// The mode of a directory that no layer describes.
const IMPLIED_MODE: u32 = 0o755;
/// What a name, a target and the numbers of Linux can be (linux/limits.h, linux/kdev_t.h).
const MAX_NAME_BYTES: usize = 255;
const MAX_TARGET_BYTES: usize = 4095;
const MAX_ID: i64 = (1 << 32) - 2;
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;

/// Names an inode.
pub type Number = usize;
/// The root, which is never removed.
pub const ROOT: Number = 0;

/// What all names of a file share.
#[derive(Debug, Default)]
pub struct Inode {
    /// What it is; `None` for one that is free.
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
    /// Of a file with content.
    pub content: Option<Box<Fingerprint>>,
    /// Of a symbolic link.
    pub target: Box<[u8]>,
    /// The attributes that can count, none of them empty.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a directory.
    pub children: BTreeMap<Box<[u8]>, Child>,
    links: usize,
    /// The last layer of which is known that nothing of those before is left below this directory. It keeps repeated
    /// whiteouts from looking again.
    settled: usize,
}

/// What a name in a directory leads to.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    /// Its inode.
    pub number: Number,
    /// The layer that wrote it.
    layer: usize,
}

/// The tree so far.
#[derive(Debug)]
pub struct Sketch {
    inodes: Vec<Inode>,
    free: Vec<Number>,
    layer: usize,
    /// The directory of files that this layer keeps aside is there.
    has_aside: bool,
    lost: Lost,
}

impl Sketch {
    /// An empty tree.
    pub fn new() -> Self {
        let root = Inode { file_type: Some(FileType::Directory), mode: IMPLIED_MODE, links: 1, ..Inode::default() };
        Self { inodes: vec![root], free: Vec::new(), layer: 0, has_aside: false, lost: Lost::default() }
    }

    /// Attributes of entries that no index has.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// An inode.
    pub fn inode(&self, number: Number) -> &Inode {
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

    /// Does what `entry` says. Returns the file, if it made one, for [`Sketch::set_content`].
    ///
    /// # Errors
    /// Those of an apply that come from the entry.
    pub fn apply(&mut self, entry: &Entry, path: &LayerPath) -> Result<Option<Number>> {
        if path.is_root() {
            return match entry.entry_type {
                // An index says nothing of the root itself.
                EntryType::Directory => check_owner(entry, path).map(|()| None),
                _ => Err(path.unsafe_entry(Cause::RootIsNoDirectory)),
            };
        }
        let (parent, name) = path.split();
        let is_meta = |name| matches!(Whiteout::parse(name, entry.offset), Ok(Some(Whiteout::Meta)));
        let whiteout = match path.components().any(is_meta) {
            true if self.is_kept_aside(entry, path) => None,
            true => return Ok(None),
            false => Whiteout::parse(name, entry.offset)?,
        };
        // A whiteout makes no directory.
        let Some(parent) = self.resolve(parent, whiteout.is_none())? else { return Ok(None) };
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

    /// Returns true if an entry of AUFS is kept for hard links. A directory of its name that was there before is none of ours.
    fn is_kept_aside(&mut self, entry: &Entry, path: &LayerPath) -> bool {
        let is_kept = entry.entry_type == EntryType::File && is_pseudo_link(path.as_bytes());
        if is_kept && !self.has_aside {
            self.has_aside = !self.inodes[ROOT].children.contains_key(PSEUDO_LINKS);
        }
        is_kept && self.has_aside
    }

    /// Notes the hashes of a file that is not empty.
    pub fn set_content(&mut self, number: Number, content: Fingerprint) {
        self.inodes[number].content = Some(Box::new(content));
    }

    /// Removes what lower layers have under a name.
    fn hide(&mut self, parent: Number, name: &[u8]) {
        let Some(&child) = self.inodes[parent].children.get(name) else { return };
        if self.is_directory(child.number) {
            self.prune(child.number);
        }
        if child.layer < self.layer && self.inodes[child.number].children.is_empty() {
            self.remove(parent, name);
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
                todo.extend(std::mem::take(inode).children.into_values().map(|child| child.number));
                self.free.push(number);
            }
        }
    }

    fn create(&mut self, entry: &Entry, path: &LayerPath, parent: Number, name: &[u8]) -> Result<Number> {
        check_owner(entry, path)?;
        check_name(path, name)?;
        let there = self.inodes[parent].children.get(name).copied();
        let (number, is_new) = match entry.entry_type {
            EntryType::Directory => match there.filter(|child| self.is_directory(child.number)) {
                Some(child) => (child.number, true),
                None => (self.replace(parent, name, FileType::Directory), true),
            },
            EntryType::Link => (self.link(entry, path, parent, name)?, false),
            EntryType::File => (self.replace(parent, name, FileType::File), true),
            EntryType::Symlink => {
                let failed = |errno| Err(Error::io("symlink", path.as_path(), errno));
                match entry.link_name.len() {
                    0 => return failed(Errno::NOENT),
                    length if length > MAX_TARGET_BYTES => return failed(Errno::NAMETOOLONG),
                    _ => (self.replace(parent, name, FileType::Symlink), true),
                }
            }
            EntryType::Fifo => (self.replace(parent, name, FileType::Fifo), true),
            EntryType::CharDevice | EntryType::BlockDevice => {
                let kind = device_type(entry, path)?;
                (self.replace(parent, name, kind), true)
            }
        };
        self.inodes[parent].children.insert(name.into(), Child { number, layer: self.layer });
        let inode = &mut self.inodes[number];
        match entry.entry_type {
            EntryType::File => inode.size = entry.size,
            EntryType::Symlink => {
                (inode.size, inode.target) = (entry.link_name.len() as u64, entry.link_name.clone().into());
                inode.mode = 0o777;
            }
            EntryType::CharDevice | EntryType::BlockDevice => {
                inode.device = (entry.device.0 as u32, entry.device.1 as u32);
            }
            _ => {}
        }
        // A file that was kept aside says itself what it is.
        if entry.entry_type != EntryType::Link || !is_pseudo_link(LayerPath::clean(&entry.link_name).as_bytes()) {
            inode.describe(entry, is_new, &mut self.lost);
        }
        Ok(number)
    }

    /// A new inode in place of what is there. Its name is not in the directory yet.
    fn replace(&mut self, parent: Number, name: &[u8], file_type: FileType) -> Number {
        self.remove(parent, name);
        let inode = Inode { file_type: Some(file_type), links: 1, settled: self.layer, ..Inode::default() };
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

    /// The inode that a hard link leads to, with one name more.
    fn link(&mut self, entry: &Entry, path: &LayerPath, parent: Number, name: &[u8]) -> Result<Number> {
        let target = LayerPath::clean(&entry.link_name);
        let malformed = |cause: Cause| link_error(entry, path, &target, cause);
        if target.is_root() {
            return Err(malformed(Cause::TargetIsDirectory));
        }
        let (target_parent, target_name) = target.split();
        let missing = || malformed(Cause::TargetIsMissing);
        let target_parent = self.resolve(target_parent, false)?.ok_or_else(missing)?;
        let find = |sketch: &Self| sketch.inodes.get(target_parent)?.children.get(target_name).map(|child| child.number);
        let number = find(self).ok_or_else(missing)?;
        if self.is_directory(number) {
            return Err(malformed(Cause::TargetIsDirectory));
        }
        if (target_parent, target_name) == (parent, name) {
            return Err(malformed(Cause::TargetIsSameName));
        }
        self.remove(parent, name);
        // It may have been below what it replaces.
        if find(self) != Some(number) {
            return Err(Error::io("link", path.as_path(), Errno::NOENT));
        }
        self.inodes[number].links += 1;
        Ok(number)
    }

    /// The directory at `path`; with `create`, what is missing is made, and what is no directory replaced. Links are followed
    /// as if the root were `/`.
    fn resolve(&mut self, path: &[u8], create: bool) -> Result<Option<Number>> {
        let mut pending = components(path);
        let mut above: Vec<Number> = Vec::new();
        let mut here = ROOT;
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = pending.pop() {
            if name == b".." {
                here = above.pop().unwrap_or(ROOT);
                continue;
            }
            let there = self.inodes[here].children.get(name.as_slice()).map(|child| child.number);
            let next = match there {
                Some(number) if self.is_directory(number) => number,
                Some(number) if self.inodes[number].file_type == Some(FileType::Symlink) => {
                    let target = &self.inodes[number].target;
                    let mut target_parts = components(target);
                    links += 1;
                    steps += target_parts.len();
                    if links > MAX_LINKS || steps > MAX_LINK_STEPS {
                        let reason = Cause::TooManyLinks;
                        return Err(Error::UnsafeEntry { path: show(path).into(), reason });
                    }
                    if target.starts_with(b"/") {
                        here = ROOT;
                        above.clear();
                    }
                    pending.append(&mut target_parts);
                    continue;
                }
                _ => {
                    check_name(&LayerPath::clean(path), &name)?;
                    if !create {
                        return Ok(None);
                    }
                    let made = self.replace(here, &name, FileType::Directory);
                    self.inodes[made].mode = IMPLIED_MODE;
                    self.inodes[here].children.insert(name.into(), Child { number: made, layer: self.layer });
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

impl Inode {
    /// Takes owner, attributes, mode and time of an entry. One that made this, or merges with it, says all of it; a link may
    /// leave out attributes.
    fn describe(&mut self, entry: &Entry, says_all: bool, lost: &mut Lost) {
        let is_directory = self.file_type == Some(FileType::Directory);
        let owner = (entry.uid as u32, entry.gid as u32);
        if says_all {
            self.xattrs.clear();
        } else if (self.uid, self.gid) != owner {
            // A new owner clears it.
            self.xattrs.remove(CAPABILITY.to_bytes());
        }
        (self.uid, self.gid) = owner;
        for (name, value) in &entry.xattrs {
            let class = Class::of(name);
            let fits = self.file_type.is_some_and(|file_type| class.fits(file_type));
            if !fits || !class.is_stored(XattrPolicy::Portable) {
                lost.count(name);
                continue;
            }
            match value.is_empty() {
                true => self.xattrs.remove(name),
                false => self.xattrs.insert(name.clone(), value.clone()),
            };
        }
        if self.file_type != Some(FileType::Symlink) {
            self.mode = entry.mode;
        }
        if !is_directory {
            self.mtime = (entry.mtime.seconds, entry.mtime.nanoseconds);
        }
    }
}

fn check_owner(entry: &Entry, path: &LayerPath) -> Result<()> {
    let ids = 0..=MAX_ID;
    if ids.contains(&entry.uid) && ids.contains(&entry.gid) {
        return Ok(());
    }
    Err(path.unsafe_entry(Cause::OwnerOutOfRange { uid: entry.uid, gid: entry.gid }))
}

fn check_name(path: &LayerPath, name: &[u8]) -> Result<()> {
    match name.len() {
        0..=MAX_NAME_BYTES => Ok(()),
        _ => Err(Error::io("create", path.as_path(), Errno::NAMETOOLONG)),
    }
}

fn device_type(entry: &Entry, path: &LayerPath) -> Result<FileType> {
    let (major, minor) = entry.device;
    let refused = |reason: Cause| Err(Error::UnsafeEntry { path: path.as_path().into(), reason });
    if !(0..=MAX_MAJOR).contains(&major) || !(0..=MAX_MINOR).contains(&minor) {
        return refused(Cause::DeviceOutOfRange { major, minor });
    }
    match entry.entry_type {
        EntryType::CharDevice if (major, minor) == (0, 0) => refused(Cause::WhiteoutDevice),
        EntryType::CharDevice => Ok(FileType::CharDevice),
        _ => Ok(FileType::BlockDevice),
    }
}

/// The components of a path, the last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|&byte| byte == b'/').filter(|part| !matches!(part, &b"" | &b".")).map(<[u8]>::to_vec).collect()
}
