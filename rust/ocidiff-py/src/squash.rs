//! `Squash`: the verb squash.

use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ocidiff_core::squash;
use pyo3::prelude::*;

use crate::error::to_python;
use crate::options::{LayerOptions, Limits};
use crate::run::{own_descriptor, run};
use crate::summaries::{LayerMeasure, SquashSummary};

/// Makes one layer of several.
#[pyclass(frozen, module = "ocidiff._core")]
pub struct Squash {
    inner: Mutex<squash::Squash>,
}

#[pymethods]
impl Squash {
    #[new]
    fn new(onto_base: bool) -> Self {
        Self { inner: Mutex::new(squash::Squash::new(onto_base)) }
    }

    /// Reads the layer in the descriptor `source`.
    fn add(&self, source: RawFd, limits: Limits, poll: &Bound<'_, PyAny>) -> PyResult<LayerMeasure> {
        let (source, limits) = (own_descriptor(source)?, limits.limits());
        run(poll, |control| self.lock().add(source, limits, control)).map(LayerMeasure::from)
    }

    /// Returns how many bytes of files the new layer gets from each layer.
    fn content_bytes(&self) -> Vec<u64> {
        self.lock().content_bytes()
    }

    /// Writes the new layer to the descriptor `sink`, with contents from the layers in the descriptors `sources`.
    fn write(
        &self,
        sources: Vec<Option<RawFd>>,
        sink: RawFd,
        options: LayerOptions,
        poll: &Bound<'_, PyAny>,
    ) -> PyResult<SquashSummary> {
        let options = options.squash().map_err(to_python)?;
        let sink = own_descriptor(sink)?;
        let own = |source: Option<RawFd>| source.map(own_descriptor).transpose();
        let sources = sources.into_iter().map(own).collect::<PyResult<Vec<_>>>()?;
        run(poll, |control| self.lock().write(sources, sink, &options, control)).map(SquashSummary::from)
    }
}

impl Squash {
    fn lock(&self) -> MutexGuard<'_, squash::Squash> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
