//! Gzip from blocks that are compressed independently and still make one member, which every reader accepts.
//!
//! Each block is deflated by itself, with the 32 KiB before it as dictionary, and ends on a byte boundary, so that the blocks
//! can be put one behind the other. A block's bytes are a function of block, dictionary and level, so they can be copied from an
//! older blob too.

use flate2::{Decompress, FlushDecompress, Status};
use zlib_rs::crc32::crc32_combine;

use super::block::Block;

/// RFC 1952: deflate, no flags, no time, no extra flags, unknown system; as Go writes it.
pub const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The number of the encoder. Change it whenever a level gives other bytes than before.
pub const ENCODER: u32 = 4;

/// The checksum and length of the plain bytes, which end a member.
#[derive(Default)]
pub struct Trailer {
    checksum: u32,
    plain_bytes: u64,
}

impl Trailer {
    /// Takes the checksum and length of the next block in order.
    pub fn add(&mut self, checksum: u32, plain_bytes: u64) {
        self.checksum = crc32_combine(self.checksum, checksum, plain_bytes);
        self.plain_bytes += plain_bytes;
    }

    /// Returns the eight bytes that end the member.
    pub fn bytes(&self) -> [u8; 8] {
        // RFC 1952: the size modulo 2^32.
        let (checksum, size) = (u64::from(self.checksum), self.plain_bytes & 0xffff_ffff);
        (checksum | size << 32).to_le_bytes()
    }
}

/// Returns true if compressed bytes give the data of a block, and end on a byte boundary.
pub fn is_block(bytes: &[u8], block: &Block) -> bool {
    let mut inflate = Decompress::new(false);
    let mut plain = vec![0; block.end() + 1];
    // A stored block brings the dictionary into the window of the decoder.
    let dictionary = &block.window()[..block.start()];
    let length = dictionary.len() as u16;
    let stored = [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), dictionary].concat();
    // An empty block that is the last one ends the stream only if it begins where the segment ends.
    let end = [3, 0];
    let mut status = Ok(Status::Ok);
    for input in [&stored[..], bytes, &end] {
        let before = inflate.total_in();
        let done = inflate.total_out() as usize;
        status = inflate.decompress(input, plain.get_mut(done..).unwrap_or_default(), FlushDecompress::None);
        if status.is_err() || inflate.total_in() - before != input.len() as u64 {
            return false;
        }
    }
    matches!(status, Ok(Status::StreamEnd))
        && plain[..block.end()] == *block.dictionary_and_data()
        && inflate.total_out() == block.end() as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::compress::Compression;
    use crate::compress::block::filled;
    use crate::compress::piece::Encoder;
    use crate::control::Control;

    #[test]
    fn only_the_bytes_of_a_block_with_its_dictionary_are_its_segment() {
        let gzip = Compression::Gzip { level: 6 };
        let text: Vec<u8> = (0..20_000_u32).flat_map(|number| (number * number).to_be_bytes()).collect();
        for dictionary in [&text[..0], &text[..100], &text[..40_000]] {
            let (mine, other) = (filled(gzip, dictionary, &text), filled(gzip, dictionary, &text[1..]));
            let bytes = Encoder::new(gzip).unwrap().unwrap().encode(&mine, &Control::default()).unwrap();
            assert!(is_block(&bytes, &mine));
            assert!(!is_block(&bytes, &other));
            assert!(!is_block(&bytes[..bytes.len() - 1], &mine));
            assert!(!is_block(&[&bytes[..], &[0]].concat(), &mine));
        }
    }
}
