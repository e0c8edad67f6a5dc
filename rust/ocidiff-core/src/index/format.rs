//! The bytes of an index. All numbers are little-endian.
//!
//! `Header`, then a block for each directory that is not empty, those of its directories before its own, then the trailer. A
//! block is the number of its records, and the records, in the order of their names' bytes.

use std::ffi::{CStr, CString};

use super::fingerprint::{Fingerprint, Wanted, XattrDigests};
use crate::cause::Cause;
use crate::metadata::{FileType, InodeKey, Metadata};
use crate::rules::linux::{MAX_MAJOR, MAX_MINOR, MODE_BITS};

/// The first bytes of an index.
pub const MAGIC: &[u8; 8] = b"OCIDIFFX";
/// The version of the format that is written, and the only one that is read.
pub const VERSION: u16 = 1;
/// Bytes of the header, and of the trailer.
pub const HEADER_BYTES: usize = 48;
pub const TRAILER_BYTES: usize = 44;
/// The checksum, an XXH3-128 of all before it, is the last part of the trailer.
pub const CHECKSUM_BYTES: usize = 16;

/// No record is shorter: a name of one byte, and an empty directory.
pub const LEAST_RECORD_BYTES: u64 = 25;

const HAS_SHA256: u16 = 1;
const HAS_CAPABILITY: u8 = 1;
const HAS_OTHERS: u8 = 2;
const IS_MOUNT: u8 = 4;
const HAS_STAMP: u8 = 8;
const LACKS_OWNER: u8 = 16;

/// The upper 4 of the 16 bits of `st_mode` (inode(7)).
const KINDS: [(u16, FileType); 7] = [
    (0o01, FileType::Fifo),
    (0o02, FileType::CharDevice),
    (0o04, FileType::Directory),
    (0o06, FileType::BlockDevice),
    (0o10, FileType::File),
    (0o12, FileType::Symlink),
    (0o14, FileType::Socket),
];
const NS_PER_SECOND: u32 = 1_000_000_000;

/// The header of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// True if contents have a sha256 beside the XXH3-128.
    pub has_sha256: bool,
    /// The chain ID of the layers that it was made from; zeros for a tree.
    pub chain_id: [u8; 32],
}

impl Header {
    /// Returns the hashes that contents have.
    pub fn wanted(&self) -> Wanted {
        if self.has_sha256 { Wanted::Sha256 } else { Wanted::Xxh3 }
    }

    /// Returns the bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&(u16::from(self.has_sha256) * HAS_SHA256).to_le_bytes());
        bytes[16..].copy_from_slice(&self.chain_id);
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// The cause, if it is no header.
    pub fn decode(bytes: &[u8]) -> Result<Self, Cause> {
        let mut fields = Fields(bytes);
        if fields.take(MAGIC.len()).ok() != Some(MAGIC) {
            return Err(Cause::NotIndex);
        }
        if bytes.len() < HEADER_BYTES {
            return Err(Cause::TruncatedIndex);
        }
        let (version, flags) = (fields.u16()?, fields.u16()?);
        if version != VERSION {
            return Err(Cause::IndexVersion { version, known: VERSION });
        }
        if flags & !HAS_SHA256 != 0 || fields.u32()? != 0 {
            return Err(Cause::UnknownHeaderFlags);
        }
        Ok(Self { has_sha256: flags & HAS_SHA256 != 0, chain_id: fields.array()? })
    }
}

/// The place of a block; empty for an empty directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// From the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u32,
}

/// The trailer of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The block of the root.
    pub root: Extent,
    /// Names in the tree.
    pub entries: u64,
    /// Bytes of all files; one with several names counts for each.
    pub file_bytes: u64,
}

impl Trailer {
    /// Returns the bytes before the checksum.
    pub fn encode(&self) -> [u8; TRAILER_BYTES - CHECKSUM_BYTES] {
        let mut bytes = [0; TRAILER_BYTES - CHECKSUM_BYTES];
        bytes[..8].copy_from_slice(&self.root.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.root.length.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.entries.to_le_bytes());
        bytes[20..].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes
    }

    /// Reads the bytes before the checksum.
    pub fn decode(bytes: &[u8]) -> Result<Self, Cause> {
        let mut fields = Fields(bytes);
        let root = Extent { offset: fields.u64()?, length: fields.u32()? };
        Ok(Self { root, entries: fields.u64()?, file_bytes: fields.u64()? })
    }
}

