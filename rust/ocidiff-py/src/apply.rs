//! `apply_layer`: the verb apply.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use ocidiff_core::apply::{ApplyOptions, ApplySummary, Limits, apply_layer as apply};
use ocidiff_core::stream::Stream;
use pyo3::prelude::*;

use crate::diff::path;
use crate::run::{own_descriptor, run};

type Summary = (String, u64, String, u64, u64, u64, BTreeMap<&'static str, u64>);

/// Writes the layer in the descriptor `source` onto the directory `target`.
#[pyfunction]
#[pyo3(signature = (source, target, *, same_owner, max_bytes, max_entries, poll))]
pub fn apply_layer(
    py: Python<'_>,
    source: RawFd,
    target: &[u8],
    same_owner: bool,
    max_bytes: Option<u64>,
    max_entries: Option<u64>,
    poll: Option<&Bound<'_, PyAny>>,
) -> PyResult<Summary> {
    let options = ApplyOptions { same_owner, limits: Limits { max_bytes, max_entries, ..Limits::default() } };
    let (source, target) = (own_descriptor(source)?, path(target));
    run(py, poll, |control| apply(Stream::new(source, control.clone())?, target, &options, control)).map(summary)
}

fn summary(done: ApplySummary) -> Summary {
    let skipped = done.skipped;
    let reasons =
        [("owners", skipped.owners), ("devices", skipped.devices), ("xattrs", skipped.xattrs), ("aufs", skipped.aufs)];
    (
        done.digest.to_string(),
        done.size,
        done.diff_id.to_string(),
        done.uncompressed_size,
        done.entries,
        done.whiteouts,
        reasons.into_iter().filter(|&(_, count)| count > 0).collect(),
    )
}
