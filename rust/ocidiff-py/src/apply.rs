//! `apply_layer`: the verb apply.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use ocidiff_core::apply::{ApplyOptions, ApplySummary, Destination, Limits, apply_layer as apply};
use ocidiff_core::stream::Stream;
use ocidiff_core::{Cause, Error};
use pyo3::prelude::*;

use crate::diff::path;
use crate::error::to_python;
use crate::run::{own_descriptor, run};

type Summary = (String, u64, String, u64, u64, bool, u64, u64, BTreeMap<&'static str, u64>, u64);

/// Bytes, entries, ratio, depth and header bytes.
pub type LimitArguments = (Option<u64>, Option<u64>, Option<u64>, usize, u64);

/// The limits of these numbers.
pub fn limits_of((max_bytes, max_entries, max_ratio, max_depth, max_header_bytes): LimitArguments) -> Limits {
    Limits { max_bytes, max_entries, max_ratio, max_depth, max_header_bytes }
}

/// Writes the layer in the descriptor `source` onto the directory `target`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the boundary takes plain values")]
#[pyo3(signature = (source, target, *, same_owner, destination, is_upper, limits, poll))]
pub fn apply_layer(
    py: Python<'_>,
    source: RawFd,
    target: &[u8],
    same_owner: bool,
    destination: &str,
    is_upper: bool,
    limits: LimitArguments,
    poll: Option<&Bound<'_, PyAny>>,
) -> PyResult<Summary> {
    let limits = limits_of(limits);
    let destination = match destination {
        "directory" => Destination::Directory,
        "overlay" => Destination::Overlay,
        "overlay-userxattr" => Destination::OverlayUserxattr,
        other => {
            let (what, choices) = (format!("destination {other:?}"), "directory, overlay or overlay-userxattr");
            return Err(to_python(Error::Usage(Cause::NotAChoice { what, choices })));
        }
    };
    let options = ApplyOptions { same_owner, destination, is_upper, limits };
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
        done.holes,
        done.has_root,
        done.entries,
        done.whiteouts,
        reasons.into_iter().filter(|&(_, count)| count > 0).collect(),
        skipped.recorded,
    )
}
