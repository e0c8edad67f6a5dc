//! The blocks of a tar that pass from its writer to hashers and compressors, and come back to be filled again.

use crossbeam_channel::{Receiver, Sender, bounded};
use ocidiff_deflate::Window;

use super::budget::Charge;
use super::cuts::Cuts;

/// The memory that a block begins with. It grows twofold, since most frames of small layers stay small.
const FIRST_BYTES: usize = 1 << 20;

/// A part of the tar, with the end of the part before it as dictionary. Its memory goes back to its [`Supply`].
pub struct Block {
    /// Empty until something is put into it, so that no more blocks have memory than are filled or on their way.
    memory: Vec<u8>,
    start: usize,
    end: usize,
    last: bool,
    supply: Supply,
    /// The bytes that the memory takes of a budget. It is the last field, so that the memory is freed before.
    charge: Option<Charge>,
}

/// Makes blocks. It reuses the memory of blocks that are done with, those of its clones too.
#[derive(Clone)]
pub struct Supply {
    cuts: Cuts,
    home: Sender<Vec<u8>>,
    idle: Receiver<Vec<u8>>,
}

impl Supply {
    /// Returns a supply that keeps up to `idle` blocks for further use.
    pub fn new(cuts: Cuts, idle: usize) -> Self {
        let (home, idle) = bounded(idle);
        Self { cuts, home, idle }
    }

    /// Returns an empty block that follows `previous`.
    pub fn after(&self, previous: &[u8]) -> Block {
        let dictionary = &previous[previous.len().saturating_sub(self.cuts.dictionary_bytes)..];
        let (memory, start) = (Vec::new(), dictionary.len());
        let mut block = Block { memory, start, end: start, last: false, supply: self.clone(), charge: None };
        if !dictionary.is_empty() {
            block.grow();
            block.memory[..start].copy_from_slice(dictionary);
        }
        block
    }
}

impl Block {
    /// Returns dictionary and data of a block for gzip, and what is behind them.
    pub fn window(&self) -> &Window {
        const EMPTY: &Window = &[0; size_of::<Window>()];
        self.memory.first_chunk().unwrap_or(EMPTY)
    }

    /// Returns the offset at which the data begins in the window.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Returns the offset at which the data ends.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Returns dictionary and data.
    pub fn dictionary_and_data(&self) -> &[u8] {
        &self.memory[..self.end]
    }

    /// Returns the data.
    pub fn data(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Returns true if the tar ends here. A pipeline that sees no last block was given up.
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// Says that the tar ends here.
    pub fn set_last(&mut self) {
        self.last = true;
    }

    /// Returns space that can still be filled.
    pub fn space(&mut self) -> &mut [u8] {
        if self.end == self.memory.len() {
            self.grow();
        }
        let end = self.supply.cuts.most_bytes.min(self.memory.len());
        &mut self.memory[self.end..end]
    }

    fn grow(&mut self) {
        let (now, most) = (self.memory.len(), self.supply.cuts.memory_bytes);
        if now == 0 {
            self.memory = self.supply.idle.try_recv().unwrap_or_else(|_| vec![0; FIRST_BYTES.min(most)]);
        } else {
            let more = now.min(most - now);
            self.memory.reserve_exact(more);
            self.memory.resize(now + more, 0);
        }
    }

    /// Says that the first `count` bytes of the space are filled now.
    pub fn advance(&mut self, count: usize) {
        self.end = self.supply.cuts.most_bytes.min(self.end + count);
    }

    /// Returns true if there is no space.
    pub fn is_full(&self) -> bool {
        self.end == self.supply.cuts.most_bytes
    }

    /// Moves a block without a dictionary to memory of its own size, if it has more than twice of that, so that a small block
    /// does not keep the memory of a large one.
    pub fn compact(&mut self) {
        if self.start == 0 && self.end * 2 < self.memory.len() {
            let memory = self.data().to_vec();
            self.give_back(memory);
        }
    }

    /// Puts `next` in place of its memory, which goes back. Nobody waits for that: enough blocks are idle, or the pipeline has
    /// ended.
    fn give_back(&mut self, next: Vec<u8>) {
        let memory = std::mem::replace(&mut self.memory, next);
        // Small blocks have memory of their own, which is of no use to others.
        if memory.len() >= FIRST_BYTES.min(self.supply.cuts.memory_bytes) {
            let _ = self.supply.home.try_send(memory);
        }
    }

    /// Returns the size of its memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Holds what the memory takes of a budget, as long as the block lives.
    pub fn hold(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.give_back(Vec::new());
    }
}

/// Returns a block of this data behind this dictionary.
#[cfg(test)]
pub fn filled(compression: super::Compression, dictionary: &[u8], mut data: &[u8]) -> Block {
    let mut block = Supply::new(Cuts::of(compression), 1).after(dictionary);
    while !data.is_empty() {
        let space = block.space();
        let (now, later) = data.split_at(data.len().min(space.len()));
        space[..now.len()].copy_from_slice(now);
        block.advance(now.len());
        data = later;
    }
    block
}
