//! A directory of the lower tree beside the one of the same path in the upper: two of trees or indexes, or two of an overlay.

use std::cmp::Ordering;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::TreeSource;
use super::same::{CompareSide, Facts};
use crate::control::Control;
use crate::error::Result;
use crate::index::{Extent, Folder as Indexed, IndexFile, TreeIndexEntry};
use crate::metadata::Metadata;
use crate::tree::overlay::{Content, Folder, Found, Overlay, Place};
use crate::tree::{Names, TreeDir, XattrReader};

const ATTEMPTS_TO_OPEN: u32 = 3;

/// Two directories of one path, not opened yet; lower may be missing.
pub enum DirPair {
    /// Each of a tree or of an index.
    Plain { upper: Source, lower: Option<Source> },
    /// A directory of an overlay, with and without its top layer.
    Overlay { overlay: Arc<Overlay>, upper: Place, lower: Option<Place> },
}

/// A directory, not opened yet.
pub enum Source {
    /// A name in an open directory; empty for this itself.
    Tree(CString, Arc<TreeDir>),
    /// A place in an index.
    Index(Arc<IndexFile>, Extent),
}

/// An open directory with its names.
pub enum Listed {
    /// In a tree.
    Tree(Arc<TreeDir>, Names),
    /// In an index.
    Index(Arc<IndexFile>, Indexed),
}

/// Two open directories of one path, with the names to look at.
pub enum OpenDirPair {
    /// With the index into the names of lower and of upper for each name of either, in order.
    Plain { upper: Listed, lower: Option<Listed>, pairs: Vec<(Option<u32>, Option<u32>)> },
    /// With the names that may differ.
    Overlay { overlay: Arc<Overlay>, upper: Folder, lower: Option<Folder>, names: Names },
}

/// The result of looking a name up in two directories.
#[expect(clippy::large_enum_variant, reason = "it stays on the stack")]
pub enum NameLookup<'a> {
    /// Nothing, or the very same inode in both.
    Nothing,
    /// Only lower has it.
    Gone(&'a CStr),
    /// Upper has it, and maybe lower.
    Found { name: &'a CStr, upper: Located<'a>, lower: Option<Located<'a>> },
}

/// An entry of one of the trees, and its location.
pub struct Located<'a> {
    /// The result of lstat, now or when the index was made.
    pub metadata: Metadata,
    at: Location<'a>,
}

enum Location<'a> {
    Plain(&'a Arc<TreeDir>, &'a CStr),
    Index(&'a Arc<IndexFile>, Box<TreeIndexEntry>),
    Overlay(&'a Arc<Overlay>, Box<Found>),
}

impl DirPair {
    /// Opens both and reads their names. If `retry_on_change` is set, an upper directory that is gone is empty, unless it
    /// is the root.
    pub fn open(self, retry_on_change: bool, control: &Control) -> Result<OpenDirPair> {
        match self {
            Self::Plain { upper, lower } => {
                let upper = upper.open(retry_on_change, control)?;
                let lower = lower.map(|lower| lower.open(false, control)).transpose()?;
                let pairs = merge(lower.as_ref().map(Listed::names), upper.names());
                Ok(OpenDirPair::Plain { upper, lower, pairs })
            }
            Self::Overlay { overlay, upper, lower } => {
                let lower = lower.map(|lower| overlay.open_folder(&lower)).transpose()?;
                let list = |upper: Folder| -> Result<_> {
                    let names = overlay.candidates(&upper, lower.as_ref(), control)?;
                    Ok((upper, names))
                };
                let open = || overlay.open_folder(&upper).and_then(list);
                let opened = open_changing(retry_on_change && !upper.is_root(), control, open)?;
                let (upper, names) = opened.map_or_else(|| list(Folder::default()), Ok)?;
                Ok(OpenDirPair::Overlay { overlay, upper, lower, names })
            }
        }
    }
}

/// Opens a directory of upper. Returns `None` if the name vanished and `retry_on_change` is set. Retries a few times,
/// because a rename can leave a gap.
fn open_changing<T>(retry_on_change: bool, control: &Control, open: impl Fn() -> Result<T>) -> Result<Option<T>> {
    for attempt in 0..ATTEMPTS_TO_OPEN {
        control.pause(attempt)?;
        match open() {
            Err(error) if retry_on_change && error.is_change() => {}
            opened => return opened.map(Some),
        }
    }
    control.add_vanished();
    Ok(None)
}

impl Source {
    /// Opens the directory and reads its names. If `retry_on_change` is set, one that is gone is empty, unless it is a
    /// root.
    fn open(self, retry_on_change: bool, control: &Control) -> Result<Listed> {
        match self {
            Self::Tree(name, root) if name.is_empty() => {
                // It may have been read before.
                let directory = root.rewound()?;
                let names = Names::read(&directory, control)?;
                Ok(Listed::Tree(directory, names))
            }
            Self::Tree(name, parent) => {
                let open = || -> Result<_> {
                    let directory = parent.open_child(&name)?;
                    let names = Names::read(&directory, control)?;
                    Ok((directory, names))
                };
                let opened = open_changing(retry_on_change, control, open)?;
                let (directory, names) = opened.unwrap_or_else(|| (parent, Names::default()));
                Ok(Listed::Tree(directory, names))
            }
            Self::Index(file, extent) => {
                let folder = file.folder(extent)?;
                Ok(Listed::Index(file, folder))
            }
        }
    }
}

impl Listed {
    fn names(&self) -> &Names {
        match self {
            Self::Tree(_, names) => names,
            Self::Index(_, folder) => folder.names(),
        }
    }

    /// Returns the name at `index` of the order.
    fn name(&self, index: u32) -> &CStr {
        self.names().get(index as usize)
    }

    /// Returns the entry under the name at `index` of the order.
    fn located(&self, index: u32) -> Result<Located<'_>> {
        match self {
            Self::Tree(directory, names) => Located::plain(directory, names.get(index as usize)),
            Self::Index(file, folder) => {
                let record = file.record(folder, index as usize)?;
                Ok(Located { metadata: record.metadata, at: Location::Index(file, Box::new(record)) })
            }
        }
    }
}

