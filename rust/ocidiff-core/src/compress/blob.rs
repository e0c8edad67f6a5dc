//! The pipeline from the bytes of a tar to a stored blob: cut into blocks, hash, compress, hash again, write.
//!
//! One thread hashes the tar, some compress, one writes in order and hashes the blob. A blob that is the tar is hashed once. All
//! channels are bounded, so memory is.
//!
//! Channels with one receiver are those of the standard library, which sleeps at once. Others yield first, which gives their time
//! slices to other processes, so that a busy machine takes up to twice as long.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use twox_hash::XxHash3_64;

use super::Compression;
use super::block::{Block, Supply};
use super::budget::{Budget, Charge};
use super::compressors::{BATCH_BLOCKS, Compressors, Job, SPARE_BLOCKS, resume, spawn};
use super::cuts::Cuts;
use super::gzip::{self, Trailer};
use super::piece::Piece;
use super::segments::Segment;
use crate::control::Control;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::stream::Stream;

/// Batches that wait for the hashing thread, and for the writing thread.
const WAITING_BATCHES: usize = 1;

/// The digests and sizes of a blob that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobSummary {
    /// sha256 of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// sha256 of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
}

/// The sink of a blob, which hashes and counts it.
pub struct BlobSink {
    stream: Stream,
    hasher: Hasher,
    control: Arc<Control>,
}

impl BlobSink {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        self.hasher.update(bytes);
        self.control.add_blob(bytes.len() as u64);
        Ok(())
    }
}

type Finished = (Digest, u64);

/// The segments of a blob.
#[derive(Debug, Default)]
pub struct BlobSegments {
    /// Those that a later blob can copy; none unless a table of them is wanted.
    pub all: Vec<Segment>,
    /// Plain bytes of those that were copied.
    pub copied_bytes: u64,
}

/// Digest and size of a blob, and its segments.
type Written = (Finished, BlobSegments);

/// A piece, once it is compressed.
type Promise = Receiver<Result<Piece>>;

/// Blocks that are handed to a thread together, because waking it costs as much as hashing 64 KiB.
type Batch = Vec<Arc<Block>>;

enum Outlet {
    /// Blocks are only hashed: the blob is the tar, and nobody keeps it.
    Nowhere,
    /// Batches go to the writer as they are.
    Direct(SyncSender<Batch>),
    /// Blocks go to compressors; the writer gets the promises of their pieces, in order.
    Parallel { jobs: Sender<Job>, promises: SyncSender<Promise>, budget: Option<Arc<Budget>> },
}

/// Takes the bytes of a tar, and writes the blob. Dropping it unfinished ends and joins its threads.
pub struct BlobWriter {
    cuts: Cuts,
    block: Block,
    supply: Supply,
    batch: Batch,
    batch_blocks: usize,
    plain: Option<SyncSender<Batch>>,
    outlet: Option<Outlet>,
    hasher: Option<JoinHandle<Finished>>,
    /// Ends with digest and size of the blob; with none if the blob is the tar itself, or is not kept.
    writer: Option<JoinHandle<Result<Option<Written>>>>,
    /// The last of the blobs that share them joins their threads.
    compressors: Option<Arc<Compressors>>,
    control: Arc<Control>,
}

impl BlobWriter {
    /// Starts the pipeline. With `copy`, the tar goes there too, until that fails.
    ///
    /// # Errors
    /// [`Error::Io`] when threads cannot be started.
    pub fn start(
        stream: Stream,
        compressors: &Arc<Compressors>,
        mut copy: Option<Stream>,
        control: Arc<Control>,
    ) -> Result<Self> {
        let Compressors { compression, threads, cuts, .. } = **compressors;
        let (plain, batches) = sync_channel::<Batch>(WAITING_BATCHES);
        let supply = compressors.supply.clone();
        let mut blob = Self {
            cuts,
            block: supply.after(&[]),
            supply,
            batch: Batch::new(),
            batch_blocks: if compressors.budget.is_some() { 1 } else { BATCH_BLOCKS },
            plain: Some(plain),
            outlet: None,
            hasher: None,
            writer: None,
            compressors: Some(compressors.clone()),
            control: control.clone(),
        };
        blob.hasher = Some(spawn("hash", move || {
            let mut hasher = Hasher::default();
            for block in batches.iter().flatten() {
                hasher.update(block.data());
                copy = copy.take().filter(|copy| copy.write_all(block.data()).is_ok());
            }
            hasher.finish()
        })?);
        match compression {
            Compression::None if stream.is_null_device() => blob.outlet = Some(Outlet::Nowhere),
            Compression::None => {
                let (sender, blocks) = sync_channel(WAITING_BATCHES);
                blob.outlet = Some(Outlet::Direct(sender));
                blob.writer = Some(spawn("write", move || write_plain(&stream, &blocks, &control).map(|()| None))?);
            }
            Compression::Gzip { .. } | Compression::Zstd { .. } => {
                let sink = BlobSink { stream, hasher: Hasher::default(), control };
                let (promises, pieces) = sync_channel(threads + SPARE_BLOCKS);
                let budget = compressors.budget.clone();
                blob.outlet = compressors.jobs.clone().map(|jobs| Outlet::Parallel { jobs, promises, budget });
                blob.writer = Some(spawn("write", move || write_pieces(sink, compression, &pieces).map(Some))?);
            }
        }
        Ok(blob)
    }

