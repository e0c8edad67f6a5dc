//! The results that the verbs return to Python: frozen values with the names of `ocidiff.layer.layer`.

use ocidiff_core::change::States;
use std::collections::BTreeMap;

use ocidiff_core::apply::{self, Skipped};
use ocidiff_core::compress::decompress::Digests;
use ocidiff_core::diff::{self, DiffSummary};
use ocidiff_core::index;
use ocidiff_core::squash;
use ocidiff_core::tree::Lost;
use pyo3::prelude::*;

/// Counts of what was left out, by reason.
pub type LeftOut = BTreeMap<&'static str, u64>;

/// Returns the counts that are not zero.
pub fn left_out<const N: usize>(reasons: [(&'static str, u64); N], lost: &Lost) -> LeftOut {
    reasons.into_iter().chain(lost.told()).filter(|&(_, count)| count > 0).collect()
}

/// A layer that was written.
#[pyclass(frozen, get_all, module = "ocidiff._core")]
pub struct LayerSummary {
    digest: String,
    size: u64,
    diff_id: String,
    uncompressed_size: u64,
    added: u64,
    modified: u64,
    deleted: u64,
    entries: u64,
    skipped: LeftOut,
    retried: u64,
    vanished: u64,
    reused_bytes: u64,
    fitted: Vec<u8>,
}

/// Returns states as the bytes of an integer, lowest first.
pub fn bytes_of(states: &States) -> Vec<u8> {
    states.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl LayerSummary {
    /// Returns what Python is told of a layer, and of the patterns that fitted a path.
    pub fn new(done: DiffSummary, fitted: &States) -> Self {
        let reasons = [("excluded", done.excluded), ("mounts", done.mounts), ("sockets", done.sockets)];
        Self {
            digest: done.blob.digest.to_string(),
            size: done.blob.size,
            diff_id: done.blob.diff_id.to_string(),
            uncompressed_size: done.blob.uncompressed_size,
            added: done.added,
            modified: done.modified,
            deleted: done.deleted,
            entries: done.entries,
            skipped: left_out(reasons, &done.lost),
            retried: done.retried,
            vanished: done.vanished,
            reused_bytes: done.reused_bytes,
            fitted: bytes_of(fitted),
        }
    }
}

/// Layers of one change that were written together.
#[pyclass(frozen, get_all, module = "ocidiff._core")]
pub struct SplitSummary {
    layers: Vec<Option<Py<LayerSummary>>>,
    placement: [u8; 32],
    fitted: Vec<u8>,
}

impl SplitSummary {
    /// Returns what Python is told of the layers.
    pub fn new(py: Python<'_>, done: diff::SplitSummary, fitted: &States) -> PyResult<Self> {
        let layer =
            |layer: Option<DiffSummary>| layer.map(|layer| Py::new(py, LayerSummary::new(layer, fitted))).transpose();
        let layers = done.layers.into_iter().map(layer).collect::<PyResult<_>>()?;
        Ok(Self { layers, placement: done.placement, fitted: bytes_of(fitted) })
    }
}

/// A layer that was applied.
#[pyclass(frozen, get_all, module = "ocidiff._core")]
pub struct ApplySummary {
    digest: String,
    size: u64,
    diff_id: String,
    uncompressed_size: u64,
    holes: u64,
    has_root: bool,
    entries: u64,
    whiteouts: u64,
    skipped: LeftOut,
    recorded: u64,
}

impl From<apply::ApplySummary> for ApplySummary {
    fn from(done: apply::ApplySummary) -> Self {
        let Skipped { owners, recorded, devices, xattrs, aufs } = done.skipped;
        let reasons = [("owners", owners), ("devices", devices), ("xattrs", xattrs), ("aufs", aufs)];
        Self {
            digest: done.digest.to_string(),
            size: done.size,
            diff_id: done.diff_id.to_string(),
            uncompressed_size: done.uncompressed_size,
            holes: done.holes,
            has_root: done.has_root,
            entries: done.entries,
            whiteouts: done.whiteouts,
            skipped: left_out(reasons, &Lost::default()),
            recorded,
        }
    }
}

/// A layer that was read.
#[pyclass(frozen, get_all, module = "ocidiff._core")]
pub struct LayerMeasure {
    digest: String,
    size: u64,
    diff_id: String,
    uncompressed_size: u64,
    holes: u64,
    entries: u64,
}

impl From<apply::LayerMeasure> for LayerMeasure {
    fn from(apply::LayerMeasure { digests, holes, entries }: apply::LayerMeasure) -> Self {
        Self {
            digest: digests.digest.to_string(),
            size: digests.size,
            diff_id: digests.diff_id.to_string(),
            uncompressed_size: digests.uncompressed_size,
            holes,
            entries,
        }
    }
}

/// A layer that was made of several.
#[pyclass(frozen, get_all, module = "ocidiff._core")]
pub struct SquashSummary {
    digest: String,
    size: u64,
    diff_id: String,
    uncompressed_size: u64,
    entries: u64,
    whiteouts: u64,
    skipped: LeftOut,
}

impl From<squash::SquashSummary> for SquashSummary {
    fn from(done: squash::SquashSummary) -> Self {
        Self {
            digest: done.blob.digest.to_string(),
            size: done.blob.size,
            diff_id: done.blob.diff_id.to_string(),
            uncompressed_size: done.blob.uncompressed_size,
            entries: done.entries,
            whiteouts: done.whiteouts,
            skipped: left_out([], &done.lost),
        }
    }
}

/// A tar that was written.
#[pyclass(frozen, get_all, module = "ocidiff._core")]
pub struct TarSummary {
    digest: String,
    size: u64,
    diff_id: String,
    uncompressed_size: u64,
}

impl From<Digests> for TarSummary {
    fn from(digests: Digests) -> Self {
        Self {
            digest: digests.digest.to_string(),
            size: digests.size,
            diff_id: digests.diff_id.to_string(),
            uncompressed_size: digests.uncompressed_size,
        }
    }
}

/// An index that was written.
#[pyclass(frozen, get_all, module = "ocidiff._core")]
pub struct IndexSummary {
    digest: String,
    size: u64,
    entries: u64,
    file_bytes: u64,
    skipped: LeftOut,
}

impl IndexSummary {
    /// Takes what the core tells, and the mount points that it left out.
    pub fn new(done: &index::IndexSummary, mounts: u64) -> Self {
        Self {
            digest: done.digest.to_string(),
            size: done.size,
            entries: done.entries,
            file_bytes: done.file_bytes,
            skipped: left_out([("mounts", mounts)], &done.lost),
        }
    }
}
