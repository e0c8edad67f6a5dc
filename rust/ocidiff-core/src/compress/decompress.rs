//! Decompresses a blob to its tar, and takes the digests of both in the same pass.
//!
//! One thread reads and hashes the blob, one decompresses it and one hashes the tar, all ahead of the caller by a bounded
//! number of buffers that go round. Decompressing takes longest, so its thread does nothing else. If the blob is the tar it is
//! hashed once.
//! A failure is reported at its place in the stream, so that the caller sees the same one however far the threads have come.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use ocidiff_deflate::{DICTIONARY_BYTES, Inflated};

use super::chunks::{Chunk, Pool};
use super::gunzip::GzipReader;
use super::source::{BUFFER_BYTES, Blob, BlobReader, Format};
use crate::cause::Cause;
use crate::control::Control;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};

/// Buffers of tar that go round: what the decoder may be ahead of the others.
const BUFFERS: usize = 64;
/// Buffers of blob that go round.
const BLOB_BUFFERS: usize = 16;
/// Buffers of each stream if several are read at a time.
const FEW_BUFFERS: usize = 4;
/// The largest window of a zstd frame: 128 MiB, what the reference decoder allows by default.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes that a blob may unpack to at any ratio: a few files of zeros are no attack.
const RATIO_FREE_BYTES: u64 = 64 << 20;

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

