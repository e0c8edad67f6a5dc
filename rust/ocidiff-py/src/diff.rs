//! `write_layer`: the verb diff.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ocidiff_core::change::Rules;
use ocidiff_core::compress::Compression;
use ocidiff_core::diff::{DiffOptions, DiffSummary, write_diff};
use ocidiff_core::{Error, Result};
use pyo3::prelude::*;

use crate::error::to_python;
use crate::run::{own_descriptor, run, thread_count};

type Summary = (String, u64, String, u64, u64, u64, u64, u64, BTreeMap<&'static str, u64>);

/// Writes the layer that turns `lower` into `upper` to the descriptor `sink`.
#[pyfunction]
#[pyo3(signature = (lower, upper, sink, *, compression, level, threads, profile, lower_from_layers, source_date_epoch, poll))]
#[expect(clippy::too_many_arguments, reason = "the boundary takes plain values")]
pub fn write_layer(
    py: Python<'_>,
    lower: Option<&[u8]>,
    upper: &[u8],
    sink: RawFd,
    compression: &str,
    level: Option<i32>,
    threads: usize,
    profile: &str,
    lower_from_layers: bool,
    source_date_epoch: Option<i64>,
    poll: Option<&Bound<'_, PyAny>>,
) -> PyResult<Summary> {
    let options = DiffOptions {
        rules: Rules { lower_from_layers, source_date_epoch, ..rules(profile).map_err(to_python)? },
        compression: compression_of(compression, level).map_err(to_python)?,
        threads: thread_count(threads),
    };
    let sink = own_descriptor(sink)?;
    let (lower, upper) = (lower.map(path), path(upper));
    run(py, poll, |control| write_diff(lower, upper, sink, &options, control)).map(summary)
}

fn summary(done: DiffSummary) -> Summary {
    let skipped = [("sockets", done.sockets)].into_iter().filter(|&(_, count)| count > 0).collect();
    let blob = done.blob;
    (
        blob.digest.to_string(),
        blob.size,
        blob.diff_id.to_string(),
        blob.uncompressed_size,
        done.added,
        done.modified,
        done.deleted,
        done.entries,
        skipped,
    )
}

/// A path as it came.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The rules of a profile.
pub fn rules(profile: &str) -> Result<Rules> {
    match profile {
        "oci" => Ok(Rules::OCI),
        "containerd" => Ok(Rules::CONTAINERD),
        _ => Err(Error::Usage(format!("profile {profile:?}: there are oci and containerd"))),
    }
}

fn compression_of(name: &str, level: Option<i32>) -> Result<Compression> {
    match name {
        "gzip" => Ok(Compression::Gzip { level: level.unwrap_or(6) }),
        "zstd" => Ok(Compression::Zstd { level: level.unwrap_or(3) }),
        "none" => Ok(Compression::None),
        _ => Err(Error::Usage(format!("compression {name:?}: there are gzip, zstd and none"))),
    }
}
