//! Measures a layer without a target to write it to.

use std::io::{BufRead, Read};

use super::Limits;
use super::path::LayerPath;
use crate::compress::decompress::{Decompressed, Digests};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::stream::Stream;
use crate::tar::read::Reader;

/// The digests, sizes and counts of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerMeasure {
    /// Both digests and both sizes.
    pub digests: Digests,
    /// Bytes of holes in sparse files, which the tar leaves out.
    pub holes: u64,
    /// Entries of the tar.
    pub entries: u64,
}

/// Measures the layer in `source`, whose compression is detected. Its entries are read and counted, not judged.
///
/// A failure also cancels `control`, which belongs to this one call: a source that sleeps must not hold it up.
///
/// # Errors
/// [`Error::MalformedCompression`](crate::Error::MalformedCompression) when it does not decompress,
/// [`Error::MalformedLayer`](crate::Error::MalformedLayer) when it is no tar,
/// [`Error::LimitExceeded`](crate::Error::LimitExceeded), [`Error::Unsupported`](crate::Error::Unsupported) for entries that
/// cannot be applied, [`Error::Io`](crate::Error::Io) for what the system refuses, and
/// [`Error::Cancelled`](crate::Error::Cancelled).
pub fn measure_layer(source: impl Read + Send, limits: &Limits, control: &Control) -> Result<LayerMeasure> {
    std::thread::scope(|scope| {
        let measure = || {
            let tar = Decompressed::start(scope, source, limits.bounds(), control)?;
            let mut reader = Reader::new(tar, limits.max_header_bytes);
            let mut entries = 0;
            while let Some(entry) = reader.next_entry()? {
                control.check()?;
                control.add_entries(1);
                entries += 1;
                limits.check(&entry, &LayerPath::clean(&entry.name), entries)?;
            }
            reader.drain()?;
            let holes = reader.holes();
            Ok(LayerMeasure { digests: reader.into_inner().finish()?, holes, entries })
        };
        measure().inspect_err(|_| control.cancel())
    })
}

/// Writes the tar of the layer in `source` to `sink`, as it is: its entries are not read.
///
/// # Errors
/// As [`measure_layer`], but for what only entries can be wrong with.
pub fn write_tar(source: impl Read + Send, sink: &Stream, limits: &Limits, control: &Control) -> Result<Digests> {
    std::thread::scope(|scope| {
        let write = || {
            let mut tar = Decompressed::start(scope, source, limits.bounds(), control)?;
            loop {
                let chunk = tar.fill_buf().map_err(Error::of_stream)?;
                if chunk.is_empty() {
                    return tar.finish();
                }
                control.check()?;
                sink.write_all(chunk)?;
                let count = chunk.len();
                tar.consume(count);
            }
        };
        write().inspect_err(|_| control.cancel())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Hasher;

    #[test]
    fn a_plain_blob_is_its_own_tar() {
        let data = vec![0_u8; 1 << 20];
        let mut hasher = Hasher::default();
        hasher.update(&data);
        let found = measure_layer(&data[..], &Limits::default(), &Control::default()).unwrap();
        assert_eq!((found.digests.digest, found.digests.size), hasher.finish());
        assert_eq!((found.digests.diff_id, found.entries), (found.digests.digest, 0));
    }

    #[test]
    fn a_blob_cut_short_is_malformed() {
        let cut = [0x1f, 0x8b, 8, 0, 0, 0];
        let found = measure_layer(&cut[..], &Limits::default(), &Control::default());
        assert!(matches!(found, Err(Error::MalformedCompression { .. })));
    }

    #[test]
    fn a_limit_that_is_passed_is_told() {
        let limits = Limits { max_bytes: Some(1 << 19), ..Limits::default() };
        let found = measure_layer(&vec![0_u8; 1 << 20][..], &limits, &Control::default());
        assert!(matches!(found, Err(Error::LimitExceeded { limit: "max_bytes", .. })));
    }
}
