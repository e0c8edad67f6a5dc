//! Computes how many threads a bound of memory allows.

use super::Compression;
use crate::cause::Cause;
use crate::error::{Error, Result};

const MIB: u64 = 1 << 20;

/// The bound where the caller has none.
const DEFAULT_BYTES: u64 = 128 * MIB;
/// Memory of a process besides: its program, the listings that wait, and a file that is read before its header is written.
/// Measured: 27 MiB with Python, 24 without anything to read.
const PROCESS_BYTES: u64 = 34 * MIB;
/// Memory of a thread that walks: two buffers of comparison.
const WALKER_BYTES: u64 = MIB / 2;
/// Blocks of one more layer that is written at the same time: one that is filled, and those that wait to be hashed.
const LAYER_BYTES: u64 = 3 * MIB;
/// Blocks and pieces that wait beside those of the threads.
const GZIP_SPARE_BYTES: u64 = 4 * MIB;
/// A block, its piece, and an encoder. Measured with a thread that walks, on data that cannot be compressed: 2.9 MiB at
/// level 1 to 3.4 MiB at level 9.
const GZIP_THREAD_BYTES: u64 = 3 * MIB;
/// Jobs that wait beside those of the threads.
const ZSTD_SPARE_BYTES: u64 = 16 * MIB;
/// A job, its output, and tables, in MiB for each level from 1 on. Measured at a level of each group, and rounded up.
const ZSTD_THREAD_MIB: [u64; 19] = [10, 10, 10, 11, 11, 11, 13, 13, 30, 30, 50, 50, 50, 74, 74, 58, 58, 58, 92];

/// Returns the number of threads, `wanted` or fewer, whose work on so many layers at the same time stays within `memory_bytes`;
/// without a bound, within 128 MiB, or what a single thread takes.
///
/// # Errors
/// [`Error::Usage`] when the bound is less than a single thread takes.
pub fn threads_within(memory_bytes: Option<u64>, compression: Compression, layers: usize, wanted: usize) -> Result<usize> {
    let layers = layers.max(1) as u64;
    let more = (layers - 1) * LAYER_BYTES;
    let (spare, each) = match compression {
        Compression::None => (GZIP_SPARE_BYTES + more, 0),
        Compression::Gzip { .. } => (GZIP_SPARE_BYTES + more, GZIP_THREAD_BYTES),
        Compression::Zstd { level } => {
            let place = usize::try_from(level.clamp(1, 19) - 1).unwrap_or_default();
            // Each frame has threads of its own.
            (layers * ZSTD_SPARE_BYTES, layers * ZSTD_THREAD_MIB[place] * MIB)
        }
    };
    let (fixed, each) = (PROCESS_BYTES + spare, each + WALKER_BYTES);
    let allowed = memory_bytes.unwrap_or(DEFAULT_BYTES.max(fixed + each));
    let threads = allowed.saturating_sub(fixed) / each;
    if threads == 0 {
        let (needed, allowed) = ((fixed + each).div_ceil(MIB), allowed / MIB);
        return Err(Error::Usage(Cause::TooLittleMemory { needed, allowed }));
    }
    Ok(wanted.min(usize::try_from(threads).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_smaller_bound_means_fewer_threads() {
        let gzip = Compression::Gzip { level: 6 };
        let threads = [42, 48, 64, 128, 4096].map(|bound| threads_within(Some(bound * MIB), gzip, 1, 64).unwrap());
        assert_eq!(threads, [1, 2, 7, 25, 64]);
    }

    #[test]
    fn without_a_bound_one_thread_is_always_allowed() {
        for level in 1..=19 {
            assert!(threads_within(None, Compression::Zstd { level }, 1, 2).unwrap() >= 1, "{level}");
        }
        assert_eq!(threads_within(None, Compression::Zstd { level: 19 }, 1, 8).unwrap(), 1);
    }

    #[test]
    fn more_layers_mean_fewer_threads() {
        let gzip = Compression::Gzip { level: 6 };
        let threads = [1, 2, 8, 16].map(|layers| threads_within(None, gzip, layers, 64).unwrap());
        assert_eq!(threads, [25, 24, 19, 12]);
    }

    #[test]
    fn a_bound_that_cannot_be_kept_is_refused() {
        let error = threads_within(Some(100 * MIB), Compression::Zstd { level: 19 }, 1, 2).unwrap_err();
        assert_eq!(error.to_string(), "memory: this compression takes 143 MiB or more, 100 MiB are allowed");
    }
}
