//! Decompresses a blob to its tar, and takes the digests of both in the same pass.
//!
//! One thread reads and decompresses, one hashes the blob and one the tar, all ahead of the caller by a bounded number of
//! buffers that go round. Where the blob is the tar it is hashed once.
//! A failure is reported at its place in the stream, so that the caller sees the same one however far the threads have come.

use std::io::{self, BufRead, Read};
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::gunzip::GzipReader;
use crate::cause::Cause;
use crate::control::Control;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};

/// Large enough that a system call and a hand-over cost nothing beside the hashing, small enough to stay in a cache.
const BUFFER_BYTES: usize = 256 << 10;
/// Buffers of blob, and of tar, that go round: what the reader may be ahead of the others.
const BUFFERS: usize = 64;
/// Buffers of each stream if several are read at a time.
const FEW_BUFFERS: usize = 4;
/// The largest window of a zstd frame: 128 MiB, what the reference decoder allows by default.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes that a blob may unpack to at any ratio: a few files of zeros are no attack.
const RATIO_FREE_BYTES: u64 = 64 << 20;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 8];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// After a byte from 0x50 to 0x5f (RFC 8878, 3.1.2).
const ZSTD_SKIPPABLE_MAGIC: &[u8] = &[0x2a, 0x4d, 0x18];

/// The digests and sizes of a blob that was read.
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

/// Limits of the tar; none by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Bytes of tar; `None` for no bound.
    pub max_bytes: Option<u64>,
    /// Bytes of tar for each byte of blob, from 64 MiB of tar on; `None` for no bound.
    pub max_ratio: Option<u64>,
}

/// A piece of a stream, shared by several threads. Its buffer goes back when the last one is done.
struct Chunk {
    bytes: Vec<u8>,
    pool: Sender<Vec<u8>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Nobody takes it when the stream is over.
        let _ = self.pool.try_send(std::mem::take(&mut self.bytes));
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A bounded number of buffers.
struct Pool {
    taken: Receiver<Vec<u8>>,
    returned: Sender<Vec<u8>>,
}

impl Pool {
    fn new(buffers: usize) -> Self {
        let (returned, taken) = bounded(buffers);
        for _ in 0..buffers {
            // There is room for all of them.
            let _ = returned.try_send(Vec::new());
        }
        Self { taken, returned }
    }

    /// Returns a full-sized buffer, as soon as one is free.
    fn take(&self) -> Vec<u8> {
        let mut buffer = self.taken.recv().unwrap_or_default();
        buffer.resize(BUFFER_BYTES, 0);
        buffer
    }

    /// Returns the first `count` bytes of a buffer, to be shared.
    fn chunk(&self, mut bytes: Vec<u8>, count: usize) -> Arc<Chunk> {
        bytes.truncate(count);
        Arc::new(Chunk { bytes, pool: self.returned.clone() })
    }
}

/// The tar inside a blob, as it is decompressed.
pub struct Decompressed<'scope> {
    full: Receiver<Result<Arc<Chunk>>>,
    current: Option<Arc<Chunk>>,
    taken: usize,
    /// Tells whether all was read.
    reader: ScopedJoinHandle<'scope, bool>,
    /// The threads that hash the blob and the tar.
    hashers: Option<[ScopedJoinHandle<'scope, Hasher>; 2]>,
}

impl<'scope> Decompressed<'scope> {
    /// Begins to read `source`; more than `bounds` are a failure. The threads end with this value or the stream.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no thread to be had.
    pub fn start<'env, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: R,
        bounds: Bounds,
        control: &'scope Control,
    ) -> Result<Self> {
        let (blob_parts, blob_chunks) = bounded(BUFFERS);
        let (tar_parts, tar_chunks) = bounded(BUFFERS);
        let hasher = |chunks| thread("ocidiff-hash").spawn_scoped(scope, move || hash(&chunks)).map_err(no_thread);
        let hashers = Some([hasher(blob_chunks)?, hasher(tar_chunks)?]);
        Ok(Self { hashers, ..Self::begin(scope, source, bounds, control, [blob_parts, tar_parts], BUFFERS)? })
    }

