//! Decides if an entry is the same in both trees (continuity fs/diff.go, `sameFile`).

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};

use super::Rules;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::index::{Fingerprint, Stamp, TreeIndexEntry, Wanted, XattrDigests, fingerprint_open_file};
use crate::metadata::{FileType, Metadata, UNKNOWN_KEY};
use crate::tree::extents::share_all_blocks;
use crate::tree::{TreeDir, Xattr, XattrReader, Xattrs};

/// Large enough that a comparison is bound by memory, small enough for every thread to own two.
const BUFFER_BYTES: usize = 128 << 10;

/// Compares entries; one for each thread, because it owns buffers.
pub struct Comparer {
    rules: Rules,
    buffers: [Vec<u8>; 2],
}

/// An entry that is compared with another one.
#[derive(Clone, Copy)]
pub struct CompareSide<'a> {
    /// The result of lstat, now or when the index was made.
    pub metadata: &'a Metadata,
    /// The location of everything else.
    pub facts: Facts<'a>,
}

/// The location of what lstat does not say of an entry.
#[derive(Clone, Copy)]
pub enum Facts<'a> {
    /// In a tree.
    Live {
        /// The directory that holds it.
        directory: &'a TreeDir,
        /// Its name.
        name: &'a CStr,
        /// The location of its content: a directory, and the path below it.
        content: (&'a TreeDir, &'a CStr),
    },
    /// In an index.
    Indexed(&'a TreeIndexEntry),
}

impl CompareSide<'_> {
    /// Refuses an owner or group outside the id map.
    pub fn check_ids(&self) -> Result<()> {
        match self.facts {
            Facts::Live { directory, name, .. } => directory.check_ids(name, self.metadata),
            Facts::Indexed(_) => Ok(()),
        }
    }

    /// Returns the attributes; none of an entry that is only known by an index, which has but their hashes.
    pub fn xattrs(&self, reader: &mut XattrReader) -> Result<Xattrs> {
        match self.facts {
            Facts::Live { directory, name, .. } => reader.read(directory, name),
            Facts::Indexed(_) => Ok(Xattrs::default()),
        }
    }

    /// Returns the attributes that are compared.
    fn compared(&self, reader: &mut XattrReader) -> Result<Vec<Xattr>> {
        match self.facts {
            Facts::Live { directory, name, .. } => reader.compared(directory, name),
            Facts::Indexed(_) => Ok(Vec::new()),
        }
    }

    /// Returns the target of a symbolic link.
    pub fn target(&self) -> Result<CString> {
        match self.facts {
            Facts::Live { directory, name, .. } => directory.link_target(name),
            Facts::Indexed(record) => Ok(record.target().unwrap_or_default().to_owned()),
        }
    }
}

