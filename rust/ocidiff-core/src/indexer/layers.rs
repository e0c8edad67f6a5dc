//! The index of an image's layers, read once each and written nowhere.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::apply::model::{self, ROOT};
use crate::apply::path::LayerPath;
use crate::apply::{LayerMeasure, Limits};
use crate::compress::decompress::Decompressed;
use crate::control::Control;
use crate::error::Result;
use crate::idmap::IdMaps;
use crate::index::{Block, Extent, Fingerprint, FingerprintHasher, Header, IndexSummary, IndexWriter, Kept, XattrDigests};
use crate::metadata::{FileType, Metadata};
use crate::rules::xattr::ACCESS_ACL;
use crate::stream::Stream;
use crate::tar::read::{Piece, Reader};
use crate::tree::Xattr;

/// Tags of POSIX ACL entries (linux/posix_acl.h), and how long they are.
const ACL_USER_OBJ: u16 = 0x01;
const ACL_GROUP_OBJ: u16 = 0x04;
const ACL_MASK: u16 = 0x10;
const ACL_OTHER: u16 = 0x20;
const ACL_HEADER_BYTES: usize = 4;
const ACL_ENTRY_BYTES: usize = 8;
/// An ACL without names says no more than the mode, and is not kept.
const ACL_PLAIN_ENTRIES: usize = 3;

/// A model whose files know the hashes of their content. They are boxed, since most inodes have none.
type Model = model::Model<Box<Fingerprint>>;
type Inode = model::Inode<Box<Fingerprint>>;

/// What is known once layers are indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayersIndexed {
    /// Of the index.
    pub index: IndexSummary,
    /// What the layers were, which the caller compares with what they should be.
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
    let mut model = Model::new();
    let mut done = Vec::new();
    let mut left = limits;
    for layer in layers {
        model.next_layer();
        let found = read(&mut model, layer, header, left, control)?;
        let size = found.digests.uncompressed_size.saturating_add(found.holes);
        left.max_bytes = left.max_bytes.map(|max| max.saturating_sub(size));
        left.max_entries = left.max_entries.map(|max| max.saturating_sub(found.entries));
        done.push(found);
    }
    Ok(LayersIndexed { index: write(&model, IndexWriter::start(sink, header, control)?, control)?, layers: done })
}

/// Applies a layer to the model, and tells what it is.
fn read(model: &mut Model, layer: OwnedFd, header: &Header, limits: Limits, control: &Arc<Control>) -> Result<LayerMeasure> {
    let source = Stream::new(layer, control.clone())?;
    std::thread::scope(|scope| {
        let read = || {
            let tar = Decompressed::start(scope, source, limits.bounds(), control)?;
            let mut reader = Reader::new(tar, limits.max_header_bytes);
            let mut count = 0;
            while let Some(entry) = reader.next_entry()? {
                control.check()?;
                control.add_entries(1);
                count += 1;
                let path = LayerPath::clean(&entry.name);
                limits.check(&entry, &path, count)?;
                // As in an apply, what the entry says is judged before its data.
                if let Some(file) = model.apply(&entry, &path)?
                    && entry.size > 0
                {
                    let mut hasher = FingerprintHasher::new(header.wanted());
                    reader.read_data(|piece| hash(&mut hasher, piece, control))?;
                    model.set_content(file, Box::new(hasher.finish()));
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
    /// What it is in the directory above.
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
        mtime: inode.mtime.0,
        mtime_ns: inode.mtime.1,
        device: inode.device,
        ..Metadata::of_kind(file_type)
    };
    let kept = match (children, &inode.content) {
        (Some(extent), _) => Kept::Children(extent),
        (None, Some(content)) => Kept::Content(**content),
        (None, None) if file_type == FileType::Symlink => Kept::Target(c_string(&inode.target)),
        (None, None) => Kept::Nothing,
    };
    block.push(name, &metadata, None, &XattrDigests::of(&xattrs_of(inode)), &kept);
}

/// The attributes as the kernel tells them.
fn xattrs_of(inode: &Inode) -> Vec<Xattr> {
    let mut xattrs = Vec::new();
    for (name, value) in &inode.xattrs {
        let mut value = value.clone();
        if name == ACCESS_ACL.to_bytes() && !follow_mode(&mut value, inode.mode) {
            continue;
        }
        // One that is bound to the root of the host's namespace is told as one that is bound to none. Without ranges nothing
        // is outside a map.
        let _ = IdMaps::default().xattr(name, &mut value);
        xattrs.push((c_string(name), value.into()));
    }
    xattrs
}

/// Gives an ACL the permissions of a mode that was set after it; tells whether it says more than the mode (acl(5)).
fn follow_mode(acl: &mut [u8], mode: u32) -> bool {
    let entries = acl.get_mut(ACL_HEADER_BYTES..).unwrap_or_default();
    let tag = |entry: &[u8]| u16::from_le_bytes([entry[0], entry[1]]);
    let has_mask = entries.chunks_exact(ACL_ENTRY_BYTES).any(|entry| tag(entry) == ACL_MASK);
    for entry in entries.chunks_exact_mut(ACL_ENTRY_BYTES) {
        let permissions = match tag(entry) {
            ACL_USER_OBJ => mode >> 6,
            ACL_MASK => mode >> 3,
            ACL_GROUP_OBJ if !has_mask => mode >> 3,
            ACL_OTHER => mode,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&((permissions & 7) as u16).to_le_bytes());
    }
    entries.len() != ACL_PLAIN_ENTRIES * ACL_ENTRY_BYTES
}

/// Bytes that came from a layer's header, which hold no NUL.
fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}
