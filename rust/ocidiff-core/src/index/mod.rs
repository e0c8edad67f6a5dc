//! The index: a file that knows a tree well enough to compare with it, and has none of its contents (docs/index-format.md).
//!
//! Law: a comparison with the index of a tree gives what a comparison with the tree gives. What makes two entries the same is
//! all in the index; where bytes would be compared, their hashes are.

mod fingerprint;
mod format;
mod read;
mod write;

pub use fingerprint::{Fingerprint, FingerprintHasher, Wanted, XattrDigests, fingerprint_file, fingerprint_open_file};
pub use format::{Block, Extent, Header, Kept, Stamp, TreeIndexEntry};
pub use read::{Folder, IndexFile};
pub use write::{IndexSummary, IndexWriter};
