//! Applies each entry of a layer to the root. Spec: image-spec layer.md, "Applying Changesets".

use std::collections::HashSet;
use std::io::BufRead;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Stat, linkat, makedev, mknodat, statat, symlinkat};
use rustix::io::Errno;

use super::attributes::{Node, NotedKind, times_of};
use super::directories::Directories;
use super::files::{self, FileWriter, PRIVATE};
use super::handle::{OWNER_ALL, WritableDir};
use super::place::Place;
use super::removal::Remover;
use super::root::{ApplyRoot, Missing};
use super::upper::Upper;
use super::upper_tar::UpperTar;
use super::writers::{Shared, SmallFile, Writers};
use crate::apply::path::LayerPath;
use crate::apply::plan::{Action, Kind, Link, Object, plan};
use crate::apply::{ApplyOptions, Limits};
use crate::cause::Cause;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::metadata;
use crate::tar::read::{Piece, Reader, TarEntry};
use crate::whiteout::{PSEUDO_LINKS, Whiteout};

/// Larger files are written as they are read, and not by another thread.
const SMALL_BYTES: u64 = 128 << 10;

/// Applies entries in stream order.
pub(super) struct Applier<'a> {
    root: ApplyRoot,
    target: &'a Path,
    limits: Limits,
    shared: &'a Shared<'a>,
    writers: Writers<'a>,
    directories: Directories,
    /// The entries of the tar of an upper directory so far, if it is one.
    pub(super) upper_tar: Option<UpperTar>,
    /// Paths of devices that could not be made, whose hard links cannot be either.
    left_out: HashSet<Vec<u8>>,
    /// The root says that there are notes.
    is_marked: bool,
    /// There may be files that stand for devices: what a hard link says of a device does not hold for them.
    has_stand_ins: bool,
    /// The directory of files that were kept aside is there.
    has_aside: bool,
    pub entries: u64,
    pub whiteouts: u64,
    /// True once an entry has said what the root itself is.
    pub has_root: bool,
}

impl<'a> Applier<'a> {
    /// Begins to write onto `root`, which the caller knows as `target`.
    pub fn new(
        root: ApplyRoot,
        target: &'a Path,
        options: &ApplyOptions,
        shared: &'a Shared<'a>,
        writers: Writers<'a>,
    ) -> Result<Self> {
        let closed = root.top().grant().map_err(Error::sys("chmod", target))?;
        let is_empty = root.top().is_empty().map_err(Error::sys("read", target))?;
        let mut directories = Directories::new(root.top(), is_empty, shared.policy.overlay_prefix.map(Upper::new));
        if let Some(mode) = closed {
            directories.restore(root.top().key(), mode);
        }
        Ok(Self {
            root,
            target,
            limits: options.limits,
            shared,
            writers,
            directories,
            upper_tar: options.is_upper.then(UpperTar::default),
            left_out: HashSet::new(),
            is_marked: false,
            has_stand_ins: shared.policy.has_notes,
            has_aside: false,
            entries: 0,
            whiteouts: 0,
            has_root: false,
        })
    }

    /// Does what `entry` says; its data comes from `tar`.
    pub fn apply(&mut self, entry: TarEntry, tar: &mut Reader<impl BufRead>) -> Result<()> {
        self.shared.control.check()?;
        self.entries += 1;
        self.shared.control.add_entries(1);
        let path = LayerPath::clean(&entry.name);
        self.limits.check(&entry, &path, self.entries)?;
        if self.upper_tar.is_some() {
            return self.apply_of_upper(entry, path, tar);
        }
        match plan(&entry, &path)? {
            Action::DescribeRoot => self.describe_root(&entry, path),
            Action::Make => self.create_below(entry, path, tar),
            Action::KeepAside if self.keeps_aside() => self.create_below(entry, path, tar),
            Action::KeepAside | Action::LeaveOut => {
                self.shared.tally.aufs();
                Ok(())
            }
            Action::Hide(whiteout) => self.apply_whiteout(whiteout, &path),
        }
    }

    pub(super) fn create_below(&mut self, entry: TarEntry, path: LayerPath, tar: &mut Reader<impl BufRead>) -> Result<()> {
        let parent = self.directory(path.split().0)?;
        self.create(entry, Place { root: self.target, parent, path }, tar)
    }

    /// Hides what lower layers have in the directory of `path`.
    pub(super) fn apply_whiteout(&mut self, whiteout: Whiteout<'_>, path: &LayerPath) -> Result<()> {
        self.whiteouts += 1;
        self.writers.wait()?;
        match self.directory_of_whiteout(path.split().0)? {
            Some(parent) => self.hide(whiteout, &Place { root: self.target, parent, path: path.clone() }),
            None => Ok(()),
        }
    }

