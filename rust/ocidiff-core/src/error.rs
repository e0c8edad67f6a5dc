//! Errors, with the facts as fields: what, where, cause.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::cause::{Cause, escaped};

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The operation that a failed temporary file is reported with.
const TEMPORARY: &str = "keep a file that may change in";

/// Every failure of this crate. Paths are shown escaped, so a hostile name cannot write to a terminal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{op} {}: {source}", show(path))]
    Io {
        /// The operation: "open", "read", "write"…
        op: &'static str,
        /// The path, if it is known; empty for streams.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The layer is not what its format says.
    #[error("malformed layer at byte {offset} of the tar: {reason}")]
    MalformedLayer {
        /// Offset in the uncompressed stream.
        offset: u64,
        /// The cause.
        reason: Cause,
    },
    /// The blob does not decompress.
    #[error("malformed {format}: {reason}")]
    MalformedCompression {
        /// The compression.
        format: &'static str,
        /// The cause.
        reason: Cause,
    },
    /// The layer asks for something that is never done.
    #[error("unsafe entry {}: {reason}", show(path))]
    UnsafeEntry {
        /// Name of the entry.
        path: PathBuf,
        /// The cause.
        reason: Cause,
    },
    /// A limit of the caller was passed.
    #[error("limit {limit} exceeded{}, at byte {offset} of the tar: {value} is more than {max}", show_where(path))]
    LimitExceeded {
        /// Name of the limit.
        limit: &'static str,
        /// The value that passed it.
        value: u64,
        /// The limit.
        max: u64,
        /// The entry that passed the limit; empty if it concerns the whole stream.
        path: PathBuf,
        /// The offset of that entry in the uncompressed stream, or of the last byte read.
        offset: u64,
    },
    /// A file changed while it was read.
    #[error("{}: changed while it was read: {reason}", show(path))]
    SourceChanged {
        /// The file.
        path: PathBuf,
        /// The property that changed.
        reason: Cause,
    },
    /// Something that is not done here; another differ or another version may do it.
    #[error("{}: {reason}", show(path))]
    Unsupported {
        /// The file or entry.
        path: PathBuf,
        /// Why not.
        reason: Cause,
    },
    /// The tree holds something that no layer or index can say, whoever writes it.
    #[error("{}: {reason}", show(path))]
    Unrepresentable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: Cause,
    },
    /// The directories of an overlay cannot be read without mounting it; nothing was written yet.
    #[error("overlay {}: {reason}", show(path))]
    Overlay {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        reason: Cause,
    },
    /// A file that should be an index is none, or a broken one.
    #[error("index {}: {reason}", show(path))]
    IndexFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: Cause,
    },
    /// The caller's options contradict themselves or the format.
    #[error("{0}")]
    Usage(Cause),
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Returns the error of a failed system call `op` on `path`.
    pub fn io(op: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { op, path: path.into(), source: source.into() }
    }

    /// Returns the stream's own error, which has passed through [`BufRead`](std::io::BufRead) as an `io::Error`.
    pub(crate) fn of_stream(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(|source| Self::Io { op: "read", path: "".into(), source })
    }

    /// Returns the error of a temporary file that could not be made or used in a directory.
    pub fn temporary(directory: &Path, source: io::Error) -> Self {
        Self::Io { op: TEMPORARY, path: directory.to_owned(), source }
    }

    /// Returns the name of the variant, by which the binding finds the exception in the table of `ocidiff.errors`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Io { .. } => "Io",
            Self::MalformedLayer { .. } => "MalformedLayer",
            Self::MalformedCompression { .. } => "MalformedCompression",
            Self::UnsafeEntry { .. } => "UnsafeEntry",
            Self::LimitExceeded { .. } => "LimitExceeded",
            Self::SourceChanged { .. } => "SourceChanged",
            Self::Unsupported { .. } => "Unsupported",
            Self::Unrepresentable { .. } => "Unrepresentable",
            Self::Overlay { .. } => "Overlay",
            Self::IndexFile { .. } => "IndexFile",
            Self::Usage(_) => "Usage",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Returns true if a concurrent change of the tree explains the error: a name vanished or became something else.
    pub fn is_change(&self) -> bool {
        match self {
            Self::SourceChanged { .. } => true,
            Self::Io { op, .. } if *op == TEMPORARY => false,
            Self::Io { op, source, .. } => match Errno::from_io_error(source) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => true,
                Some(Errno::INVAL) => *op == "readlink",
                Some(Errno::NXIO) => *op == "open",
                _ => false,
            },
            _ => false,
        }
    }

    /// Like `io`, for rustix's own error, in `map_err`.
    pub fn sys(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::io(op, path, errno)
    }
}

/// Returns the system's words for an error, without Rust's "(os error N)".
pub fn words_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Names the entry of a message, if there is one.
fn show_where(path: &std::path::Path) -> String {
    if path.as_os_str().is_empty() { String::new() } else { format!(" by {}", show(path)) }
}

/// Returns a path for a message.
fn show(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    escaped(path.as_os_str().as_bytes())
}
