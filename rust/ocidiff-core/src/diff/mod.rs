//! diff: two trees in, one layer out, or several that hold the change together.
//!
//! ```no_run
//! use std::{fs::File, path::Path, sync::Arc};
//! use ocidiff_core::{change::Rules, compress::Compression, control::Control, diff};
//!
//! let options = diff::DiffOptions {
//!     rules: Rules::OCI,
//!     scope: None,
//!     compression: Compression::Gzip { level: 6 },
//!     threads: 2,
//!     memory_bytes: None,
//!     spool: None,
//!     segments: None,
//!     copy: None,
//! };
//! let sink = File::create("layer.tar.gz")?.into();
//! let summary = diff::write_diff(Some(Path::new("lower")), Path::new("upper"), sink, &options, &Arc::new(Control::default()))?;
//! println!("{}", summary.blob.diff_id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ahead;
mod live;
pub mod partition;
mod parts;
mod record;
mod sparse;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, OFlags, SeekFrom, fcntl_getfl, fstat, ftruncate, seek, tell};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::change::{Changes, Rules, Scope, TreeSource, Trees};
use crate::compress::Compression;
use crate::compress::blob::{BlobSegments, BlobSummary, BlobWriter};
use crate::compress::compressors::Compressors;
use crate::compress::memory::threads_within;
use crate::compress::segments::Segments;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::stream::{Stream, is_null_device};
use crate::tree::Lost;
use ahead::Ahead;
use live::Live;
use parts::Counts;
use record::LayerWriter;

/// Options of a diff.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    /// The rules that decide what the layer says.
    pub rules: Rules,
    /// The paths that count; `None` for all.
    pub scope: Option<Arc<Scope>>,
    /// The compression of the blob.
    pub compression: Compression,
    /// Threads that walk and threads that compress, each; the bytes do not depend on it.
    pub threads: usize,
    /// The memory of the process, which may mean fewer threads; `None` for 128 MiB, for zstd 192 MiB and
    /// a frame for each further layer.
    pub memory_bytes: Option<u64>,
    /// The directory in which large files that may change are put aside, in files without a name; `None` for the directory
    /// of temporary files.
    pub spool: Option<PathBuf>,
    /// Segments that may be copied from older blobs; `None` to compress all, and to write no table.
    pub segments: Option<Arc<Segments>>,
    /// A pipe that gets the tar too. A layer that is written again is there twice, so that its reader has to check the digest.
    pub copy: Option<Arc<OwnedFd>>,
}

/// A layer that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffSummary {
    /// Digests and sizes.
    pub blob: BlobSummary,
    /// Paths that only the upper tree has.
    pub added: u64,
    /// Paths that both have, and that differ.
    pub modified: u64,
    /// Paths that only the lower tree has, without what was below them.
    pub deleted: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// Sockets that changed, which no layer can hold.
    pub sockets: u64,
    /// Paths that seem to have changed, and are outside of the scope; what is below a directory is not looked at.
    pub excluded: u64,
    /// Mount points that were not crossed.
    pub mounts: u64,
    /// Attributes of changed entries that the rules leave out.
    pub lost: Lost,
    /// Names that changed while they were read, and were read again.
    pub retried: u64,
    /// Names that were there when their directory was listed, and then were gone.
    pub vanished: u64,
    /// Bytes of the tar whose compressed form was copied.
    pub reused_bytes: u64,
}

/// Layers of one change that were written together.
#[derive(Debug, Clone)]
pub struct SplitSummary {
    /// The layers, lowest first; `None` for one without a sink. What is counted of the whole change stands with the first.
    pub layers: Vec<Option<DiffSummary>>,
    /// Hash of which names are one file, and which files are large. Two calls with different hashes may have assigned names to
    /// other layers.
    pub placement: [u8; 32],
}

/// Writes the layer that turns `lower` into `upper` to `sink`; without `lower`, all of `upper` is added.
///
/// # Errors
/// [`crate::Error`]; the bytes written so far are then no layer, and are never ended like one. Threads are joined in any case.
///
/// Spec: image-spec layer.md, "Change Types"; containerd's walking differ.
pub fn write_diff(
    lower: Option<&Path>,
    upper: &Path,
    sink: OwnedFd,
    options: &DiffOptions,
    control: &Arc<Control>,
) -> Result<DiffSummary> {
    write_layer(Trees::open(lower, upper, [None, None])?, sink, options, control)
}

/// Writes the layer that `trees` differ by; see [`write_diff`].
///
/// # Errors
/// As [`write_diff`]; [`Error::Usage`] for an upper tree of which there is only an index.
pub fn write_layer(trees: Trees, sink: OwnedFd, options: &DiffOptions, control: &Arc<Control>) -> Result<DiffSummary> {
    let done = write_live(trees, &[Some(sink)], options, control, live::LATELY)?;
    done.layers.into_iter().flatten().next().ok_or(Error::Cancelled)
}

