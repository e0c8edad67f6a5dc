//! Compresses a tar to a blob, and takes the digests of both in the same pass.
//!
//! Law: the bytes depend on the tar, the compression and the level alone, never on the number of threads.

pub mod blob;
mod block;
mod budget;
mod chunks;
pub mod compressors;
mod cuts;
pub mod decompress;
mod gunzip;
mod gzip;
pub mod memory;
mod piece;
pub mod segments;
mod source;
mod zstd;

/// The level of gzip if a caller names none.
pub const GZIP_LEVEL: i32 = 6;
/// The level of zstd if a caller names none.
pub const ZSTD_LEVEL: i32 = 3;

/// The compression of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// One gzip member, from independent blocks that share a dictionary.
    Gzip {
        /// 1 (fast) to 9 (small).
        level: i32,
    },
    /// Frames of zstd, from independent blocks.
    Zstd {
        /// 1 (fast) to 19 (small).
        level: i32,
    },
    /// The tar itself.
    None,
}
