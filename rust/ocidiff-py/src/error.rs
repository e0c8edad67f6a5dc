//! Core errors as Python exceptions. The classes are born in `ocidiff.errors`; failures of the system are `OSError`.

use ocidiff_core::Error;
use ocidiff_core::error::words_of;
use pyo3::exceptions::PyOSError;
use pyo3::import_exception;
use pyo3::prelude::*;

import_exception!(ocidiff.errors, Cancelled);
import_exception!(ocidiff.errors, DigestMismatchError);
import_exception!(ocidiff.errors, IndexFileError);
import_exception!(ocidiff.errors, LimitExceededError);
import_exception!(ocidiff.errors, MalformedLayerError);
import_exception!(ocidiff.errors, OcidiffError);
import_exception!(ocidiff.errors, OverlayError);
import_exception!(ocidiff.errors, SourceChangedError);
import_exception!(ocidiff.errors, UnsafeLayerError);
import_exception!(ocidiff.errors, UnsupportedError);
import_exception!(ocidiff.errors, UsageError);

/// The exception for `error`.
pub fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Io { path, source, .. } => match source.raw_os_error() {
            // With an error number Python itself picks the subclass, and with a file name it is shown.
            Some(errno) if path.as_os_str().is_empty() => PyOSError::new_err((errno, words_of(&source))),
            Some(errno) => PyOSError::new_err((errno, words_of(&source), path.into_os_string())),
            None => PyOSError::new_err(message),
        },
        Error::MalformedLayer { .. } | Error::MalformedCompression { .. } => MalformedLayerError::new_err(message),
        Error::UnsafeEntry { .. } => UnsafeLayerError::new_err(message),
        Error::LimitExceeded { .. } => LimitExceededError::new_err(message),
        Error::SourceChanged { .. } => SourceChangedError::new_err(message),
        Error::Unsupported { .. } => UnsupportedError::new_err(message),
        Error::IndexFile { .. } => IndexFileError::new_err(message),
        Error::Overlay { .. } => OverlayError::new_err(message),
        Error::Usage(_) => UsageError::new_err(message),
        Error::DigestMismatch { .. } => DigestMismatchError::new_err(message),
        Error::Cancelled => Cancelled::new_err(message),
        _ => OcidiffError::new_err(message),
    }
}
