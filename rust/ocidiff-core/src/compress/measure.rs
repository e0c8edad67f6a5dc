//! What a blob is, without a target to write it to.

use std::io::{self, Read};

use crate::compress::decompress::{Bounds, Decompressed, Digests};
use crate::control::Control;
use crate::error::{Error, Result};

/// Both digests and both sizes of the layer in `source`, whose compression is detected. What is in the tar is not looked at.
///
/// # Errors
/// [`Error::MalformedLayer`] when it does not decompress, [`Error::Io`] for what the system refuses, and
/// [`Error::Cancelled`].
pub fn measure_layer(source: impl Read + Send, control: &Control) -> Result<Digests> {
    std::thread::scope(|scope| {
        let mut tar = Decompressed::start(scope, source, Bounds::default(), control)?;
        let read = io::copy(&mut tar, &mut io::sink());
        read.map_err(|error| error.downcast::<Error>().unwrap_or_else(|source| Error::io("read", "", source)))?;
        tar.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Hasher;

    #[test]
    fn a_plain_blob_is_its_own_tar() {
        let data = vec![7_u8; 1 << 20];
        let mut hasher = Hasher::default();
        hasher.update(&data);
        let found = measure_layer(&data[..], &Control::default()).unwrap();
        assert_eq!((found.digest, found.size), hasher.finish());
        assert_eq!((found.diff_id, found.uncompressed_size), (found.digest, found.size));
    }

    #[test]
    fn a_blob_cut_short_is_malformed() {
        let cut = [0x1f, 0x8b, 8, 0, 0, 0];
        assert!(matches!(measure_layer(&cut[..], &Control::default()), Err(Error::MalformedLayer { .. })));
    }
}