impl OpenDirPair {
    /// Returns the number of names to look up.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain { pairs, .. } => pairs.len(),
            Self::Overlay { names, .. } => names.len(),
        }
    }

    /// Looks the name at `index` of the order up in both directories. If `retry_on_change` is set, a name that upper has
    /// no more counts as absent.
    pub fn lookup(
        &self,
        index: usize,
        retry_on_change: bool,
        xattrs: &mut XattrReader,
        control: &Control,
    ) -> Result<NameLookup<'_>> {
        match self {
            Self::Plain { upper, lower, pairs } => {
                let (in_lower, in_upper) = pairs[index];
                let lower = lower.as_ref().zip(in_lower);
                let gone = || lower.map_or(NameLookup::Nothing, |(listed, index)| NameLookup::Gone(listed.name(index)));
                let Some(index) = in_upper else { return Ok(gone()) };
                let located = match upper.located(index) {
                    Err(error) if retry_on_change && error.is_change() => {
                        control.add_vanished();
                        return Ok(gone());
                    }
                    located => located?,
                };
                let lower = lower.map(|(listed, index)| listed.located(index)).transpose()?;
                Ok(NameLookup::Found { name: upper.name(index), upper: located, lower })
            }
            Self::Overlay { overlay, upper, lower, names } => {
                let name = names.get(index);
                let mut find = |folder: &Folder| -> Result<_> {
                    let found = overlay.lookup(folder, name, xattrs)?;
                    Ok(found
                        .map(|found| Located { metadata: found.metadata, at: Location::Overlay(overlay, Box::new(found)) }))
                };
                let upper = find(upper)?;
                let lower = lower.as_ref().map(find).transpose()?.flatten();
                Ok(match (upper, lower) {
                    (None, None) => NameLookup::Nothing,
                    (None, Some(_)) => NameLookup::Gone(name),
                    (Some(upper), Some(lower)) if !overlay.complete() && upper.is_same_inode_of_same_layer(&lower) => {
                        NameLookup::Nothing
                    }
                    (Some(upper), lower) => NameLookup::Found { name, upper, lower },
                })
            }
        }
    }
}

impl OpenDirPair {
    /// Returns the entry of lower under the name at `index` of the order.
    pub fn lower(&self, index: usize, xattrs: &mut XattrReader) -> Result<Option<Located<'_>>> {
        match self {
            Self::Plain { lower, pairs, .. } => {
                let found = lower.as_ref().zip(pairs[index].0);
                found.map(|(listed, index)| listed.located(index)).transpose()
            }
            Self::Overlay { overlay, lower, names, .. } => {
                let found = lower.as_ref().map(|lower| overlay.lookup(lower, names.get(index), xattrs)).transpose()?;
                Ok(found
                    .flatten()
                    .map(|found| Located { metadata: found.metadata, at: Location::Overlay(overlay, Box::new(found)) }))
            }
        }
    }
}

impl<'a> Located<'a> {
    fn plain(directory: &'a Arc<TreeDir>, name: &'a CStr) -> Result<Self> {
        Ok(Self { metadata: directory.metadata(name)?, at: Location::Plain(directory, name) })
    }

