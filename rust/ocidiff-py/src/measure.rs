//! `measure_layer`: what a layer is, without writing it anywhere.

use std::os::fd::RawFd;

use ocidiff_core::apply::{LayerMeasure, measure_layer as measure};
use ocidiff_core::stream::Stream;
use pyo3::prelude::*;

use crate::apply::{LimitArguments, limits_of};
use crate::run::{own_descriptor, run};

/// Digest and size of a blob, digest and size of its tar, its holes, and how many entries it has.
pub type Measure = (String, u64, String, u64, u64, u64);

/// What the layer in the descriptor `source` is.
#[pyfunction]
#[pyo3(signature = (source, *, limits, poll))]
pub fn measure_layer(
    py: Python<'_>,
    source: RawFd,
    limits: LimitArguments,
    poll: Option<&Bound<'_, PyAny>>,
) -> PyResult<Measure> {
    let source = own_descriptor(source)?;
    let limits = limits_of(limits);
    run(py, poll, |control| measure(Stream::new(source, control.clone())?, &limits, control)).map(told)
}

/// What Python gets of a layer.
pub fn told(layer: LayerMeasure) -> Measure {
    let LayerMeasure { digests, holes, entries } = layer;
    let (digest, diff_id) = (digests.digest.to_string(), digests.diff_id.to_string());
    (digest, digests.size, diff_id, digests.uncompressed_size, holes, entries)
}
