//! Regular files: made under a name that was free, written with their holes, described.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, fstat, ftruncate, openat};
use rustix::io::{Errno, pwrite, retry_on_intr};

use super::attributes::{Node, Policy, times_of};
use super::place::Place;
use super::writers::{Shared, SmallFile};
use crate::control::Control;
use crate::error::Result;
use crate::rules::open::NEW_FILE;
use crate::tar::read::{Piece, TarEntry};

/// The mode of a file until all of its attributes are set.
pub(super) const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
/// The block by which file systems store holes.
const BLOCK_BYTES: usize = 4096;
/// Shorter runs of zeros are written: a file of many pieces is slower to read.
const MIN_HOLE_BYTES: usize = 16 * BLOCK_BYTES;

/// Makes the file of an entry, where nothing is.
pub(super) fn make(place: &Place<'_>, entry: &TarEntry, owner: (u32, u32), policy: &Policy) -> rustix::io::Result<OwnedFd> {
    // Made with its own mode it needs no other, unless something that is still to be set depends on who may do what.
    let is_final =
        owner == policy.identity && !policy.notes(owner) && entry.xattrs.is_empty() && !place.parent.has_default_acl();
    let mode = if is_final { Mode::from_raw_mode(entry.mode & 0o777) } else { PRIVATE };
    openat(&*place.parent, place.name(), NEW_FILE, mode)
}

/// Makes a file that its owner alone may read.
pub(super) fn make_private(place: &Place<'_>) -> rustix::io::Result<OwnedFd> {
    openat(&*place.parent, place.name(), NEW_FILE, PRIVATE)
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
    writer.write(Piece::Data(data))?;
    writer.finish()?;
    describe(&file, place, &small.entry, small.owner, shared)
}

/// Gives a file that was written all that its entry says.
pub(super) fn describe(
    file: &OwnedFd,
    place: &Place<'_>,
    entry: &TarEntry,
    owner: (u32, u32),
    shared: &Shared<'_>,
) -> Result<()> {
    let now = fstat(file).map_err(place.failed("stat"))?;
    let node = Node { place, fd: Some(file.as_fd()), file_type: FileType::RegularFile, now: Some(now), is_new: true };
    node.describe(entry, owner, &shared.policy, &shared.tally)?;
    node.set_times(&times_of(entry))
}

/// Writes the data of a file in order. Long runs of zeros become holes, the same ones however the data comes in pieces.
pub(super) struct FileWriter<'a> {
    file: &'a OwnedFd,
    place: &'a Place<'a>,
    control: &'a Control,
    /// Everything before this offset is written, or is a hole.
    position: u64,
    /// Zeros after that. More may follow.
    zeros: u64,
    ends_in_hole: bool,
}

impl<'a> FileWriter<'a> {
    /// Writes from the start of an empty file.
    pub fn new(file: &'a OwnedFd, place: &'a Place<'a>, control: &'a Control) -> Self {
        Self { file, place, control, position: 0, zeros: 0, ends_in_hole: false }
    }

    /// Takes the next piece.
    pub fn write(&mut self, piece: Piece<'_>) -> Result<()> {
        match piece {
            Piece::Data(data) => self.write_data(data),
            Piece::Hole(size) => {
                self.end_zeros(false)?;
                self.position += size;
                self.ends_in_hole = true;
                Ok(())
            }
        }
    }

    fn write_data(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let (length, zeros) = next_run(data, self.position + self.zeros);
            if length > 0 {
                self.end_zeros(false)?;
                self.put(&data[..length])?;
            }
            self.zeros += zeros as u64;
            data = &data[length + zeros..];
        }
        Ok(())
    }

    /// Gives the file its length, if the data has not.
    pub fn finish(mut self) -> Result<()> {
        self.end_zeros(true)?;
        if self.ends_in_hole {
            ftruncate(self.file, self.position).map_err(self.place.failed("write"))?;
        }
        Ok(())
    }

    /// Makes a hole of the zeros that came last, or writes them.
    fn end_zeros(&mut self, is_end_of_file: bool) -> Result<()> {
        static ZEROS: [u8; MIN_HOLE_BYTES] = [0; MIN_HOLE_BYTES];
        let end = self.position + std::mem::take(&mut self.zeros);
        if is_hole(self.position, end, is_end_of_file) {
            self.position = end;
            self.ends_in_hole = true;
        }
        while self.position < end {
            self.put(&ZEROS[..(end - self.position).min(MIN_HOLE_BYTES as u64) as usize])?;
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

/// Returns true if the zeros from `start` to `end` of a file hold a long run of whole blocks.
fn is_hole(start: u64, end: u64, is_end_of_file: bool) -> bool {
    let block = BLOCK_BYTES as u64;
    let whole_end = if is_end_of_file { end } else { end / block * block };
    whole_end.saturating_sub(start.next_multiple_of(block)) >= MIN_HOLE_BYTES as u64
}

/// Returns how many bytes of `data`, which is at `offset` of the file, to write, and how many zeros follow them. Zeros at
/// the start are told apart, since there may be more before them.
fn next_run(data: &[u8], offset: u64) -> (usize, usize) {
    let (mut end, mut position) = (0, 0);
    while position < data.len() {
        let at = offset + position as u64;
        let next = data.len().min(position + BLOCK_BYTES - (at % BLOCK_BYTES as u64) as usize);
        if data[position] != 0 || data[position..next].iter().any(|&byte| byte != 0) {
            let is_first = end == 0 && position > 0;
            if is_first || is_hole(offset + end as u64, at, false) {
                break;
            }
            end = next;
        }
        position = next;
    }
    (end, position - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_runs_of_zero_blocks_are_holes() {
        let data = |zeros: usize, after: usize| [vec![1; 5000], vec![0; zeros], vec![1; after]].concat();
        assert_eq!(next_run(&data(0, 10), 0), (5010, 0));
        assert_eq!(next_run(&data(65_000, 9000), 0), (79_000, 0));
        assert_eq!(next_run(&data(70_000, 9000), 0), (8192, 65_536));
        assert_eq!(next_run(&data(70_000, 0), 0), (8192, 66_808));
        assert_eq!(next_run(&[0; 65_536], 0), (0, 65_536));
        assert_eq!(next_run(&[0, 0, 1], 0), (3, 0));
        assert_eq!(next_run(&[0, 0, 1], 4094), (0, 2));
        assert_eq!(next_run(&[], 0), (0, 0));
    }

    #[test]
    fn a_hole_is_made_of_whole_blocks() {
        assert!(is_hole(0, 65_536, false));
        assert!(!is_hole(1, 65_536, false));
        assert!(is_hole(1, 69_632, false));
        assert!(!is_hole(4096, 69_631, false));
        assert!(!is_hole(0, 65_535, true));
        assert!(is_hole(0, 65_537, true));
    }
}