    /// Returns true if both are one inode of one layer, so that everything below is the same too.
    pub fn is_same_inode_of_same_layer(&self, other: &Self) -> bool {
        match (&self.at, &other.at) {
            (Location::Overlay(_, one), Location::Overlay(_, other)) => one.is_same_inode_of_same_layer(other),
            _ => false,
        }
    }

    /// Returns true for an entry of an index.
    pub fn is_recorded(&self) -> bool {
        matches!(self.at, Location::Index(..))
    }

    /// Returns the entry as a side of a comparison.
    pub fn side(&self) -> CompareSide<'_> {
        let (directory, name, content) = match &self.at {
            Location::Plain(directory, name) => (&***directory, *name, None),
            Location::Index(_, record) => return CompareSide { metadata: &self.metadata, facts: Facts::Indexed(record) },
            Location::Overlay(_, found) => (&*found.directory, &*found.name, found.content.as_ref()),
        };
        let content = content.map_or((directory, name), |content| (&content.directory, &content.path));
        CompareSide { metadata: &self.metadata, facts: Facts::Live { directory, name, content } }
    }

    /// Returns the location of the content, if it is not under this name in the listed directory.
    pub fn content(&self) -> Option<&Content> {
        match &self.at {
            Location::Plain(..) | Location::Index(..) => None,
            Location::Overlay(_, found) => found.content.as_ref(),
        }
    }
}

impl OpenDirPair {
    /// Returns the directory of upper that has the content of its files, but those which say else.
    pub fn directory(&self) -> Option<&Arc<TreeDir>> {
        match self {
            Self::Plain { upper: Listed::Tree(directory, _), .. } => Some(directory),
            Self::Plain { .. } => None,
            Self::Overlay { upper, .. } => upper.upper(),
        }
    }
}

impl DirPair {
    /// Returns the directory of an entry, with nothing beside it; `None` for any other entry.
    pub fn alone(located: &Located<'_>) -> Option<Self> {
        if !located.metadata.is_directory() {
            return None;
        }
        let upper = match &located.at {
            Location::Plain(directory, name) => Source::Tree((*name).to_owned(), (*directory).clone()),
            Location::Index(file, record) => Source::Index((*file).clone(), record.children().unwrap_or_default()),
            Location::Overlay(overlay, found) => {
                let upper = found.place.clone().unwrap_or_default();
                return Some(Self::Overlay { overlay: (*overlay).clone(), upper, lower: None });
            }
        };
        Some(Self::Plain { upper, lower: None })
    }

    /// Returns the roots of two trees.
    pub fn of_roots(upper: TreeSource, lower: Option<TreeSource>) -> Self {
        let source = |root| match root {
            TreeSource::Directory(directory) => Source::Tree(CString::default(), directory),
            TreeSource::Index(file) => {
                let root = file.root();
                Source::Index(file, root)
            }
        };
        Self::Plain { upper: source(upper), lower: lower.map(source) }
    }

    /// Returns the directory `upper`, beside `lower` if that is a directory too.
    pub fn of(upper: Located<'_>, lower: Option<Located<'_>>) -> Self {
        let lower = lower.filter(|lower| lower.metadata.is_directory());
        let source = |at| match at {
            Location::Plain(directory, name) => Ok(Source::Tree(name.to_owned(), directory.clone())),
            Location::Index(file, record) => Ok(Source::Index(file.clone(), record.children().unwrap_or_default())),
            Location::Overlay(overlay, found) => Err((overlay, found)),
        };
        match source(upper.at) {
            Ok(upper) => Self::Plain { upper, lower: lower.and_then(|lower| source(lower.at).ok()) },
            Err((overlay, found)) => {
                let lower = lower.and_then(|lower| source(lower.at).err()).and_then(|(_, found)| found.place);
                Self::Overlay { overlay: overlay.clone(), upper: found.place.unwrap_or_default(), lower }
            }
        }
    }
}

/// Merges two sorted lists of names.
fn merge(lower: Option<&Names>, upper: &Names) -> Vec<(Option<u32>, Option<u32>)> {
    let lower_count = lower.map_or(0, Names::len);
    let mut pairs = Vec::with_capacity(lower_count.max(upper.len()));
    let (mut i, mut j) = (0, 0);
    while i < lower_count || j < upper.len() {
        let order = match lower {
            Some(lower) if i < lower_count && j < upper.len() => lower.get(i).cmp(upper.get(j)),
            _ if i < lower_count => Ordering::Less,
            _ => Ordering::Greater,
        };
        let (in_lower, in_upper) = (order.is_le(), order.is_ge());
        pairs.push((in_lower.then_some(i as u32), in_upper.then_some(j as u32)));
        i += usize::from(in_lower);
        j += usize::from(in_upper);
    }
    pairs
}
