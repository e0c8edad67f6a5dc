//! A block on its way to the blob: copied from an older blob if that has it, else compressed.

use std::sync::Arc;

use ocidiff_deflate::Level;
use zlib_rs::crc32::crc32;

use super::Compression;
use super::block::Block;
use super::budget::Charge;
use super::segments::{self, Keys, Segment, Segments};
use super::zstd::FrameEncoder;
use crate::control::Control;
use crate::error::Result;

/// One compressed block.
pub struct Piece {
    /// Deflate data that ends on a byte boundary, or a frame of zstd.
    pub bytes: Vec<u8>,
    /// True if the tar ends here.
    pub last: bool,
    /// True if the bytes are those of an older blob.
    pub copied: bool,
    /// Its facts in a table, except for its place; `None` for a block that no other layer can copy, and if there is no table.
    pub segment: Option<Segment>,
    /// The number of plain bytes.
    pub plain_bytes: u64,
    /// CRC-32 of the plain bytes; 0 for zstd, whose frames have checksums.
    pub checksum: u32,
    /// The bytes that it takes of a budget.
    charge: Option<Charge>,
}

impl Piece {
    /// Returns the piece with its part of `charge`, which was for the most bytes that it could have.
    pub fn charged(mut self, mut charge: Option<Charge>) -> Self {
        if let Some(charge) = &mut charge {
            drop(charge.split_off(self.bytes.len()));
        }
        self.charge = charge;
        self
    }
}

/// Encodes blocks.
pub enum Encoder {
    /// Deflate, without header and trailer.
    Gzip(Box<ocidiff_deflate::Encoder>),
    /// Frames of zstd.
    Zstd(FrameEncoder),
}

impl Encoder {
    /// Returns an encoder; `None` if blobs are tars.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when there is no memory for it.
    pub fn new(compression: Compression) -> Result<Option<Self>> {
        Ok(match compression {
            Compression::Gzip { level } => Some(Self::Gzip(Box::new(ocidiff_deflate::Encoder::new(Level::new(level))))),
            Compression::Zstd { level } => Some(Self::Zstd(FrameEncoder::new(level)?)),
            Compression::None => None,
        })
    }

    /// Compresses one block.
    ///
    /// # Errors
    /// As [`FrameEncoder::encode`].
    pub fn encode(&mut self, block: &Block, control: &Control) -> Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => Ok(encoder.encode(block.window(), block.start(), block.end(), block.is_last()).to_vec()),
            Self::Zstd(encoder) => encoder.encode(block.data(), control),
        }
    }

    fn checksum(&self, block: &Block) -> u32 {
        match self {
            Self::Gzip(_) => crc32(0, block.data()),
            Self::Zstd(_) => 0,
        }
    }

    /// Returns true if a later blob can copy the bytes of this block. The last one of gzip ends the stream.
    fn is_segment(&self, block: &Block) -> bool {
        match self {
            Self::Gzip(_) => !block.is_last(),
            Self::Zstd(_) => !block.data().is_empty(),
        }
    }
}

/// Compresses blocks, or copies their compressed bytes; one for each thread.
pub struct BlockCompressor {
    encoder: Encoder,
    reuse: Option<(Keys, Arc<Segments>)>,
}

impl BlockCompressor {
    /// Returns a compressor, which copies segments if there are any to copy; `None` if blobs are tars.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn new(compression: Compression, segments: Option<Arc<Segments>>) -> Result<Option<Self>> {
        let reuse = segments.map(|segments| (Keys::new(compression), segments));
        Ok(Encoder::new(compression)?.map(|encoder| Self { encoder, reuse }))
    }

    /// Compresses one block; the last one of gzip ends the deflate stream.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn compress(&mut self, block: &Block, control: &Control) -> Result<Piece> {
        let (data, last) = (block.data(), block.is_last());
        let plain_bytes = data.len() as u64;
        let reuse = self.reuse.as_ref().filter(|_| self.encoder.is_segment(block));
        let key = reuse.map(|(keys, segments)| (keys.key(block), segments));
        let checksum = self.encoder.checksum(block);
        if let Some((segment, bytes)) = key.as_ref().and_then(|(key, segments)| segments.copy(key, block)) {
            // Of the data, and not of the table: a table that was forged must not break the layer.
            let segment = Some(Segment { checksum, ..segment });
            return Ok(Piece { bytes, last, copied: true, segment, plain_bytes, checksum, charge: None });
        }
        let key = key.map(|(key, _)| key);
        let bytes = self.encoder.encode(block, control)?;
        let segment = key.map(|key| segments::describe(key, &bytes, data.len(), checksum));
        Ok(Piece { bytes, last, copied: false, segment, plain_bytes, checksum, charge: None })
    }
}