impl Comparer {
    /// Returns a comparer with its own buffers.
    pub fn new(rules: Rules) -> Self {
        Self { rules, buffers: [vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]] }
    }

    /// Compares two entries. Returns true if they are the same, and the attributes of upper if they were read.
    ///
    /// The cheap tests come first; the order has no part in the verdict.
    pub fn same(
        &mut self,
        lower: CompareSide<'_>,
        upper: CompareSide<'_>,
        xattrs: &mut XattrReader,
        control: &Control,
    ) -> Result<(bool, Option<Xattrs>)> {
        let (a, b) = (lower.metadata, upper.metadata);
        if a.key == b.key && a.key != UNKNOWN_KEY {
            return Ok((true, None));
        }
        if !a.has_facts_of(b) || !a.is_directory() && a.size != b.size || !self.same_mtime(a, b) {
            return Ok((false, None));
        }
        if is_known_state(lower, b) {
            return Ok((true, None));
        }
        let found = upper.xattrs(xattrs)?;
        let same = self.same_xattrs(lower, (upper, &found.kept), xattrs)?
            && (!self.fraction_lost(a, b) || self.same_content(lower, upper, control)?);
        Ok((same, Some(found)))
    }

    /// Returns true if the attributes are the same, given those of upper.
    pub(super) fn same_xattrs(
        &self,
        lower: CompareSide<'_>,
        upper: (CompareSide<'_>, &[Xattr]),
        reader: &mut XattrReader,
    ) -> Result<bool> {
        let known = |record: &TreeIndexEntry| record.xattrs.seen_by(self.rules.xattrs);
        Ok(match (lower.facts, upper.0.facts) {
            (Facts::Live { .. }, Facts::Live { .. }) => lower.compared(reader)? == upper.1,
            (Facts::Indexed(lower), Facts::Live { .. }) => known(lower) == XattrDigests::of(upper.1),
            (Facts::Live { .. }, Facts::Indexed(upper)) => XattrDigests::of(&lower.compared(reader)?) == known(upper),
            (Facts::Indexed(lower), Facts::Indexed(upper)) => known(lower) == known(upper),
        })
    }

    /// Returns true if the times of two entries of one kind are equal, as far as both are known.
    pub(super) fn same_mtime(&self, lower: &Metadata, upper: &Metadata) -> bool {
        let mtime = if self.rules.lower_has_layer_times { self.rules.stored_mtime(upper) } else { upper.mtime };
        let same_fraction = lower.mtime_ns == upper.mtime_ns || self.fraction_lost(lower, upper);
        lower.is_directory() || lower.mtime == mtime && same_fraction
    }

    /// Returns true if the fractions of the times do not decide.
    fn fraction_lost(&self, lower: &Metadata, upper: &Metadata) -> bool {
        let forgiven = self.rules.lower_has_layer_times || self.rules.lower_lacks_fractions;
        lower.mtime_ns == 0 && (upper.mtime_ns == 0 || forgiven)
    }

    /// Compares the contents of two entries whose times cannot tell.
    pub(super) fn same_content(
        &mut self,
        lower: CompareSide<'_>,
        upper: CompareSide<'_>,
        control: &Control,
    ) -> Result<bool> {
        match upper.metadata.file_type {
            FileType::Symlink => Ok(lower.target()? == upper.target()?),
            FileType::File if upper.metadata.size > 0 => match (lower.facts, upper.facts) {
                (Facts::Live { content: below, .. }, Facts::Live { content: above, .. }) => {
                    self.same_bytes(below, above, upper.metadata.size, control)
                }
                _ => self.same_fingerprint(lower, upper, control),
            },
            _ => Ok(true),
        }
    }

    fn same_bytes(
        &mut self,
        lower: (&TreeDir, &CStr),
        upper: (&TreeDir, &CStr),
        size: u64,
        control: &Control,
    ) -> Result<bool> {
        let open = |(directory, name): (&TreeDir, &CStr)| directory.open_file(name);
        let files = [open(lower)?, open(upper)?];
        if share_all_blocks(&files, size) {
            return Ok(true);
        }
        let [first, second] = &mut self.buffers;
        // Both had this size when they were looked at; what one has lost since makes them differ.
        let mut left = size;
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

    /// Compares the hashes of two contents, at least one of which is in an index.
    fn same_fingerprint(&mut self, lower: CompareSide<'_>, upper: CompareSide<'_>, control: &Control) -> Result<bool> {
        let known = |side: CompareSide<'_>| match side.facts {
            Facts::Indexed(record) => record.fingerprint().copied(),
            Facts::Live { .. } => None,
        };
        let wanted = known(lower).or(known(upper)).map_or(Wanted::Xxh3, |known| known.wanted());
        let mut hash = |side: CompareSide<'_>| -> Result<Option<Fingerprint>> {
            match side.facts {
                Facts::Live { content: (directory, name), .. } => {
                    let file = directory.open_file(name)?;
                    let buffer = &mut self.buffers[0];
                    fingerprint_open_file(&file, (directory, name), side.metadata.size, wanted, buffer, control)
                }
                Facts::Indexed(record) => Ok(record.fingerprint().copied()),
            }
        };
        Ok(hash(lower)?.zip(hash(upper)?).is_some_and(|(lower, upper)| lower.is_same(&upper)))
    }
}

/// Returns true if an index has this very state of this inode.
fn is_known_state(lower: CompareSide<'_>, upper: &Metadata) -> bool {
    matches!(lower.facts, Facts::Indexed(record) if record.stamp == Some(Stamp::of(upper)))
}

fn failed((directory, name): (&TreeDir, &CStr), errno: Errno) -> Error {
    Error::io("read", directory.path_of(name), errno)
}

/// Fills the buffer. Returns false if the file ended before that.
pub fn fill(file: &OwnedFd, mut buffer: &mut [u8]) -> std::result::Result<bool, Errno> {
    while !buffer.is_empty() {
        match retry_on_intr(|| rustix::io::read(file, &mut *buffer))? {
            0 => return Ok(false),
            count => buffer = &mut buffer[count..],
        }
    }
    Ok(true)
}
