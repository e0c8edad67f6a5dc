//! The threads that compress blocks, and the memory of blocks, which the blobs of one call share.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Compression;
use super::block::{Block, Supply};
use super::budget::{Budget, Charge};
use super::cuts::Cuts;
use super::memory::frames_within;
use super::piece::{BlockCompressor, Piece};
use super::segments::Segments;
use crate::control::Control;
use crate::error::{Error, Result};

/// Blocks that wait between producer and writer beyond one for each compressor.
pub(super) const SPARE_BLOCKS: usize = 4;
/// Blocks of a batch, except for zstd, whose blocks are large, and wait for a budget that a batch would hold.
pub(super) const BATCH_BLOCKS: usize = 3;

/// A block for a compressor, and where its piece goes.
pub(super) struct Job {
    pub block: Arc<Block>,
    pub reply: SyncSender<Result<Piece>>,
    /// The bytes that the piece may take of the budget.
    pub charge: Option<Charge>,
}

/// The threads that compress one blob, or several that are written at the same time. Dropping it ends and joins them.
pub struct Compressors {
    pub(super) compression: Compression,
    pub(super) threads: usize,
    /// Blocks for all blobs: memory that one has done with is for the next.
    pub(super) supply: Supply,
    /// Takes blocks to compress; `None` if blobs are tars.
    pub(super) jobs: Option<Sender<Job>>,
    /// Bounds the bytes of blocks and pieces on their way; `None` if their number is enough of a bound.
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) cuts: Cuts,
    pub(super) handles: Vec<JoinHandle<()>>,
}

impl Compressors {
    /// Starts the threads. With `segments`, what they have is copied, and `BlobWriter::finish` returns those of the new blob.
    ///
    /// # Errors
    /// [`Error::Io`] when threads cannot be started.
    pub fn start(
        compression: Compression,
        threads: usize,
        segments: Option<&Arc<Segments>>,
        control: &Arc<Control>,
    ) -> Result<Arc<Self>> {
        let cuts = Cuts::of(compression);
        let is_zstd = matches!(compression, Compression::Zstd { .. });
        let idle = if is_zstd { threads } else { threads + SPARE_BLOCKS + 3 * BATCH_BLOCKS };
        let budget = is_zstd.then(|| Budget::new(frames_within(threads) * cuts.memory_bytes));
        let supply = Supply::new(cuts, idle);
        let mut all = Self { compression, threads, supply, jobs: None, budget, cuts, handles: Vec::new() };
        let (jobs, inbox) = bounded::<Job>(threads);
        for _ in 0..threads {
            let Some(compressor) = BlockCompressor::new(compression, segments.cloned())? else { break };
            let (inbox, control) = (inbox.clone(), control.clone());
            all.jobs.get_or_insert_with(|| jobs.clone());
            all.handles.push(spawn("compress", move || compress(&inbox, compressor, &control))?);
        }
        Ok(Arc::new(all))
    }

    /// Waits for the threads. A panic of one goes on in this one.
    pub(super) fn join(mut self) {
        self.jobs = None;
        let joined: Vec<_> = self.handles.drain(..).map(JoinHandle::join).collect();
        joined.into_iter().for_each(resume);
    }
}

impl Drop for Compressors {
    fn drop(&mut self) {
        self.jobs = None;
        for handle in self.handles.drain(..) {
            // Only if blobs could not be started, and that error is told.
            let _ = handle.join();
        }
    }
}

/// Starts a thread.
pub(super) fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let started = std::thread::Builder::new().name(name.into()).spawn(run);
    started.map_err(|source| Error::Io { op: "start thread", path: name.into(), source })
}

/// Returns the result of a thread. Its panic goes on in this one.
pub(super) fn resume<T>(joined: std::thread::Result<T>) -> T {
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn compress(inbox: &Receiver<Job>, mut compressor: BlockCompressor, control: &Control) {
    for job in inbox {
        // A block of gzip takes a hundredth of a second, a frame of zstd up to one second, and slow levels look by themselves.
        if control.is_cancelled() {
            return;
        }
        let Job { block, reply, charge } = job;
        let piece = compressor.compress(&block, control).map(|piece| piece.charged(charge));
        // A writer that has failed no longer wants the piece, and has said why.
        let _ = reply.send(piece);
    }
}