/// The data of an entry beside its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: of an empty file, and of what has no content.
    Nothing,
    /// The hashes of a file.
    Content(Fingerprint),
    /// The target of a symbolic link.
    Target(CString),
    /// The block of a directory.
    Children(Extent),
}

/// Identifies one state of one file: a change to an inode sets its change time, which nobody can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode number.
    pub key: InodeKey,
    /// Change time, seconds and nanoseconds.
    pub ctime: (i64, u32),
}

impl Stamp {
    /// Returns the stamp of what lstat says this of.
    pub fn of(metadata: &Metadata) -> Self {
        Self { key: metadata.key, ctime: metadata.ctime }
    }
}

/// An entry of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeIndexEntry {
    /// The metadata that a comparison looks at: without identity, number of names and change time, and for a directory
    /// without size and times.
    pub metadata: Metadata,
    /// Its attributes.
    pub xattrs: XattrDigests,
    /// The state of the inode, if it was asked for and is sure.
    pub stamp: Option<Stamp>,
    /// The rest.
    pub kept: Kept,
}

/// The records of one directory, while they are put together.
#[derive(Debug, Default)]
pub struct Block {
    count: u32,
    bytes: Vec<u8>,
}

impl Block {
    /// Adds an entry; names come in the order of their bytes. A file with content gets room for `fingerprint`; tells where.
    pub fn push(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        stamp: Option<Stamp>,
        xattrs: &XattrDigests,
        kept: &Kept,
    ) -> usize {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; 4]);
        }
        self.count += 1;
        // The kernel's limit on names is 255 bytes, so a length always fits.
        self.bytes.push(name.len() as u8);
        self.bytes.extend_from_slice(name);
        let kind = KINDS.iter().find(|(_, kind)| *kind == metadata.file_type).map_or(0, |(bits, _)| *bits);
        self.put(&(kind << 12 | metadata.mode as u16).to_le_bytes());
        self.put(&metadata.uid.to_le_bytes());
        self.put(&metadata.gid.to_le_bytes());
        let has = u8::from(xattrs.capability.is_some()) * HAS_CAPABILITY + u8::from(xattrs.others.is_some()) * HAS_OTHERS;
        let is = u8::from(metadata.mount_root) * IS_MOUNT + u8::from(metadata.lacks_owner) * LACKS_OWNER;
        self.bytes.push(has + is + u8::from(stamp.is_some()) * HAS_STAMP);
        for digest in [xattrs.capability, xattrs.others].into_iter().flatten() {
            self.put(&digest);
        }
        if let Some(Stamp { key: (device, inode), ctime: (seconds, nanoseconds) }) = stamp {
            self.put(&device.to_le_bytes());
            self.put(&inode.to_le_bytes());
            self.put(&seconds.to_le_bytes());
            self.put(&nanoseconds.to_le_bytes());
        }
        if let Kept::Children(extent) = kept {
            self.put(&extent.offset.to_le_bytes());
            self.put(&extent.length.to_le_bytes());
            return self.bytes.len();
        }
        self.put(&metadata.mtime.to_le_bytes());
        self.put(&metadata.mtime_ns.to_le_bytes());
        self.put(&metadata.size.to_le_bytes());
        if matches!(metadata.file_type, FileType::CharDevice | FileType::BlockDevice) {
            self.put(&metadata.device.0.to_le_bytes());
            self.put(&metadata.device.1.to_le_bytes());
        }
        let place = self.bytes.len();
        match kept {
            Kept::Content(fingerprint) => self.bytes.extend(fingerprint_bytes(fingerprint)),
            Kept::Target(target) => {
                // The kernel's limit on targets is 4095 bytes.
                self.put(&(target.as_bytes().len() as u16).to_le_bytes());
                self.put(target.as_bytes());
            }
            Kept::Nothing | Kept::Children(_) => {}
        }
        place
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Fills in the hashes of a file, at the place that `push` told.
    pub fn fill(&mut self, place: usize, fingerprint: &Fingerprint) {
        for (slot, byte) in self.bytes.iter_mut().skip(place).zip(fingerprint_bytes(fingerprint)) {
            *slot = byte;
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true if there are no records.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Ends the block.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.first_chunk_mut::<4>() {
            *count = self.count.to_le_bytes();
        }
        self.bytes
    }
}

fn fingerprint_bytes(fingerprint: &Fingerprint) -> impl Iterator<Item = u8> {
    fingerprint.xxh3.into_iter().chain(fingerprint.sha256.into_iter().flatten())
}

