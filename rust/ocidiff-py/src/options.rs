//! The options of a call, read from the values of `ocidiff.layer.options` by the names of their fields.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use ocidiff_core::apply::{self, Destination};
use ocidiff_core::change::{self, Patterns, Rows, Rules, States};
use ocidiff_core::compress::{Compression, GZIP_LEVEL, ZSTD_LEVEL, segments};
use ocidiff_core::diff::DiffOptions;
use ocidiff_core::digest::Digest;
use ocidiff_core::idmap;
use ocidiff_core::index::Header;
use ocidiff_core::indexer;
use ocidiff_core::squash::SquashOptions;
use ocidiff_core::{Cause, Error, Result};
use pyo3::prelude::*;

use crate::error::to_python;
use crate::run::{own_descriptor, thread_count};

/// The fields of `LayerOptions` that the core acts on.
#[derive(FromPyObject)]
pub struct LayerOptions {
    compression: String,
    level: Option<i32>,
    threads: usize,
    memory_bytes: Option<u64>,
    profile: String,
    source_date_epoch: Option<i64>,
    on_change: String,
    scope: Scope,
    lower_has_layer_times: bool,
    lower_lacks_fractions: bool,
    device_in_links: bool,
    spool: Option<PathBuf>,
    segments: Option<Segments>,
    copy: Option<RawFd>,
    /// The ids of the upper tree.
    pub ids: IdMaps,
    /// True if the lower tree has ids of the container already.
    pub lower_has_ids: bool,
}

impl LayerOptions {
    /// Returns the rules that decide what a layer says.
    pub fn rules(&self) -> Result<Rules> {
        let profile = match self.profile.as_str() {
            "oci" => Rules::OCI,
            "containerd" => Rules::CONTAINERD,
            other => return Err(unknown("profile", other, "oci or containerd")),
        };
        Ok(Rules {
            lower_has_layer_times: self.lower_has_layer_times,
            lower_lacks_fractions: self.lower_lacks_fractions,
            device_in_links: self.device_in_links,
            source_date_epoch: self.source_date_epoch,
            retry_on_change: match self.on_change.as_str() {
                "retry" => true,
                "fail" => false,
                other => return Err(unknown("on_change", other, "fail or retry")),
            },
            ..profile
        })
    }

    /// Returns the paths that count.
    pub fn scope(&self) -> Result<Arc<change::Scope>> {
        let patterns = self.scope.automaton.as_ref().map(Automaton::patterns).transpose()?.unwrap_or_default();
        Ok(Arc::new(change::Scope::new(patterns, self.scope.sockets, self.scope.cross_mounts)))
    }

    /// Returns the number of threads to use.
    pub fn threads(&self) -> usize {
        thread_count(self.threads)
    }

    /// Returns the options of a diff.
    pub fn diff(&self) -> Result<DiffOptions> {
        Ok(DiffOptions {
            rules: self.rules()?,
            scope: Some(self.scope()?),
            compression: self.compression()?,
            threads: self.threads(),
            memory_bytes: self.memory_bytes,
            spool: self.spool.clone(),
            segments: None,
            copy: None,
        })
    }

    /// Returns the options of a squash.
    pub fn squash(&self) -> Result<SquashOptions> {
        Ok(SquashOptions {
            compression: self.compression()?,
            threads: self.threads(),
            memory_bytes: self.memory_bytes,
            spool: self.spool.clone(),
        })
    }

    /// Opens what gets a copy of the tar.
    pub fn copy(&self) -> PyResult<Option<Arc<OwnedFd>>> {
        self.copy.map(|descriptor| own_descriptor(descriptor).map(Arc::new)).transpose()
    }

    /// Opens the segments that may be copied, without tables that cannot be read or are of another compression.
    pub fn segments(&self) -> PyResult<Option<Arc<segments::Segments>>> {
        let Some(Segments { sources, tables, proves_all }) = &self.segments else { return Ok(None) };
        let Some(kind) = segments::Kind::of(self.compression().map_err(to_python)?) else { return Ok(None) };
        let open = |descriptor: RawFd| own_descriptor(descriptor).map(File::from);
        let mut known = Vec::new();
        for &(table, blob) in sources {
            known.extend(segments::Source::new(kind, &open(table)?, open(blob)?));
        }
        let tables = tables.iter().map(|&table| open(table)).collect::<PyResult<_>>()?;
        Ok(Some(Arc::new(segments::Segments::new(kind, known, tables, *proves_all))))
    }

    fn compression(&self) -> Result<Compression> {
        match self.compression.as_str() {
            "gzip" => Ok(Compression::Gzip { level: self.level.unwrap_or(GZIP_LEVEL) }),
            "zstd" => Ok(Compression::Zstd { level: self.level.unwrap_or(ZSTD_LEVEL) }),
            "none" => Ok(Compression::None),
            other => Err(unknown("compression", other, "gzip, zstd or none")),
        }
    }
}

/// The fields of `Segments`.
#[derive(FromPyObject)]
struct Segments {
    sources: Vec<(RawFd, RawFd)>,
    tables: Vec<RawFd>,
    proves_all: bool,
}

