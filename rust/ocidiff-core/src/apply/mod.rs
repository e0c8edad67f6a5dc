//! The verb apply: a layer becomes a change of a directory.
//!
//! Laws: nothing outside the target changes, whatever the layer says; whiteouts touch what was there before, never what the
//! same layer wrote, wherever they stand in it; after an error the target is not to be used.

pub(crate) mod attributes;
mod directories;
mod entry;
mod files;
mod handle;
mod limits;
mod measure;
pub(crate) mod path;
mod place;
pub(crate) mod plan;
mod removal;
mod root;
mod upper;
mod upper_tar;
mod writers;

use std::io::Read;
use std::path::Path;

pub use limits::Limits;
pub use measure::{LayerMeasure, measure_layer};

use crate::compress::decompress::{Decompressed, Digests};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tar::read::Reader;
use attributes::{Policy, Tally};
use entry::Applier;
use root::Root;
use writers::{Shared, Writers};

/// What kind of tree the target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Destination {
    /// A plain tree: whiteouts remove what is there.
    #[default]
    Directory,
    /// The upperdir of an overlay: whiteouts become devices 0/0 and `trusted.overlay.opaque`, for the layers below.
    Overlay,
    /// The same for mounts with the option `userxattr`, which keep their attributes under `user.overlay.`.
    OverlayUserxattr,
}

/// How a layer is written onto a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Give every entry its recorded owner and treat each failure as an error. Else owners are not touched, set-id bits of
    /// others' files are dropped, `security.*` attributes that may not be set are left out, and empty files stand for
    /// devices; all is counted, and noted in `user.containers.override_stat` where the file system can.
    pub same_owner: bool,
    /// What kind of tree the target is.
    pub destination: Destination,
    /// The tar is that of an overlay's upper directory: devices 0/0 are whiteouts, attributes mark opaque directories, every
    /// directory has an entry before what is in it, and an end mark is needed.
    pub is_upper: bool,
    /// What the layer may not pass.
    pub limits: Limits,
}

/// What could not be kept, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Entries whose owner is another than theirs.
    pub owners: u64,
    /// How many of these, and of the devices, note it in an attribute.
    pub recorded: u64,
    /// Devices that were not made.
    pub devices: u64,
    /// Attributes that belong to the host, or that the file system or the system refused.
    pub xattrs: u64,
    /// Bookkeeping of AUFS that no hard link can need.
    pub aufs: u64,
}

/// What was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplySummary {
    /// sha256 of the blob, all of it.
    pub digest: crate::digest::Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// sha256 of the uncompressed tar, with whatever follows its end mark.
    pub diff_id: crate::digest::Digest,
    /// Bytes of the uncompressed tar.
    pub uncompressed_size: u64,
    /// Bytes of holes in sparse files, which the tar leaves out.
    pub holes: u64,
    /// True if an entry says what the root itself is.
    pub has_root: bool,
    /// Entries handled.
    pub entries: u64,
    /// How many of them were whiteouts.
    pub whiteouts: u64,
    /// What could not be kept.
    pub skipped: Skipped,
}

/// Writes the layer in `source` onto the directory `target`. Its compression is detected; no bytes are an empty layer.
///
/// A failure also cancels `control`, which belongs to this one call: a source that sleeps must not hold it up.
///
/// # Errors
/// [`Error::MalformedLayer`](crate::Error::MalformedLayer) and [`Error::UnsafeEntry`](crate::Error::UnsafeEntry) for what the
/// layer says, [`Error::LimitExceeded`](crate::Error::LimitExceeded),
/// [`Error::Unsupported`](crate::Error::Unsupported) for sparse files in an unknown form and other compressions,
/// [`Error::Io`](crate::Error::Io) for what the system refuses, and [`Error::Cancelled`](crate::Error::Cancelled).
///
/// Spec: image-spec layer.md, "Applying Changesets".
pub fn apply_layer(
    source: impl Read + Send,
    target: &Path,
    options: &ApplyOptions,
    control: &Control,
) -> Result<ApplySummary> {
    let mut root = Root::open(target)?;
    let policy = Policy::new(options, root.is_marked());
    if policy.notes_all() {
        root.note_owners().map_err(Error::sys("set xattr of", target))?;
    }
    let shared = Shared { policy, tally: Tally::default(), control };
    std::thread::scope(|scope| {
        let apply = || {
            let tar = Decompressed::start(scope, source, options.limits.bounds(), control)?;
            let writers = Writers::start(scope, &shared)?;
            let mut applier = Applier::new(root, target, options, &shared, writers)?;
            let (digests, holes) = write(tar, &mut applier, options).map_err(|error| applier.fail(error))?;
            Ok(ApplySummary {
                digest: digests.digest,
                size: digests.size,
                diff_id: digests.diff_id,
                uncompressed_size: digests.uncompressed_size,
                holes,
                has_root: applier.has_root,
                entries: applier.entries,
                whiteouts: applier.whiteouts,
                skipped: shared.tally.skipped(),
            })
        };
        apply().inspect_err(|_| control.cancel())
    })
}

fn write(tar: Decompressed<'_>, applier: &mut Applier<'_>, options: &ApplyOptions) -> Result<(Digests, u64)> {
    let mut reader = Reader::new(tar, options.limits.max_header_bytes);
    while let Some(entry) = reader.next_entry()? {
        applier.apply(entry, &mut reader)?;
    }
    if options.is_upper {
        reader.check_end()?;
    }
    reader.drain()?;
    applier.finish()?;
    let holes = reader.holes();
    Ok((reader.into_inner().finish()?, holes))
}
