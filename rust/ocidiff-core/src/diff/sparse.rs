//! Files with holes: what was never written is zeros, and need not be read.

use std::os::fd::OwnedFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, pread, retry_on_intr};

/// Smaller files are read, which costs less than a look for holes.
const LEAST_BYTES: u64 = 1 << 20;

/// Reads a file once, from its beginning.
pub struct SparseReader<'a> {
    file: &'a OwnedFd,
    offset: u64,
    /// The current or next stretch of data. Everything before it is a hole.
    data: (u64, u64),
}

impl<'a> SparseReader<'a> {
    /// Returns a reader for a file of `size` bytes.
    pub fn new(file: &'a OwnedFd, size: u64) -> Self {
        let known = if size < LEAST_BYTES { u64::MAX } else { 0 };
        Self { file, offset: 0, data: (0, known) }
    }

    /// Fills a part of `space`; the answer is 0 where the file has ended. Past its last data it seems to have no end.
    pub fn read(&mut self, space: &mut [u8]) -> Result<usize, Errno> {
        if self.offset >= self.data.1 {
            self.data = self.next_data()?;
        }
        let (start, end) = self.data;
        let until = if self.offset < start { start } else { end };
        let want = space.len().min(usize::try_from(until - self.offset).unwrap_or(usize::MAX));
        let space = &mut space[..want];
        let count = if self.offset < start {
            space.fill(0);
            want
        } else {
            retry_on_intr(|| pread(self.file, &mut *space, self.offset))?
        };
        self.offset += count as u64;
        Ok(count)
    }

    fn next_data(&self) -> Result<(u64, u64), Errno> {
        let start = match seek(self.file, SeekFrom::Data(self.offset)) {
            Err(Errno::NXIO) => return Ok((u64::MAX, u64::MAX)),
            // If holes are not known, everything is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((self.offset, u64::MAX)),
            start => start?,
        };
        Ok((start, seek(self.file, SeekFrom::Hole(start))?))
    }
}
