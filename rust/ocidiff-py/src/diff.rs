//! `write_layer`: the verb diff.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocidiff_core::change::{Patterns, Root, Rows, Rules, Scope, States, Trees};
use ocidiff_core::compress::Compression;
use ocidiff_core::control::Control;
use ocidiff_core::diff::{DiffOptions, DiffSummary, write_layer as write_layer_of};
use ocidiff_core::idmap::{IdMaps, IdRange};
use ocidiff_core::index::IndexFile;
use ocidiff_core::tree::overlay::{Format, OverlayPaths};
use ocidiff_core::tree::{Directory, Lost};
use ocidiff_core::{Cause, Error, Result};
use pyo3::prelude::*;

use crate::error::to_python;
use crate::run::{own_descriptor, run, thread_count};

type Summary = (String, u64, String, u64, u64, u64, u64, u64, LeftOut, u64, u64);

/// Counts of what was left out, by reason.
pub type LeftOut = BTreeMap<&'static str, u64>;

/// Lower directories and data directories, top first; whether `userxattr` is set, if known; whether redirects are followed.
pub type OverlayArguments = (Vec<Vec<u8>>, Vec<Vec<u8>>, Option<bool>, bool);

/// Ranges of user ids and of group ids: first in the container, first on the host, how many.
pub type IdArguments = (Vec<(u32, u32, u32)>, Vec<(u32, u32, u32)>);

/// What bytes lead to; the same of all other bytes; and the other rows, in the order of [`Rows`].
pub type PatternArguments = (Vec<(u8, Vec<u8>)>, Vec<u8>, [Vec<u8>; 7]);

/// Compiled patterns, if there are any; whether sockets are left out; whether mounts are crossed.
pub type ScopeArguments = (Option<PatternArguments>, bool, bool);

/// The paths that count.
pub fn scope_of((patterns, sockets, cross_mounts): ScopeArguments) -> Result<Option<Arc<Scope>>> {
    let patterns = patterns.map(patterns_of).transpose()?.unwrap_or_default();
    Ok(Some(Arc::new(Scope::new(patterns, sockets, cross_mounts))))
}

fn patterns_of((moves, other_moves, rows): PatternArguments) -> Result<Patterns> {
    let moves = moves.into_iter().map(|(byte, row)| (byte, states_of(&row))).collect();
    let [start, name_loops, path_loops, skips, accepts, directories_only, excludes] = rows.map(|row| states_of(&row));
    let rows = Rows { start, name_loops, path_loops, skips, accepts, directories_only, excludes };
    Patterns::new(moves, states_of(&other_moves), rows)
}

/// States from the bytes of their row, the lowest first.
fn states_of(row: &[u8]) -> States {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    row.chunks(8).map(word).collect()
}

/// Whether the lower tree, and the upper one, are told by an index.
pub type IndexArguments = (bool, bool);

/// What is compared, as paths.
pub enum Source {
    Plain(Option<Tree>, Tree),
    Overlay(OverlayPaths),
}

/// One of the trees.
pub enum Tree {
    Directory(PathBuf, Option<Arc<IdMaps>>),
    Index(PathBuf),
}

impl Tree {
    fn new(bytes: &[u8], is_index: bool, ids: Option<Arc<IdMaps>>) -> Self {
        if is_index { Self::Index(path(bytes).into()) } else { Self::Directory(path(bytes).into(), ids) }
    }

    fn open(&self, control: &Control) -> Result<Root> {
        match self {
            Self::Directory(path, ids) => Directory::open_mapped(path, ids.clone()).map(Root::Directory),
            Self::Index(path) => Ok(Root::Index(Arc::new(IndexFile::open(path, control)?))),
        }
    }
}

impl Source {
    /// With `overlay`, `upper` is the directory that takes its changes. A lower tree may have ids of the container already.
    pub fn new(
        lower: Option<&[u8]>,
        upper: &[u8],
        overlay: Option<OverlayArguments>,
        ids: IdArguments,
        indexes: IndexArguments,
        lower_has_ids: bool,
    ) -> Self {
        let ids = id_maps(ids);
        let lower_ids = ids.clone().filter(|_| !lower_has_ids);
        let Some((lowers, data, userxattr, redirects)) = overlay else {
            return Self::Plain(lower.map(|lower| Tree::new(lower, indexes.0, lower_ids)), Tree::new(upper, indexes.1, ids));
        };
        let paths = |all: Vec<Vec<u8>>| all.iter().map(|one| path(one).into()).collect();
        let format = userxattr.map(|set| if set { Format::User } else { Format::Trusted });
        Self::Overlay(OverlayPaths {
            upper: path(upper).into(),
            lowers: paths(lowers),
            data: paths(data),
            format,
            redirects,
            ids,
            lower_ids,
        })
    }

