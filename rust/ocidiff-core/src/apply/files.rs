//! Regular files: made under a name that was free, written with their holes, described.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, ftruncate, openat};
use rustix::io::{Errno, pwrite, retry_on_intr};

use super::attributes::{Node, Policy, times_of};
use super::place::Place;
use super::writers::{Shared, SmallFile};
use crate::control::Control;
use crate::error::Result;
use crate::tar::read::Entry;

/// The mode of a file until all of its attributes are set.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What file systems keep a hole by.
const BLOCK_BYTES: usize = 4096;
/// Shorter runs of zeros are written: a file of many pieces is slower to read.
const MIN_HOLE_BYTES: usize = 16 * BLOCK_BYTES;

/// Makes the file of an entry, where nothing is.
pub(super) fn make(place: &Place<'_>, entry: &Entry, owner: (u32, u32), policy: &Policy) -> rustix::io::Result<OwnedFd> {
    // Made with its own mode it needs no other, unless something that is still to be set depends on who may do what.
    let is_final =
        owner == policy.identity && !policy.notes(owner) && entry.xattrs.is_empty() && !place.parent.has_default_acl();
    let mode = if is_final { Mode::from_raw_mode(entry.mode & 0o777) } else { PRIVATE };
    openat(&*place.parent, place.name(), NEW, mode)
}

/// Makes a file that its owner alone may read.
pub(super) fn make_private(place: &Place<'_>) -> rustix::io::Result<OwnedFd> {
    openat(&*place.parent, place.name(), NEW, PRIVATE)
}

/// Makes, writes and describes a file whose data is at hand.
pub(super) fn write_small(small: SmallFile<'_>, data: &[u8], shared: &Shared<'_>) -> Result<()> {
    let place = &small.place;
    shared.control.check()?;
    let file = match small.file {
        Some(file) => file,
        None => make(place, &small.entry, small.owner, &shared.policy).map_err(|errno| match errno {
            // Nothing had this name, so the file system takes another one for it.
            Errno::EXIST => place.collision(),
            _ => place.failed("create")(errno),
        })?,
    };
    let mut writer = FileWriter::new(&file, place, shared.control);
    writer.write(data)?;
    writer.finish()?;
    describe(&file, place, &small.entry, small.owner, shared)
}

/// Gives a file that was written all that its entry says.
pub(super) fn describe(
    file: &OwnedFd,
    place: &Place<'_>,
    entry: &Entry,
    owner: (u32, u32),
    shared: &Shared<'_>,
) -> Result<()> {
    let now = fstat(file).map_err(place.failed("stat"))?;
    let node = Node { place, fd: Some(file.as_fd()), file_type: FileType::RegularFile, now: Some(now), is_new: true };
    node.describe(entry, owner, &shared.policy, &shared.tally)?;
    node.set_times(&times_of(entry))
}

/// Writes the data of a file in order; long runs of zeros become holes.
pub(super) struct FileWriter<'a> {
    file: &'a OwnedFd,
    place: &'a Place<'a>,
    control: &'a Control,
    position: u64,
    ends_in_hole: bool,
}

impl<'a> FileWriter<'a> {
    /// Writes from the start of an empty file.
    pub fn new(file: &'a OwnedFd, place: &'a Place<'a>, control: &'a Control) -> Self {
        Self { file, place, control, position: 0, ends_in_hole: false }
    }

    /// Takes the next piece.
    pub fn write(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let (start, end) = hole(data);
            self.put(&data[..start])?;
            if start < end {
                self.position += (end - start) as u64;
                self.ends_in_hole = true;
            }
            data = &data[end..];
        }
        Ok(())
    }

    /// Gives the file its length, if the data has not.
    pub fn finish(self) -> Result<()> {
        if self.ends_in_hole {
            ftruncate(self.file, self.position).map_err(self.place.failed("write"))?;
        }
        Ok(())
    }

    fn put(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            self.control.check()?;
            let done = retry_on_intr(|| pwrite(self.file, data, self.position));
            let count = done.map_err(self.place.failed("write"))?;
            self.position += count as u64;
            self.ends_in_hole = false;
            data = &data[count..];
        }
        Ok(())
    }
}

/// The first long run of zero blocks; empty at the end when there is none.
fn hole(data: &[u8]) -> (usize, usize) {
    let is_zero = |block: &[u8]| block.iter().all(|&byte| byte == 0);
    let mut start = 0;
    let mut end = 0;
    for block in data.chunks_exact(BLOCK_BYTES) {
        if block[0] == 0 && is_zero(block) {
            end += BLOCK_BYTES;
            continue;
        }
        if end - start >= MIN_HOLE_BYTES {
            return (start, end);
        }
        end += BLOCK_BYTES;
        start = end;
    }
    if end - start >= MIN_HOLE_BYTES { (start, end) } else { (data.len(), data.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_runs_of_zero_blocks_are_holes() {
        let data = |zeros: usize, after: usize| [vec![1; 5000], vec![0; zeros], vec![1; after]].concat();
        assert_eq!(hole(&data(0, 10)), (5010, 5010));
        assert_eq!(hole(&data(65_000, 9000)), (79_000, 79_000));
        assert_eq!(hole(&data(70_000, 9000)), (8192, 73_728));
        assert_eq!(hole(&data(70_000, 0)), (8192, 73_728));
        assert_eq!(hole(&[0; 65_536]), (0, 65_536));
        assert_eq!(hole(&[0; 65_535]), (65_535, 65_535));
        assert_eq!(hole(&[]), (0, 0));
    }
}
