//! Chunks of a stream in buffers that go round: a bounded number, so that no thread gets far ahead of the others.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A part of a stream, shared by several threads. Its buffer goes back when the last one is done.
pub(super) struct Chunk {
    /// The buffer, and where the part is in it.
    pub buffer: Vec<u8>,
    pub range: Range<usize>,
    pool: SyncSender<Vec<u8>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Nobody takes it when the stream is over.
        let _ = self.pool.try_send(std::mem::take(&mut self.buffer));
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

/// A bounded number of buffers of one size.
pub(super) struct Pool {
    bytes: usize,
    taken: Receiver<Vec<u8>>,
    returned: SyncSender<Vec<u8>>,
}

impl Pool {
    /// Returns a pool of `buffers` buffers of `bytes` bytes each.
    pub fn new(buffers: usize, bytes: usize) -> Self {
        let (returned, taken) = sync_channel(buffers);
        for _ in 0..buffers {
            // There is room for all of them.
            let _ = returned.try_send(Vec::new());
        }
        Self { bytes, taken, returned }
    }

    /// Returns a full-sized buffer, as soon as one is free.
    pub fn take(&self) -> Vec<u8> {
        let mut buffer = self.taken.recv().unwrap_or_default();
        buffer.resize(self.bytes, 0);
        buffer
    }

    /// Returns bytes of a buffer, to be shared.
    pub fn chunk(&self, buffer: Vec<u8>, range: Range<usize>) -> Arc<Chunk> {
        Arc::new(Chunk { buffer, range, pool: self.returned.clone() })
    }
}