/// Writes the change of `trees` as layers, each to its sink; see [`partition`]. One without a sink is left out, and the contents
/// of its files are not read.
///
/// # Errors
/// As [`write_layer`]; [`Error::Usage`] for no layers, or more than [`partition::MOST_LAYERS`].
pub fn write_layers(
    trees: Trees,
    sinks: &[Option<OwnedFd>],
    options: &DiffOptions,
    control: &Arc<Control>,
) -> Result<SplitSummary> {
    if !(1..=partition::MOST_LAYERS).contains(&sinks.len()) {
        let what = format!("layers {}", sinks.len());
        return Err(Error::Usage(Cause::NotAChoice { what, choices: partition::LAYERS }));
    }
    write_live(trees, sinks, options, control, live::LATELY)
}

/// Like [`write_layers`], but streams files that have not changed for `streamed_after`.
fn write_live(
    trees: Trees,
    sinks: &[Option<OwnedFd>],
    options: &DiffOptions,
    control: &Arc<Control>,
    streamed_after: Duration,
) -> Result<SplitSummary> {
    if let Trees::Plain { upper: TreeSource::Index(_), .. } = trees {
        return Err(Error::Usage(Cause::IndexAsUpper));
    }
    let starts = if options.rules.retry_on_change { starts_of(sinks)? } else { None };
    if let Some(starts) = starts {
        match attempt(trees.clone(), sinks, options, control, Some(streamed_after)) {
            Err(error) if error.is_change() => {}
            done => return done,
        }
        starts.into_iter().try_for_each(|(sink, start)| take_back(sink, start))?;
        control.start_again();
        control.add_retried();
    }
    attempt(trees, sinks, options, control, None)
}

/// Returns where each layer begins, if everything written can be taken back.
fn starts_of(sinks: &[Option<OwnedFd>]) -> Result<Option<Vec<(&OwnedFd, u64)>>> {
    let start = |sink| start_of(sink).map(|start| start.map(|start| (sink, start)));
    sinks.iter().flatten().map(start).collect()
}