    /// Opens it.
    pub fn open(&self, control: &Control) -> Result<Trees> {
        match self {
            Self::Plain(lower, upper) => {
                let lower = lower.as_ref().map(|lower| lower.open(control)).transpose()?;
                Ok(Trees::Plain { lower, upper: upper.open(control)? })
            }
            Self::Overlay(paths) => Trees::of_overlay(paths, control),
        }
    }
}

/// The maps of these ranges, if there are any.
pub fn id_maps((users, groups): IdArguments) -> Option<Arc<IdMaps>> {
    let ranges = |ranges: Vec<(u32, u32, u32)>| {
        ranges.into_iter().map(|(container, host, count)| IdRange { container, host, count }).collect()
    };
    let maps = IdMaps { users: ranges(users), groups: ranges(groups) };
    (!maps.is_empty()).then(|| Arc::new(maps))
}

/// Writes the layer that turns `lower` into `upper` to the descriptor `sink`.
#[pyfunction]
#[pyo3(signature = (lower, upper, sink, *, overlay, ids, scope, indexes, compression, level, threads, memory_bytes, profile, lower_from_layers, lower_lacks_fractions, device_in_links, lower_has_ids, source_date_epoch, retry_on_change, spool, poll))]
#[expect(clippy::too_many_arguments, reason = "the boundary takes plain values")]
pub fn write_layer(
    py: Python<'_>,
    lower: Option<&[u8]>,
    upper: &[u8],
    sink: RawFd,
    overlay: Option<OverlayArguments>,
    ids: IdArguments,
    scope: ScopeArguments,
    indexes: IndexArguments,
    compression: &str,
    level: Option<i32>,
    threads: usize,
    memory_bytes: Option<u64>,
    profile: &str,
    lower_from_layers: bool,
    lower_lacks_fractions: bool,
    device_in_links: bool,
    lower_has_ids: bool,
    source_date_epoch: Option<i64>,
    retry_on_change: bool,
    spool: Option<&[u8]>,
    poll: Option<&Bound<'_, PyAny>>,
) -> PyResult<Summary> {
    let options = DiffOptions {
        rules: Rules {
            lower_from_layers,
            lower_lacks_fractions,
            device_in_links,
            source_date_epoch,
            retry_on_change,
            ..rules(profile).map_err(to_python)?
        },
        scope: scope_of(scope).map_err(to_python)?,
        compression: compression_of(compression, level).map_err(to_python)?,
        threads: thread_count(threads),
        memory_bytes,
        spool: spool.map(|spool| path(spool).to_owned()),
    };
    let sink = own_descriptor(sink)?;
    let source = Source::new(lower, upper, overlay, ids, indexes, lower_has_ids);
    run(py, poll, |control| write_layer_of(source.open(control)?, sink, &options, control)).map(summary)
}

fn summary(done: DiffSummary) -> Summary {
    let skipped = left_out([("excluded", done.excluded), ("mounts", done.mounts), ("sockets", done.sockets)], &done.lost);
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
        done.retried,
        done.vanished,
    )
}

/// What was left out, by reason, without what was not.
pub fn left_out<const N: usize>(reasons: [(&'static str, u64); N], lost: &Lost) -> LeftOut {
    reasons.into_iter().chain(lost.told()).filter(|&(_, count)| count > 0).collect()
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
        _ => Err(Error::Usage(Cause::NotAChoice { what: format!("profile {profile:?}"), choices: "oci or containerd" })),
    }
}

fn compression_of(name: &str, level: Option<i32>) -> Result<Compression> {
    match name {
        "gzip" => Ok(Compression::Gzip { level: level.unwrap_or(6) }),
        "zstd" => Ok(Compression::Zstd { level: level.unwrap_or(3) }),
        "none" => Ok(Compression::None),
        _ => Err(Error::Usage(Cause::NotAChoice { what: format!("compression {name:?}"), choices: "gzip, zstd or none" })),
    }
}
