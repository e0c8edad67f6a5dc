//! The pass in which a blob becomes a tar again: detected, decompressed, and both of its digests taken.
//!
//! A thread of its own does that, ahead of the caller by a few buffers that go round. What it finds wrong is told in its
//! place in the stream, so the caller sees the same failure however far the thread has come.

use std::io::{self, BufRead, BufReader, Read};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use flate2::bufread::MultiGzDecoder;

use crate::control::Control;
use crate::digest::{Digest, Hasher, HashingReader};
use crate::error::{Error, Result};

/// Large enough that a system call and a hand-over cost nothing beside the hashing.
const BUFFER_BYTES: usize = 256 << 10;
/// Buffers that go round between the two threads.
const BUFFERS: usize = 4;
/// The largest window of a zstd frame: 128 MiB, what the reference decoder allows by default.
const ZSTD_WINDOW_LOG: u32 = 27;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 8];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// After a byte from 0x50 to 0x5f (RFC 8878, 3.1.2).
const ZSTD_SKIPPABLE_MAGIC: &[u8] = &[0x2a, 0x4d, 0x18];

/// What is known once a blob is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// sha256 of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// sha256 of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
}

/// The tar inside a blob, as it is decompressed.
pub struct Decompressed<'scope> {
    full: Receiver<Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    taken: usize,
    worker: ScopedJoinHandle<'scope, Option<Digests>>,
}

impl<'scope> Decompressed<'scope> {
    /// Begins to read `source`; more than `max_bytes` of tar are a failure. The thread ends with this value or the stream.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no thread to be had.
    pub fn start<'env, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: R,
        max_bytes: Option<u64>,
        control: &'scope Control,
    ) -> Result<Self> {
        let (full_sender, full) = bounded(BUFFERS);
        let (empty, empty_receiver) = bounded(BUFFERS);
        for _ in 0..BUFFERS {
            // There is room for all of them.
            let _ = empty.try_send(Vec::new());
        }
        let work = Worker { full: full_sender, empty: empty_receiver, max_bytes, control };
        let worker = std::thread::Builder::new().name("ocidiff-inflate".into());
        let worker = worker.spawn_scoped(scope, move || work.run(source)).map_err(|error| Error::io("spawn", "", error))?;
        Ok(Self { full, empty, current: Vec::new(), taken: 0, worker })
    }

    /// The digests, once the stream was read to its end.
    pub fn finish(self) -> Result<Digests> {
        drop(self.full);
        self.worker.join().ok().flatten().ok_or_else(|| Error::io("decompress", "", io::Error::other("unfinished")))
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Decompressed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.taken == self.current.len() {
            let Ok(next) = self.full.recv() else { return Ok(&[]) };
            let used = std::mem::replace(&mut self.current, next.map_err(io::Error::other)?);
            self.taken = 0;
            // The worker has gone when the stream has ended; then nobody needs the buffer.
            let _ = self.empty.try_send(used);
        }
        Ok(&self.current[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
    }
}

/// The other side of a [`Decompressed`].
struct Worker<'scope> {
    full: Sender<Result<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    max_bytes: Option<u64>,
    control: &'scope Control,
}

impl Worker<'_> {
    /// Reads all; `None` when the stream failed, which has been told, or nobody wants the rest.
    fn run(self, source: impl Read) -> Option<Digests> {
        let mut plain = Hasher::default();
        let result = self.decompress(source, &mut plain);
        match result {
            Ok(Some((digest, size))) => {
                let (diff_id, uncompressed_size) = plain.finish();
                Some(Digests { digest, size, diff_id, uncompressed_size })
            }
            Ok(None) => None,
            Err(error) => {
                // Nobody hears it when the caller has failed on its own account.
                let _ = self.full.send(Err(error));
                None
            }
        }
    }

    fn decompress(&self, source: impl Read, plain: &mut Hasher) -> Result<Option<(Digest, u64)>> {
        let mut source = HashingReader::new(Source { inner: source, control: self.control });
        let mut head = Vec::with_capacity(ZSTD_MAGIC.len());
        let found = source.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut head);
        found.map_err(|error| format_error(error, Format::Plain, 0))?;
        let format = Format::detect(&head);
        let blob = BufReader::with_capacity(BUFFER_BYTES, head.as_slice().chain(&mut source));
        let complete = match format {
            Format::Gzip => self.pump(MultiGzDecoder::new(blob), format, plain)?,
            Format::Zstd => {
                let failed = |error| format_error(error, format, 0);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(blob).map_err(failed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
                self.pump(decoder, format, plain)?
            }
            Format::Plain => self.pump(blob, format, plain)?,
        };
        Ok(complete.then(|| source.finish()))
    }

    /// Hands on all that `reader` gives; false when nobody wants the rest.
    fn pump(&self, mut reader: impl Read, format: Format, plain: &mut Hasher) -> Result<bool> {
        loop {
            let Ok(mut buffer) = self.empty.recv() else { return Ok(false) };
            buffer.resize(BUFFER_BYTES, 0);
            let mut filled = 0;
            let mut failure = None;
            while filled < buffer.len() {
                self.control.check()?;
                match reader.read(&mut buffer[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        failure = Some(format_error(error, format, plain.size() + filled as u64));
                        break;
                    }
                }
            }
            if let Some(max_bytes) = self.max_bytes
                && plain.size() + filled as u64 > max_bytes
            {
                filled = (max_bytes - plain.size()) as usize;
                failure = Some(Error::LimitExceeded { limit: "max_bytes", value: max_bytes + 1, path: "".into() });
            }
            buffer.truncate(filled);
            plain.update(&buffer);
            self.control.add_plain(filled as u64);
            if filled > 0 && self.full.send(Ok(buffer)).is_err() {
                return Ok(false);
            }
            match failure {
                Some(failure) => return Err(failure),
                None if filled == 0 => return Ok(true),
                None => {}
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Gzip,
    Zstd,
    Plain,
}

impl Format {
    /// Judges by the first bytes of a blob.
    fn detect(head: &[u8]) -> Self {
        match head {
            _ if head.starts_with(GZIP_MAGIC) => Self::Gzip,
            _ if head.starts_with(ZSTD_MAGIC) => Self::Zstd,
            [0x50..=0x5f, rest @ ..] if rest == ZSTD_SKIPPABLE_MAGIC => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// The source of a blob; its failures stay apart from those of the format, and it counts.
struct Source<'scope, R> {
    inner: R,
    control: &'scope Control,
}

impl<R: Read> Read for Source<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.control.add_blob(count as u64);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let error = error.downcast::<Error>().unwrap_or_else(|error| Error::io("read", "", error));
                Err(io::Error::other(error))
            }
        }
    }
}

/// The source's own failure, or that of a format that is broken after `offset` bytes of tar.
fn format_error(error: io::Error, format: Format, offset: u64) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| {
        let name = match format {
            Format::Gzip => "gzip",
            Format::Zstd => "zstd",
            Format::Plain => "blob",
        };
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("{name}: unexpected end"),
            _ => format!("{name}: {error}"),
        };
        Error::MalformedLayer { offset, reason }
    })
}
