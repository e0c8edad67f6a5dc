//! `write_layer` and `write_layers`: the verb diff.

use std::os::fd::RawFd;

use ocidiff_core::diff;
use pyo3::prelude::*;

use crate::error::to_python;
use crate::options::LayerOptions;
use crate::run::{own_descriptor, run};
use crate::summaries::{LayerSummary, SplitSummary};
use crate::trees::{Source, Tree, Upper};

/// Writes the layer that turns `lower` into `upper` to the descriptor `sink`.
#[pyfunction]
pub fn write_layer(
    lower: Option<Tree>,
    upper: Upper,
    sink: RawFd,
    options: LayerOptions,
    poll: &Bound<'_, PyAny>,
) -> PyResult<LayerSummary> {
    let source = Source::new(lower, upper, &options);
    let (segments, copy) = (options.segments()?, options.copy()?);
    let options = diff::DiffOptions { segments, copy, ..options.diff().map_err(to_python)? };
    let sink = own_descriptor(sink)?;
    let done = run(poll, |control| diff::write_layer(source.open(control)?, sink, &options, control))?;
    let fitted = options.scope.as_ref().map(|scope| scope.fitted().states()).unwrap_or_default();
    Ok(LayerSummary::new(done, &fitted))
}

/// Writes the change from `lower` to `upper` as layers, each to the descriptor in `sinks`; none for `None`.
#[pyfunction]
pub fn write_layers(
    lower: Option<Tree>,
    upper: Upper,
    sinks: Vec<Option<RawFd>>,
    options: LayerOptions,
    poll: &Bound<'_, PyAny>,
) -> PyResult<SplitSummary> {
    let source = Source::new(lower, upper, &options);
    let segments = options.segments()?;
    let options = diff::DiffOptions { segments, ..options.diff().map_err(to_python)? };
    let own = |sink: Option<RawFd>| sink.map(own_descriptor).transpose();
    let sinks = sinks.into_iter().map(own).collect::<PyResult<Vec<_>>>()?;
    let done = run(poll, |control| diff::write_layers(source.open(control)?, &sinks, &options, control))?;
    let fitted = options.scope.as_ref().map(|scope| scope.fitted().states()).unwrap_or_default();
    SplitSummary::new(poll.py(), done, &fitted)
}
