//! The bytes of a blob: one thread reads and hashes them, another one decodes them.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::chunks::{Chunk, Pool};
use crate::control::Control;
use crate::digest::Hasher;
use crate::error::{Error, Result};

/// Large enough that a system call and a hand-over cost nothing beside the hashing, small enough to stay in a cache.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 8];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// After a byte from 0x50 to 0x5f (RFC 8878, 3.1.2).
const ZSTD_SKIPPABLE_MAGIC: &[u8] = &[0x2a, 0x4d, 0x18];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zstd,
    Plain,
}

impl Format {
    /// Judges by the first bytes of a blob.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            _ if head.starts_with(GZIP_MAGIC) => Self::Gzip,
            _ if head.starts_with(ZSTD_MAGIC) => Self::Zstd,
            [0x50..=0x5f, rest @ ..] if rest.starts_with(ZSTD_SKIPPABLE_MAGIC) => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// The thread that reads the blob, and hashes it unless it is the tar.
pub(super) struct BlobReader<'scope, R> {
    pub source: R,
    pub control: &'scope Control,
    pub pool: Pool,
    pub chunks: SyncSender<Result<Arc<Chunk>>>,
    pub is_hashed: bool,
}

impl<R: Read> BlobReader<'_, R> {
    /// Reads to the end, or until the decoder wants no more. Returns the hash of what was read.
    pub fn run(mut self) -> Hasher {
        let mut hasher = Hasher::default();
        // The format is told by the first bytes.
        let mut least = ZSTD_MAGIC.len();
        loop {
            let chunk = match self.read(least) {
                Ok(chunk) if chunk.is_empty() => return hasher,
                Ok(chunk) => chunk,
                Err(error) => {
                    let _ = self.chunks.send(Err(error));
                    return hasher;
                }
            };
            if std::mem::take(&mut least) > 0 {
                self.is_hashed &= Format::detect(&chunk) != Format::Plain;
            }
            // The decoder goes on at once.
            if self.chunks.send(Ok(chunk.clone())).is_err() {
                return hasher;
            }
            if self.is_hashed {
                hasher.update(&chunk);
            }
        }
    }

    /// Reads the next piece, of `least` bytes or more if there are so many; an empty one at the end.
    fn read(&mut self, least: usize) -> Result<Arc<Chunk>> {
        let mut buffer = self.pool.take();
        let mut filled = 0;
        loop {
            self.control.check()?;
            match self.source.read(&mut buffer[filled..]) {
                Ok(count) => {
                    filled += count;
                    if count == 0 || filled >= least {
                        return Ok(self.pool.chunk(buffer, 0..filled));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.downcast::<Error>().unwrap_or_else(|error| Error::io("read", "", error))),
            }
        }
    }
}

/// The blob as the decoder takes it. Failures of the source stay apart from those of the format.
pub(super) struct Blob<'scope> {
    chunks: Receiver<Result<Arc<Chunk>>>,
    control: &'scope Control,
    /// The piece that is being read.
    pub current: Option<Arc<Chunk>>,
    taken: usize,
    /// Bytes of the blob so far.
    pub size: u64,
}

impl<'scope> Blob<'scope> {
    /// Reads what comes through `chunks`.
    pub fn new(chunks: Receiver<Result<Arc<Chunk>>>, control: &'scope Control) -> Self {
        Self { chunks, control, current: None, taken: 0, size: 0 }
    }

    /// Takes the next piece; none at the end.
    pub fn next_chunk(&mut self) -> io::Result<()> {
        self.current = None;
        self.taken = 0;
        if let Ok(chunk) = self.chunks.recv() {
            let chunk = chunk.map_err(io::Error::other)?;
            self.size += chunk.len() as u64;
            self.control.add_blob(chunk.len() as u64);
            self.current = Some(chunk);
        }
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Blob<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|chunk| chunk.len() == self.taken) {
            self.next_chunk()?;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[self.taken..]))
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
    }
}
