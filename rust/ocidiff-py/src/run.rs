//! The one place that lets go of the interpreter: the core runs on a thread, the caller looks at signals and progress.

use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use ocidiff_core::control::Control;
use ocidiff_core::{Error, Result};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use crate::error::to_python;

/// The interval at which signals are looked at: short beside the tenth of a second within which an interrupt must end a
/// call.
const TICK: Duration = Duration::from_millis(10);
/// Ticks between two calls of `poll`, which is Python code.
const TICKS_PER_POLL: u32 = 5;

/// Runs `work` to its end, or until a signal handler raises, or until `poll` answers false or raises.
///
/// The worker has always been joined when this returns.
pub fn run<T: Send>(poll: &Bound<'_, PyAny>, work: impl FnOnce(&Arc<Control>) -> Result<T> + Send) -> PyResult<T> {
    let control = Arc::new(Control::default());
    let py = poll.py();
    let poll = poll.clone().unbind();
    py.detach(|| {
        std::thread::scope(|scope| {
            let (done, news) = sync_channel(1);
            let worker_control = control.clone();
            let worker = std::thread::Builder::new().name("ocidiff".into()).spawn_scoped(scope, move || {
                // The receiver lives until this has been joined.
                let _ = done.send(work(&worker_control));
            })?;
            let mut ticks = 0_u32;
            loop {
                ticks = ticks.wrapping_add(1);
                let due = ticks.is_multiple_of(TICKS_PER_POLL).then_some(&poll);
                match news.recv_timeout(TICK) {
                    Ok(result) => {
                        // The final counters, so that a progress display ends at the end.
                        let told = if result.is_ok() { tick(Some(&poll), &control).map(drop) } else { Ok(()) };
                        return told.and_then(|()| result.map_err(to_python));
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        let _ = worker.join();
                        return Err(PyRuntimeError::new_err("internal error: the worker panicked"));
                    }
                    Err(RecvTimeoutError::Timeout) => match tick(due, &control) {
                        Ok(true) => {}
                        Ok(false) => control.cancel(),
                        Err(raised) => {
                            control.cancel();
                            let _ = worker.join();
                            return Err(raised);
                        }
                    },
                }
            }
        })
    })
}

/// Runs signal handlers, then `poll`; false when the call shall stop.
fn tick(poll: Option<&Py<PyAny>>, control: &Control) -> PyResult<bool> {
    Python::attach(|py| {
        py.check_signals()?;
        let Some(poll) = poll else { return Ok(true) };
        let now = control.progress();
        poll.call1(py, (now.entries, now.bytes_plain, now.bytes_blob))?.is_truthy(py)
    })
}

/// Returns the number of threads to use; 0 asks for as many as there are cores.
pub fn thread_count(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        asked => asked,
    }
}

/// Returns a descriptor of our own for the caller's, which the caller may close at any time.
pub fn own_descriptor(fd: RawFd) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(PyOSError::new_err((rustix::io::Errno::BADF.raw_os_error(), "Bad file descriptor")));
    }
    // SAFETY: the descriptor is only used to duplicate it; the kernel answers EBADF when it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(|errno| to_python(Error::io("duplicate", "", errno)))
}
