//! `ChangeStream`: the changes between two trees, in batches.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ocidiff_core::change::{Carried, ChangeKind, Changes, Explanation, Reason, Rules};
use ocidiff_core::control::Control;
use ocidiff_core::tree::Lost;
use ocidiff_core::{Error, Result};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::diff::{
    IdArguments, IndexArguments, LeftOut, OverlayArguments, ScopeArguments, Source, left_out, rules, scope_of,
};
use crate::error::to_python;
use crate::run::thread_count;

/// Few crossings into Python for long listings, and a first answer soon.
const BATCH_CHANGES: usize = 512;
const TICK: Duration = Duration::from_millis(40);

/// Reasons, bytes in upper, bytes in lower.
type Explained = (Vec<&'static str>, Option<u64>, Option<u64>);
type Batch = Vec<(&'static str, Vec<u8>, u64, Option<Explained>)>;
type PyBatch<'py> = Vec<(&'static str, Bound<'py, PyBytes>, u64, Option<Explained>)>;

/// Batches of (kind, path, bytes in a layer, explanation) in the order of a layer; dropping it stops the walk and joins its threads.
#[pyclass]
pub struct ChangeStream {
    batches: Option<Receiver<Result<Batch>>>,
    walker: Option<JoinHandle<()>>,
    control: Arc<Control>,
    lost: Arc<Mutex<Lost>>,
}

#[pymethods]
impl ChangeStream {
    #[new]
    #[pyo3(signature = (lower, upper, *, overlay, ids, scope, indexes, threads, profile, lower_from_layers, lower_lacks_fractions, lower_has_ids, source_date_epoch, explain, retry_on_change))]
    #[expect(clippy::too_many_arguments, reason = "the boundary takes plain values")]
    fn new(
        lower: Option<&[u8]>,
        upper: &[u8],
        overlay: Option<OverlayArguments>,
        ids: IdArguments,
        scope: ScopeArguments,
        indexes: IndexArguments,
        threads: usize,
        profile: &str,
        lower_from_layers: bool,
        lower_lacks_fractions: bool,
        lower_has_ids: bool,
        source_date_epoch: Option<i64>,
        explain: bool,
        retry_on_change: bool,
    ) -> PyResult<Self> {
        let rules = Rules {
            lower_from_layers,
            lower_lacks_fractions,
            source_date_epoch,
            explain,
            retry_on_change,
            ..rules(profile).map_err(to_python)?
        };
        let scope = scope_of(scope).map_err(to_python)?;
        let source = Source::new(lower, upper, overlay, ids, indexes, lower_has_ids);
        let threads = thread_count(threads);
        let control = Arc::new(Control::default());
        let (sender, batches) = bounded(4);
        let walker_control = control.clone();
        let lost = Arc::new(Mutex::new(Lost::default()));
        let walker_lost = lost.clone();
        let walker = std::thread::Builder::new().name("changes".into()).spawn(move || {
            let told = source
                .open(&walker_control)
                .and_then(|trees| Changes::start(trees, rules, scope, threads, walker_control))
                .and_then(|changes| send_all(changes, Carried::new(rules), &walker_lost, &sender));
            if let Err(error) = told {
                // Nobody listens once the stream is closed, and then nobody wants the error.
                let _ = sender.send(Err(error));
            }
        })?;
        Ok(Self { batches: Some(batches), walker: Some(walker), control, lost })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> PyResult<Option<PyBatch<'py>>> {
        let Some(batches) = self.batches.clone() else { return Ok(None) };
        loop {
            match py.detach(|| batches.recv_timeout(TICK)) {
                Ok(Ok(batch)) => {
                    let to_python = |(kind, path, bytes, explained): (_, Vec<u8>, _, _)| {
                        (kind, PyBytes::new(py, &path), bytes, explained)
                    };
                    return Ok(Some(batch.into_iter().map(to_python).collect()));
                }
                Ok(Err(error)) => {
                    self.close(py);
                    return Err(to_python(error));
                }
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => {
                    self.batches = None;
                    let died = self.walker.take().is_some_and(|walker| py.detach(|| walker.join()).is_err());
                    return if died {
                        Err(PyRuntimeError::new_err("internal error: the walker panicked"))
                    } else {
                        Ok(None)
                    };
                }
            }
        }
    }

    /// What is left out of the changes so far, by reason.
    fn skipped(&self) -> LeftOut {
        let (excluded, mounts) = self.control.left_out();
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        left_out([("excluded", excluded), ("mounts", mounts)], &lost)
    }

    /// Stops the walk and joins its threads.
    fn close(&mut self, py: Python<'_>) {
        py.detach(|| self.stop());
    }
}

impl ChangeStream {
    fn stop(&mut self) {
        self.control.cancel();
        self.batches = None;
        if let Some(walker) = self.walker.take() {
            // A panic has nobody left to tell.
            let _ = walker.join();
        }
    }
}

impl Drop for ChangeStream {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends every change that is listed; ends early, and well, when nobody listens any more.
fn send_all(
    changes: impl Iterator<Item = Result<ocidiff_core::change::Change>>,
    mut carried: Carried,
    lost: &Mutex<Lost>,
    sender: &Sender<Result<Batch>>,
) -> Result<()> {
    let mut batch = Batch::with_capacity(BATCH_CHANGES);
    for change in changes {
        let change = change?;
        let (bytes, is_counted) = carried.next(&change);
        let kind = match change.kind {
            ChangeKind::Add => "add",
            ChangeKind::Modify => "modify",
            ChangeKind::Delete => "delete",
            ChangeKind::Unmodified => continue,
        };
        if is_counted {
            lost.lock().unwrap_or_else(PoisonError::into_inner).add(&change.lost());
        }
        let explained = change.explanation.map(|explanation| explained(*explanation));
        batch.push((kind, [b"/", &change.path[..]].concat(), bytes, explained));
        if batch.len() == BATCH_CHANGES && sender.send(Ok(std::mem::take(&mut batch))).is_err() {
            return Err(Error::Cancelled);
        }
    }
    let _ = sender.send(Ok(batch));
    Ok(())
}

fn explained(Explanation { reasons, upper_bytes, lower_bytes }: Explanation) -> Explained {
    let name = |reason| match reason {
        Reason::New => "new",
        Reason::Deleted => "deleted",
        Reason::Type => "type",
        Reason::Device => "device",
        Reason::Mode => "mode",
        Reason::Owner => "owner",
        Reason::Mtime => "mtime",
        Reason::Xattr => "xattr",
        Reason::Size => "size",
        Reason::Content => "content",
        Reason::Link => "link",
    };
    (reasons.into_iter().map(name).collect(), upper_bytes, lower_bytes)
}
