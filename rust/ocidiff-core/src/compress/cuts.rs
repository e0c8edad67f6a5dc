//! The places where a tar is cut into blocks that are compressed by themselves. They depend on contents, compression and level alone.

use ocidiff_deflate::{DICTIONARY_BYTES, WINDOW_BYTES, Window};

use super::Compression;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// From this level on, zstd finds so much in what is far back that frames are larger.
const LARGE_FRAMES_LEVEL: i32 = 9;

/// The sizes that decide where a tar is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuts {
    /// Files of this size begin and end a block. Smaller ones would compress worse without what is before them.
    pub own_bytes: u64,
    /// A block may end before an entry if it has this size, and if the entry's name is one of so many.
    pub least_bytes: usize,
    pub entries: u64,
    /// The end of a block before that a block may look back to.
    pub dictionary_bytes: usize,
    /// Dictionary and data of the largest block.
    pub most_bytes: usize,
    /// Memory of the largest block: an encoder may read behind its end.
    pub memory_bytes: usize,
}

impl Cuts {
    /// Returns the sizes for a compression.
    pub fn of(compression: Compression) -> Self {
        match compression {
            Compression::Gzip { .. } | Compression::None => Self {
                own_bytes: 128 * KIB as u64,
                least_bytes: 64 * KIB,
                entries: 16,
                dictionary_bytes: DICTIONARY_BYTES,
                most_bytes: WINDOW_BYTES,
                memory_bytes: size_of::<Window>(),
            },
            Compression::Zstd { level } => {
                let most_bytes = if level < LARGE_FRAMES_LEVEL { 8 * MIB } else { 16 * MIB };
                let least_bytes = most_bytes / 2;
                let own_bytes = least_bytes as u64;
                Self { own_bytes, least_bytes, entries: 16, dictionary_bytes: 0, most_bytes, memory_bytes: most_bytes }
            }
        }
    }
}
