//! Contents that are kept until they are needed, in a file without a name.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::tar::read::Piece;

const BLOCK_BYTES: usize = 256 << 10;

/// The file, which is made for the first content.
#[derive(Debug)]
pub struct AsideFile {
    directory: PathBuf,
    file: Option<File>,
    end: u64,
}

impl AsideFile {
    /// Returns a file in `directory`; `None` for the directory of temporary files.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory: directory.unwrap_or_else(std::env::temp_dir), file: None, end: 0 }
    }

    /// Returns the offset of the next piece.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Keeps a piece; zeros take no room.
    pub fn add(&mut self, piece: Piece<'_>) -> Result<()> {
        let data = match piece {
            Piece::Hole(size) => {
                self.end = self.end.saturating_add(size);
                return Ok(());
            }
            Piece::Data(data) => data,
        };
        let failed = |source| Error::temporary(&self.directory, source);
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.directory).map_err(failed)?,
        };
        if data.iter().any(|&byte| byte != 0) {
            file.write_all_at(data, self.end).map_err(failed)?;
        }
        self.file = Some(file);
        self.end = self.end.saturating_add(data.len() as u64);
        Ok(())
    }

    /// Hands out the `size` bytes at `start`.
    pub fn read(&self, start: u64, size: u64, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut done = 0;
        while done < size {
            let want = (size - done).min(BLOCK_BYTES as u64) as usize;
            let mut filled = 0;
            while filled < want {
                let place = start + done + filled as u64;
                let read = self.file.as_ref().map_or(Ok(0), |file| file.read_at(&mut block[filled..want], place));
                match read.map_err(|source| Error::temporary(&self.directory, source))? {
                    // Zeros at the end are not in the file.
                    0 => {
                        block[filled..want].fill(0);
                        break;
                    }
                    count => filled += count,
                }
            }
            take(&block[..want])?;
            done += want as u64;
        }
        Ok(())
    }
}