/// The fields of `Scope`.
#[derive(FromPyObject)]
struct Scope {
    automaton: Option<Automaton>,
    sockets: bool,
    cross_mounts: bool,
}

/// The fields of `Automaton`.
#[derive(FromPyObject)]
struct Automaton {
    size: usize,
    moves: BTreeMap<u8, Row>,
    other_moves: Row,
    start: Row,
    name_loops: Row,
    path_loops: Row,
    skips: Row,
    accepts: Row,
    directories_only: Row,
    excludes: Row,
}

impl Automaton {
    fn patterns(&self) -> Result<Patterns> {
        let row = |row: &Row| row.states(self.size);
        let moves = self.moves.iter().map(|(&byte, states)| (byte, row(states))).collect();
        let rows = Rows {
            start: row(&self.start),
            name_loops: row(&self.name_loops),
            path_loops: row(&self.path_loops),
            skips: row(&self.skips),
            accepts: row(&self.accepts),
            directories_only: row(&self.directories_only),
            excludes: row(&self.excludes),
        };
        Patterns::new(moves, row(&self.other_moves), rows)
    }
}

/// A row of states: the bytes of an integer, lowest first.
struct Row(Vec<u8>);

impl Row {
    /// Returns the states of an automaton with `size` of them.
    fn states(&self, size: usize) -> States {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let mut states: States = self.0.chunks(8).map(word).collect();
        states.resize(states.len().max(size.div_ceil(64)), 0);
        states
    }
}

impl<'py> FromPyObject<'_, 'py> for Row {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let bits: usize = value.call_method0("bit_length")?.extract()?;
        Ok(Self(value.call_method1("to_bytes", (bits.div_ceil(8), "little"))?.extract()?))
    }
}

/// The fields of `IdMaps`.
#[derive(FromPyObject)]
pub struct IdMaps {
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
}

/// The fields of `IdRange`.
#[derive(FromPyObject)]
struct IdRange {
    container: u32,
    host: u32,
    count: u32,
}

impl IdMaps {
    /// Returns the maps; `None` if ids stay as they are.
    pub fn maps(&self) -> Option<Arc<idmap::IdMaps>> {
        let range = |&IdRange { container, host, count }: &_| idmap::IdRange { container, host, count };
        let ranges = |ranges: &[IdRange]| ranges.iter().map(range).collect();
        let maps = idmap::IdMaps { users: ranges(&self.users), groups: ranges(&self.groups) };
        (!maps.is_empty()).then(|| Arc::new(maps))
    }
}

/// The fields of `IndexOptions`.
#[derive(FromPyObject)]
pub struct IndexOptions {
    chain_id: Option<String>,
    sha256: bool,
    stamps: bool,
    cross_mounts: bool,
    threads: usize,
    /// The ids of the tree.
    pub ids: IdMaps,
}

impl IndexOptions {
    /// Returns the options of an index.
    pub fn index(&self) -> Result<indexer::IndexOptions> {
        let chain_id = self.chain_id.as_deref().map(str::parse::<Digest>).transpose()?;
        Ok(indexer::IndexOptions {
            header: Header { has_sha256: self.sha256, chain_id: chain_id.map_or([0; 32], |chain_id| chain_id.bytes()) },
            stamps: self.stamps,
            cross_mounts: self.cross_mounts,
            threads: thread_count(self.threads),
        })
    }
}

/// The fields of `ApplyOptions`.
#[derive(FromPyObject)]
pub struct ApplyOptions {
    restores_owners: bool,
    destination: String,
    limits: Limits,
    is_upper: bool,
    threads: usize,
}

impl ApplyOptions {
    /// Returns the options of an apply.
    pub fn apply(&self) -> Result<apply::ApplyOptions> {
        let destination = match self.destination.as_str() {
            "directory" => Destination::Directory,
            "overlay" => Destination::Overlay,
            "overlay-userxattr" => Destination::OverlayUserxattr,
            other => return Err(unknown("destination", other, "directory, overlay or overlay-userxattr")),
        };
        Ok(apply::ApplyOptions {
            same_owner: self.restores_owners,
            destination,
            is_upper: self.is_upper,
            threads: self.threads,
            limits: self.limits.limits(),
        })
    }
}

/// The fields of `Limits`.
#[derive(FromPyObject)]
pub struct Limits {
    max_bytes: Option<u64>,
    max_entries: Option<u64>,
    max_ratio: Option<u64>,
    max_depth: usize,
    max_header_bytes: u64,
}

impl Limits {
    /// Returns what a layer may not pass.
    pub fn limits(&self) -> apply::Limits {
        let &Self { max_bytes, max_entries, max_ratio, max_depth, max_header_bytes } = self;
        apply::Limits { max_bytes, max_entries, max_ratio, max_depth, max_header_bytes }
    }
}

fn unknown(option: &str, value: &str, choices: &'static str) -> Error {
    Error::Usage(Cause::NotAChoice { what: format!("{option} {value:?}"), choices })
}
