//! Core errors as Python exceptions. `ocidiff.errors` has the classes and says which variant becomes which; failures of the
//! system are `OSError`.

use ocidiff_core::Error;
use ocidiff_core::error::words_of;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// Returns the exception for `error`.
pub fn to_python(error: Error) -> PyErr {
    let (variant, message) = (error.name(), error.to_string());
    if let Error::Io { path, source, .. } = error {
        return match source.raw_os_error() {
            // With an error number Python itself picks the subclass, and with a file name it is shown.
            Some(errno) if path.as_os_str().is_empty() => PyOSError::new_err((errno, words_of(&source))),
            Some(errno) => PyOSError::new_err((errno, words_of(&source), path.into_os_string())),
            None => PyOSError::new_err(message),
        };
    }
    Python::attach(|py| {
        let class = py.import("ocidiff.errors").and_then(|errors| errors.getattr("class_of")?.call1((variant,)));
        match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
            Ok(class) => PyErr::from_type(class, message),
            Err(failed) => failed,
        }
    })
}
