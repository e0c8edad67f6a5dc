//! Gzip members one after another, read as one stream. Spec: RFC 1952.

use std::io::{self, BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};

/// Window bits of gzip: 32 KiB.
const WINDOW_BITS: u8 = 15;

/// Reads a blob of gzip members. zlib reads the headers too, whose fields may then have any length and take no memory.
pub(super) struct GzipReader<B> {
    blob: B,
    member: Decompress,
    /// True between members, where the blob may end.
    is_between: bool,
    is_broken: bool,
}

impl<B: BufRead> GzipReader<B> {
    /// Reads from the start of a member.
    pub fn new(blob: B) -> Self {
        Self { blob, member: Decompress::new_gzip(WINDOW_BITS), is_between: true, is_broken: false }
    }

    /// Returns the blob.
    pub fn get_ref(&self) -> &B {
        &self.blob
    }
}

impl<B: BufRead> Read for GzipReader<B> {
    /// Returns the bytes before a fault first, and then its error.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.is_broken && !out.is_empty() {
            let input = self.blob.fill_buf()?;
            let is_end = input.is_empty();
            if self.is_between {
                if is_end {
                    return Ok(0);
                }
                self.member.reset(true);
                self.is_between = false;
            }
            let before = (self.member.total_in(), self.member.total_out());
            let status = self.member.decompress(input, out, FlushDecompress::None);
            let taken = (self.member.total_in() - before.0) as usize;
            let made = (self.member.total_out() - before.1) as usize;
            self.blob.consume(taken);
            self.is_between = matches!(status, Ok(Status::StreamEnd));
            self.is_broken = status.is_err();
            // Python's zlib does not give the last byte before a fault, and both engines shall stop at the same place.
            let given = if self.is_broken { made.saturating_sub(1) } else { made };
            if given > 0 {
                return Ok(given);
            }
            if taken == 0 && !self.is_between && !self.is_broken {
                return Err(if is_end { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData }.into());
            }
        }
        if self.is_broken { Err(io::ErrorKind::InvalidData.into()) } else { Ok(0) }
    }
}
