//! The trees of a call, read from a path, an `IndexPath` or `OverlayLayers`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use ocidiff_core::Result;
use ocidiff_core::change::{TreeSource, Trees};
use ocidiff_core::control::Control;
use ocidiff_core::idmap::IdMaps;
use ocidiff_core::index::IndexFile;
use ocidiff_core::tree::TreeDir;
use ocidiff_core::tree::overlay::{Format, OverlayPaths};
use pyo3::prelude::*;

use crate::options::LayerOptions;

/// A path of any bytes.
#[derive(Clone)]
pub struct Path(pub PathBuf);

impl<'a, 'py> FromPyObject<'a, 'py> for Path {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(OsStr::from_bytes(value.extract::<&[u8]>()?).into()))
    }
}

/// A tree that is compared.
#[derive(FromPyObject)]
pub enum Tree {
    /// Its directory.
    #[pyo3(transparent)]
    Directory(Path),
    /// An `IndexPath`.
    Index {
        /// The file.
        path: Path,
    },
}

/// The changed tree.
#[derive(FromPyObject)]
pub enum Upper {
    /// A tree that is compared with the lower one.
    #[pyo3(transparent)]
    Tree(Tree),
    /// `OverlayLayers`, whose lower directories are the parent tree.
    Overlay {
        /// The directory that takes the changes.
        upperdir: Path,
        /// The directories below it, top first.
        lowerdirs: Vec<Path>,
        /// Directories that only hold the content of files in the others, top first.
        datadirs: Vec<Path>,
        /// True if marks are in `user.overlay.*`; `None` to find out.
        userxattr: Option<bool>,
        /// True if redirects of directories are followed.
        redirects: bool,
    },
}

/// The trees to compare, not open yet.
pub enum Source {
    /// Two trees, and the ids of each.
    Plain([Option<Arc<IdMaps>>; 2], Option<Tree>, Tree),
    /// The directories of an overlay.
    Overlay(OverlayPaths),
}

impl Source {
    /// Joins the trees of a call with the ids that its options give them.
    pub fn new(lower: Option<Tree>, upper: Upper, options: &LayerOptions) -> Self {
        let ids = options.ids.maps();
        let lower_ids = ids.clone().filter(|_| !options.lower_has_ids);
        match upper {
            Upper::Tree(upper) => Self::Plain([lower_ids, ids], lower, upper),
            Upper::Overlay { upperdir, lowerdirs, datadirs, userxattr, redirects } => {
                let paths = |paths: Vec<Path>| paths.into_iter().map(|Path(path)| path).collect();
                let format = userxattr.map(|set| if set { Format::User } else { Format::Trusted });
                let (upper, lowers, data) = (upperdir.0, paths(lowerdirs), paths(datadirs));
                Self::Overlay(OverlayPaths { upper, lowers, data, format, redirects, ids, lower_ids })
            }
        }
    }

    /// Opens the trees.
    pub fn open(&self, control: &Control) -> Result<Trees> {
        match self {
            Self::Plain([lower_ids, ids], lower, upper) => {
                let lower = lower.as_ref().map(|lower| lower.open(lower_ids, control)).transpose()?;
                Ok(Trees::Plain { lower, upper: upper.open(ids, control)? })
            }
            Self::Overlay(paths) => Trees::of_overlay(paths, control),
        }
    }
}

impl Tree {
    fn open(&self, ids: &Option<Arc<IdMaps>>, control: &Control) -> Result<TreeSource> {
        match self {
            Self::Directory(Path(path)) => TreeDir::open_mapped(path, ids.clone()).map(TreeSource::Directory),
            Self::Index { path: Path(path) } => Ok(TreeSource::Index(Arc::new(IndexFile::open(path, control)?))),
        }
    }
}
