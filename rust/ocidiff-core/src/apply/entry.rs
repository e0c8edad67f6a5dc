//! What each entry of a layer does to the root. Spec: image-spec layer.md, "Applying Changesets".

use std::collections::HashSet;
use std::io::BufRead;
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, linkat, makedev, mknodat, openat, statat, symlinkat};
use rustix::io::{Errno, retry_on_intr, write};
use rustix::process::{getegid, geteuid};

use super::attributes::{Node, is_of_the_host, mode_of, times_of};
use super::directories::Directories;
use super::handle::{Directory, OWNER_ALL};
use super::path::LayerPath;
use super::removal::{Failure, Remover};
use super::root::Root;
use super::written::Written;
use super::{ApplyOptions, Skipped};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tar::header::EntryType;
use crate::tar::read::{Entry, Reader};
use crate::whiteout::Whiteout;

/// The largest id; the next one means "leave it" to chown.
const MAX_ID: i64 = (1 << 32) - 2;
/// What a device number of Linux can hold; more would be cut silently.
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;
/// The mode of a file until all of its attributes are set.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Applies entries in stream order.
pub(super) struct Applier<'a> {
    root: Root,
    options: &'a ApplyOptions,
    control: &'a Control,
    /// Who owns what we make.
    identity: (u32, u32),
    written: Written,
    directories: Directories,
    /// Paths of devices that could not be made, whose hard links cannot be either.
    left_out: HashSet<Vec<u8>>,
    pub entries: u64,
    pub whiteouts: u64,
    pub skipped: Skipped,
}

/// Where an entry goes.
struct Place<'a> {
    parent: Rc<Directory>,
    name: &'a [u8],
    path: &'a LayerPath,
}

impl<'a> Applier<'a> {
    /// Begins to write onto `root`.
    pub fn new(root: Root, options: &'a ApplyOptions, control: &'a Control) -> Self {
        Self {
            root,
            options,
            control,
            identity: (geteuid().as_raw(), getegid().as_raw()),
            written: Written::default(),
            directories: Directories::default(),
            left_out: HashSet::new(),
            entries: 0,
            whiteouts: 0,
            skipped: Skipped::default(),
        }
    }

    /// Does what `entry` says; its data comes from `tar`.
    pub fn apply(&mut self, entry: &Entry, tar: &mut Reader<impl BufRead>) -> Result<()> {
        self.control.check()?;
        self.entries += 1;
        self.control.add_entries(1);
        let path = LayerPath::clean(&entry.name);
        self.options.limits.check(entry, &path, self.entries)?;
        if path.is_root() {
            return match entry.entry_type {
                // The root's own attributes belong to whoever made it.
                EntryType::Directory => Ok(()),
                _ => Err(Error::UnsafeEntry { path: "/".into(), reason: "the root can only be a directory".into() }),
            };
        }
        let (parent, name) = path.split();
        let is_meta = |name| matches!(Whiteout::parse(name, entry.offset), Ok(Some(Whiteout::Meta)));
        if path.components().any(is_meta) {
            self.skipped.aufs += 1;
            return Ok(());
        }
        let whiteout = Whiteout::parse(name, entry.offset)?;
        let parent = self.root.directory(parent, &mut self.written)?;
        for granted in self.root.take_granted() {
            self.directories.restore(granted);
        }
        let place = Place { parent, name, path: &path };
        match whiteout {
            None => self.create(entry, &place, tar),
            Some(whiteout) => self.hide(whiteout, &place),
        }
    }

    /// Gives the directories their final attributes.
    pub fn finish(&mut self) -> Result<()> {
        std::mem::take(&mut self.directories).finish(&mut self.root, self.control)
    }

    /// Removes what lower layers left. What kind of entry names it, and with what content, does not matter.
    fn hide(&mut self, whiteout: Whiteout<'_>, place: &Place<'_>) -> Result<()> {
        self.whiteouts += 1;
        let mut remover = Remover { control: self.control, spare: Some(&mut self.written) };
        let done = match whiteout {
            Whiteout::Removal(name) => remover.remove(&place.parent, name),
            _ => place.parent.open(b".").map_err(Failure::from).and_then(|all| remover.empty(all).map(drop)),
        };
        done.map_err(|failure| self.failed_removal(failure, place))
    }

