//! The contents of files in any order, from layers that are read once each.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::Scope;

use super::SquashOptions;
use super::aside::AsideFile;
use crate::apply::Limits;
use crate::apply::model::{Model, ROOT};
use crate::cause::Cause;
use crate::compress::decompress::Decompressed;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::stream::Stream;
use crate::tar::header::EntryType;
use crate::tar::read::{Piece, Reader};

/// Layers that are decompressed at the same time; the contents of others are set aside first.
const MOST_OPEN: usize = 4;
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The origin of the content of a file: the number of its layer, and the offset of the header of its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The first layer is 0.
    pub layer: usize,
    /// Offset in bytes of the tar.
    pub offset: u64,
}

/// Sizes of the files of a layer whose content is left, by where their entries begin.
pub type Wanted = HashMap<u64, u64>;

/// Returns what is left of each layer.
pub fn wanted(model: &Model<Origin>, layers: usize) -> Vec<Wanted> {
    let mut wanted = vec![Wanted::new(); layers];
    let mut todo = vec![ROOT];
    while let Some(number) = todo.pop() {
        let inode = model.inode(number);
        if let Some(Origin { layer, offset }) = inode.content {
            wanted[layer].insert(offset, inode.size);
        }
        todo.extend(inode.children.values().map(|child| child.number));
    }
    wanted
}

/// Hands out contents. What stands before the file that is asked for is set aside, if it is still wanted: layers in walk order
/// set nothing aside.
pub struct Contents<'scope> {
    readers: Vec<Option<Reader<Decompressed<'scope>>>>,
    wanted: Vec<Wanted>,
    aside: AsideFile,
    positions: HashMap<Origin, u64>,
}

impl<'scope> Contents<'scope> {
    /// Begins to read the layers.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        layers: Vec<Option<OwnedFd>>,
        limits: &[Limits],
        model: &Model<Origin>,
        options: &SquashOptions,
        control: &'scope Arc<Control>,
    ) -> Result<Self> {
        let wanted = wanted(model, limits.len());
        let aside = AsideFile::new(options.spool.clone());
        let readers = layers.iter().map(|_| None).collect();
        let mut contents = Self { readers, wanted, aside, positions: HashMap::new() };
        let mut open = Vec::new();
        for (number, layer) in layers.into_iter().enumerate() {
            let Some(layer) = layer else { continue };
            open.push((Reverse(contents.wanted[number].values().sum::<u64>()), number, layer));
        }
        open.sort_by_key(|&(size, number, _)| (size, number));
        for (place, (_, number, layer)) in open.into_iter().enumerate() {
            let stream = Stream::new(layer, control.clone())?;
            let tar = Decompressed::start_again(scope, stream, limits[number].bounds(), control)?;
            contents.readers[number] = Some(Reader::new(tar, limits[number].max_header_bytes));
            if place >= MOST_OPEN {
                contents.read_to(number, None)?;
                contents.readers[number] = None;
            }
        }
        Ok(contents)
    }

    /// Hands the `size` bytes of a content to `take`; holes are zeros.
    pub fn copy(&mut self, origin: Origin, size: u64, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if let Some(position) = self.positions.remove(&origin) {
            return self.aside.read(position, size, take);
        }
        self.read_to(origin.layer, Some(origin.offset))?;
        let Some(reader) = &mut self.readers[origin.layer] else { return Err(changed(origin.offset)) };
        reader.read_data(|piece| match piece {
            Piece::Data(data) => take(data),
            Piece::Hole(mut left) => {
                while left > 0 {
                    let count = left.min(ZEROS.len() as u64);
                    take(&ZEROS[..count as usize])?;
                    left -= count;
                }
                Ok(())
            }
        })
    }

    /// Reads a layer up to the entry there, or to its end.
    fn read_to(&mut self, layer: usize, offset: Option<u64>) -> Result<()> {
        let end = offset.map_or(Ok(()), |offset| Err(changed(offset)));
        let Some(reader) = &mut self.readers[layer] else { return end };
        while let Some(entry) = reader.next_entry()? {
            let Some(&size) = self.wanted[layer].get(&entry.offset) else { continue };
            if (entry.entry_type, entry.size) != (EntryType::File, size) {
                return Err(changed(entry.offset));
            }
            if Some(entry.offset) == offset {
                return Ok(());
            }
            self.positions.insert(Origin { layer, offset: entry.offset }, self.aside.end());
            let aside = &mut self.aside;
            reader.read_data(|piece| aside.add(piece))?;
        }
        end
    }
}

fn changed(offset: u64) -> Error {
    Error::MalformedLayer { offset, reason: Cause::LayerChanged }
}
