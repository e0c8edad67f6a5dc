//! `measure_layer`: what a blob is, without writing it anywhere.

use std::os::fd::RawFd;

use ocidiff_core::compress::measure::measure_layer as measure;
use ocidiff_core::stream::Stream;
use pyo3::prelude::*;

use crate::run::{own_descriptor, run};

/// Digests and sizes of the layer in the descriptor `source`.
#[pyfunction]
#[pyo3(signature = (source, *, poll))]
pub fn measure_layer(
    py: Python<'_>,
    source: RawFd,
    poll: Option<&Bound<'_, PyAny>>,
) -> PyResult<(String, u64, String, u64)> {
    let source = own_descriptor(source)?;
    let found = run(py, poll, |control| measure(Stream::new(source, control.clone())?, control))?;
    Ok((found.digest.to_string(), found.size, found.diff_id.to_string(), found.uncompressed_size))
}
