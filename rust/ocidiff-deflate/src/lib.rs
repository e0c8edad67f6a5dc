//! Deflate (RFC 1951) for blocks that are compressed independently of one another, by threads in any order.
//!
//! Law: the bytes are a function of the block, the 32 KiB before it, and the level; on every machine, and whatever an
//! [`Encoder`] has compressed before. There is no floating-point number in it, nothing that depends on a processor, and a hash
//! table holds nothing of an earlier block.
//!
//! Each compressed block ends on a byte boundary, so that blocks joined in order are one stream.
//!
//! An [`Inflater`] decodes any stream.

mod bits;
mod block;
mod compare;
mod fast;
mod huffman;
mod inflate;
mod level;
mod matches;
mod parse;
mod split;
mod tokens;
mod window;

pub use inflate::{INFLATED_BYTES, Inflated, Inflater, Pause};
pub use level::Level;
pub use window::{DICTIONARY_BYTES, WINDOW_BYTES, Window};

use bits::BitWriter;
use parse::{Parse, parser};
use split::Splitter;
use tokens::Tokens;

/// Compresses blocks; one for each thread, because it owns tables.
pub struct Encoder {
    parser: Box<dyn Parse>,
    splitter: Splitter,
    tokens: Tokens,
    buffer: Vec<u8>,
}

impl Encoder {
    /// Returns an encoder for `level`.
    pub fn new(level: Level) -> Self {
        Self { parser: parser(level), splitter: Splitter::default(), tokens: Tokens::default(), buffer: Vec::new() }
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
        let Self { parser, splitter, tokens, buffer } = self;
        buffer.resize(size + size / 256 + 64, 0);
        let mut out = BitWriter::new(buffer);
        splitter.begin(start);
        tokens.clear();
        parser.parse(window, start, end, tokens, &mut |tokens, end| splitter.add(window, tokens, end, &mut out));
        splitter.finish(window, tokens, last, &mut out);
        if !last {
            // A stored block without content brings the stream to a byte boundary: what zlib calls a sync flush.
            block::write_stored(&mut out, &[], false);
        }
        out.align();
        let length = out.position();
        &buffer[..length]
    }
}
