//! A directory of the lower tree beside the one of the same path in the upper: two plain ones, or two of an overlay.

use std::cmp::Ordering;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::same::Side;
use crate::control::Control;
use crate::error::Result;
use crate::metadata::Metadata;
use crate::tree::overlay::{Content, Folder, Found, Overlay, Place};
use crate::tree::{Directory, Names, XattrReader};

/// Two directories of one path, not opened yet; lower may be missing.
pub enum Pair {
    /// A name in two open directories; empty for these themselves.
    Plain { name: CString, upper: Arc<Directory>, lower: Option<Arc<Directory>> },
    /// What an overlay shows with and without its top layer.
    Overlay { overlay: Arc<Overlay>, upper: Place, lower: Option<Place> },
}

/// Two open directories of one path, with the names to look at.
pub enum OpenPair {
    /// With the index into the names of lower and of upper for each name of either, in order.
    Plain { upper: (Arc<Directory>, Names), lower: Option<(Arc<Directory>, Names)>, pairs: Vec<(Option<u32>, Option<u32>)> },
    /// With the names that may differ.
    Overlay { overlay: Arc<Overlay>, upper: Folder, lower: Option<Folder>, names: Names },
}

/// What the two directories have under a name.
#[expect(clippy::large_enum_variant, reason = "it stays on the stack")]
pub enum Met<'a> {
    /// Nothing, or the very same with no more to tell of it.
    Nothing,
    /// Only lower has it.
    Gone(&'a CStr),
    /// Upper has it, and maybe lower.
    There { name: &'a CStr, upper: Spot<'a>, lower: Option<Spot<'a>> },
}

/// Where a name leads to in one of the trees.
pub struct Spot<'a> {
    /// What lstat says of it.
    pub metadata: Metadata,
    at: At<'a>,
}

enum At<'a> {
    Plain(&'a Arc<Directory>, &'a CStr),
    Overlay(&'a Arc<Overlay>, Box<Found>),
}

impl Pair {
    /// Opens both and reads their names.
    pub fn open(self, control: &Control) -> Result<OpenPair> {
        match self {
            Self::Plain { name, upper, lower } => {
                let open = |parent: Arc<Directory>| -> Result<_> {
                    let directory = if name.is_empty() { parent } else { parent.open_child(&name)? };
                    let names = Names::read(&directory, control)?;
                    Ok((directory, names))
                };
                let upper = open(upper)?;
                let lower = lower.map(open).transpose()?;
                let pairs = merge(lower.as_ref().map(|(_, names)| names), &upper.1);
                Ok(OpenPair::Plain { upper, lower, pairs })
            }
            Self::Overlay { overlay, upper, lower } => {
                let upper = overlay.open_folder(&upper)?;
                let lower = lower.map(|lower| overlay.open_folder(&lower)).transpose()?;
                let names = overlay.candidates(&upper, lower.as_ref(), control)?;
                Ok(OpenPair::Overlay { overlay, upper, lower, names })
            }
        }
    }
}

impl OpenPair {
    /// How many names there are to look at.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain { pairs, .. } => pairs.len(),
            Self::Overlay { names, .. } => names.len(),
        }
    }

    /// What both have under the name at `index` of the order.
    pub fn meet(&self, index: usize, xattrs: &mut XattrReader) -> Result<Met<'_>> {
        match self {
            Self::Plain { upper: (directory, names), lower, pairs } => {
                let (in_lower, in_upper) = pairs[index];
                let lower = lower.as_ref().zip(in_lower);
                let lower = lower.map(|((directory, names), index)| (directory, names.get(index as usize)));
                let Some(index) = in_upper else { return Ok(lower.map_or(Met::Nothing, |(_, name)| Met::Gone(name))) };
                let name = names.get(index as usize);
                let upper = Spot::plain(directory, name)?;
                let lower = lower.map(|(directory, name)| Spot::plain(directory, name)).transpose()?;
                Ok(Met::There { name, upper, lower })
            }
            Self::Overlay { overlay, upper, lower, names } => {
                let name = names.get(index);
                let mut find = |folder: &Folder| -> Result<_> {
                    let found = overlay.lookup(folder, name, xattrs)?;
                    Ok(found.map(|found| Spot { metadata: found.metadata, at: At::Overlay(overlay, Box::new(found)) }))
                };
                let upper = find(upper)?;
                let lower = lower.as_ref().map(find).transpose()?.flatten();
                Ok(match (upper, lower) {
                    (None, None) => Met::Nothing,
                    (None, Some(_)) => Met::Gone(name),
                    (Some(upper), Some(lower)) if !overlay.complete() && upper.is_very(&lower) => Met::Nothing,
                    (Some(upper), lower) => Met::There { name, upper, lower },
                })
            }
        }
    }
}

