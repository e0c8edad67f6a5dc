//! `write_index` and `write_index_of_layers`: the verb index.

use std::os::fd::RawFd;

use ocidiff_core::change::{TreeSource, Trees};
use ocidiff_core::indexer;
use ocidiff_core::tree::TreeDir;
use pyo3::prelude::*;

use crate::error::to_python;
use crate::options::{IndexOptions, Limits};
use crate::run::{own_descriptor, run};
use crate::summaries::{IndexSummary, LayerMeasure};
use crate::trees::Path;

/// Writes the index of `tree` to the descriptor `sink`.
#[pyfunction]
pub fn write_index(tree: Path, sink: RawFd, options: IndexOptions, poll: &Bound<'_, PyAny>) -> PyResult<IndexSummary> {
    let (Path(tree), ids, sink) = (tree, options.ids.maps(), own_descriptor(sink)?);
    let options = options.index().map_err(to_python)?;
    run(poll, |control| {
        let upper = TreeSource::Directory(TreeDir::open_mapped(&tree, ids)?);
        let done = indexer::write_index(Trees::Plain { lower: None, upper }, sink, options, control)?;
        Ok(IndexSummary::new(&done, control.left_out().1))
    })
}

/// Writes the index of the tree that the layers in the descriptors `sources`, base first, unpack to.
#[pyfunction]
pub fn write_index_of_layers(
    sources: Vec<RawFd>,
    sink: RawFd,
    options: IndexOptions,
    limits: Limits,
    poll: &Bound<'_, PyAny>,
) -> PyResult<(IndexSummary, Vec<LayerMeasure>)> {
    let header = options.index().map_err(to_python)?.header;
    let sink = own_descriptor(sink)?;
    let sources = sources.into_iter().map(own_descriptor).collect::<PyResult<Vec<_>>>()?;
    let limits = limits.limits();
    let done = run(poll, |control| indexer::write_index_of_layers(sources, sink, &header, limits, control))?;
    Ok((IndexSummary::new(&done.index, 0), done.layers.into_iter().map(LayerMeasure::from).collect()))
}
