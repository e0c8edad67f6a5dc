//! File descriptors as streams that never block for good: a cancelled call must end even if the other end of a pipe sleeps.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, retry_on_intr};

use crate::control::Control;
use crate::error::{Error, Result};

/// How long a wait for a pipe lasts before the cancel flag is looked at again.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// A pipe that is ready takes at least this much without blocking (PIPE_BUF).
const PIPE_BYTES: usize = 4096;

/// An open file that is read or written from its current offset.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    regular: bool,
    control: Arc<Control>,
}

impl Stream {
    /// Wraps a descriptor of any kind.
    pub fn new(fd: OwnedFd, control: Arc<Control>) -> Result<Self> {
        let stat = fstat(&fd).map_err(Error::sys("stat", ""))?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(Self { fd, regular, control })
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
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(Error::io("write", "", errno)),
            }
        }
        Ok(())
    }

    /// Waits until the descriptor is ready; tells whether it never blocks at all.
    fn wait(&self, flags: PollFlags) -> Result<bool> {
        if self.regular {
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