    /// Starts to decompress one of several streams that are read at a time, whose digests are known. It takes little
    /// memory.
    ///
    /// # Errors
    /// As [`Decompressed::start`].
    pub fn start_again<'env, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: R,
        bounds: Bounds,
        control: &'scope Control,
    ) -> Result<Self> {
        // Nobody takes the pieces.
        let parts = [bounded(0).0, bounded(0).0];
        Self::begin(scope, source, bounds, control, parts, FEW_BUFFERS)
    }

    fn begin<'env, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: R,
        bounds: Bounds,
        control: &'scope Control,
        [blob_parts, tar_parts]: [Sender<Arc<Chunk>>; 2],
        buffers: usize,
    ) -> Result<Self> {
        let (full_sender, full) = bounded(buffers);
        let worker = Worker { full: full_sender, parts: tar_parts, bounds, buffers, control };
        let pool = Pool::new(buffers);
        let blob = Blob { source, control, pool, parts: blob_parts, current: None, taken: 0, size: 0 };
        let reader = thread("ocidiff-inflate").spawn_scoped(scope, move || worker.run(blob)).map_err(no_thread)?;
        Ok(Self { full, current: None, taken: 0, reader, hashers: None })
    }

    /// Returns the digests, once the stream was read to its end.
    pub fn finish(self) -> Result<Digests> {
        drop((self.full, self.current));
        let is_complete = self.reader.join().unwrap_or(false);
        match self.hashers.map(|hashers| hashers.map(ScopedJoinHandle::join)) {
            Some([Ok(blob), Ok(tar)]) if is_complete => {
                let (diff_id, uncompressed_size) = tar.finish();
                let (digest, size) = if blob.size() == 0 { (diff_id, uncompressed_size) } else { blob.finish() };
                Ok(Digests { digest, size, diff_id, uncompressed_size })
            }
            _ => Err(Error::io("decompress", "", io::Error::other("unfinished"))),
        }
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
        while self.current.as_ref().is_none_or(|chunk| chunk.len() == self.taken) {
            let Ok(next) = self.full.recv() else { return Ok(&[]) };
            self.current = Some(next.map_err(io::Error::other)?);
            self.taken = 0;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[self.taken..]))
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
    }
}

fn thread(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.into())
}

fn no_thread(error: io::Error) -> Error {
    Error::io("spawn", "", error)
}

/// Hashes all pieces, in order. Of a blob that is a tar itself only the tar comes here.
fn hash(chunks: &Receiver<Arc<Chunk>>) -> Hasher {
    let mut hasher = Hasher::default();
    chunks.iter().for_each(|chunk| hasher.update(&chunk));
    hasher
}

/// The thread that decompresses.
struct Worker<'scope> {
    full: Sender<Result<Arc<Chunk>>>,
    parts: Sender<Arc<Chunk>>,
    bounds: Bounds,
    buffers: usize,
    control: &'scope Control,
}

impl Worker<'_> {
    /// Reads all; false when the stream failed, which has been told, or nobody wants the rest.
    fn run(self, blob: Blob<'_, impl Read>) -> bool {
        self.decompress(blob).unwrap_or_else(|error| {
            // Nobody hears it when the caller has failed on its own account.
            let _ = self.full.send(Err(error));
            false
        })
    }

    fn decompress(&self, mut blob: Blob<'_, impl Read>) -> Result<bool> {
        let head = blob.first(ZSTD_MAGIC.len()).map_err(|error| format_error(error, Format::Plain))?;
        let format = Format::detect(head);
        let failed = |error| format_error(error, format);
        if format == Format::Plain {
            return self.hand_on(blob);
        }
        blob.hash_current();
        if format == Format::Gzip {
            return self.pump(GzipReader::new(blob), |decoder| decoder.get_ref().size, format);
        }
        let mut decoder = zstd::stream::read::Decoder::with_buffer(blob).map_err(failed)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
        self.pump(decoder, |decoder| decoder.get_ref().size, format)
    }

    /// Hands on the blob itself; false when nobody wants the rest.
    fn hand_on(&self, mut blob: Blob<'_, impl Read>) -> Result<bool> {
        let mut size = 0;
        loop {
            let Some(chunk) = blob.current.take() else { return Ok(true) };
            if !self.deliver(chunk, &mut size, None)? {
                return Ok(false);
            }
            blob.read_chunk().map_err(|error| format_error(error, Format::Plain))?;
        }
    }

    /// Hands on all that `reader` gives; false when nobody wants the rest. `blob_size` tells how much it has taken.
    fn pump<R: Read>(&self, mut reader: R, blob_size: impl Fn(&R) -> u64, format: Format) -> Result<bool> {
        let pool = Pool::new(self.buffers);
        let mut size = 0;
        loop {
            let mut buffer = pool.take();
            let mut filled = 0;
            let mut failure = None;
            while filled < buffer.len() {
                self.control.check()?;
                match reader.read(&mut buffer[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        failure = Some(format_error(error, format));
                        break;
                    }
                }
            }
            if filled > 0 && !self.deliver(pool.chunk(buffer, filled), &mut size, Some(blob_size(&reader)))? {
                return Ok(false);
            }
            match failure {
                Some(failure) => return Err(failure),
                None if filled == 0 => return Ok(true),
                None => {}
            }
        }
    }

    /// Hands on one piece, and adds its length to `size`; false when nobody wants it.
    fn deliver(&self, chunk: Arc<Chunk>, size: &mut u64, blob_size: Option<u64>) -> Result<bool> {
        let before = *size;
        *size += chunk.len() as u64;
        self.control.add_plain(chunk.len() as u64);
        let passed = |limit, value, max, offset| Err(Error::LimitExceeded { limit, value, max, path: "".into(), offset });
        if let Some(max) = self.bounds.max_bytes
            && *size > max
        {
            // The part that is still allowed may hold the reason for another failure, which comes first then.
            let mut allowed = chunk.to_vec();
            allowed.truncate((max - before) as usize);
            let (pool, _) = bounded(0);
            let _ = self.full.send(Ok(Arc::new(Chunk { bytes: allowed, pool })));
            return passed("max_bytes", max + 1, max, max);
        }
        if let (Some(max), Some(blob_size)) = (self.bounds.max_ratio, blob_size)
            && *size > RATIO_FREE_BYTES
            && *size / max > blob_size
        {
            return passed("max_ratio", *size / blob_size.max(1), max, *size);
        }
        // The other end is there until this one is gone, unless nobody hashes.
        let _ = self.parts.send(chunk.clone());
        Ok(self.full.send(Ok(chunk)).is_ok())
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

/// The blob as it is read: pieces for the decoder and the hasher. Failures of the source stay apart from those of the format.
struct Blob<'scope, R> {
    source: R,
    control: &'scope Control,
    pool: Pool,
    parts: Sender<Arc<Chunk>>,
    current: Option<Arc<Chunk>>,
    taken: usize,
    size: u64,
}

