//! The verb squash: several layers become one.
//!
//! Law: the new layer does to a base what the layers do to it one after another. Layers are read twice: first for the model of
//! the tree that they make, then for the contents that are left of each.

mod aside;
mod contents;
mod entries;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::apply::model::{Model, Purpose};
use crate::apply::reading::apply_to_model;
use crate::apply::{LayerMeasure, Limits};
use crate::compress::Compression;
use crate::compress::blob::{BlobSummary, BlobWriter};
use crate::compress::compressors::Compressors;
use crate::compress::memory::threads_within;
use crate::control::Control;
use crate::error::Result;
use crate::stream::Stream;
use crate::tar::header::{END, pad};
use crate::tree::Lost;
use contents::{Contents, Origin};
use entries::Entries;

/// Options of a squash.
#[derive(Debug, Clone)]
pub struct SquashOptions {
    /// The compression of the blob.
    pub compression: Compression,
    /// Threads that compress; the bytes do not depend on it.
    pub threads: usize,
    /// The memory of the process, which may mean fewer threads; see [`crate::diff::DiffOptions`].
    pub memory_bytes: Option<u64>,
    /// The directory for contents that come too early; `None` for the directory of temporary files.
    pub spool: Option<PathBuf>,
}

/// A layer that was made of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SquashSummary {
    /// Digests and sizes.
    pub blob: BlobSummary,
    /// Entries of the tar.
    pub entries: u64,
    /// Entries that are whiteouts.
    pub whiteouts: u64,
    /// Attributes that no apply sets.
    pub lost: Lost,
}

/// Makes one layer of several: add them all, base first, then write it. After an error it is not to be used.
#[derive(Debug)]
pub struct Squash {
    model: Model<Origin>,
    onto_base: bool,
    limits: Vec<Limits>,
}

impl Squash {
    /// Begins; with `onto_base` the layer goes onto others, and says what is gone of them.
    pub fn new(onto_base: bool) -> Self {
        Self { model: Model::new(Purpose::Layer { onto_base }), onto_base, limits: Vec::new() }
    }

    /// Reads the next layer, and returns what it is.
    ///
    /// # Errors
    /// Those of an apply that come from the layer; [`crate::Error::Unsupported`] for a hard link to a file of the base.
    pub fn add(&mut self, layer: OwnedFd, limits: Limits, control: &Arc<Control>) -> Result<LayerMeasure> {
        let number = self.limits.len();
        self.limits.push(limits);
        let origin = |offset| Origin { layer: number, offset };
        apply_to_model(&mut self.model, layer, &limits, control, |entry, _| Ok(origin(entry.offset)))
    }

    /// Returns the bytes of files that the new layer gets from each layer.
    pub fn content_bytes(&self) -> Vec<u64> {
        let wanted = contents::wanted(&self.model, self.limits.len());
        wanted.iter().map(|files| files.values().fold(0, |sum: u64, &size| sum.saturating_add(size))).collect()
    }

    /// Writes the new layer to `sink`. `layers` are read once more; there may be none for one without content for it.
    ///
    /// # Errors
    /// [`crate::Error::Unrepresentable`] for a directory with the name of a whiteout, [`crate::Error::MalformedLayer`] for a
    /// layer that is another one than before, [`crate::Error::Io`] and [`crate::Error::Cancelled`].
    pub fn write(
        &self,
        layers: Vec<Option<OwnedFd>>,
        sink: OwnedFd,
        options: &SquashOptions,
        control: &Arc<Control>,
    ) -> Result<SquashSummary> {
        let threads = threads_within(options.memory_bytes, options.compression, 1, options.threads)?;
        let stream = Stream::new(sink, control.clone())?;
        let compressors = Compressors::start(options.compression, threads, None, control)?;
        let mut blob = BlobWriter::start(stream, &compressors, None, control.clone())?;
        drop(compressors);
        let mut entries = Entries::new(&self.model, self.onto_base);
        let reading = Arc::new(Control::of_part(control.clone()));
        std::thread::scope(|scope| {
            let write = || {
                let mut contents = Contents::start(scope, layers, &self.limits, &self.model, options, &reading)?;
                let (mut heads, mut padding) = (Vec::new(), Vec::new());
                while let Some(inode) = entries.next(&mut heads)? {
                    control.check()?;
                    control.add_entries(1);
                    for head in heads.drain(..) {
                        blob.begin_entry(&head.name)?;
                        blob.write(&head.bytes)?;
                    }
                    if let Some(inode) = inode
                        && let Some(origin) = inode.content
                    {
                        blob.begin_content(inode.size)?;
                        contents.copy(origin, inode.size, |data| blob.write(data))?;
                        blob.end_content(inode.size)?;
                        pad(&mut padding, inode.size);
                        blob.write(&padding)?;
                        padding.clear();
                    }
                }
                Ok(())
            };
            // The rest of the layers is not read, and a source may sleep.
            let written = write();
            reading.cancel();
            written
        })?;
        blob.write(&END)?;
        let (entries, whiteouts) = entries.counts();
        Ok(SquashSummary { blob: blob.finish()?.0, entries, whiteouts, lost: self.model.lost() })
    }
}
