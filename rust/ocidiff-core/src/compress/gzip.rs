//! Gzip from blocks that are compressed independently and still make one member, which every reader accepts.
//!
//! Each block is deflated by itself, with the 32 KiB before it as dictionary, and ends on a byte boundary, so that the blocks
//! can be put one behind the other. A block's bytes are a function of block, dictionary and level, so they can be copied from an
//! older blob too.

use std::sync::Arc;

use ocidiff_deflate::{Encoder, Level};
use zlib_rs::crc32::{crc32, crc32_combine};

use super::block::Block;
use super::segments::{self, Keys, Segment, Segments};

/// RFC 1952: deflate, no flags, no time, no extra flags, unknown system; as Go writes it.
pub const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses blocks; one for each thread.
pub struct BlockCompressor {
    encoder: Encoder,
    reuse: Option<(Keys, Arc<Segments>)>,
}

/// One compressed block.
pub struct Piece {
    /// Deflate data that ends on a byte boundary.
    pub bytes: Vec<u8>,
    /// True if the stream ends here.
    pub last: bool,
    /// True if the bytes are those of an older blob.
    pub copied: bool,
    /// Its facts in a table, except for its place; `None` for the last block, and if there is no table.
    pub segment: Option<Segment>,
    /// The number of plain bytes.
    pub plain_bytes: u64,
    checksum: u32,
}

impl BlockCompressor {
    /// Returns a compressor for `level`, 1 to 9, which copies segments if there are any to copy.
    pub fn new(level: i32, segments: Option<Arc<Segments>>) -> Self {
        let reuse = segments.map(|segments| (Keys::new(level), segments));
        Self { encoder: Encoder::new(Level::new(level)), reuse }
    }

    /// Compresses one block; the last one ends the deflate stream.
    pub fn compress(&mut self, block: &Block) -> Piece {
        let (data, last) = (block.data(), block.is_last());
        let plain_bytes = data.len() as u64;
        let key = self.reuse.as_ref().filter(|_| !last).map(|(keys, segments)| (keys.key(block), segments));
        let checksum = crc32(0, data);
        if let Some((segment, bytes)) = key.as_ref().and_then(|(key, segments)| segments.copy(key, block)) {
            // Of the data, and not of the table: a table that was forged must not break the layer.
            let segment = Some(Segment { checksum, ..segment });
            return Piece { bytes, last, copied: true, segment, plain_bytes, checksum };
        }
        let bytes = self.encoder.encode(block.window(), block.start(), block.end(), last).to_vec();
        let segment = key.map(|(key, _)| segments::describe(key, &bytes, data.len(), checksum));
        Piece { bytes, last, copied: false, segment, plain_bytes, checksum }
    }
}

/// The checksum and length of the plain bytes, which end a member.
#[derive(Default)]
pub struct Trailer {
    checksum: u32,
    plain_bytes: u64,
}

impl Trailer {
    /// Takes the next block in order.
    pub fn add(&mut self, piece: &Piece) {
        self.checksum = crc32_combine(self.checksum, piece.checksum, piece.plain_bytes);
        self.plain_bytes += piece.plain_bytes;
    }

    /// Returns the eight bytes that end the member.
    pub fn bytes(&self) -> [u8; 8] {
        // RFC 1952: the size modulo 2^32.
        let (checksum, size) = (u64::from(self.checksum), self.plain_bytes & 0xffff_ffff);
        (checksum | size << 32).to_le_bytes()
    }
}
