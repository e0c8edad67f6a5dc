//! File descriptors as streams that never block for good: a cancelled call must end even if the other end of a pipe sleeps.

use std::cell::Cell;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Stat, fstat, makedev, tell};
use rustix::io::{Errno, retry_on_intr};

use crate::control::Control;
use crate::error::{Error, Result};

/// The longest wait for a pipe before the cancel flag is looked at again.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// A pipe that is ready takes at least this much without blocking (PIPE_BUF).
const PIPE_BYTES: usize = 4096;

/// The number of `/dev/null` (Documentation/admin-guide/devices.txt).
const NULL_DEVICE: (u32, u32) = (1, 3);

/// Bytes of a file that are written before the kernel is asked to bring them to the disk. So the disk works along with
/// everything else, and a final sync hardly waits.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// An open file that is read or written from its current offset.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    regular: bool,
    null: bool,
    control: Arc<Control>,
    /// Offset up to which the kernel was asked to bring the file to the disk, and bytes written since.
    asked: Cell<(u64, u64)>,
}

impl Stream {
    /// Wraps a descriptor of any kind.
    pub fn new(fd: OwnedFd, control: Arc<Control>) -> Result<Self> {
        let stat = fstat(&fd).map_err(Error::sys("stat", ""))?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let start = if regular { tell(&fd).map_err(Error::sys("seek", ""))? } else { 0 };
        Ok(Self { fd, regular, null: is_null_device(&stat), control, asked: Cell::new((start, 0)) })
    }

    /// Returns true for `/dev/null`.
    pub fn is_null_device(&self) -> bool {
        self.null
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cancelled`] as soon as somebody asked to stop.
    pub fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.control.check()?;
            let part = if self.wait(PollFlags::OUT)? { bytes } else { &bytes[..bytes.len().min(PIPE_BYTES)] };
            match retry_on_intr(|| rustix::io::write(&self.fd, part)) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.write_back(count as u64);
                }
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(Error::io("write", "", errno)),
            }
        }
        Ok(())
    }

    /// Counts written bytes, and has the kernel begin with them when they are many.
    fn write_back(&self, count: u64) {
        let (start, length) = self.asked.get();
        let length = length + count;
        if !self.regular || length < WRITE_BACK_BYTES {
            self.asked.set((start, length));
            return;
        }
        self.asked.set((start + length, 0));
        let (Ok(offset), Ok(bytes)) = (i64::try_from(start), i64::try_from(length)) else { return };
        // A hint: a kernel that does not know it loses nothing, and the fsync that follows reports a failed write.
        // SAFETY: the call takes no pointers.
        unsafe { libc::sync_file_range(self.fd.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    }

    /// Waits until the descriptor is ready; returns true if it never blocks at all.
    fn wait(&self, flags: PollFlags) -> Result<bool> {
        if self.regular || self.null {
            return Ok(true);
        }
        loop {
            self.control.check()?;
            let mut fds = [PollFd::from_borrowed_fd(self.fd.as_fd(), flags)];
            match poll(&mut fds, Some(&WAIT)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(false),
                Err(errno) => return Err(Error::io("poll", "", errno)),
            }
        }
    }
}

/// Returns true for `/dev/null`, which takes any amount at once.
pub fn is_null_device(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(NULL_DEVICE.0, NULL_DEVICE.1)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::IN).map_err(io::Error::other)?;
            match retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer)) {
                Err(Errno::AGAIN) => {}
                answer => return Ok(answer?),
            }
        }
    }
}
