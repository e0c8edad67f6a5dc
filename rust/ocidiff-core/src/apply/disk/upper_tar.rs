//! The tar of an overlay's upper directory, read as the layer that it stands for. Devices 0/0 are whiteouts, and attributes of
//! overlayfs mark opaque directories (Linux overlayfs.rst, "whiteouts and opaque directories").
//!
//! Law: what an apply makes of these entries in an upper directory shows, over any lower directories, what the directory that
//! was archived shows.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::BufRead;

use super::entry::Applier;
use crate::apply::path::LayerPath;
use crate::cause::{Cause, escaped};
use crate::error::{Error, Result};
use crate::rules::xattr::{Class, OVERLAY, OVERLAY_USERXATTR, Owner, mark_of};
use crate::tar::header::EntryType;
use crate::tar::read::{Reader, TarEntry};
use crate::whiteout::{OPAQUE, PREFIX, Whiteout};

/// An entry of an upper directory, as it is meant.
enum Said {
    /// The name is gone.
    Whiteout,
    /// An object, without the attributes of overlayfs.
    Object(TarEntry),
    /// A directory that hides all that lower layers have below it.
    Opaque(TarEntry),
}

/// The state of reading the tar of an upper directory. Of names only keyed hashes are kept, as in `Directories`.
#[derive(Debug, Default)]
pub(super) struct UpperTar {
    hasher: RandomState,
    directories: HashSet<u64>,
    whiteouts: HashSet<u64>,
    /// An attribute `trusted.overlay.*` was there: those of users mean nothing then.
    is_trusted: bool,
    /// Directories that `user.overlay.opaque` marks.
    marked_by_users: Vec<Vec<u8>>,
    /// The first mark `user.overlay.*` that is not read.
    refused: Option<Error>,
}

impl UpperTar {
    /// Reads an entry, whose clean name is `path`.
    ///
    /// # Errors
    /// [`Error::MalformedLayer`] if its directory is not in the tar, [`Error::Unsupported`] for what an upper directory of
    /// overlayfs does not have, or only a mount can resolve.
    fn read(&mut self, mut entry: TarEntry, path: &LayerPath) -> Result<Said> {
        let marks = self.take_marks(&mut entry, path)?;
        if path.is_root() {
            // The kernel asks no root whether it is opaque.
            return Ok(Said::Object(entry));
        }
        self.check_name(&entry, path)?;
        let key = self.key(path.as_bytes());
        let is_whiteout = match entry.entry_type {
            EntryType::CharDevice => entry.device == (0, 0),
            // Overlayfs makes its whiteouts links to one.
            EntryType::Link => self.whiteouts.contains(&self.key(LayerPath::clean(&entry.link_name).as_bytes())),
            _ => marks.is_whiteout,
        };
        if is_whiteout {
            self.whiteouts.insert(key);
            return Ok(Said::Whiteout);
        }
        self.whiteouts.remove(&key);
        if entry.entry_type == EntryType::Directory {
            self.directories.insert(key);
        }
        Ok(if marks.is_opaque { Said::Opaque(entry) } else { Said::Object(entry) })
    }

    /// Returns the directories that are opaque too. The end of the tar shows who wrote the marks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a mark that is not read.
    fn finish(&mut self) -> Result<Vec<Vec<u8>>> {
        match self.refused.take() {
            _ if self.is_trusted => Ok(Vec::new()),
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.marked_by_users)),
        }
    }

    fn key(&self, path: &[u8]) -> u64 {
        self.hasher.hash_one(path)
    }

    fn check_name(&self, entry: &TarEntry, path: &LayerPath) -> Result<()> {
        let (parent, name) = path.split();
        let malformed =
            |cause: Cause| Err(Error::MalformedLayer { offset: entry.offset, reason: cause.of(path.as_bytes()) });
        if name.starts_with(PREFIX) {
            return Err(unsupported(path, Cause::NameNotOfUpper));
        }
        if !parent.is_empty() && !self.directories.contains(&self.key(parent)) {
            return malformed(Cause::NoEntryOfDirectory);
        }
        if entry.entry_type != EntryType::Directory && self.directories.contains(&self.key(path.as_bytes())) {
            return malformed(Cause::NameOfDirectory);
        }
        Ok(())
    }

    /// Takes the attributes of overlayfs off an entry.
    fn take_marks(&mut self, entry: &mut TarEntry, path: &LayerPath) -> Result<Marks> {
        let mut marks = Marks::default();
        for (prefix, is_trusted) in [(OVERLAY, true), (OVERLAY_USERXATTR, false)] {
            let value = |mark: &[u8]| entry.xattrs.get(&[prefix, mark].concat());
            let is_opaque = value(b"opaque").is_some_and(|value| value == b"y");
            let is_file = entry.entry_type == EntryType::File;
            let is_directory = entry.entry_type == EntryType::Directory;
            let is_whiteout = is_file && entry.size == 0 && value(b"whiteout").is_some();
            let refused = match is_trusted {
                _ if is_directory && !is_opaque && value(b"redirect").is_some() => Some("redirect"),
                _ if is_file && !is_whiteout && value(b"metacopy").is_some() => Some("metacopy"),
                false if is_whiteout => Some("whiteout"),
                _ => None,
            };
            let refused = refused.map(|mark| {
                let key = escaped(&[prefix, mark.as_bytes()].concat());
                unsupported(path, Cause::NotReadFromTar { key })
            });
            if is_trusted {
                refused.map_or(Ok(()), Err)?;
                self.is_trusted |= entry.xattrs.keys().any(|name| mark_of(name, OVERLAY).is_some());
                marks = Marks { is_opaque: is_opaque && is_directory, is_whiteout };
            } else {
                self.refused = self.refused.take().or(refused);
                if is_opaque && is_directory && !path.is_root() {
                    self.marked_by_users.push(path.as_bytes().to_vec());
                }
            }
        }
        entry.xattrs.retain(|name, _| Class::of(name).owner != Owner::Overlay);
        Ok(marks)
    }
}

impl Applier<'_> {
    /// Does what an entry of an upper directory says.
    pub(super) fn apply_of_upper(&mut self, entry: TarEntry, path: LayerPath, tar: &mut Reader<impl BufRead>) -> Result<()> {
        let Some(upper_tar) = &mut self.upper_tar else { return Ok(()) };
        match upper_tar.read(entry, &path)? {
            Said::Object(entry) if path.is_root() => self.describe_root(&entry, path),
            Said::Object(entry) => self.create_below(entry, path, tar),
            Said::Whiteout => self.apply_whiteout(Whiteout::Removal(path.split().1), &path),
            Said::Opaque(entry) => {
                self.create_below(entry, path.clone(), tar)?;
                self.hide_below(path.as_bytes())
            }
        }
    }

    /// Makes the directories opaque of which it is known only now.
    pub(super) fn finish_upper(&mut self) -> Result<()> {
        let directories = self.upper_tar.as_mut().map_or_else(|| Ok(Vec::new()), UpperTar::finish)?;
        directories.iter().try_for_each(|directory| self.hide_below(directory))
    }

    fn hide_below(&mut self, directory: &[u8]) -> Result<()> {
        self.apply_whiteout(Whiteout::Opaque, &LayerPath::clean(&[directory, OPAQUE].join(&b'/')))
    }
}

/// The marks of overlayfs on an entry.
#[derive(Default)]
struct Marks {
    is_opaque: bool,
    is_whiteout: bool,
}

fn unsupported(path: &LayerPath, reason: Cause) -> Error {
    Error::Unsupported { path: path.as_path().into(), reason }
}
