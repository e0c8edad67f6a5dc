//! `write_index` and `write_index_of_layers`: the verb index.

use std::os::fd::RawFd;

use ocidiff_core::change::{Root, Trees};
use ocidiff_core::digest::Digest;
use ocidiff_core::index::{Header, IndexSummary};
use ocidiff_core::indexer::{self, IndexOptions};
use ocidiff_core::tree::Directory;
use pyo3::prelude::*;

use crate::apply::{LimitArguments, limits_of};
use crate::diff::{IdArguments, LeftOut, id_maps, left_out, path};
use crate::error::to_python;
use crate::measure::{Measure, told};
use crate::run::{own_descriptor, run, thread_count};

type Summary = (String, u64, u64, u64, LeftOut);

/// Writes the index of `tree` to the descriptor `sink`.
#[pyfunction]
#[pyo3(signature = (tree, sink, *, chain_id, ids, sha256, stamps, cross_mounts, threads, poll))]
#[expect(clippy::too_many_arguments, reason = "the boundary takes plain values")]
pub fn write_index(
    py: Python<'_>,
    tree: &[u8],
    sink: RawFd,
    chain_id: Option<&str>,
    ids: IdArguments,
    sha256: bool,
    stamps: bool,
    cross_mounts: bool,
    threads: usize,
    poll: Option<&Bound<'_, PyAny>>,
) -> PyResult<Summary> {
    let options = IndexOptions { header: header(chain_id, sha256)?, stamps, cross_mounts, threads: thread_count(threads) };
    let (sink, ids) = (own_descriptor(sink)?, id_maps(ids));
    run(py, poll, |control| {
        let upper = Root::Directory(Directory::open_mapped(path(tree), ids)?);
        let done = indexer::write_index(Trees::Plain { lower: None, upper }, sink, options, control)?;
        Ok(summary(done, control.left_out().1))
    })
}

/// Writes the index of the tree that the layers in the descriptors `sources`, base first, unpack to.
#[pyfunction]
#[pyo3(signature = (sources, chain_id, sink, *, sha256, limits, poll))]
pub fn write_index_of_layers(
    py: Python<'_>,
    sources: Vec<RawFd>,
    chain_id: Option<&str>,
    sink: RawFd,
    sha256: bool,
    limits: LimitArguments,
    poll: Option<&Bound<'_, PyAny>>,
) -> PyResult<(Summary, Vec<Measure>)> {
    let header = header(chain_id, sha256)?;
    let sink = own_descriptor(sink)?;
    let sources = sources.into_iter().map(own_descriptor).collect::<PyResult<Vec<_>>>()?;
    let done = run(py, poll, |control| indexer::write_index_of_layers(sources, sink, &header, limits_of(limits), control))?;
    Ok((summary(done.index, 0), done.layers.into_iter().map(told).collect()))
}

fn header(chain_id: Option<&str>, has_sha256: bool) -> PyResult<Header> {
    let chain_id = chain_id.map(str::parse::<Digest>).transpose().map_err(to_python)?;
    Ok(Header { has_sha256, chain_id: chain_id.map_or([0; 32], |chain_id| chain_id.bytes()) })
}

fn summary(done: IndexSummary, mounts: u64) -> Summary {
    let skipped = left_out([("mounts", mounts)], &done.lost);
    (done.digest.to_string(), done.size, done.entries, done.file_bytes, skipped)
}
