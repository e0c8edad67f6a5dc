//! Reads a layer from its blob into a model.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::model::Model;
use super::path::LayerPath;
use super::{LayerMeasure, Limits};
use crate::compress::decompress::Decompressed;
use crate::control::Control;
use crate::error::Result;
use crate::stream::Stream;
use crate::tar::read::{Reader, TarEntry};

/// Applies the next layer to a model, and returns what it is. `content_of` makes what the model keeps of a file that is not empty.
///
/// # Errors
/// Those of an apply that come from the layer, and what `content_of` says.
pub fn apply_to_model<C>(
    model: &mut Model<C>,
    layer: OwnedFd,
    limits: &Limits,
    control: &Arc<Control>,
    mut content_of: impl FnMut(&TarEntry, &mut Reader<Decompressed<'_>>) -> Result<C>,
) -> Result<LayerMeasure> {
    let source = Stream::new(layer, control.clone())?;
    std::thread::scope(|scope| {
        let read = || {
            let tar = Decompressed::start(scope, source, limits.bounds(), control)?;
            let mut reader = Reader::new(tar, limits.max_header_bytes);
            let mut count = 0;
            model.next_layer();
            while let Some(entry) = reader.next_entry()? {
                control.check()?;
                control.add_entries(1);
                count += 1;
                let path = LayerPath::clean(&entry.name);
                limits.check(&entry, &path, count)?;
                // The entry is judged before its data, as in an apply.
                if let Some(file) = model.apply(&entry, &path)?
                    && entry.size > 0
                {
                    let content = content_of(&entry, &mut reader)?;
                    model.set_content(file, content);
                }
            }
            model.end_layer();
            reader.drain()?;
            let (entries, holes) = (count, reader.holes());
            Ok(LayerMeasure { digests: reader.into_inner().finish()?, holes, entries })
        };
        // Else threads that wait for a source which sleeps would hold this up.
        read().inspect_err(|_| control.cancel())
    })
}
