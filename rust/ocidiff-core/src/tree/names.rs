//! The names of one directory, in the order of a layer.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use rustix::fs::RawDir;

use super::TreeDir;
use crate::control::Control;
use crate::error::Result;

/// Room for about a thousand names a system call.
const BUFFER_BYTES: usize = 64 << 10;

/// The sorted names of a directory, packed: one buffer for all of them.
#[derive(Debug, Default)]
pub struct Names {
    /// NUL-terminated names, one behind the other.
    bytes: Vec<u8>,
    /// Offset and length of each name, NUL included; sorted by the names' raw bytes.
    places: Vec<(usize, u16)>,
}

impl Names {
    /// Reads all names but `.` and `..`.
    pub fn read(directory: &TreeDir, control: &Control) -> Result<Self> {
        let failed = |errno| directory.failed("read directory", c"", errno);
        let mut names = Self::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(directory.open_fd()?, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            // The kernel's limit on names is 255 bytes, so a length always fits.
            names.places.push((names.bytes.len(), name.len() as u16));
            names.bytes.extend_from_slice(name);
            if entries.is_buffer_empty() {
                control.check()?;
            }
        }
        let bytes = &names.bytes;
        let slice = |&(start, length): &(usize, u16)| &bytes[start..start + usize::from(length)];
        names.places.sort_unstable_by(|a, b| slice(a).cmp(slice(b)));
        Ok(names)
    }

    /// Collects these names, each once.
    pub fn collect(mut all: Vec<CString>) -> Self {
        all.sort_unstable();
        all.dedup();
        let mut names = Self::default();
        all.iter().for_each(|name| names.push(name.to_bytes()));
        names
    }

    /// Adds a name, without a NUL, that comes after all others.
    pub fn push(&mut self, name: &[u8]) {
        self.places.push((self.bytes.len(), name.len() as u16 + 1));
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
    }

    /// Returns the number of names.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the name at `index` of the order.
    pub fn get(&self, index: usize) -> &CStr {
        let (start, length) = self.places[index];
        CStr::from_bytes_with_nul(&self.bytes[start..start + usize::from(length)]).unwrap_or_default()
    }
}

/// Returns bytes of a name or path, which hold no NUL, as a C string.
pub(crate) fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}