    /// Waits for all that is under way, removes what was kept aside, and gives the directories their final attributes.
    pub fn finish(&mut self) -> Result<()> {
        self.finish_upper()?;
        self.writers.wait()?;
        self.remove_aside()?;
        self.directories.finish(&self.root, self.shared.control)
    }

    /// Returns `error`, or the error of an earlier entry whose file was still being written.
    pub fn fail(&mut self, error: Error) -> Error {
        let error = self.writers.wait().err().unwrap_or(error);
        // The first error is the one that counts.
        let _ = self.remove_aside();
        error
    }

    /// Returns true if files are kept for hard links. A directory of their name that existed before is left alone.
    fn keeps_aside(&mut self) -> bool {
        if !self.has_aside {
            let there = statat(&**self.root.top(), PSEUDO_LINKS, AtFlags::SYMLINK_NOFOLLOW);
            self.has_aside = there.is_err_and(|errno| errno == Errno::NOENT);
        }
        self.has_aside
    }

    fn remove_aside(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.has_aside) {
            return Ok(());
        }
        let place = Place { root: self.target, parent: self.root.top().clone(), path: LayerPath::clean(PSEUDO_LINKS) };
        self.root.forget();
        // Nothing is left behind by a call that was cancelled, too.
        let control = Control::default();
        let mut remover = Remover { control: &control, spare: None };
        remover.remove(&place.parent, place.name()).map_err(|failure| place.failed_removal(failure))
    }

    /// Returns the directory `path`, and makes it if it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<Arc<WritableDir>> {
        if let Some(found) = self.root.reach(path, &mut self.directories)? {
            return Ok(found);
        }
        self.writers.wait()?;
        self.root.make(path, &mut self.directories)
    }

    /// Returns the directory that a whiteout is in; `None` if the whiteout has nothing to hide there, since there is none,
    /// or a file. An upperdir gets one for it, because a lower layer may have it.
    fn directory_of_whiteout(&mut self, path: &[u8]) -> Result<Option<Arc<WritableDir>>> {
        match self.root.find(path, &mut self.directories)? {
            None if self.directories.are_upper() => self.root.walk(path, Missing::MadeForMark, &mut self.directories),
            found => Ok(found),
        }
    }

    /// Removes what lower layers left. What kind of entry names it, and with what content, does not matter.
    fn hide(&mut self, whiteout: Whiteout<'_>, place: &Place<'_>) -> Result<()> {
        if self.directories.are_upper() && whiteout == Whiteout::Opaque && place.parent.key() == self.root.top().key() {
            return Err(Error::Unsupported { path: "/".into(), reason: Cause::OpaqueUpperdir });
        }
        self.root.forget();
        let mut remover = Remover { control: self.shared.control, spare: Some(&mut self.directories) };
        let Whiteout::Removal(name) = whiteout else {
            let all = place.parent.open(b".").map_err(place.failed("open"))?;
            remover.empty(all).map_err(|failure| place.failed_removal(failure))?;
            return self.directories.make_opaque(&place.parent).map_err(place.failed("make opaque"));
        };
        remover.remove(&place.parent, name).map_err(|failure| place.failed_removal(failure))?;
        if !self.directories.are_upper() {
            return Ok(());
        }
        match place.parent.open(name) {
            Ok(kept) => self.directories.make_opaque(&kept).map_err(place.failed("make opaque")),
            Err(Errno::NOENT) => self.directories.hide(&place.parent, name).map_err(place.failed("make whiteout")),
            // This layer put something else there, which hides it as well.
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(place.failed("open")(errno)),
        }
    }

    fn create(&mut self, entry: TarEntry, place: Place<'a>, tar: &mut Reader<impl BufRead>) -> Result<()> {
        let Object { owner, kind } = Object::of(&entry, &place.path)?;
        if !self.is_marked && self.shared.policy.notes(owner) {
            self.root.mark().map_err(Error::sys("set xattr of", self.target))?;
            self.is_marked = true;
        }
        if !self.left_out.is_empty() {
            self.left_out.remove(place.path.as_bytes());
        }
        let key = place.parent.key();
        if self.directories.has_written(key, place.name()) {
            self.writers.wait()?;
        }
        let node = Node { place: &place, fd: None, file_type: FileType::Symlink, now: None, is_new: true };
        match &kind {
            Kind::File => return self.create_file(entry, place, owner, tar),
            Kind::Directory => self.create_directory(&entry, &place, owner)?,
            Kind::Link(link) => {
                let Some(linked) = self.link(&entry, link, &place)? else { return Ok(()) };
                let file_type = FileType::from_raw_mode(linked.st_mode);
                if link.describes {
                    self.describe_linked(&entry, owner, &Node { file_type, now: Some(linked), is_new: false, ..node })?;
                }
            }
            Kind::Symlink => {
                self.replacing("symlink", &place, || symlinkat(entry.link_name.as_slice(), &*place.parent, place.name()))?;
                self.finish_node(&entry, owner, &node)?;
            }
            Kind::Fifo => {
                self.replacing("mknod", &place, || mknodat(&*place.parent, place.name(), FileType::Fifo, PRIVATE, 0))?;
                self.finish_node(&entry, owner, &Node { file_type: FileType::Fifo, ..node })?;
            }
            Kind::Device(kind, number) => {
                if !self.create_device(&entry, &place, owner, (*kind, *number))? {
                    return Ok(());
                }
            }
        }
        self.directories.write(key, place.name());
        Ok(())
    }

    /// Writes a file, or hands it over. It is made by somebody else only where nothing is and nothing was: then nothing that
    /// is read meanwhile depends on it.
    fn create_file(
        &mut self,
        entry: TarEntry,
        place: Place<'a>,
        owner: (u32, u32),
        tar: &mut Reader<impl BufRead>,
    ) -> Result<()> {
        let make = || files::make(&place, &entry, owner, &self.shared.policy);
        if entry.size > SMALL_BYTES || entry.is_sparse {
            let file = self.replacing("create", &place, make)?;
            self.directories.write(place.parent.key(), place.name());
            let mut writer = FileWriter::new(&file, &place, self.shared.control);
            tar.read_data(|piece| writer.write(piece))?;
            writer.finish()?;
            return files::describe(&file, &place, &entry, owner, self.shared);
        }
        let is_free = self.directories.is_free(place.parent.key(), place.name());
        let file = if is_free { None } else { Some(self.replacing("create", &place, make)?) };
        self.directories.write(place.parent.key(), place.name());
        let data = self.writers.data(&place.parent, &entry)?;
        tar.read_data(|piece| {
            match piece {
                Piece::Data(piece) => data.extend_from_slice(piece),
                Piece::Hole(size) => data.resize(data.len() + size as usize, 0),
            }
            Ok(())
        })?;
        self.writers.write(SmallFile { number: self.entries, place, entry, owner, file });
        Ok(())
    }

    /// Sets all attributes of a file that got one more name.
    fn describe_linked(&self, entry: &TarEntry, owner: (u32, u32), node: &Node<'_>) -> Result<()> {
        let kind = if self.has_stand_ins { node.noted_kind(&self.shared.policy)? } else { None };
        let Some(kind) = kind else { return self.finish_node(entry, owner, node) };
        node.stand_in(entry, owner, kind, &self.shared.policy, None)?;
        node.set_times(&times_of(entry))
    }

    /// Sets all attributes of an object that is no directory.
    fn finish_node(&self, entry: &TarEntry, owner: (u32, u32), node: &Node<'_>) -> Result<()> {
        node.describe(entry, owner, &self.shared.policy, &self.shared.tally)?;
        node.set_times(&times_of(entry))
    }

    /// Gives the root what its entry says. It is there already, and the only one without a name.
    pub(super) fn describe_root(&mut self, entry: &TarEntry, path: LayerPath) -> Result<()> {
        let owner = Object::of(entry, &path)?.owner;
        let place = Place { root: self.target, parent: self.root.top().clone(), path };
        // Its ACL concerns only what is made after this entry.
        self.writers.wait()?;
        let root = place.parent.open(b".").map_err(place.failed("open"))?;
        self.describe_directory(entry, &place, owner, (&root, false))?;
        self.has_root = true;
        self.root.reopen()
    }

    fn create_directory(&mut self, entry: &TarEntry, place: &Place<'_>, owner: (u32, u32)) -> Result<()> {
        let (directory, is_new) = self.make_directory(place)?;
        self.describe_directory(entry, place, owner, (&directory, is_new))
    }

    /// Sets all but times, which change with everything that is made in a directory, and a mode that forbids to make it.
    fn describe_directory(
        &mut self,
        entry: &TarEntry,
        place: &Place<'_>,
        owner: (u32, u32),
        (directory, is_new): (&WritableDir, bool),
    ) -> Result<()> {
        let (fd, now) = (Some(directory.as_fd()), Some(directory.stat()));
        let node = Node { place, fd, file_type: FileType::Directory, now, is_new };
        node.describe(entry, owner, &self.shared.policy, &self.shared.tally)?;
        let mode = self.shared.policy.mode_of(entry, owner);
        let later = (mode & OWNER_ALL != OWNER_ALL).then_some(mode);
        self.directories.describe(directory.key(), times_of(entry), later);
        Ok(())
    }

    /// Returns the directory, and true if it was made.
    fn make_directory(&mut self, place: &Place<'_>) -> Result<(WritableDir, bool)> {
        let mut replaces = false;
        let mut made = place.parent.make(place.name());
        if let Err(Errno::EXIST) = made {
            match place.parent.open(place.name()) {
                Ok(there) if !self.directories.is_free(place.parent.key(), place.name()) => {
                    self.directories.enter(place.parent.key(), place.name(), &there);
                    return Ok((there, false));
                }
                Ok(_) => return Err(place.collision()),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.remove(place)?;
                    replaces = true;
                    made = place.parent.make(place.name());
                }
                Err(errno) => made = Err(errno),
            }
        }
        let made = made.map_err(place.failed("mkdir"))?;
        self.directories.make(place.parent.key(), place.name(), &made);
        if replaces {
            self.directories.make_opaque(&made).map_err(place.failed("make opaque"))?;
        }
        Ok((made, true))
    }

    /// Makes the link. Returns the stat of its inode, or `None` if its target was left out.
    fn link(&mut self, entry: &TarEntry, link: &Link, place: &Place<'_>) -> Result<Option<Stat>> {
        self.writers.wait()?;
        let check = |is_directory, is_same| link.check(entry, &place.path, is_directory, is_same);
        let (parent, name) = link.target.split();
        let Some(parent) = self.root.find(parent, &mut self.directories)? else { return check(None, false).map(|()| None) };
        let there = match statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if self.directories.is_whiteout(&parent, name, &there) => None,
            Ok(there) => Some(there),
            Err(Errno::NOENT) if self.left_out.contains(link.target.as_bytes()) => {
                self.shared.tally.device();
                self.left_out.insert(place.path.as_bytes().to_vec());
                return Ok(None);
            }
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(place.failed("stat")(errno)),
        };
        let is_directory = there.map(|there| FileType::from_raw_mode(there.st_mode) == FileType::Directory);
        check(is_directory, parent.key() == place.parent.key() && name == place.name())?;
        self.replacing("link", place, || linkat(&*parent, name, &*place.parent, place.name(), AtFlags::empty()))?;
        Ok(there)
    }

    /// Makes a device, or an empty file that says what it stands for; false when it was left out.
    fn create_device(&mut self, entry: &TarEntry, place: &Place<'_>, owner: (u32, u32), kind: NotedKind) -> Result<bool> {
        let (device, number) = kind;
        let file_type = match device {
            metadata::FileType::CharDevice => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        let number = makedev(number.0, number.1);
        let mut refused = false;
        self.replacing("mknod", place, || match mknodat(&*place.parent, place.name(), file_type, PRIVATE, number) {
            Err(Errno::PERM) if self.shared.policy.may_lack_devices => {
                refused = true;
                Ok(())
            }
            other => other,
        })?;
        let node = Node { place, fd: None, file_type, now: None, is_new: true };
        if !refused {
            self.finish_node(entry, owner, &node)?;
            return Ok(true);
        }
        self.shared.tally.device();
        let file = self.replacing("create", place, || files::make_private(place))?;
        let node = Node { fd: Some(file.as_fd()), file_type: FileType::RegularFile, ..node };
        if node.stand_in(entry, owner, kind, &self.shared.policy, Some(&self.shared.tally))? {
            self.root.mark().map_err(Error::sys("set xattr of", self.target))?;
            self.has_stand_ins = true;
            node.set_times(&times_of(entry))?;
            return Ok(true);
        }
        if self.shared.policy.is_exact {
            return Err(place.failed("mknod")(Errno::PERM));
        }
        self.remove(place)?;
        self.left_out.insert(place.path.as_bytes().to_vec());
        Ok(false)
    }

    /// Makes an object, in place of what is there.
    fn replacing<T>(
        &mut self,
        op: &'static str,
        place: &Place<'_>,
        mut make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T> {
        let made = match make() {
            Err(Errno::EXIST) if self.directories.is_free(place.parent.key(), place.name()) => return Err(place.collision()),
            Err(Errno::EXIST) => {
                self.remove(place)?;
                make()
            }
            other => other,
        };
        made.map_err(place.failed(op))
    }

    /// Removes what is there, whoever made it.
    fn remove(&mut self, place: &Place<'_>) -> Result<()> {
        self.writers.wait()?;
        self.root.forget();
        let mut remover = Remover { control: self.shared.control, spare: None };
        remover.remove(&place.parent, place.name()).map_err(|failure| place.failed_removal(failure))
    }
}
