//! Reading an index, a directory at a time.
//!
//! Law: whatever the bytes are, an index reads as a tree or fails with [`Error::IndexFile`]. The checksum is proved before
//! anything is told; what it cannot prove, since anybody can make one, is checked where it is read.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{CWD, FileType as Kind, Mode, OFlags, fstat, openat};
use rustix::io::{pread, retry_on_intr};
use twox_hash::XxHash3_128;

use super::format::{
    CHECKSUM_BYTES, Extent, Fields, HEADER_BYTES, Header, LEAST_RECORD_BYTES, TRAILER_BYTES, Trailer, TreeIndexEntry,
};
use crate::cause::Cause;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tree::Names;

const BUFFER_BYTES: usize = 1 << 20;

/// An open index.
#[derive(Debug)]
pub struct IndexFile {
    fd: OwnedFd,
    path: PathBuf,
    header: Header,
    trailer: Trailer,
    /// Offset of the trailer.
    end: u64,
    /// Names that were read.
    read: AtomicU64,
}

impl IndexFile {
    /// Opens an index and proves its checksum.
    ///
    /// # Errors
    /// [`Error::IndexFile`] for what is no index, or a broken one; [`Error::Io`].
    pub fn open(path: &Path, control: &Control) -> Result<Self> {
        // A FIFO must not hold the call up.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(Error::sys("open", path))?;
        let broken = |reason: Cause| Error::IndexFile { path: path.to_owned(), reason };
        let stat = fstat(&fd).map_err(Error::sys("stat", path))?;
        if Kind::from_raw_mode(stat.st_mode) != Kind::RegularFile {
            return Err(broken(Cause::NotIndex));
        }
        let size = stat.st_size.cast_unsigned();
        let mut head = [0; HEADER_BYTES];
        let known = read_at(&fd, path, &mut head, 0)?;
        let header = Header::decode(&head[..known]).map_err(broken)?;
        let Some(end) = size.checked_sub(TRAILER_BYTES as u64).filter(|&end| end >= HEADER_BYTES as u64) else {
            return Err(broken(Cause::TruncatedIndex));
        };
        let mut tail = [0; TRAILER_BYTES];
        read_at(&fd, path, &mut tail, end)?;
        let (tail, checksum) = tail.split_at(TRAILER_BYTES - CHECKSUM_BYTES);
        if checksum_of(&fd, path, size - CHECKSUM_BYTES as u64, control)? != checksum {
            return Err(broken(Cause::WrongIndexChecksum));
        }
        let trailer = Trailer::decode(tail).map_err(broken)?;
        if trailer.root.offset.checked_add(trailer.root.length.into()).is_none_or(|last| last > end) {
            return Err(broken(Cause::RootOutsideIndex));
        }
        if trailer.entries > end / LEAST_RECORD_BYTES {
            return Err(broken(Cause::FewerNames));
        }
        Ok(Self { fd, path: path.to_owned(), header, trailer, end, read: AtomicU64::new(0) })
    }

    /// Returns the header of the index.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its root directory.
    pub fn root(&self) -> Extent {
        self.trailer.root
    }

    /// Reads a directory. A walk reads each of them once: all of them together have no more names than the index says, or
    /// directories that share their blocks could make it endless.
    ///
    /// # Errors
    /// [`Error::IndexFile`]; [`Error::Io`].
    pub fn folder(&self, extent: Extent) -> Result<Folder> {
        let mut folder = Folder { bytes: Vec::new(), places: Vec::new(), names: Names::default(), limit: extent.offset };
        if extent.length == 0 {
            return Ok(folder);
        }
        folder.bytes = vec![0; extent.length as usize];
        if extent.offset.saturating_add(extent.length.into()) > self.end
            || read_at(&self.fd, &self.path, &mut folder.bytes, extent.offset)? < folder.bytes.len()
        {
            return Err(self.broken(Cause::TruncatedMeanwhile));
        }
        let mut fields = Fields(&folder.bytes);
        let count = fields.u32().map_err(|reason| self.broken(reason))?;
        if self.read.fetch_add(count.into(), Relaxed) + u64::from(count) > self.trailer.entries {
            return Err(self.broken(Cause::MoreNames));
        }
        let mut before: &[u8] = b"";
        for _ in 0..count {
            let name = fields.name().map_err(|reason| self.broken(reason))?;
            if name <= before {
                return Err(self.broken(Cause::NamesOutOfOrder));
            }
            before = name;
            folder.names.push(name);
            folder.places.push((folder.bytes.len() - fields.0.len()) as u32);
            fields.record(&self.header, extent.offset).map_err(|reason| self.broken(reason))?;
        }
        match fields.0 {
            [] => Ok(folder),
            _ => Err(self.broken(Cause::BytesAfterRecords)),
        }
    }

    /// Returns the entry at `index` of the order of names.
    ///
    /// # Errors
    /// [`Error::IndexFile`].
    pub fn record(&self, folder: &Folder, index: usize) -> Result<TreeIndexEntry> {
        let bytes = folder.bytes.get(folder.places[index] as usize..).unwrap_or_default();
        Fields(bytes).record(&self.header, folder.limit).map_err(|reason| self.broken(reason))
    }

    fn broken(&self, reason: Cause) -> Error {
        Error::IndexFile { path: self.path.clone(), reason }
    }
}

/// A directory of an index.
#[derive(Debug)]
pub struct Folder {
    bytes: Vec<u8>,
    /// Offset after the name of each record.
    places: Vec<u32>,
    names: Names,
    /// The directories in it lie before.
    limit: u64,
}

impl Folder {
    /// Its names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Returns the name at `index` of the order.
    pub fn name(&self, index: usize) -> &CStr {
        self.names.get(index)
    }
}

/// Fills `buffer` from `offset` on; tells how much of it, which is less only at the end of the file.
fn read_at(fd: &OwnedFd, path: &Path, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match retry_on_intr(|| pread(fd, &mut buffer[done..], offset + done as u64)).map_err(Error::sys("read", path))? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

fn checksum_of(fd: &OwnedFd, path: &Path, size: u64, control: &Control) -> Result<[u8; CHECKSUM_BYTES]> {
    let mut hasher = XxHash3_128::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut done = 0;
    while done < size {
        control.check()?;
        let most = buffer.len().min(usize::try_from(size - done).unwrap_or(usize::MAX));
        let count = read_at(fd, path, &mut buffer[..most], done)?;
        hasher.write(&buffer[..count]);
        if count < most {
            break;
        }
        done += count as u64;
    }
    Ok(hasher.finish_128().to_be_bytes())
}