/// Returns the offset at which the layer begins, if everything written can be taken back: at the end of a file. `None` for
/// other sinks.
fn start_of(sink: &OwnedFd) -> Result<Option<u64>> {
    let stat = fstat(sink).map_err(Error::sys("stat", ""))?;
    if is_null_device(&stat) {
        return Ok(Some(0));
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let appends = fcntl_getfl(sink).map_err(Error::sys("stat", ""))?.contains(OFlags::APPEND);
    let start = tell(sink).map_err(Error::sys("seek", ""))?;
    Ok(Some(start).filter(|&start| !appends && i64::try_from(start) == Ok(stat.st_size)))
}

fn duplicate(descriptor: &OwnedFd) -> Result<OwnedFd> {
    descriptor.try_clone().map_err(|source| Error::io("duplicate", "", source))
}

/// Takes back all that was written from `start` on.
fn take_back(sink: &OwnedFd, start: u64) -> Result<()> {
    match ftruncate(sink, start) {
        // The null device.
        Err(Errno::INVAL) => {}
        done => done.map_err(Error::sys("truncate", ""))?,
    }
    seek(sink, SeekFrom::Start(start)).map_err(Error::sys("seek", "")).map(|_| ())
}

/// Writes the layers, once. A file that was written as it was read, and changed meanwhile, is an error.
fn attempt(
    trees: Trees,
    sinks: &[Option<OwnedFd>],
    options: &DiffOptions,
    control: &Arc<Control>,
    streamed_after: Option<Duration>,
) -> Result<SplitSummary> {
    let upper = trees.upper().filter(|_| options.rules.retry_on_change);
    let live = upper.map(|upper| Live::new(options.rules, upper, streamed_after, options.spool.as_deref()));
    let layers = sinks.iter().flatten().count();
    let threads = threads_within(options.memory_bytes, options.compression, layers, options.threads)?;
    let changes = Changes::start(trees, options.rules, options.scope.clone(), threads, control.clone())?;
    let copy = options.copy.as_ref().map(|copy| Stream::new(duplicate(copy)?, control.clone())).transpose()?;
    let mut copy = copy.filter(|_| layers == 1);
    let compressors = Compressors::start(options.compression, threads, options.segments.as_ref(), control)?;
    let mut start = |sink: &OwnedFd| {
        let stream = Stream::new(duplicate(sink)?, control.clone())?;
        BlobWriter::start(stream, &compressors, copy.take(), control.clone())
    };
    let blobs = sinks.iter().map(|sink| sink.as_ref().map(&mut start).transpose()).collect::<Result<_>>()?;
    drop(compressors);
    let mut recorder = LayerWriter::new(blobs, options.rules, live, control.clone());
    for change in Ahead::start(changes)? {
        recorder.record(&change?)?;
    }
    let (sockets, lost, placement) = (recorder.sockets(), recorder.lost(), recorder.placement());
    let (excluded, mounts) = control.left_out();
    let done = recorder.finish()?;
    let (retried, vanished) = control.changes();
    let mut layers = Vec::new();
    let mut whole = Some((sockets, lost, excluded, mounts, retried, vanished));
    for (number, layer) in done.into_iter().enumerate() {
        let Some((blob, BlobSegments { all, copied_bytes }, counts)) = layer else {
            layers.push(None);
            continue;
        };
        if let Some(known) = &options.segments {
            known.write_table(number, all);
        }
        let (sockets, lost, excluded, mounts, retried, vanished) = whole.take().unwrap_or_default();
        let Counts { added, modified, deleted, entries } = counts;
        layers.push(Some(DiffSummary {
            blob,
            added,
            modified,
            deleted,
            entries,
            sockets,
            excluded,
            mounts,
            lost,
            retried,
            vanished,
            reused_bytes: copied_bytes,
        }));
    }
    Ok(SplitSummary { layers, placement })
}

/// Returns the changes from `lower` to `upper`, in the order of a layer, while the trees are read.
///
/// # Errors
/// [`crate::Error::Io`] when a root is missing or no directory.
pub fn changes(lower: Option<&Path>, upper: &Path, rules: Rules, threads: usize, control: &Arc<Control>) -> Result<Changes> {
    Changes::start(Trees::open(lower, upper, [None, None])?, rules, None, threads, control.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Seek, SeekFrom, Write};

    use super::*;

    /// Returns the layer of a large file that `disturb` changes while it is written.
    fn disturbed(before: &[u8], disturb: impl FnOnce(&Path) + Send) -> (DiffSummary, Vec<u8>) {
        let upper = tempfile::tempdir().unwrap();
        let file = upper.path().join("file");
        std::fs::File::create(&file).unwrap().set_len(256 << 20).unwrap();
        let mut sink = tempfile::tempfile().unwrap();
        sink.write_all(before).unwrap();
        let options = DiffOptions {
            rules: Rules { retry_on_change: true, ..Rules::OCI },
            scope: None,
            compression: Compression::None,
            threads: 1,
            memory_bytes: None,
            spool: None,
            segments: None,
            copy: None,
        };
        let control = Arc::new(Control::default());
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                while control.progress().bytes_plain < 4 << 20 {
                    std::thread::yield_now();
                }
                disturb(&file);
            });
            let trees = Trees::open(None, upper.path(), [None, None]).unwrap();
            let sinks = [Some(sink.try_clone().unwrap().into())];
            write_live(trees, &sinks, &options, &control, Duration::ZERO).unwrap().layers.remove(0).unwrap()
        });
        let mut written = Vec::new();
        sink.seek(SeekFrom::Start(0)).unwrap();
        sink.read_to_end(&mut written).unwrap();
        assert!(written.starts_with(before));
        (done, written.split_off(before.len()))
    }

    #[test]
    fn a_large_file_that_changes_while_it_is_written_is_written_again() {
        let (done, layer) = disturbed(b"what was there", |file| std::fs::write(file, "new").unwrap());
        assert_eq!((done.retried, done.entries, done.added), (1, 1, 1));
        assert_eq!(layer.len(), 2048);
        assert_eq!((&layer[..5], &layer[512..516]), (&b"file\0"[..], &b"new\0"[..]));
        assert_eq!(done.blob.size, 2048);
    }

    #[test]
    fn files_that_rested_and_files_that_are_put_aside_give_one_layer() {
        let upper = tempfile::tempdir().unwrap();
        for size in [0, 1, 512, 5000, (64 << 10) - 1, 64 << 10, 700_000, 5 << 20] {
            std::fs::write(upper.path().join(size.to_string()), vec![size as u8; size]).unwrap();
        }
        let name = |number: usize| upper.path().join(number.to_string());
        std::fs::hard_link(name(5000), name(6000)).unwrap();
        let options = DiffOptions {
            rules: Rules { retry_on_change: true, ..Rules::OCI },
            scope: None,
            compression: Compression::Gzip { level: 1 },
            threads: 2,
            memory_bytes: None,
            spool: None,
            segments: None,
            copy: None,
        };
        let [streamed, aside] = [Duration::ZERO, Duration::from_secs(3600)].map(|streamed_after| {
            let trees = Trees::open(None, upper.path(), [None, None]).unwrap();
            let sink = tempfile::tempfile().unwrap();
            let control = Arc::new(Control::default());
            write_live(trees, &[Some(sink.into())], &options, &control, streamed_after).unwrap().layers.remove(0).unwrap()
        });
        assert_eq!(streamed, aside);
        assert_eq!((streamed.entries, streamed.retried), (9, 0));
    }

    #[test]
    fn one_that_vanishes_meanwhile_is_absent() {
        let (done, layer) = disturbed(b"", |file| std::fs::remove_file(file).unwrap());
        assert_eq!((done.retried, done.entries, done.added), (1, 0, 0));
        assert_eq!(layer, crate::tar::header::END);
    }
}