    /// Takes the next bytes of the tar.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let space = self.block.space();
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            bytes = later;
            self.advance(now.len())?;
        }
        Ok(())
    }

    /// Lets `fill` put up to `want` bytes straight into the current block; returns how many it put.
    pub fn fill_with(&mut self, want: u64, fill: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<usize> {
        let space = self.block.space();
        let want = space.len().min(usize::try_from(want).unwrap_or(usize::MAX));
        let count = fill(&mut space[..want])?;
        self.advance(count)?;
        Ok(count)
    }

    /// Says that an entry with this name comes next: a segment may end here.
    pub fn begin_entry(&mut self, name: &[u8]) -> Result<()> {
        // Chosen by name, so that an entry more or less moves no cut behind the next one.
        let ends = XxHash3_64::oneshot(name).is_multiple_of(self.cuts.entries);
        if ends { self.end_segment(self.cuts.least_bytes) } else { Ok(()) }
    }

    /// Says that the content of a file of `size` bytes comes next. That of a large file begins a segment without a dictionary, so
    /// that the same file is the same segments in every layer.
    pub fn begin_content(&mut self, size: u64) -> Result<()> {
        if size >= self.cuts.own_bytes && self.has_segments() {
            self.end_segment(1)?;
            // Of a segment that ended by itself just now, too.
            self.block = self.supply.after(&[]);
        }
        Ok(())
    }

    /// Says that the content of a file of `size` bytes ends here.
    pub fn end_content(&mut self, size: u64) -> Result<()> {
        if size >= self.cuts.own_bytes { self.end_segment(1) } else { Ok(()) }
    }

    fn end_segment(&mut self, least: usize) -> Result<()> {
        if self.has_segments() && self.block.data().len() >= least { self.send_block() } else { Ok(()) }
    }

    fn has_segments(&self) -> bool {
        matches!(self.outlet, Some(Outlet::Parallel { .. }))
    }

    fn advance(&mut self, count: usize) -> Result<()> {
        self.block.advance(count);
        if self.block.is_full() { self.send_block() } else { Ok(()) }
    }

    fn send_block(&mut self) -> Result<()> {
        let next = self.supply.after(self.block.data());
        let full = std::mem::replace(&mut self.block, next);
        self.send(full)
    }

    fn send(&mut self, block: Block) -> Result<()> {
        self.control.check()?;
        self.control.add_plain(block.data().len() as u64);
        if matches!(self.outlet, Some(Outlet::Nowhere)) {
            self.control.add_blob(block.data().len() as u64);
        }
        let is_batch = block.is_last() || self.batch.len() + 1 == self.batch_blocks;
        let compressed = match &self.outlet {
            Some(Outlet::Parallel { jobs, promises, budget }) => {
                let (block, charge) = charged(block, budget.as_ref());
                self.batch.push(block.clone());
                let (reply, promise) = sync_channel(1);
                promises.send(promise).is_ok() && jobs.send(Job { block, reply, charge }).is_ok()
            }
            outlet => {
                self.batch.push(Arc::new(block));
                outlet.is_some()
            }
        };
        if compressed && (!is_batch || self.send_batch()) {
            Ok(())
        } else {
            Err(self.join().err().unwrap_or(Error::Cancelled))
        }
    }

    /// Hands on what was gathered; returns false if a thread that takes it has ended.
    fn send_batch(&mut self) -> bool {
        let batch = std::mem::replace(&mut self.batch, Batch::with_capacity(self.batch_blocks));
        let written = match &self.outlet {
            Some(Outlet::Direct(batches)) => batches.send(batch.clone()).is_ok(),
            _ => true,
        };
        written && self.plain.as_ref().is_some_and(|plain| plain.send(batch).is_ok())
    }

    /// Ends the tar as it is and waits until the blob is written. Returns its segments too.
    ///
    /// # Errors
    /// The first failure of any thread of the pipeline.
    pub fn finish(mut self) -> Result<(BlobSummary, BlobSegments)> {
        let mut last = std::mem::replace(&mut self.block, self.supply.after(&[]));
        last.set_last();
        self.send(last)?;
        let ((diff_id, uncompressed_size), ((digest, size), segments)) = self.join()?;
        Ok((BlobSummary { digest, size, diff_id, uncompressed_size }, segments))
    }

    /// Closes all channels and waits for all threads.
    fn join(&mut self) -> Result<(Finished, Written)> {
        self.plain = None;
        self.outlet = None;
        let hashed = self.hasher.take().map(JoinHandle::join);
        let written = self.writer.take().map(JoinHandle::join);
        self.compressors.take().and_then(Arc::into_inner).into_iter().for_each(Compressors::join);
        let plain = resume(hashed.ok_or(Error::Cancelled)?);
        let blob = written.map(resume).transpose()?.flatten();
        Ok((plain, blob.unwrap_or((plain, BlobSegments::default()))))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.hasher.is_some() {
            // The error that led here has been reported, or the caller gave up.
            let _ = self.join();
        }
    }
}

