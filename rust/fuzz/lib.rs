//! Shared support of the fuzz targets.

use std::io::{BufRead, Read};

use ocidiff_core::Result;
use ocidiff_core::compress::decompress::{Bounds, Decompressed, Digests};
use ocidiff_core::control::Control;
use ocidiff_core::tar::read::{Piece, Reader};

const BLOCK_BYTES: usize = 512;

/// Gives every block that looks like a header the right checksum, or nearly all inputs would end at the first one.
pub fn seal(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(BLOCK_BYTES) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// Reads a blob to its end, and checks that its digests are of what was read.
pub fn decompress(blob: &[u8]) {
    let bounds = Bounds { max_bytes: Some(64 << 20), max_ratio: None };
    let control = Control::default();
    let outcome: Result<(u64, Digests)> = std::thread::scope(|scope| {
        let mut tar = Decompressed::start(scope, blob, bounds, &control)?;
        let mut size = 0;
        loop {
            let count = match tar.fill_buf() {
                Ok(piece) => piece.len(),
                // An error ends the stream for good.
                Err(_) => return Err(ocidiff_core::Error::Cancelled),
            };
            if count == 0 {
                return tar.finish().map(|digests| (size, digests));
            }
            tar.consume(count);
            size += count as u64;
        }
    });
    if let Ok((size, digests)) = outcome {
        assert_eq!((digests.uncompressed_size, digests.size), (size, blob.len() as u64));
    }
}

/// Reads all entries of a tar, and checks that none reaches beyond its end.
pub fn read_entries(tar: &[u8]) {
    let mut reader = Reader::new(tar, 1 << 20);
    let mut end = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(entry.offset >= end, "two entries overlap");
        end = entry.offset + BLOCK_BYTES as u64;
        let (mut size, mut holes) = (0, 0);
        let read = reader.read_data(|piece| {
            match piece {
                Piece::Data(data) => size += data.len() as u64,
                Piece::Hole(length) => holes += length,
            }
            Ok(())
        });
        if read.is_err() {
            return;
        }
        assert_eq!(size + holes, entry.size);
        assert!(holes == 0 || entry.is_sparse);
        end += size;
    }
    let mut rest = Vec::new();
    assert!(reader.into_inner().read_to_end(&mut rest).is_ok());
}
