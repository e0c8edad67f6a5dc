//! Turns a changed file system into an OCI image layer (diff), and a layer into a file system (apply).
//!
//! Laws: `apply(diff(a, b), a) = b`; the same trees give the same bytes on any machine and any number of threads; gzip, zstd
//! and plain blobs of one diff share one diffID; nothing outside the target of an apply changes, ever.

pub mod apply;
pub mod cause;
pub mod change;
pub mod compress;
pub mod control;
pub mod diff;
pub mod digest;
pub mod error;
pub mod idmap;
pub mod index;
pub mod indexer;
pub mod metadata;
pub mod note;
pub mod rules;
pub mod squash;
pub mod stream;
pub mod tar;
pub mod tree;
pub mod whiteout;

pub use cause::Cause;
pub use error::{Error, Result};
