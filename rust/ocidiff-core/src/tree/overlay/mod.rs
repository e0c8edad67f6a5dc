//! The directories of an overlay, and what overlayfs would show of them, name by name, with nothing mounted.
//!
//! Law: a name is found here if and only if a mount of the same directories shows it, with the same metadata, attributes and
//! content (Linux, Documentation/filesystems/overlayfs.rst; fs/overlayfs/namei.c).

mod lookup;
mod overrides;
mod survey;

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use lookup::{Content, Found};

use super::{Names, TreeDir, XattrPolicy, XattrReader, c_string};
use crate::cause::Cause;
use crate::control::Control;
use crate::error::{Error, Result, words_of};
use crate::idmap::IdMaps;
use crate::rules::xattr::{FUSE, OVERLAY, OVERLAY_USERXATTR};

/// The format of marks: deletions, opaque directories and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// overlayfs, with attributes `trusted.overlay.*`.
    Trusted,
    /// overlayfs mounted with `userxattr`: attributes `user.overlay.*`.
    User,
    /// fuse-overlayfs and AUFS: names that begin with `.wh.`.
    Names,
}

/// The directories of an overlay, and what is known of how it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayPaths {
    /// The directory that takes the changes.
    pub upper: PathBuf,
    /// The directories below it, top first.
    pub lowers: Vec<PathBuf>,
    /// Directories that only hold the content of files which others redirect to, top first.
    pub data: Vec<PathBuf>,
    /// The format of its marks; `None` to find out.
    pub format: Option<Format>,
    /// True if redirects of directories are followed, as the mount option `redirect_dir` says.
    pub redirects: bool,
    /// The id maps of the upper directory.
    pub ids: Option<Arc<IdMaps>>,
    /// The id maps of the lower directories, which an id-mapped mount may show with other ids than they have.
    pub lower_ids: Option<Arc<IdMaps>>,
}

/// The open directories of an overlay.
#[derive(Debug)]
pub struct Overlay {
    /// Top first: the upper directory, then the lower ones.
    layers: Vec<Arc<TreeDir>>,
    data: Vec<Arc<TreeDir>>,
    format: Format,
    /// For each layer the attribute that holds its owners and modes, if there is one.
    overrides: Vec<Option<&'static CStr>>,
    redirects: bool,
    complete: bool,
}

/// A directory of one layer: the layer's number from the top, and the path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    layer: usize,
    path: Vec<u8>,
}

/// A directory as overlayfs shows it: the directories that are merged, top first. Nothing is open yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    parts: Vec<Part>,
}

/// An open directory of an overlay. The default one is missing.
#[derive(Debug, Default)]
pub struct Folder {
    parts: Vec<(Part, Arc<TreeDir>)>,
}

impl Overlay {
    /// Opens all directories, and learns from the upper one how it is marked.
    ///
    /// # Errors
    /// [`Error::Overlay`] when the marks cannot be read or understood, [`Error::Io`] when a directory cannot be read. What
    /// this accepts is read without a further doubt.
    pub fn open(paths: &OverlayPaths, control: &Control) -> Result<Self> {
        let below = |path: &PathBuf| TreeDir::open_mapped(path, paths.lower_ids.clone());
        let upper = TreeDir::open_mapped(&paths.upper, paths.ids.clone());
        let layers = std::iter::once(upper).chain(paths.lowers.iter().map(below)).collect::<Result<Vec<_>>>()?;
        let data = paths.data.iter().map(below).collect::<Result<Vec<_>>>()?;
        let found = survey::Survey::of(&layers, paths.format.is_some(), control)?;
        let format = found.format(&paths.upper, paths.format)?;
        // This mark shows that the upper directory was mounted with an index.
        if format != Format::Names && found.indexed {
            return Err(Error::overlay(&paths.upper, Cause::MountedWithIndex));
        }
        let redirects = paths.redirects && format == Format::Trusted;
        if format != Format::Names && !redirects && !found.redirected.is_empty() {
            return Err(Error::overlay(&paths.upper, Cause::UnfollowedRedirects));
        }
        // Paths of several names are opened by a call that an old kernel or a sandbox may not have.
        if let Err(Error::Io { source, .. }) = layers[0].find_below(c".") {
            return Err(Error::overlay(&paths.upper, Cause::NoOpenat2 { why: words_of(&source) }));
        }
        let marks: &[&[u8]] = match format {
            Format::Trusted => &[OVERLAY],
            Format::User => &[OVERLAY_USERXATTR],
            Format::Names => &[FUSE, OVERLAY, OVERLAY_USERXATTR],
        };
        let layers: Vec<_> = layers.iter().map(|layer| layer.with_marks(marks)).collect::<Result<_>>()?;
        let mut overrides = vec![None; layers.len()];
        if format == Format::Names {
            let mut reader = XattrReader::new(XattrPolicy::Capability, &layers[0]);
            for (layer, key) in layers.iter().zip(&mut overrides) {
                *key = overrides::key_of(layer, &mut reader)?;
            }
        }
        let mut overlay = Self { layers, data, format, overrides, redirects, complete: false };
        overlay.complete = overlay.has_links_below(&found.redirected, control)?;
        Ok(overlay)
    }