/// Takes the bytes of an index apart.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Cause> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Cause::EndInRecord)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Cause> {
        self.take(N)?.try_into().map_err(|_| Cause::EndInRecord)
    }

    fn u8(&mut self) -> Result<u8, Cause> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Cause> {
        self.array().map(u16::from_le_bytes)
    }

    /// Reads a number, such as the number of records that a block begins with.
    pub fn u32(&mut self) -> Result<u32, Cause> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Cause> {
        self.array().map(u64::from_le_bytes)
    }

    /// Returns the name of the next record, with a NUL after it in `buffer`.
    pub fn name(&mut self) -> Result<&'a [u8], Cause> {
        let length = self.u8()?;
        let name = self.take(length.into())?;
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|&byte| byte == b'/' || byte == 0) {
            return Err(Cause::ImpossibleName);
        }
        Ok(name)
    }

    /// Returns the rest of the record; blocks of directories lie before `limit`.
    pub fn record(&mut self, header: &Header, limit: u64) -> Result<TreeIndexEntry, Cause> {
        let mode = self.u16()?;
        let kind = KINDS.iter().find(|(bits, _)| *bits == mode >> 12);
        let file_type = kind.map(|(_, kind)| *kind).ok_or(Cause::UnknownRecordType)?;
        let mut metadata = Metadata {
            mode: u32::from(mode) & MODE_BITS,
            uid: self.u32()?,
            gid: self.u32()?,
            ..Metadata::of_kind(file_type)
        };
        let flags = self.u8()?;
        if flags & !(HAS_CAPABILITY | HAS_OTHERS | IS_MOUNT | HAS_STAMP | LACKS_OWNER) != 0 {
            return Err(Cause::UnknownRecordFlags);
        }
        metadata.mount_root = flags & IS_MOUNT != 0;
        metadata.lacks_owner = flags & LACKS_OWNER != 0;
        let mut digest = |flag| if flags & flag != 0 { self.array().map(Some) } else { Ok(None) };
        let xattrs = XattrDigests { capability: digest(HAS_CAPABILITY)?, others: digest(HAS_OTHERS)? };
        let stamp = match flags & HAS_STAMP {
            0 => None,
            _ => Some(Stamp { key: (self.u64()?, self.u64()?), ctime: (self.u64()?.cast_signed(), self.u32()?) }),
        };
        if file_type == FileType::Directory {
            let extent = Extent { offset: self.u64()?, length: self.u32()? };
            if extent.offset.checked_add(extent.length.into()).is_none_or(|end| end > limit) {
                return Err(Cause::DirectoryOutsideIndex);
            }
            return Ok(TreeIndexEntry { metadata, xattrs, stamp, kept: Kept::Children(extent) });
        }
        metadata.mtime = self.u64()?.cast_signed();
        metadata.mtime_ns = self.u32()?;
        metadata.size = self.u64()?;
        if metadata.mtime_ns >= NS_PER_SECOND {
            return Err(Cause::WrongRecordTime);
        }
        let kept = match file_type {
            FileType::File if metadata.size > 0 => {
                let xxh3 = self.array()?;
                let sha256 = if header.has_sha256 { Some(self.array()?) } else { None };
                Kept::Content(Fingerprint { xxh3, sha256 })
            }
            FileType::Symlink => {
                let length = self.u16()?;
                Kept::Target(CString::new(self.take(length.into())?).map_err(|_| Cause::NulInTarget)?)
            }
            FileType::CharDevice | FileType::BlockDevice => {
                metadata.device = (self.u32()?, self.u32()?);
                if metadata.device.0 > MAX_MAJOR || metadata.device.1 > MAX_MINOR {
                    return Err(Cause::WrongRecordDevice);
                }
                Kept::Nothing
            }
            _ => Kept::Nothing,
        };
        Ok(TreeIndexEntry { metadata, xattrs, stamp, kept })
    }
}

impl TreeIndexEntry {
    /// Returns the target of a symbolic link.
    pub fn target(&self) -> Option<&CStr> {
        match &self.kept {
            Kept::Target(target) => Some(target),
            _ => None,
        }
    }

    /// Returns the hashes of a file with content.
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        match &self.kept {
            Kept::Content(fingerprint) => Some(fingerprint),
            _ => None,
        }
    }

    /// Returns the place of the entries of a directory.
    pub fn children(&self) -> Option<Extent> {
        match self.kept {
            Kept::Children(extent) => Some(extent),
            _ => None,
        }
    }
}