/// Takes what a block and its piece need of a budget, if there is one, and returns what is for the piece.
fn charged(mut block: Block, budget: Option<&Arc<Budget>>) -> (Arc<Block>, Option<Charge>) {
    let Some(budget) = budget else { return (Arc::new(block), None) };
    block.compact();
    let bytes = block.memory_bytes();
    let mut charge = budget.take(2 * bytes);
    let piece = charge.split_off(bytes);
    block.hold(charge);
    (Arc::new(block), Some(piece))
}

fn write_pieces(mut sink: BlobSink, compression: Compression, promises: &Receiver<Promise>) -> Result<Written> {
    let mut trailer = matches!(compression, Compression::Gzip { .. }).then(Trailer::default);
    let header = if trailer.is_some() { &gzip::HEADER[..] } else { &[] };
    sink.put(header)?;
    let mut segments = BlobSegments::default();
    let mut offset = header.len() as u64;
    for promise in promises {
        let piece = promise.recv().map_err(|_| Error::Cancelled)??;
        trailer.iter_mut().for_each(|trailer| trailer.add(piece.checksum, piece.plain_bytes));
        sink.put(&piece.bytes)?;
        segments.copied_bytes += if piece.copied { piece.plain_bytes } else { 0 };
        segments.all.extend(piece.segment.map(|segment| Segment { offset, ..segment }));
        offset += piece.bytes.len() as u64;
        if piece.last {
            trailer.map_or(Ok(()), |trailer| sink.put(&trailer.bytes()))?;
            return Ok((sink.hasher.finish(), segments));
        }
    }
    Err(Error::Cancelled)
}

fn write_plain(stream: &Stream, batches: &Receiver<Batch>, control: &Control) -> Result<()> {
    for block in batches.iter().flatten() {
        stream.write_all(block.data())?;
        control.add_blob(block.data().len() as u64);
        if block.is_last() {
            return Ok(());
        }
    }
    Err(Error::Cancelled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;
    use std::thread;

    use super::*;
    use crate::digest::by_thread;

    const TAR_BYTES: u64 = 5_000_000;

    /// Writes a blob to `sink`, and returns its sizes, and how many bytes each thread hashed: hasher, writer, compressors, caller.
    fn hashed(sink: File, compression: Compression) -> (BlobSummary, [u64; 4]) {
        let control = Arc::new(Control::default());
        let stream = Stream::new(sink.into(), control.clone()).unwrap();
        let compressors = Compressors::start(compression, 2, None, &control).unwrap();
        let mut blob = BlobWriter::start(stream, &compressors, None, control.clone()).unwrap();
        let compressing: Vec<_> = compressors.handles.iter().map(|handle| handle.thread().id()).collect();
        drop(compressors);
        let hasher = blob.hasher.as_ref().map(|handle| handle.thread().id());
        let writer = blob.writer.as_ref().map(|handle| handle.thread().id());
        let before = by_thread::of(thread::current().id());
        for number in 0..TAR_BYTES / 1000 {
            blob.write(&[((number * 7919) >> 3) as u8; 1000]).unwrap();
        }
        let (done, _) = blob.finish().unwrap();
        assert_eq!((done.uncompressed_size, control.progress().bytes_blob), (TAR_BYTES, done.size));
        let caller = by_thread::of(thread::current().id()) - before;
        let compressed = compressing.into_iter().map(by_thread::of).sum();
        (done, [hasher.map_or(0, by_thread::of), writer.map_or(0, by_thread::of), compressed, caller])
    }

    #[test]
    fn each_byte_is_hashed_once_and_never_by_a_thread_that_encodes() {
        for compression in [Compression::Gzip { level: 1 }, Compression::Zstd { level: 1 }] {
            let (done, by) = hashed(tempfile::tempfile().unwrap(), compression);
            assert_eq!(by, [TAR_BYTES, done.size, 0, 0], "{compression:?}");
        }
    }

    #[test]
    fn a_plain_blob_is_hashed_once_wherever_it_goes() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let blobs = [tempfile::tempfile().unwrap(), null].map(|sink| hashed(sink, Compression::None));
        for (done, by) in blobs {
            assert_eq!(by, [TAR_BYTES, 0, 0, 0]);
            assert_eq!((done.digest, done.size), (done.diff_id, done.uncompressed_size));
            assert_eq!(done, blobs[0].0);
        }
    }
}