impl OpenPair {
    /// What lower has under the name at `index` of the order.
    pub fn lower(&self, index: usize, xattrs: &mut XattrReader) -> Result<Option<Spot<'_>>> {
        match self {
            Self::Plain { lower, pairs, .. } => {
                let found = lower.as_ref().zip(pairs[index].0);
                found.map(|((directory, names), index)| Spot::plain(directory, names.get(index as usize))).transpose()
            }
            Self::Overlay { overlay, lower, names, .. } => {
                let found = lower.as_ref().map(|lower| overlay.lookup(lower, names.get(index), xattrs)).transpose()?;
                Ok(found.flatten().map(|found| Spot { metadata: found.metadata, at: At::Overlay(overlay, Box::new(found)) }))
            }
        }
    }
}

impl<'a> Spot<'a> {
    fn plain(directory: &'a Arc<Directory>, name: &'a CStr) -> Result<Self> {
        Ok(Self { metadata: directory.metadata(name)?, at: At::Plain(directory, name) })
    }

    /// Whether both are the very same place of the same layers, and so the same in all that is below.
    pub fn is_very(&self, other: &Self) -> bool {
        matches!((&self.at, &other.at), (At::Overlay(_, one), At::Overlay(_, other)) if one.is_very(other))
    }

    /// As a side of a comparison.
    pub fn side(&self) -> Side<'_> {
        let (directory, name, content) = match &self.at {
            At::Plain(directory, name) => (&***directory, *name, None),
            At::Overlay(_, found) => (&*found.directory, &*found.name, found.content.as_ref()),
        };
        let content = content.map_or((directory, name), |content| (&content.directory, &content.path));
        Side { directory, name, metadata: &self.metadata, content }
    }

    /// Where the content is, unless under this name in the directory that is listed.
    pub fn content(&self) -> Option<&Content> {
        match &self.at {
            At::Plain(..) => None,
            At::Overlay(_, found) => found.content.as_ref(),
        }
    }
}

impl OpenPair {
    /// The directory of upper that has the content of its files, but those which say else.
    pub fn directory(&self) -> Option<&Arc<Directory>> {
        match self {
            Self::Plain { upper: (directory, _), .. } => Some(directory),
            Self::Overlay { upper, .. } => upper.upper(),
        }
    }
}

impl Pair {
    /// The directory at `spot` of either tree, with nothing beside it; `None` where it is no directory.
    pub fn alone(spot: &Spot<'_>) -> Option<Self> {
        if !spot.metadata.is_directory() {
            return None;
        }
        Some(match &spot.at {
            At::Plain(directory, name) => Self::Plain { name: (*name).to_owned(), upper: (*directory).clone(), lower: None },
            At::Overlay(overlay, found) => {
                let upper = found.place.clone().unwrap_or_default();
                Self::Overlay { overlay: (*overlay).clone(), upper, lower: None }
            }
        })
    }

    /// The directory `upper`, and `lower` where that is one too.
    pub fn of(upper: Spot<'_>, lower: Option<Spot<'_>>) -> Self {
        let lower = lower.filter(|lower| lower.metadata.is_directory());
        match upper.at {
            At::Plain(directory, name) => {
                let lower = lower.and_then(|lower| match lower.at {
                    At::Plain(directory, _) => Some(directory.clone()),
                    At::Overlay(..) => None,
                });
                Self::Plain { name: name.to_owned(), upper: directory.clone(), lower }
            }
            At::Overlay(overlay, found) => {
                let lower = lower.and_then(|lower| match lower.at {
                    At::Overlay(_, found) => found.place,
                    At::Plain(..) => None,
                });
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
