//! `apply_layer`, `measure_layer` and `write_tar`: the verb apply, what a layer is, and its plain tar.

use std::os::fd::RawFd;

use ocidiff_core::apply;
use ocidiff_core::stream::Stream;
use pyo3::prelude::*;

use crate::error::to_python;
use crate::options::{ApplyOptions, Limits};
use crate::run::{own_descriptor, run};
use crate::summaries::{ApplySummary, LayerMeasure, TarSummary};
use crate::trees::Path;

/// Writes the layer in the descriptor `source` onto the directory `target`.
#[pyfunction]
pub fn apply_layer(source: RawFd, target: Path, options: ApplyOptions, poll: &Bound<'_, PyAny>) -> PyResult<ApplySummary> {
    let options = options.apply().map_err(to_python)?;
    let (source, Path(target)) = (own_descriptor(source)?, target);
    run(poll, |control| apply::apply_layer(Stream::new(source, control.clone())?, &target, &options, control))
        .map(ApplySummary::from)
}

/// Measures the layer in the descriptor `source`, without writing it anywhere.
#[pyfunction]
pub fn measure_layer(source: RawFd, limits: Limits, poll: &Bound<'_, PyAny>) -> PyResult<LayerMeasure> {
    let (source, limits) = (own_descriptor(source)?, limits.limits());
    run(poll, |control| apply::measure_layer(Stream::new(source, control.clone())?, &limits, control))
        .map(LayerMeasure::from)
}

/// Writes the tar of the layer in the descriptor `source` to the descriptor `sink`.
#[pyfunction]
pub fn write_tar(source: RawFd, sink: RawFd, limits: Limits, poll: &Bound<'_, PyAny>) -> PyResult<TarSummary> {
    let (source, sink, limits) = (own_descriptor(source)?, own_descriptor(sink)?, limits.limits());
    run(poll, |control| {
        let (source, sink) = (Stream::new(source, control.clone())?, Stream::new(sink, control.clone())?);
        apply::write_tar(source, &sink, &limits, control)
    })
    .map(TarSummary::from)
}