impl<R: Read> Blob<'_, R> {
    /// Begins to read, and tells the first `count` bytes, if there are so many.
    fn first(&mut self, count: usize) -> io::Result<&[u8]> {
        let mut buffer = self.pool.take();
        let mut filled = 0;
        while filled < count {
            match self.read_some(&mut buffer[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        self.current = (filled > 0).then(|| self.pool.chunk(buffer, filled));
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[..filled.min(count)]))
    }

    /// Reads the next piece; none at the end.
    fn read_chunk(&mut self) -> io::Result<()> {
        self.current = None;
        self.taken = 0;
        let mut buffer = self.pool.take();
        let count = self.read_some(&mut buffer)?;
        self.current = (count > 0).then(|| self.pool.chunk(buffer, count));
        Ok(())
    }

    fn hash_current(&self) {
        if let Some(chunk) = &self.current {
            // The other end is there until this one is gone, unless nobody hashes.
            let _ = self.parts.send(chunk.clone());
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.control.check().map_err(io::Error::other)?;
            match self.source.read(buffer) {
                Ok(count) => {
                    self.size += count as u64;
                    self.control.add_blob(count as u64);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let error = error.downcast::<Error>().unwrap_or_else(|error| Error::io("read", "", error));
                    return Err(io::Error::other(error));
                }
            }
        }
    }
}

impl<R: Read> Read for Blob<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Blob<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|chunk| chunk.len() == self.taken) {
            self.read_chunk()?;
            self.hash_current();
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[self.taken..]))
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
    }
}

/// Returns the source's own failure, or the error of a broken format. The decoders of the two engines have different words
/// for it.
fn format_error(error: io::Error, format: Format) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| {
        let format = match format {
            Format::Gzip => "gzip",
            Format::Zstd => "zstd",
            Format::Plain => "blob",
        };
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => Cause::UnexpectedEnd,
            _ if error.to_string().contains("too much memory") => Cause::WindowTooLarge,
            _ => Cause::BrokenData,
        };
        Error::MalformedCompression { format, reason }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;
    use crate::digest::by_thread;

    #[test]
    fn each_byte_is_hashed_once_by_a_thread_that_does_nothing_else() {
        let tar: Vec<u8> = (0..3_000_000_u64).map(|number| ((number * 7919) >> 9) as u8).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let (gzip, zstd) = (gzip.finish().unwrap(), zstd::encode_all(&tar[..], 1).unwrap());
        for (blob, blob_bytes) in [(&gzip, gzip.len()), (&zstd, zstd.len()), (&tar, 0)] {
            let control = Control::default();
            std::thread::scope(|scope| {
                let mut stream = Decompressed::start(scope, &blob[..], Bounds::default(), &control).unwrap();
                let hashers = stream.hashers.as_ref().unwrap();
                let [blob_hasher, tar_hasher] = hashers.each_ref().map(|handle| handle.thread().id());
                let others = [stream.reader.thread().id(), std::thread::current().id()];
                let before = others.map(by_thread::of);
                io::copy(&mut stream, &mut io::sink()).unwrap();
                let digests = stream.finish().unwrap();
                assert_eq!((digests.size, digests.uncompressed_size), (blob.len() as u64, tar.len() as u64));
                assert_eq!([blob_hasher, tar_hasher].map(by_thread::of), [blob_bytes as u64, tar.len() as u64]);
                assert_eq!(others.map(by_thread::of), before);
            });
        }
    }
}
