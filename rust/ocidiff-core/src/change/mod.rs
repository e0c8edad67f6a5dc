//! Deciding what changed between two trees, in the order of a layer.
//!
//! Law: the sequence of changes depends on the two trees and the rules alone, never on the number of threads. Names in one
//! directory come in the order of their raw bytes, a directory before its children (continuity fs/diff.go, fs/path.go).

mod explain;
mod pair;
mod patterns;
mod pool;
mod same;
mod scope;
mod stream;

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

pub use explain::{Carried, Explanation, Reason};
pub use patterns::{Fitted, Patterns, Rows, States};
pub(crate) use same::fill;
pub use scope::Scope;
pub use stream::Changes;

use crate::control::Control;
use crate::error::Result;
use crate::idmap::IdMaps;
use crate::index::IndexFile;
use crate::metadata::{InodeKey, Metadata};
use crate::tree::overlay::{Overlay, OverlayPaths};
use crate::tree::{Lost, TreeDir, XattrPolicy, Xattrs};

/// A tree, or what is known of one.
#[derive(Clone)]
pub enum TreeSource {
    /// The tree itself.
    Directory(Arc<TreeDir>),
    /// An index of it.
    Index(Arc<IndexFile>),
}

/// Two trees to compare.
#[derive(Clone)]
pub enum Trees {
    /// Two trees as they are; without the lower one, all is an addition.
    Plain {
        /// The parent tree.
        lower: Option<TreeSource>,
        /// The changed tree.
        upper: TreeSource,
    },
    /// An overlay, compared with itself without its top layer. Only that layer is walked.
    Overlay(Arc<Overlay>),
}

impl Trees {
    /// Opens two plain trees, whose ids become what `ids` says of each.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when a root is missing or no directory.
    pub fn open(lower: Option<&Path>, upper: &Path, ids: [Option<Arc<IdMaps>>; 2]) -> Result<Self> {
        let [lower_ids, upper_ids] = ids;
        let lower = lower.map(|lower| TreeDir::open_mapped(lower, lower_ids)).transpose()?;
        let upper = TreeSource::Directory(TreeDir::open_mapped(upper, upper_ids)?);
        Ok(Self::Plain { lower: lower.map(TreeSource::Directory), upper })
    }

    /// Returns the root of the changed tree, or the directory that takes the changes; `None` for an index.
    pub fn upper(&self) -> Option<&Arc<TreeDir>> {
        match self {
            Self::Plain { upper: TreeSource::Directory(upper), .. } => Some(upper),
            Self::Plain { .. } => None,
            Self::Overlay(overlay) => Some(overlay.upper()),
        }
    }

    /// Opens the directories of an overlay.
    ///
    /// # Errors
    /// See [`Overlay::open`].
    pub fn of_overlay(paths: &OverlayPaths, control: &Control) -> Result<Self> {
        Ok(Self::Overlay(Arc::new(Overlay::open(paths, control)?)))
    }
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Only the upper tree has it.
    Add,
    /// Both have it, and it differs.
    Modify,
    /// Only the lower tree has it. Nothing below it is listed.
    Delete,
    /// Both have the same, and the upper tree has more names of it: only to anchor hard links.
    Unmodified,
}

/// The rules that decide what a layer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Extended attributes that are compared and stored.
    pub xattrs: XattrPolicy,
    /// True if two names are one file only if their device is the same too.
    pub device_in_links: bool,
    /// True if a real name that begins with `.wh.` is refused. Otherwise it becomes a deletion.
    pub refuse_whiteout_names: bool,
    /// True if the lower tree was unpacked from layers: a time without a fraction then does not decide, contents do. Times of
    /// the upper tree are bounded before they are compared, as those of the layers were.
    pub lower_has_layer_times: bool,
    /// True if a lower time without a fraction of a second does not decide, and contents do. Otherwise only two times without
    /// fractions leave it to the contents.
    pub lower_lacks_fractions: bool,
    /// True if a name that changes while it is read is read again, and one that vanishes is absent. Otherwise both are
    /// errors.
    pub retry_on_change: bool,
    /// Later modification times are stored as this (seconds since 1970).
    pub source_date_epoch: Option<i64>,
    /// True if changes come with an [`Explanation`], which costs comparisons that a verdict does not need.
    pub explain: bool,
}

