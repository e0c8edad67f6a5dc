//! Deflate (RFC 1951) for blocks that are compressed independently of one another, by threads in any order.
//!
//! Law: the bytes are a function of the block, the 32 KiB before it, and the level; on every machine, and whatever an
//! [`Encoder`] has compressed before. There is no floating-point number in it, nothing that depends on a processor, and a hash
//! table holds nothing of an earlier block.
//!
//! Each answer ends on a byte boundary, so that answers put one behind the other are one stream.
//!
//! An [`Inflater`] decodes any stream.

mod bits;
mod block;
mod huffman;
mod inflate;
mod level;
mod matches;
mod parse;
mod segment;
mod split;
mod window;

pub use inflate::{INFLATED_BYTES, Inflated, Inflater, Pause};
pub use level::Level;
pub use window::{DICTIONARY_BYTES, WINDOW_BYTES, Window};

use bits::BitWriter;
use parse::{Parse, parser};
use split::Splitter;

/// Compresses blocks; one for each thread, because it owns tables.
pub struct Encoder {
    parser: Box<dyn Parse>,
    splitter: Splitter,
    buffer: Vec<u8>,
}

impl Encoder {
    /// Returns an encoder for `level`.
    pub fn new(level: Level) -> Self {
        Self { parser: parser(level), splitter: Splitter::default(), buffer: Vec::new() }
    }

    /// Compresses `window[start..end]`, with what is before `start` as dictionary; `last` ends the stream.
    ///
    /// The answer is never larger than the block by more than about one part in ten thousand, and a few bytes.
    ///
    /// # Panics
    /// When `start` is behind `end`, or `end` behind [`WINDOW_BYTES`].
    pub fn encode(&mut self, window: &Window, start: usize, end: usize, last: bool) -> &[u8] {
        assert!(start <= end && end <= WINDOW_BYTES, "a block lies within its window");
        // A block is stored where that is shorter: three bits and four bytes for each 64 KiB, and at most a block a segment.
        let size = end - start;
        self.buffer.resize(size + size / 256 + 64, 0);
        let mut out = BitWriter::new(&mut self.buffer);
        self.splitter.begin(start);
        self.parser.parse(window, start, end, &mut |segment, end| self.splitter.add(window, segment, end, &mut out));
        self.splitter.finish(window, last, &mut out);
        if !last {
            // A stored block without content brings the stream to a byte boundary: what zlib calls a sync flush.
            block::write_stored(&mut out, &[], false);
        }
        out.align();
        let length = out.position();
        &self.buffer[..length]
    }
}
