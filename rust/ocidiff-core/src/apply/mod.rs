//! The verb apply: a layer becomes a change of a directory.
//!
//! Laws: nothing outside the target changes, whatever the layer says; whiteouts touch what was there before, never what the
//! same layer wrote, wherever they stand in it; after an error the target is not to be used.

mod disk;
mod limits;
mod measure;
pub(crate) mod model;
pub(crate) mod path;
mod plan;
pub(crate) mod reading;
pub(crate) mod told;

pub use disk::apply_layer;
pub use limits::Limits;
pub use measure::{LayerMeasure, measure_layer, write_tar};

use crate::digest::Digest;

/// The kind of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Destination {
    /// A plain tree: whiteouts remove what is there.
    #[default]
    Directory,
    /// The upperdir of an overlay: whiteouts become devices 0/0 and `trusted.overlay.opaque`, for the layers below.
    Overlay,
    /// The upperdir of an overlay with the mount option `userxattr`, which keeps its attributes under `user.overlay.`.
    OverlayUserxattr,
}

/// Options of an apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Give every entry its recorded owner and treat each failure as an error. Else owners are not touched, set-id bits of
    /// others' files are dropped, `security.*` attributes that may not be set are left out, and empty files stand for
    /// devices; all is counted, and noted in `user.containers.override_stat` where the file system can.
    pub same_owner: bool,
    /// The kind of the target.
    pub destination: Destination,
    /// The tar is that of an overlay's upper directory: devices 0/0 are whiteouts, attributes mark opaque directories, every
    /// directory has an entry before what is in it, and an end mark is needed.
    pub is_upper: bool,
    /// Threads that write small files, besides those that read and hash; 0 for as many as there are cores.
    pub threads: usize,
    /// Limits of the layer.
    pub limits: Limits,
}

/// Counts of what could not be kept, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Entries whose owner is another than theirs.
    pub owners: u64,
    /// Owners and devices among these that are noted in an attribute.
    pub recorded: u64,
    /// Devices that were not made.
    pub devices: u64,
    /// Attributes that belong to the host, or that the file system or the system refused.
    pub xattrs: u64,
    /// Bookkeeping of AUFS that no hard link can need.
    pub aufs: u64,
}

/// A layer that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplySummary {
    /// sha256 of the blob, all of it.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// sha256 of the uncompressed tar, with whatever follows its end mark.
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub uncompressed_size: u64,
    /// Bytes of holes in sparse files, which the tar leaves out.
    pub holes: u64,
    /// True if an entry says what the root itself is.
    pub has_root: bool,
    /// Entries handled.
    pub entries: u64,
    /// Entries that were whiteouts.
    pub whiteouts: u64,
    /// Counts of what could not be kept.
    pub skipped: Skipped,
}
