//! Applies the entries of a layer to a directory.

mod attributes;
mod directories;
mod entry;
mod files;
mod handle;
mod place;
mod removal;
mod root;
mod upper;
mod upper_tar;
mod writers;

use std::io::Read;
use std::path::Path;

use super::{ApplyOptions, ApplySummary};
use crate::compress::decompress::{Decompressed, Digests};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tar::read::Reader;
use attributes::{Policy, Tally};
use entry::Applier;
use root::ApplyRoot;
use writers::{Shared, Writers};

/// Writes the layer in `source` onto the directory `target`. Its compression is detected; no bytes are an empty layer.
///
/// A failure also cancels `control`, which belongs to this one call: a source that sleeps must not hold it up.
///
/// # Errors
/// [`Error::MalformedLayer`] and [`Error::UnsafeEntry`] for what the layer says, [`Error::LimitExceeded`],
/// [`Error::Unsupported`] for sparse files in an unknown form and other compressions, [`Error::Io`] for what the system
/// refuses, and [`Error::Cancelled`].
///
/// Spec: image-spec layer.md, "Applying Changesets".
pub fn apply_layer(
    source: impl Read + Send,
    target: &Path,
    options: &ApplyOptions,
    control: &Control,
) -> Result<ApplySummary> {
    let mut root = ApplyRoot::open(target)?;
    let policy = Policy::new(options, root.is_marked());
    if policy.notes_all() {
        root.note_owners().map_err(Error::sys("set xattr of", target))?;
    }
    let shared = Shared { policy, tally: Tally::default(), control };
    std::thread::scope(|scope| {
        let apply = || {
            let tar = Decompressed::start(scope, source, options.limits.bounds(), control)?;
            let writers = Writers::start(scope, options.threads, &shared)?;
            let mut applier = Applier::new(root, target, options, &shared, writers)?;
            let (digests, holes) = write(tar, &mut applier, options).map_err(|error| applier.fail(error))?;
            Ok(ApplySummary {
                digest: digests.digest,
                size: digests.size,
                diff_id: digests.diff_id,
                uncompressed_size: digests.uncompressed_size,
                holes,
                has_root: applier.has_root,
                entries: applier.entries,
                whiteouts: applier.whiteouts,
                skipped: shared.tally.skipped(),
            })
        };
        apply().inspect_err(|_| control.cancel())
    })
}

fn write(tar: Decompressed<'_>, applier: &mut Applier<'_>, options: &ApplyOptions) -> Result<(Digests, u64)> {
    let mut reader = Reader::new(tar, options.limits.max_header_bytes);
    while let Some(entry) = reader.next_entry()? {
        applier.apply(entry, &mut reader)?;
    }
    if options.is_upper {
        reader.check_end()?;
    }
    reader.drain()?;
    applier.finish()?;
    let holes = reader.holes();
    Ok((reader.into_inner().finish()?, holes))
}
