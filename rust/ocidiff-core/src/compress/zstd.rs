//! Zstandard: one frame, made by the library's own workers.
//!
//! With at least one worker the frame is cut into jobs of fixed size, so the bytes are the same for any number of workers.

use std::io::Write;

use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as Frame;

use super::blob::BlobSink;
use crate::error::{Error, Result};

/// Input of one job: bounds memory, and is large beside the window of the default level (2 MiB).
const JOB_BYTES: u32 = 4 << 20;
/// Jobs see a part of the window before them; 6 is a half. Given, so that the library's default cannot change it.
const OVERLAP_LOG: u32 = 6;

/// A frame that is being written.
pub struct Encoder(Frame<'static, BlobSink>);

impl Encoder {
    /// Starts a frame with `workers` threads.
    pub fn new(sink: BlobSink, level: i32, workers: u32) -> Result<Self> {
        let start = || {
            let mut frame = Frame::new(sink, level)?;
            frame.include_checksum(true)?;
            frame.multithread(workers)?;
            frame.set_parameter(CParameter::JobSize(JOB_BYTES))?;
            frame.set_parameter(CParameter::OverlapSizeLog(OVERLAP_LOG))?;
            Ok(Self(frame))
        };
        start().map_err(|source| Error::Io { op: "start zstd", path: "".into(), source })
    }

    /// Takes the next bytes of the tar.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(unwrap)
    }

    /// Ends the frame.
    pub fn finish(self) -> Result<BlobSink> {
        self.0.finish().map_err(unwrap)
    }
}

/// Returns the sink's own error, which has passed through the library as an `io::Error`.
fn unwrap(error: std::io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|source| Error::Io { op: "write", path: "".into(), source })
}
