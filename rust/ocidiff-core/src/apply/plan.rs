//! Decides what an entry of a layer asks for, and refuses what no layer may ask for. Every rule that needs no tree is here.
//!
//! Two performers follow it: [`super::disk`] changes a directory, and [`super::model`] a model of one.

use super::path::{LayerPath, link_error};
use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::metadata::FileType;
use crate::rules::linux::{MAX_ID, MAX_MAJOR, MAX_MINOR};
use crate::tar::header::EntryType;
use crate::tar::read::TarEntry;
use crate::whiteout::{Whiteout, is_pseudo_link};

/// The mode of a directory that no entry describes.
pub(crate) const IMPLIED_MODE: u32 = 0o755;

/// An action that an entry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    /// Says what the root itself is.
    DescribeRoot,
    /// Makes an [`Object`], and its directory if that is missing. Only a directory merges with what is there.
    Make,
    /// Makes a file that AUFS kept for hard links, if nothing had the name of its directory before. Both go with the layer.
    KeepAside,
    /// Nothing: it is bookkeeping of AUFS.
    LeaveOut,
    /// Removes what lower layers left. What kind of entry names it, and with what content, does not matter; no directory is made.
    Hide(Whiteout<'a>),
}

/// Decides what an entry asks for, whose clean name is `path`.
///
/// # Errors
/// [`Error::MalformedLayer`] for a whiteout of nothing.
pub(crate) fn plan<'a>(entry: &TarEntry, path: &'a LayerPath) -> Result<Action<'a>> {
    if path.is_root() {
        return Ok(Action::DescribeRoot);
    }
    let is_meta = |name| matches!(Whiteout::parse(name, entry.offset), Ok(Some(Whiteout::Meta)));
    if path.components().any(is_meta) {
        let is_kept = entry.entry_type == EntryType::File && is_pseudo_link(path.as_bytes());
        return Ok(if is_kept { Action::KeepAside } else { Action::LeaveOut });
    }
    Ok(Whiteout::parse(path.split().1, entry.offset)?.map_or(Action::Make, Action::Hide))
}

/// An object that an entry makes, or describes.
#[derive(Debug)]
pub(crate) struct Object {
    /// Owner and group.
    pub owner: (u32, u32),
    /// The kind of the object.
    pub kind: Kind,
}

/// The kind of an [`Object`].
#[derive(Debug)]
pub(crate) enum Kind {
    Directory,
    File,
    Symlink,
    Fifo,
    /// A character or block device, with its number.
    Device(FileType, (u32, u32)),
    Link(Link),
}

impl Object {
    /// Reads the entry whose clean name is `path`.
    ///
    /// # Errors
    /// [`Error::UnsafeEntry`] for a root that is no directory, and for numbers that Linux cannot have;
    /// [`Error::MalformedLayer`] for a hard link to the root.
    pub fn of(entry: &TarEntry, path: &LayerPath) -> Result<Self> {
        if path.is_root() && entry.entry_type != EntryType::Directory {
            return Err(path.unsafe_entry(Cause::RootIsNoDirectory));
        }
        let ids = 0..=i64::from(MAX_ID);
        if !ids.contains(&entry.uid) || !ids.contains(&entry.gid) {
            return Err(path.unsafe_entry(Cause::OwnerOutOfRange { uid: entry.uid, gid: entry.gid }));
        }
        let kind = match entry.entry_type {
            EntryType::Directory => Kind::Directory,
            EntryType::File => Kind::File,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::CharDevice => Kind::Device(FileType::CharDevice, device_of(entry, path)?),
            EntryType::BlockDevice => Kind::Device(FileType::BlockDevice, device_of(entry, path)?),
            EntryType::Link => Kind::Link(Link::of(entry, path)?),
        };
        Ok(Self { owner: (entry.uid as u32, entry.gid as u32), kind })
    }
}

fn device_of(entry: &TarEntry, path: &LayerPath) -> Result<(u32, u32)> {
    let (major, minor) = entry.device;
    if !(0..=i64::from(MAX_MAJOR)).contains(&major) || !(0..=i64::from(MAX_MINOR)).contains(&minor) {
        return Err(path.unsafe_entry(Cause::DeviceOutOfRange { major, minor }));
    }
    if entry.entry_type == EntryType::CharDevice && entry.device == (0, 0) {
        return Err(path.unsafe_entry(Cause::WhiteoutDevice));
    }
    Ok((major as u32, minor as u32))
}

/// A hard link.
#[derive(Debug)]
pub(crate) struct Link {
    /// The name that the link leads to; never the root.
    pub target: LayerPath,
    /// True if the entry says what its file is. One that AUFS kept says that itself.
    pub describes: bool,
}

impl Link {
    fn of(entry: &TarEntry, path: &LayerPath) -> Result<Self> {
        let target = LayerPath::clean(&entry.link_name);
        let describes = !is_pseudo_link(target.as_bytes());
        let link = Self { target, describes };
        if link.target.is_root() { Err(link.refused(entry, path, Cause::TargetIsDirectory)) } else { Ok(link) }
    }

    /// Checks what has the name of the target: `is_directory` of what is there, and whether it is the name of the link itself.
    ///
    /// # Errors
    /// [`Error::MalformedLayer`] if there is nothing, or nothing that can be linked.
    pub fn check(&self, entry: &TarEntry, path: &LayerPath, is_directory: Option<bool>, is_same: bool) -> Result<()> {
        match is_directory {
            None => Err(self.refused(entry, path, Cause::TargetIsMissing)),
            Some(true) => Err(self.refused(entry, path, Cause::TargetIsDirectory)),
            Some(false) if is_same => Err(self.refused(entry, path, Cause::TargetIsSameName)),
            Some(false) => Ok(()),
        }
    }

    fn refused(&self, entry: &TarEntry, path: &LayerPath, cause: Cause) -> Error {
        link_error(entry, path, &self.target, cause)
    }
}
