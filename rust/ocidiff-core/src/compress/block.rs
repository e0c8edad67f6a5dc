//! The pieces of a tar that pass from its writer to hashers and compressors, and come back to be filled again.

use crossbeam_channel::{Receiver, Sender, bounded};
use ocidiff_deflate::{DICTIONARY_BYTES, WINDOW_BYTES, Window};

/// A piece of the tar, with the end of the piece before it as dictionary. Its memory goes back to its [`Supply`].
pub struct Block {
    /// The bytes of a [`Window`].
    window: Vec<u8>,
    start: usize,
    end: usize,
    last: bool,
    home: Sender<Vec<u8>>,
}

/// Makes blocks. It reuses the memory of blocks that are done with, those of its clones too.
#[derive(Clone)]
pub struct Supply {
    home: Sender<Vec<u8>>,
    idle: Receiver<Vec<u8>>,
}

impl Supply {
    /// Returns a supply that keeps up to `idle` blocks for further use.
    pub fn new(idle: usize) -> Self {
        let (home, idle) = bounded(idle);
        Self { home, idle }
    }

    /// Returns an empty block that follows `previous`.
    pub fn after(&self, previous: &[u8]) -> Block {
        let dictionary = &previous[previous.len().saturating_sub(DICTIONARY_BYTES)..];
        let mut window = self.idle.try_recv().unwrap_or_else(|_| vec![0; size_of::<Window>()]);
        window[..dictionary.len()].copy_from_slice(dictionary);
        let start = dictionary.len();
        Block { window, start, end: start, last: false, home: self.home.clone() }
    }
}

impl Block {
    /// Dictionary and data, and what is behind them.
    pub fn window(&self) -> &Window {
        const EMPTY: &Window = &[0; size_of::<Window>()];
        self.window.first_chunk().unwrap_or(EMPTY)
    }

    /// Returns the offset at which the data begins in the window.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Returns the offset at which the data ends.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Returns the data.
    pub fn data(&self) -> &[u8] {
        &self.window()[self.start..self.end]
    }

    /// Returns true if the tar ends here. A pipeline that sees no last block was given up.
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// Says that the tar ends here.
    pub fn set_last(&mut self) {
        self.last = true;
    }

    /// Returns the space that can still be filled.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.window[self.end..WINDOW_BYTES]
    }

    /// Says that the first `count` bytes of the space are filled now.
    pub fn advance(&mut self, count: usize) {
        self.end = WINDOW_BYTES.min(self.end + count);
    }

    /// Returns true if there is no space.
    pub fn is_full(&self) -> bool {
        self.end == WINDOW_BYTES
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Nobody waits for it: enough blocks are idle, or the pipeline has ended.
        let _ = self.home.try_send(std::mem::take(&mut self.window));
    }
}
