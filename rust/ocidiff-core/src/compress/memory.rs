//! Computes how many threads a bound of memory allows.

use super::Compression;
use super::cuts::Cuts;
use crate::cause::Cause;
use crate::error::{Error, Result};

const MIB: u64 = 1 << 20;

/// The bound where the caller has none. Frames of zstd are large, and several threads need some each.
const DEFAULT_BYTES: u64 = 128 * MIB;
const ZSTD_DEFAULT_BYTES: u64 = 192 * MIB;
/// Memory of a process besides: its program, the listings that wait, and a file that is read before its header is written.
/// Measured: 27 MiB with Python, 24 without anything to read.
const PROCESS_BYTES: u64 = 34 * MIB;
/// Memory of a thread that walks: two buffers of comparison.
const WALKER_BYTES: u64 = MIB / 2;
/// Blocks of one more layer that is written at the same time: one that is filled, and those that wait to be hashed.
const LAYER_BYTES: u64 = 3 * MIB;
/// Blocks and pieces that wait beside those of the threads.
const GZIP_SPARE_BYTES: u64 = 4 * MIB;
/// A block, its piece, and an encoder. Measured with a thread that walks, on data that cannot be compressed, 17 threads beside
/// one: 2.5 to 2.8 MiB at level 6, 3.2 to 3.4 MiB at level 9.
const GZIP_THREAD_BYTES: u64 = 3 * MIB;
/// Second tables and tokens of the levels that search a block in two halves. Measured so: 3.3 to 3.4 MiB at level 1, 4.0 MiB at
/// level 2.
const GZIP_HALVES_BYTES: u64 = MIB * 3 / 4;
/// The last of these levels.
const GZIP_HALVES_LEVEL: i32 = 2;
/// Tables of a thread that makes frames of zstd, and its windows, in MiB for each level from 1 on. Measured, and
/// rounded up.
const ZSTD_THREAD_MIB: [u64; 19] = [2, 2, 4, 5, 6, 6, 8, 8, 15, 25, 25, 45, 41, 57, 73, 41, 65, 66, 98];

/// Returns how many times the memory of the largest frame is held on the way from a tar to a blob: a thread has a frame and its
/// compressed form. With several threads one more frame waits, since they end in any order.
pub fn frames_within(threads: usize) -> usize {
    2 * threads + usize::from(threads > 1)
}

/// Returns the number of threads, `wanted` or fewer, whose work on so many layers at the same time stays within `memory_bytes`;
/// without a bound, within 128 MiB, for zstd 192 MiB and a frame for each further layer.
///
/// # Errors
/// [`Error::Usage`] when the bound is less than a single thread takes.
pub fn threads_within(memory_bytes: Option<u64>, compression: Compression, layers: usize, wanted: usize) -> Result<usize> {
    let more = layers.max(1) as u64 - 1;
    let frame = Cuts::of(compression).memory_bytes as u64;
    // What there is besides the threads, what each of them takes, what several share, and the bound without one.
    let (besides, each, shared, default) = match compression {
        Compression::None => (GZIP_SPARE_BYTES + more * LAYER_BYTES, 0, 0, DEFAULT_BYTES),
        Compression::Gzip { level } => {
            let halves = if level <= GZIP_HALVES_LEVEL { GZIP_HALVES_BYTES } else { 0 };
            (GZIP_SPARE_BYTES + more * LAYER_BYTES, GZIP_THREAD_BYTES + halves, 0, DEFAULT_BYTES)
        }
        Compression::Zstd { level } => {
            let place = usize::try_from(level.clamp(1, 19) - 1).unwrap_or_default();
            // Each layer has a frame that is filled.
            (frame + more * frame, 2 * frame + ZSTD_THREAD_MIB[place] * MIB, frame, ZSTD_DEFAULT_BYTES + more * frame)
        }
    };
    let (fixed, each) = (PROCESS_BYTES + besides, each + WALKER_BYTES);
    let allowed = memory_bytes.unwrap_or(default);
    let threads = match allowed.saturating_sub(fixed) / each {
        threads @ 0..=1 => threads,
        _ => (allowed.saturating_sub(fixed + shared) / each).max(1),
    };
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
        let by_level = [1, 2, 3, 9].map(|level| threads_within(None, Compression::Gzip { level }, 1, 64).unwrap());
        assert_eq!(by_level, [21, 21, 25, 25]);
    }

    #[test]
    fn without_a_bound_one_thread_is_always_allowed() {
        let gzip = (1..=9).map(|level| Compression::Gzip { level });
        let zstd = (1..=19).map(|level| Compression::Zstd { level });
        for compression in gzip.chain(zstd).chain([Compression::None]) {
            for layers in 1..=16 {
                assert!(
                    threads_within(None, compression, layers, 2).is_ok_and(|threads| threads >= 1),
                    "{compression:?} {layers}"
                );
            }
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
    fn zstd_has_threads_for_several_layers() {
        let zstd = |level, layers| threads_within(None, Compression::Zstd { level }, layers, 64).unwrap();
        assert_eq!([1, 3, 6, 9, 12, 19].map(|level| zstd(level, 1)), [7, 6, 6, 2, 1, 1]);
        assert_eq!([1, 3, 6, 9, 12, 19].map(|level| zstd(level, 8)), [7, 6, 6, 2, 1, 1]);
        let bound = |mib| threads_within(Some(mib * MIB), Compression::Zstd { level: 3 }, 1, 64).unwrap();
        assert_eq!([64, 83, 91, 92, 128].map(bound), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn a_bound_that_cannot_be_kept_is_refused() {
        let error = threads_within(Some(100 * MIB), Compression::Zstd { level: 19 }, 1, 2).unwrap_err();
        assert_eq!(error.to_string(), "memory: this compression takes 181 MiB or more, 100 MiB are allowed");
    }
}