    fn create(&mut self, entry: &Entry, place: &Place<'_>, tar: &mut Reader<impl BufRead>) -> Result<()> {
        let (uid, gid) = self.owner(entry, place)?;
        if !self.left_out.is_empty() {
            self.left_out.remove(place.path.as_bytes());
        }
        let node = Node { parent: &place.parent, name: place.name, fd: None, file_type: FileType::Symlink, before: None };
        match entry.entry_type {
            EntryType::Directory => {
                let (made, before) = self.make_directory(place)?;
                let fd = Some(made.as_fd());
                self.describe(entry, place, Node { fd, file_type: FileType::Directory, before, ..node }, (uid, gid))?;
            }
            EntryType::File => {
                let file = self.replacing("create", place, |parent, name| {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(parent, name, flags, PRIVATE)
                })?;
                tar.read_data(|mut data| {
                    while !data.is_empty() {
                        self.control.check()?;
                        let count = retry_on_intr(|| write(&file, data)).map_err(self.failed("write", place))?;
                        data = &data[count..];
                    }
                    Ok(())
                })?;
                let fd = Some(file.as_fd());
                self.describe(entry, place, Node { fd, file_type: FileType::RegularFile, ..node }, (uid, gid))?;
            }
            EntryType::Symlink => {
                self.replacing("symlink", place, |parent, name| symlinkat(entry.link_name.as_slice(), parent, name))?;
                self.describe(entry, place, node, (uid, gid))?;
            }
            EntryType::Link => {
                let Some(before) = self.link(entry, place)? else { return Ok(()) };
                let file_type = FileType::from_raw_mode(before.st_mode);
                self.describe(entry, place, Node { file_type, before: Some(before), ..node }, (uid, gid))?;
            }
            EntryType::Fifo | EntryType::CharDevice | EntryType::BlockDevice => {
                let Some(file_type) = self.make_node(entry, place)? else { return Ok(()) };
                self.describe(entry, place, Node { file_type, ..node }, (uid, gid))?;
            }
        }
        self.written.add(place.parent.key(), place.name);
        Ok(())
    }

    /// The directory, and what it was if it was one before.
    fn make_directory(&mut self, place: &Place<'_>) -> Result<(Directory, Option<Stat>)> {
        let make = || place.parent.make(place.name);
        let made = match make() {
            Err(Errno::EXIST) => match place.parent.open(place.name) {
                Ok(there) => {
                    let before = fstat(&there).map_err(self.failed("stat", place))?;
                    return Ok((there, Some(before)));
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.remove(place)?;
                    make()
                }
                other => other,
            },
            other => other,
        };
        let made = made.map_err(self.failed("mkdir", place))?;
        self.written.settle(made.key());
        Ok((made, None))
    }

