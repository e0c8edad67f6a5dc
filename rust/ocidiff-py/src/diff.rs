//! `write_layer`: the verb diff.

use std::os::fd::RawFd;

use ocidiff_core::diff;
use pyo3::prelude::*;

use crate::error::to_python;
use crate::options::LayerOptions;
use crate::run::{own_descriptor, run};
use crate::summaries::LayerSummary;
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
