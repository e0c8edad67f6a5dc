//! Whether an entry that both trees have is the same in both (continuity fs/diff.go, `sameFile`).

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};

use super::Rules;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::metadata::{FileType, Metadata};
use crate::tree::{Directory, Xattr, XattrReader};

/// Large enough that a comparison is bound by memory, small enough for every thread to own two.
const BUFFER_BYTES: usize = 128 << 10;

/// Compares entries; one for each thread, because it owns buffers.
pub struct Comparer {
    rules: Rules,
    buffers: [Vec<u8>; 2],
}

/// One of the two entries that are compared.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The directory that holds it.
    pub directory: &'a Directory,
    /// Its name.
    pub name: &'a CStr,
    /// What lstat says of it.
    pub metadata: &'a Metadata,
    /// Where its content is: a directory, and the path below it.
    pub content: (&'a Directory, &'a CStr),
}

impl Comparer {
    /// A comparer with its own buffers.
    pub fn new(rules: Rules) -> Self {
        Self { rules, buffers: [vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]] }
    }

    /// Whether both sides are the same, and the upper side's attributes where they were read on the way.
    ///
    /// The cheap tests come first; the order has no part in the verdict.
    pub fn same(
        &mut self,
        lower: Side<'_>,
        upper: Side<'_>,
        xattrs: &mut XattrReader,
        control: &Control,
    ) -> Result<(bool, Option<Vec<Xattr>>)> {
        let (a, b) = (lower.metadata, upper.metadata);
        if a.key == b.key {
            return Ok((true, None));
        }
        let facts = |m: &Metadata| (m.file_type, m.mode, m.uid, m.gid, m.device);
        if facts(a) != facts(b) || !a.is_directory() && a.size != b.size || !self.same_mtime(a, b) {
            return Ok((false, None));
        }
        let found = xattrs.read(upper.directory, upper.name)?;
        let same = xattrs.read(lower.directory, lower.name)? == found
            && (!self.fraction_lost(a, b) || self.same_content(lower, upper, control)?);
        Ok((same, Some(found)))
    }

    /// Whether the times of two entries of one kind are equal, as far as they can be.
    pub(super) fn same_mtime(&self, lower: &Metadata, upper: &Metadata) -> bool {
        let mtime = if self.rules.lower_from_layers { self.rules.stored_mtime(upper) } else { upper.mtime };
        let same_fraction = lower.mtime_ns == upper.mtime_ns || self.fraction_lost(lower, upper);
        lower.is_directory() || lower.mtime == mtime && same_fraction
    }

    /// Whether the fractions of the times say nothing.
    fn fraction_lost(&self, lower: &Metadata, upper: &Metadata) -> bool {
        lower.mtime_ns == 0 && (upper.mtime_ns == 0 || self.rules.lower_from_layers)
    }

    /// Whether the contents are the same, for entries whose times cannot tell.
    pub(super) fn same_content(&mut self, lower: Side<'_>, upper: Side<'_>, control: &Control) -> Result<bool> {
        match upper.metadata.file_type {
            FileType::Symlink => Ok(lower.directory.link_target(lower.name)? == upper.directory.link_target(upper.name)?),
            FileType::File if upper.metadata.size > 0 => self.same_bytes(lower, upper, control),
            _ => Ok(true),
        }
    }

    fn same_bytes(&mut self, lower: Side<'_>, upper: Side<'_>, control: &Control) -> Result<bool> {
        let open = |side: Side<'_>| side.content.0.open_file(side.content.1);
        let files = [open(lower)?, open(upper)?];
        let [first, second] = &mut self.buffers;
        // Both had this size when they were looked at; what one has lost since makes them differ.
        let mut left = upper.metadata.size;
        while left > 0 {
            control.check()?;
            let want = first.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (first, second) = (&mut first[..want], &mut second[..want]);
            let complete = fill(&files[0], first).map_err(|errno| failed(lower, errno))?
                && fill(&files[1], second).map_err(|errno| failed(upper, errno))?;
            if !complete || first != second {
                return Ok(false);
            }
            left -= want as u64;
        }
        Ok(true)
    }
}

fn failed(side: Side<'_>, errno: Errno) -> Error {
    Error::io("read", side.directory.path_of(side.name), errno)
}

/// Reads until the buffer is full; tells whether the file did not end before.
fn fill(file: &OwnedFd, mut buffer: &mut [u8]) -> std::result::Result<bool, Errno> {
    while !buffer.is_empty() {
        match retry_on_intr(|| rustix::io::read(file, &mut *buffer))? {
            0 => return Ok(false),
            count => buffer = &mut buffer[count..],
        }
    }
    Ok(true)
}
