//! diff: two trees in, one layer out.
//!
//! ```no_run
//! use std::{fs::File, path::Path, sync::Arc};
//! use ocidiff_core::{change::Rules, compress::Compression, control::Control, diff};
//!
//! let options = diff::DiffOptions {
//!     rules: Rules::OCI,
//!     scope: None,
//!     compression: Compression::Gzip { level: 6 },
//!     threads: 2,
//! };
//! let sink = File::create("layer.tar.gz")?.into();
//! let summary = diff::write_diff(Some(Path::new("lower")), Path::new("upper"), sink, &options, &Arc::new(Control::default()))?;
//! println!("{}", summary.blob.diff_id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod record;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use crate::change::{ChangeKind, Changes, Root, Rules, Scope, Trees};
use crate::compress::Compression;
use crate::compress::blob::{BlobSummary, BlobWriter};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::stream::Stream;
use record::Recorder;

/// What a layer shall be.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    /// Which rules decide what it says.
    pub rules: Rules,
    /// Which paths count; `None` for all.
    pub scope: Option<Arc<Scope>>,
    /// How the blob is compressed.
    pub compression: Compression,
    /// Threads that walk and threads that compress, each; the bytes do not depend on it.
    pub threads: usize,
}

/// What is known once a layer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffSummary {
    /// Digests and sizes.
    pub blob: BlobSummary,
    /// Paths that only the upper tree has.
    pub added: u64,
    /// Paths that both have, and that differ.
    pub modified: u64,
    /// Paths that only the lower tree has, without what was below them.
    pub deleted: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// Sockets that changed, which no layer can hold.
    pub sockets: u64,
    /// Paths that seem to have changed, and are outside of the scope; what is below a directory is not looked at.
    pub excluded: u64,
    /// Mount points that were not crossed.
    pub mounts: u64,
}

/// Writes the layer that turns `lower` into `upper` to `sink`; without `lower`, all of `upper` is added.
///
/// # Errors
/// [`crate::Error`]; the bytes written so far are then no layer, and are never ended like one. Threads are joined in any case.
///
/// Spec: image-spec layer.md, "Change Types"; containerd's walking differ.
pub fn write_diff(
    lower: Option<&Path>,
    upper: &Path,
    sink: OwnedFd,
    options: &DiffOptions,
    control: &Arc<Control>,
) -> Result<DiffSummary> {
    write_layer(Trees::open(lower, upper, [None, None])?, sink, options, control)
}

/// Writes the layer that `trees` differ by; see [`write_diff`].
///
/// # Errors
/// As [`write_diff`]; [`Error::Usage`] for an upper tree of which there is only an index.
pub fn write_layer(trees: Trees, sink: OwnedFd, options: &DiffOptions, control: &Arc<Control>) -> Result<DiffSummary> {
    if let Trees::Plain { upper: Root::Index(_), .. } = trees {
        return Err(Error::Usage("upper: an index has no contents for a layer".into()));
    }
    let changes = Changes::start(trees, options.rules, options.scope.clone(), options.threads, control.clone())?;
    let stream = Stream::new(sink, control.clone())?;
    let blob = BlobWriter::start(stream, options.compression, options.threads, control.clone())?;
    let mut recorder = Recorder::new(blob, options.rules);
    let (mut added, mut modified, mut deleted) = (0, 0, 0);
    for change in changes {
        let change = change?;
        match change.kind {
            ChangeKind::Add => added += 1,
            ChangeKind::Modify => modified += 1,
            ChangeKind::Delete => deleted += 1,
            ChangeKind::Unmodified => {}
        }
        recorder.record(&change)?;
    }
    let (entries, sockets) = (recorder.entries(), recorder.sockets());
    let (excluded, mounts) = control.left_out();
    Ok(DiffSummary { blob: recorder.finish()?, added, modified, deleted, entries, sockets, excluded, mounts })
}

/// The changes from `lower` to `upper`, in the order of a layer, while the trees are read.
///
/// # Errors
/// [`crate::Error::Io`] when a root is missing or no directory.
pub fn changes(lower: Option<&Path>, upper: &Path, rules: Rules, threads: usize, control: &Arc<Control>) -> Result<Changes> {
    Changes::start(Trees::open(lower, upper, [None, None])?, rules, None, threads, control.clone())
}