impl Rules {
    /// Byte for byte what containerd's walking differ writes.
    pub const CONTAINERD: Self = Self {
        xattrs: XattrPolicy::Capability,
        device_in_links: false,
        refuse_whiteout_names: false,
        lower_has_layer_times: false,
        lower_lacks_fractions: false,
        retry_on_change: false,
        source_date_epoch: None,
        explain: false,
    };
    /// The bytes of containerd for ordinary trees. For others nothing is lost or forged.
    pub const OCI: Self = Self {
        xattrs: XattrPolicy::Portable,
        device_in_links: true,
        refuse_whiteout_names: true,
        lower_has_layer_times: false,
        lower_lacks_fractions: false,
        retry_on_change: false,
        source_date_epoch: None,
        explain: false,
    };

    /// Returns the modification time that a layer gives an entry of upper, in seconds since 1970.
    pub fn stored_mtime(&self, upper: &Metadata) -> i64 {
        self.source_date_epoch.map_or(upper.mtime, |bound| upper.mtime.min(bound))
    }

    /// Returns the key that all names of one file in upper share.
    pub fn link_key(&self, upper: &Metadata) -> InodeKey {
        let (device, inode) = upper.key;
        (if self.device_in_links { device } else { 0 }, inode)
    }
}

/// An entry of the upper tree.
#[derive(Debug)]
pub struct UpperEntry {
    /// The result of lstat.
    pub metadata: Metadata,
    /// The attributes.
    pub xattrs: Xattrs,
    /// The target of a symbolic link.
    pub target: Option<CString>,
}

/// A directory of the upper tree on the way to a change.
#[derive(Debug)]
pub struct Ancestor {
    /// The directory above; `None` for the root.
    pub parent: Option<Rc<Ancestor>>,
    /// Path relative to the root, without a slash at either end; empty for the root.
    pub path: Vec<u8>,
    /// The entry of the upper tree.
    pub entry: UpperEntry,
    /// The consumer's mark: a bit for each layer that the directory stands in.
    pub written: Cell<u32>,
}

/// The subject of a change.
#[derive(Debug)]
pub enum Subject {
    /// The lower tree's name is gone.
    Gone,
    /// A directory of the upper tree.
    Directory(Rc<Ancestor>),
    /// Anything else of the upper tree.
    Leaf {
        /// The entry.
        entry: UpperEntry,
        /// The directory that holds its content, open if there is some.
        directory: Option<Arc<TreeDir>>,
        /// Its name there, or a path below.
        name: CString,
        /// The result of lstat for the file that holds the content, if that is another one than under this name.
        content: Option<Box<Metadata>>,
    },
}

/// A change from lower to upper.
#[derive(Debug)]
pub struct Change {
    /// The kind of the change.
    pub kind: ChangeKind,
    /// Path relative to the root, without a slash at either end.
    pub path: Vec<u8>,
    /// The directory above in the upper tree.
    pub parent: Rc<Ancestor>,
    /// The entry that changed.
    pub subject: Subject,
    /// Why it is a change, where the rules ask for it.
    pub explanation: Option<Box<Explanation>>,
}

impl Change {
    /// Returns the attributes of the entry that the rules leave out, unless an earlier name of the same file told of them.
    pub fn lost(&self) -> Lost {
        match &self.subject {
            Subject::Gone => Lost::default(),
            Subject::Directory(directory) => directory.entry.xattrs.lost,
            Subject::Leaf { entry, .. } => entry.xattrs.lost,
        }
    }
}

/// Returns the path of `name` in the directory at `path`, both relative to the root.
fn join(path: &[u8], name: &CStr) -> Vec<u8> {
    let name = name.to_bytes();
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    if !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}