    /// Makes the link, and tells what its inode was before; `None` when its target was left out.
    fn link(&mut self, entry: &Entry, place: &Place<'_>) -> Result<Option<Stat>> {
        let target = LayerPath::clean(&entry.link_name);
        let names = format!("hard link {} to {}", place.path.as_path().display(), target.as_path().display());
        let malformed = |what: &str| {
            Err(Error::MalformedLayer { offset: entry.offset, reason: format!("{}: {what}", names.escape_debug()) })
        };
        let (parent, name) = target.split();
        if target.is_root() {
            return malformed("it is a directory");
        }
        let missing = "it does not exist";
        let Some(parent) = self.root.find(parent)? else { return malformed(missing) };
        let there = match statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => there,
            Err(Errno::NOENT) if self.left_out.contains(target.as_bytes()) => {
                self.leave_out(place);
                return Ok(None);
            }
            Err(Errno::NOENT) => return malformed(missing),
            Err(errno) => return Err(self.failed("stat", place)(errno)),
        };
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return malformed("it is a directory");
        }
        if parent.key() == place.parent.key() && name == place.name {
            return malformed("it is the same name");
        }
        self.replacing("link", place, |new_parent, new_name| {
            linkat(&*parent, name, new_parent, new_name, AtFlags::empty())
        })?;
        Ok(Some(there))
    }

    /// Makes a FIFO or device; `None` when it was left out.
    fn make_node(&mut self, entry: &Entry, place: &Place<'_>) -> Result<Option<FileType>> {
        let (major, minor) = entry.device;
        let file_type = match entry.entry_type {
            EntryType::CharDevice => FileType::CharacterDevice,
            EntryType::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let is_device = file_type != FileType::Fifo;
        if is_device && !((0..=MAX_MAJOR).contains(&major) && (0..=MAX_MINOR).contains(&minor)) {
            return Err(place.unsafe_entry(format!("device number {major}:{minor} is out of range")));
        }
        if file_type == FileType::CharacterDevice && (major, minor) == (0, 0) {
            return Err(place.unsafe_entry("character device 0:0 is a whiteout of overlayfs".into()));
        }
        let device = if is_device { makedev(major as u32, minor as u32) } else { 0 };
        let mut refused = false;
        self.replacing("mknod", place, |parent, name| match mknodat(parent, name, file_type, PRIVATE, device) {
            Err(Errno::PERM) if is_device && !self.options.same_owner => {
                refused = true;
                Ok(())
            }
            other => other,
        })?;
        if refused {
            self.leave_out(place);
            return Ok(None);
        }
        Ok(Some(file_type))
    }

    fn leave_out(&mut self, place: &Place<'_>) {
        self.skipped.devices += 1;
        self.left_out.insert(place.path.as_bytes().to_vec());
    }

    /// Makes an object, in place of what is there.
    fn replacing<T>(
        &self,
        op: &'static str,
        place: &Place<'_>,
        mut make: impl FnMut(&Directory, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let made = match make(&place.parent, place.name) {
            Err(Errno::EXIST) => {
                self.remove(place)?;
                make(&place.parent, place.name)
            }
            other => other,
        };
        made.map_err(self.failed(op, place))
    }

    /// Removes what is there, whoever made it.
    fn remove(&self, place: &Place<'_>) -> Result<()> {
        let mut remover = Remover { control: self.control, spare: None };
        remover.remove(&place.parent, place.name).map_err(|failure| self.failed_removal(failure, place))
    }

    /// Sets all attributes of an object.
    fn describe(&mut self, entry: &Entry, place: &Place<'_>, node: Node<'_>, (uid, gid): (u32, u32)) -> Result<()> {
        let owner_kept = self.options.same_owner || (uid, gid) == self.identity;
        if self.options.same_owner {
            node.set_owner(uid, gid).map_err(self.failed("chown", place))?;
        } else if !owner_kept {
            self.skipped.owners += 1;
        }
        node.remove_other_xattrs(entry).map_err(self.failed("remove xattr of", place))?;
        for (name, value) in &entry.xattrs {
            if is_of_the_host(name) {
                self.skipped.xattrs += 1;
            } else if let Err(errno) = node.set_xattr(name, value) {
                self.without_xattr(place, &node, name, errno)?;
            }
        }
        let (mode, times) = (mode_of(entry, owner_kept), times_of(entry));
        if node.file_type != FileType::Directory {
            node.set_mode(mode).map_err(self.failed("chmod", place))?;
            return node.set_times(&times).map_err(self.failed("set times of", place));
        }
        // Its times change with everything that is made in it, and its mode could forbid that.
        node.set_mode(mode | OWNER_ALL).map_err(self.failed("chmod", place))?;
        let key = node.fd.map_or(Err(Errno::BADF), fstat).map_err(self.failed("stat", place))?;
        let later = (mode & OWNER_ALL != OWNER_ALL).then_some(mode);
        self.directories.describe(place.path.as_bytes(), (key.st_dev, key.st_ino), times, later);
        Ok(())
    }

    /// Counts an attribute that could not be set, where that is allowed.
    fn without_xattr(&mut self, place: &Place<'_>, node: &Node<'_>, name: &[u8], errno: Errno) -> Result<()> {
        let has_user_xattrs = matches!(node.file_type, FileType::RegularFile | FileType::Directory);
        match errno {
            Errno::OPNOTSUPP => {}
            Errno::PERM if name.starts_with(b"user.") && !has_user_xattrs => {}
            Errno::PERM if name.starts_with(b"security.") && !self.options.same_owner => {}
            // What the kernel says of the attribute itself, not of the file.
            Errno::INVAL | Errno::RANGE | Errno::TOOBIG => {
                return Err(place.unsafe_entry(format!("xattr {}: {errno}", name.escape_ascii())));
            }
            _ => return Err(self.failed("set xattr of", place)(errno)),
        }
        self.skipped.xattrs += 1;
        Ok(())
    }

    fn owner(&self, entry: &Entry, place: &Place<'_>) -> Result<(u32, u32)> {
        let ids = 0..=MAX_ID;
        if !ids.contains(&entry.uid) || !ids.contains(&entry.gid) {
            return Err(place.unsafe_entry(format!("owner {}:{} is out of range", entry.uid, entry.gid)));
        }
        Ok((entry.uid as u32, entry.gid as u32))
    }

    fn failed_removal(&self, failure: Failure, place: &Place<'_>) -> Error {
        match failure {
            Failure::Cancelled => Error::Cancelled,
            Failure::System(errno) => self.failed("remove", place)(errno),
        }
    }

    fn failed<'b>(&'b self, op: &'static str, place: &'b Place<'_>) -> impl Fn(Errno) -> Error + 'b {
        self.root.failed(op, place.path.as_bytes())
    }
}

impl Place<'_> {
    fn unsafe_entry(&self, reason: String) -> Error {
        Error::UnsafeEntry { path: self.path.as_path().into(), reason }
    }
}