    /// Returns true if every name has to be looked up: a renamed directory brings files of lower layers under new names,
    /// and other names of these files may be anywhere (layer-format.md, "Hard links").
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Returns true if all layers are on one file system, so that an inode number alone identifies a file.
    pub fn on_one_device(&self) -> Result<bool> {
        let mut devices = self.layers.iter().map(|layer| Ok(layer.metadata(c".")?.key.0));
        let first = devices.next().transpose()?;
        for device in devices {
            if Some(device?) != first {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the directory that takes the changes.
    pub fn upper(&self) -> &Arc<TreeDir> {
        &self.layers[0]
    }

    /// Returns the roots of the changed tree and of the tree below it.
    pub fn roots(&self) -> Result<(Place, Place)> {
        let mut reader = self.reader();
        let mut root = |first: usize| -> Result<Place> {
            let mut parts = Vec::new();
            for (number, directory) in self.layers.iter().enumerate().skip(first) {
                parts.push(Part { layer: number, path: Vec::new() });
                // The kernel asks no root whether it is opaque.
                if self.format == Format::Names && self.is_opaque(directory, c".", &mut reader)? {
                    break;
                }
            }
            Ok(Place { parts })
        };
        Ok((root(0)?, root(1)?))
    }

    /// Opens a directory.
    pub fn open_folder(&self, place: &Place) -> Result<Folder> {
        let open = |part: &Part| -> Result<(Part, Arc<TreeDir>)> {
            // A handle of its own, because reading names moves it.
            let path = if part.path.is_empty() { c".".into() } else { c_string(&part.path) };
            Ok((part.clone(), self.layers[part.layer].open_below(&path)?))
        };
        Ok(Folder { parts: place.parts.iter().map(open).collect::<Result<_>>()? })
    }

    /// Returns the names that may be in a directory of the changed tree or in the one below it and may differ; `None` for
    /// `lower` where there is none. All others are the same in both.
    ///
    /// A name may turn out to be in neither.
    pub fn candidates(&self, upper: &Folder, lower: Option<&Folder>, control: &Control) -> Result<Names> {
        let below = lower.map_or(&[][..], |lower| &lower.parts);
        let same_below = match upper.parts.split_first() {
            Some(((top, _), rest)) => {
                top.layer == 0 && rest.iter().map(|(part, _)| part).eq(below.iter().map(|(part, _)| part))
            }
            None => false,
        };
        let sides = if same_below && !self.complete { (&upper.parts[..1], &[][..]) } else { (&upper.parts[..], below) };
        let mut all = Vec::new();
        for (_, directory) in sides.0.iter().chain(sides.1) {
            let names = Names::read(directory, control)?;
            let visible = (0..names.len()).filter_map(|index| self.real_name(names.get(index)));
            all.extend(visible.map(CStr::to_owned));
        }
        Ok(Names::collect(all))
    }

    /// Returns the name that an entry of a layer speaks of; `None` when it speaks of none.
    fn real_name<'a>(&self, name: &'a CStr) -> Option<&'a CStr> {
        use crate::whiteout::{PREFIX, Whiteout};
        if self.format != Format::Names || !name.to_bytes().starts_with(PREFIX) {
            return Some(name);
        }
        match Whiteout::parse(name.to_bytes(), 0) {
            Ok(Some(Whiteout::Removal(_))) => CStr::from_bytes_with_nul(&name.to_bytes_with_nul()[PREFIX.len()..]).ok(),
            _ => None,
        }
    }

    /// Returns true if a renamed directory brings files with several names.
    fn has_links_below(&self, redirected: &[Vec<u8>], control: &Control) -> Result<bool> {
        let mut reader = self.reader();
        let mut todo = Vec::new();
        for path in redirected {
            match self.place_of(path, &mut reader) {
                // Gone since, here and below.
                Err(error) if error.is_change() => {}
                place => todo.extend(place?),
            }
        }
        while let Some(place) = todo.pop() {
            control.check()?;
            match self.has_links_in(&place, &mut todo, &mut reader, control) {
                Err(error) if error.is_change() => {}
                Ok(false) => {}
                found => return found,
            }
        }
        Ok(false)
    }

    /// Returns true if a directory has files with several names; directories in it are `todo`.
    fn has_links_in(
        &self,
        place: &Place,
        todo: &mut Vec<Place>,
        reader: &mut XattrReader,
        control: &Control,
    ) -> Result<bool> {
        let folder = self.open_folder(place)?;
        for (part, directory) in &folder.parts {
            let names = Names::read(directory, control)?;
            for index in 0..names.len() {
                let Some(name) = self.real_name(names.get(index)) else { continue };
                let Some(found) = self.lookup(&folder, name, reader)? else { continue };
                match found.place {
                    Some(place) if found.layer == part.layer => todo.push(place),
                    None if found.layer > 0 && found.metadata.links > 1 => return Ok(true),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// Returns the directory at `path` of the changed tree.
    fn place_of(&self, path: &[u8], reader: &mut XattrReader) -> Result<Option<Place>> {
        let mut place = self.roots()?.0;
        for name in path.split(|&byte| byte == b'/') {
            let folder = self.open_folder(&place)?;
            match self.lookup(&folder, &c_string(name), reader)?.and_then(|found| found.place) {
                Some(next) => place = next,
                None => return Ok(None),
            }
        }
        Ok(Some(place))
    }

    fn reader(&self) -> XattrReader {
        XattrReader::new(XattrPolicy::Capability, &self.layers[0])
    }
}

impl Place {
    /// Returns true for the root of an overlay.
    pub fn is_root(&self) -> bool {
        self.parts.iter().all(|part| part.path.is_empty())
    }
}

impl Folder {
    /// Returns the directory of the top layer, if the top layer has it.
    pub fn upper(&self) -> Option<&Arc<TreeDir>> {
        self.parts.first().filter(|(part, _)| part.layer == 0).map(|(_, directory)| directory)
    }
}

impl Error {
    /// Returns the error of an overlay at `path` that cannot be read without mounting it.
    fn overlay(path: &Path, reason: Cause) -> Self {
        Self::Overlay { path: path.to_owned(), reason }
    }
}
