//! The index of an image's layers, read once each and written nowhere.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::apply::model::{self, Purpose, ROOT};
use crate::apply::reading::apply_to_model;
use crate::apply::told::told_xattrs;
use crate::apply::{LayerMeasure, Limits};
use crate::control::Control;
use crate::error::Result;
use crate::index::{Block, Extent, Fingerprint, FingerprintHasher, Header, IndexSummary, IndexWriter, Kept, XattrDigests};
use crate::metadata::{FileType, Metadata};
use crate::tar::read::Piece;
use crate::tree::c_string;

/// A model whose files know the hashes of their content. They are boxed, since most inodes have none.
type Model = model::Model<Box<Fingerprint>>;
type Inode = model::Inode<Box<Fingerprint>>;

/// The index of layers, and the layers that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayersIndexed {
    /// The index.
    pub index: IndexSummary,
    /// The digests and sizes of the layers, for the caller to verify.
    pub layers: Vec<LayerMeasure>,
}

/// Writes the index of the tree that `layers`, base first, unpack to. `chain_id` is theirs, `limits` are for all together.
///
/// # Errors
/// Those of an apply that come from the layers; [`crate::Error::Io`], [`crate::Error::Cancelled`].
pub fn write_index_of_layers(
    layers: Vec<OwnedFd>,
    sink: OwnedFd,
    header: &Header,
    limits: Limits,
    control: &Arc<Control>,
) -> Result<LayersIndexed> {
    let mut model = Model::new(Purpose::Index);
    let mut done = Vec::new();
    let mut left = limits;
    for layer in layers {
        let found = apply_to_model(&mut model, layer, &left, control, |_, reader| {
            let mut hasher = FingerprintHasher::new(header.wanted());
            reader.read_data(|piece| hash(&mut hasher, piece, control))?;
            Ok(Box::new(hasher.finish()))
        })?;
        let size = found.digests.uncompressed_size.saturating_add(found.holes);
        left.max_bytes = left.max_bytes.map(|max| max.saturating_sub(size));
        left.max_entries = left.max_entries.map(|max| max.saturating_sub(found.entries));
        done.push(found);
    }
    Ok(LayersIndexed { index: write(&model, IndexWriter::start(sink, header, control)?, control)?, layers: done })
}

/// Hashes a piece of a file.
fn hash(hasher: &mut FingerprintHasher, piece: Piece<'_>, control: &Control) -> Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut left = match piece {
        Piece::Data(data) => {
            hasher.update(data);
            0
        }
        Piece::Hole(size) => size,
    };
    while left > 0 {
        control.check()?;
        let count = left.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..count as usize]);
        left -= count;
    }
    control.check()
}

/// A directory that is being written.
struct Frame<'a> {
    block: Block,
    children: Box<dyn Iterator<Item = (&'a [u8], &'a Inode)> + 'a>,
    /// The name and inode in the directory above.
    this: Option<(&'a [u8], &'a Inode)>,
}

impl<'a> Frame<'a> {
    fn open(model: &'a Model, this: Option<(&'a [u8], &'a Inode)>, inode: &'a Inode) -> Self {
        let children = inode.children.iter().map(|(name, child)| (&**name, model.inode(child.number)));
        Self { block: Block::default(), children: Box::new(children), this }
    }
}

/// Writes a whole tree, directories after what is in them.
fn write(model: &Model, mut writer: IndexWriter, control: &Control) -> Result<IndexSummary> {
    writer.leave_out(&model.lost());
    let mut frames = vec![Frame::open(model, None, model.inode(ROOT))];
    let mut root = Extent::default();
    while let Some(frame) = frames.last_mut() {
        control.check()?;
        if let Some((name, inode)) = frame.children.next() {
            let file_type = inode.file_type.unwrap_or(FileType::File);
            writer.count(if file_type == FileType::File { inode.size } else { 0 });
            if file_type == FileType::Directory {
                frames.push(Frame::open(model, Some((name, inode)), inode));
            } else {
                put(&mut frame.block, name, inode, None);
            }
            continue;
        }
        let Some(Frame { block, this, .. }) = frames.pop() else { break };
        let extent = writer.place(&block)?;
        if !block.is_empty() {
            writer.write(block)?;
        }
        match (this, frames.last_mut()) {
            (Some((name, inode)), Some(above)) => put(&mut above.block, name, inode, Some(extent)),
            _ => root = extent,
        }
    }
    writer.finish(root)
}

fn put(block: &mut Block, name: &[u8], inode: &Inode, children: Option<Extent>) {
    let file_type = inode.file_type.unwrap_or(FileType::File);
    let metadata = Metadata {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        size: inode.size,
        mtime: if file_type == FileType::Directory { 0 } else { inode.mtime.0 },
        mtime_ns: if file_type == FileType::Directory { 0 } else { inode.mtime.1 },
        device: inode.device,
        ..Metadata::of_kind(file_type)
    };
    let kept = match (children, &inode.content) {
        (Some(extent), _) => Kept::Children(extent),
        (None, Some(content)) => Kept::Content(**content),
        (None, None) if file_type == FileType::Symlink => Kept::Target(c_string(&inode.target)),
        (None, None) => Kept::Nothing,
    };
    block.push(name, &metadata, None, &XattrDigests::of(&told_xattrs(inode)), &kept);
}
