//! `ChangeStream`: the changes between two trees, in batches.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ocidiff_core::change::{Carried, ChangeKind, Changes, Fitted, Reason, Rules};
use ocidiff_core::control::Control;
use ocidiff_core::tree::Lost;
use ocidiff_core::{Error, Result};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::to_python;
use crate::options::LayerOptions;
use crate::summaries::{LeftOut, bytes_of, left_out};
use crate::trees::{Source, Tree, Upper};

/// Few crossings into Python for long listings, and a first answer soon.
const BATCH_CHANGES: usize = 512;
const TICK: Duration = Duration::from_millis(40);

type Batch = Vec<Change>;

/// A change.
#[pyclass(frozen, get_all, module = "ocidiff._core")]
pub struct Change {
    kind: &'static str,
    path: Vec<u8>,
    reasons: Vec<&'static str>,
    upper_bytes: Option<u64>,
    lower_bytes: Option<u64>,
    layer_bytes: u64,
}

/// Yields batches of changes in the order of a layer. Dropping it stops the comparison and joins its threads.
#[pyclass(module = "ocidiff._core")]
pub struct ChangeStream {
    batches: Option<Receiver<Result<Batch>>>,
    walker: Option<JoinHandle<()>>,
    control: Arc<Control>,
    lost: Arc<Mutex<Lost>>,
    fitted: Arc<Fitted>,
}

#[pymethods]
impl ChangeStream {
    #[new]
    fn new(lower: Option<Tree>, upper: Upper, options: LayerOptions, explain: bool) -> PyResult<Self> {
        let source = Source::new(lower, upper, &options);
        let rules = Rules { explain, ..options.rules().map_err(to_python)? };
        let (scope, threads) = (options.scope().map_err(to_python)?, options.threads());
        let fitted = scope.fitted();
        let control = Arc::new(Control::default());
        let (sender, batches) = bounded(4);
        let walker_control = control.clone();
        let lost = Arc::new(Mutex::new(Lost::default()));
        let walker_lost = lost.clone();
        let walker = std::thread::Builder::new().name("changes".into()).spawn(move || {
            let told = source
                .open(&walker_control)
                .and_then(|trees| Changes::start(trees, rules, Some(scope), threads, walker_control))
                .and_then(|changes| send_all(changes, Carried::new(rules), &walker_lost, &sender));
            if let Err(error) = told {
                // Nobody listens once the stream is closed, and then nobody wants the error.
                let _ = sender.send(Err(error));
            }
        })?;
        Ok(Self { batches: Some(batches), walker: Some(walker), control, lost, fitted })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let Some(batches) = self.batches.clone() else { return Ok(None) };
        loop {
            match py.detach(|| batches.recv_timeout(TICK)) {
                Ok(Ok(batch)) => return Ok(Some(batch)),
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

    /// Returns what is left out of the changes so far, by reason.
    fn skipped(&self) -> LeftOut {
        let (excluded, mounts) = self.control.left_out();
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        left_out([("excluded", excluded), ("mounts", mounts)], &lost)
    }

    /// The last states of the patterns that have fitted a path so far.
    fn fitted(&self) -> Vec<u8> {
        bytes_of(&self.fitted.states())
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
        let (layer_bytes, is_counted) = carried.next(&change);
        let kind = match change.kind {
            ChangeKind::Add => "add",
            ChangeKind::Modify => "modify",
            ChangeKind::Delete => "delete",
            ChangeKind::Unmodified => continue,
        };
        if is_counted {
            lost.lock().unwrap_or_else(PoisonError::into_inner).add(&change.lost());
        }
        let explanation = change.explanation.map(|explanation| *explanation).unwrap_or_default();
        batch.push(Change {
            kind,
            path: [b"/", &change.path[..]].concat(),
            reasons: explanation.reasons.into_iter().map(name_of).collect(),
            upper_bytes: explanation.upper_bytes,
            lower_bytes: explanation.lower_bytes,
            layer_bytes,
        });
        if batch.len() == BATCH_CHANGES && sender.send(Ok(std::mem::take(&mut batch))).is_err() {
            return Err(Error::Cancelled);
        }
    }
    let _ = sender.send(Ok(batch));
    Ok(())
}

fn name_of(reason: Reason) -> &'static str {
    match reason {
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
    }
}
