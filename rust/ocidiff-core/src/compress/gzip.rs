//! Gzip in blocks that can be compressed independently and still make one member that every reader accepts.
//!
//! Each block is deflated by itself, with the 32 KiB before it as dictionary, and ends on a byte boundary (sync flush), so
//! that the blocks can be put one behind the other. A block's bytes are a function of block, dictionary and level.

use std::io;

use zlib_rs::crc32::{crc32, crc32_combine};
use zlib_rs::{Deflate, DeflateFlush, Status};

use super::blob::Block;
use crate::control::Control;
use crate::error::{Error, Result};

/// The window of deflate.
pub const DICTIONARY_BYTES: usize = 32 << 10;
/// RFC 1952: deflate, no flags, no time, no extra flags, unknown system; as Go writes it.
pub const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// What is compressed between two looks at the cancel flag: the slowest level takes a tenth of a second for it at worst.
const SLICE_BYTES: usize = 32 << 10;

/// Compresses blocks, each with a state of its own: what zlib-rs 0.6.8 writes after a reset depends on what came before, so
/// a state that is used again would make the bytes depend on which thread took which block.
#[derive(Clone, Copy)]
pub struct BlockCompressor {
    level: i32,
}

/// One compressed block.
pub struct Piece {
    /// Deflate data that ends on a byte boundary.
    pub bytes: Vec<u8>,
    /// Whether the stream ends here.
    pub last: bool,
    checksum: u32,
    plain_bytes: u64,
}

impl BlockCompressor {
    /// A compressor for `level`, 1 to 9.
    pub fn new(level: i32) -> Self {
        // zlib-rs 0.6.8 panics at its level 1 on incompressible input.
        Self { level: level.max(2) }
    }

    /// Compresses one block; the last one ends the deflate stream.
    ///
    /// # Errors
    /// [`Error::Cancelled`] between two slices, once somebody asked to stop.
    pub fn compress(self, block: &Block, control: &Control) -> Result<Piece> {
        let failed = |reason: &str| Error::io("deflate", "", io::Error::other(reason.to_owned()));
        let (data, last) = (block.data(), block.is_last());
        let mut deflate = Deflate::new(self.level, false, 15);
        if !block.dictionary().is_empty() {
            deflate.set_dictionary(block.dictionary()).map_err(|error| failed(error.as_str()))?;
        }
        // Stored blocks bound the growth: 5 bytes for each 16 KiB or less, and the flush.
        let mut bytes = vec![0; data.len() + data.len() / 1024 + 64];
        let (mut rest, mut written) = (data, 0);
        let status = loop {
            control.check()?;
            let (slice, after) = rest.split_at(rest.len().min(SLICE_BYTES));
            let flush = match () {
                () if !after.is_empty() => DeflateFlush::NoFlush,
                () if last => DeflateFlush::Finish,
                () => DeflateFlush::SyncFlush,
            };
            let status = deflate.compress(slice, &mut bytes[written..], flush);
            written = deflate.total_out() as usize;
            rest = after;
            match status.map_err(|error| failed(error.as_str()))? {
                status if rest.is_empty() => break status,
                _ => {}
            }
        };
        let complete = deflate.total_in() == data.len() as u64 && (!last || status == Status::StreamEnd);
        if !complete || written == bytes.len() {
            return Err(failed("the output of a block is larger than its bound"));
        }
        bytes.truncate(written);
        Ok(Piece { bytes, checksum: crc32(0, data), plain_bytes: data.len() as u64, last })
    }
}

/// What the end of a member says of its plain bytes.
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

    /// The eight bytes that end the member.
    pub fn bytes(&self) -> [u8; 8] {
        // RFC 1952: the size modulo 2^32.
        let (checksum, size) = (u64::from(self.checksum), self.plain_bytes & 0xffff_ffff);
        (checksum | size << 32).to_le_bytes()
    }
}