/// The tar inside a blob, as it is decompressed.
pub struct Decompressed<'scope> {
    full: Receiver<Result<Arc<Chunk>>>,
    current: Option<Arc<Chunk>>,
    taken: usize,
    /// Decompresses, and tells whether that was all.
    decoder: ScopedJoinHandle<'scope, bool>,
    /// Reads and hashes the blob.
    reader: ScopedJoinHandle<'scope, Hasher>,
    /// Hashes the tar, if the digests are wanted.
    hasher: Option<ScopedJoinHandle<'scope, Hasher>>,
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
        let (parts, chunks) = sync_channel(BUFFERS);
        let hasher = thread("ocidiff-hash").spawn_scoped(scope, move || hash(&chunks)).map_err(no_thread)?;
        Ok(Self { hasher: Some(hasher), ..Self::begin(scope, source, bounds, control, Some(parts))? })
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
        Self::begin(scope, source, bounds, control, None)
    }

    fn begin<'env, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: R,
        bounds: Bounds,
        control: &'scope Control,
        parts: Option<SyncSender<Arc<Chunk>>>,
    ) -> Result<Self> {
        let is_hashed = parts.is_some();
        let (blob_buffers, buffers) = if is_hashed { (BLOB_BUFFERS, BUFFERS) } else { (FEW_BUFFERS, FEW_BUFFERS) };
        let (sender, chunks) = sync_channel(blob_buffers);
        let pool = Pool::new(blob_buffers, BUFFER_BYTES);
        let reader = BlobReader { source, control, pool, chunks: sender, is_hashed };
        let reader = thread("ocidiff-read").spawn_scoped(scope, move || reader.run()).map_err(no_thread)?;
        let (sender, full) = sync_channel(buffers);
        let worker = Worker { full: sender, parts, bounds, buffers, control };
        let blob = Blob::new(chunks, control);
        let decoder = thread("ocidiff-inflate").spawn_scoped(scope, move || worker.run(blob)).map_err(no_thread)?;
        Ok(Self { full, current: None, taken: 0, decoder, reader, hasher: None })
    }

    /// Returns the digests, once the stream was read to its end.
    pub fn finish(self) -> Result<Digests> {
        drop((self.full, self.current));
        let is_complete = self.decoder.join().unwrap_or(false);
        match (self.reader.join(), self.hasher.map(ScopedJoinHandle::join)) {
            (Ok(blob), Some(Ok(tar))) if is_complete => {
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

/// Hashes all pieces, in order.
fn hash(chunks: &Receiver<Arc<Chunk>>) -> Hasher {
    let mut hasher = Hasher::default();
    chunks.iter().for_each(|chunk| hasher.update(&chunk));
    hasher
}

/// The thread that decompresses.
struct Worker<'scope> {
    full: SyncSender<Result<Arc<Chunk>>>,
    /// Hashes the tar, if the digests are wanted.
    parts: Option<SyncSender<Arc<Chunk>>>,
    bounds: Bounds,
    buffers: usize,
    control: &'scope Control,
}

impl Worker<'_> {
    /// Reads all; false when the stream failed, which has been told, or nobody wants the rest.
    fn run(self, blob: Blob<'_>) -> bool {
        self.decompress(blob).unwrap_or_else(|error| {
            // Nobody hears it when the caller has failed on its own account.
            let _ = self.full.send(Err(error));
            false
        })
    }

    fn decompress(&self, mut blob: Blob<'_>) -> Result<bool> {
        let head = blob.fill_buf().map_err(|error| format_error(error, Format::Plain))?;
        let format = Format::detect(head);
        let failed = |error| format_error(error, format);
        if format == Format::Plain {
            return self.hand_on(blob);
        }
        if format == Format::Gzip {
            return self.inflate(GzipReader::new(blob));
        }
        let mut decoder = zstd::stream::read::Decoder::with_buffer(blob).map_err(failed)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
        self.pump(decoder, |decoder| decoder.get_ref().size, format)
    }

    /// Hands on the blob itself; false when nobody wants the rest.
    fn hand_on(&self, mut blob: Blob<'_>) -> Result<bool> {
        let mut size = 0;
        loop {
            let Some(chunk) = blob.current.take() else { return Ok(true) };
            if !self.deliver(chunk, &mut size, None)? {
                return Ok(false);
            }
            blob.next_chunk().map_err(|error| format_error(error, Format::Plain))?;
        }
    }

    /// Hands on the content of gzip members; false when nobody wants the rest. It is decoded in the buffers that are handed
    /// on, each of which begins with the end of the one before: matches reach back so far.
    fn inflate(&self, mut reader: GzipReader<Blob<'_>>) -> Result<bool> {
        let pool = Pool::new(self.buffers, size_of::<Inflated>());
        let mut size = 0;
        let mut last: Option<Arc<Chunk>> = None;
        loop {
            self.control.check()?;
            let mut buffer = pool.take();
            if let Some(last) = last.take() {
                buffer[..DICTIONARY_BYTES].copy_from_slice(&last.buffer[last.range.end - DICTIONARY_BYTES..last.range.end]);
            }
            let mut end = DICTIONARY_BYTES;
            let filled = match buffer.first_chunk_mut() {
                Some(window) => reader.fill(window, &mut end),
                None => Ok(false),
            };
            let chunk = pool.chunk(buffer, DICTIONARY_BYTES..end);
            if !chunk.is_empty() && !self.deliver(chunk.clone(), &mut size, Some(reader.get_ref().size))? {
                return Ok(false);
            }
            if !filled.map_err(|error| format_error(error, Format::Gzip))? {
                return Ok(true);
            }
            last = Some(chunk);
        }
    }

    /// Hands on the content of zstd frames; false when nobody wants the rest.
    fn pump<R: Read>(&self, mut reader: R, blob_size: impl Fn(&R) -> u64, format: Format) -> Result<bool> {
        let pool = Pool::new(self.buffers, BUFFER_BYTES);
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
            if filled > 0 && !self.deliver(pool.chunk(buffer, 0..filled), &mut size, Some(blob_size(&reader)))? {
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
            let count = allowed.len();
            let _ = self.full.send(Ok(Pool::new(0, 0).chunk(allowed, 0..count)));
            return passed("max_bytes", max + 1, max, max);
        }
        if let (Some(max), Some(blob_size)) = (self.bounds.max_ratio, blob_size)
            && *size > RATIO_FREE_BYTES
            && *size / max > blob_size
        {
            return passed("max_ratio", *size / blob_size.max(1), max, *size);
        }
        if let Some(parts) = &self.parts {
            // The other end is there until this one is gone.
            let _ = parts.send(chunk.clone());
        }
        Ok(self.full.send(Ok(chunk)).is_ok())
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
    fn each_byte_is_hashed_once_by_a_thread_that_does_not_decode() {
        let tar: Vec<u8> = (0..3_000_000_u64).map(|number| ((number * 7919) >> 9) as u8).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let (gzip, zstd) = (gzip.finish().unwrap(), zstd::encode_all(&tar[..], 1).unwrap());
        for (blob, blob_bytes) in [(&gzip, gzip.len()), (&zstd, zstd.len()), (&tar, 0)] {
            let control = Control::default();
            std::thread::scope(|scope| {
                let mut stream = Decompressed::start(scope, &blob[..], Bounds::default(), &control).unwrap();
                let [blob_hasher, tar_hasher] =
                    [&stream.reader, stream.hasher.as_ref().unwrap()].map(|handle| handle.thread().id());
                let others = [stream.decoder.thread().id(), std::thread::current().id()];
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
