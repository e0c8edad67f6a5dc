//! What an upper directory tells of how it was written, found by reading its directories once.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir};

use super::Format;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tree::{Directory, XattrPolicy, XattrReader};
use crate::whiteout;

const BUFFER_BYTES: usize = 32 << 10;
/// The inode number of the first user namespace (linux/proc_ns.h, `PROC_USER_INIT_INO`).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
/// linux/capability.h
const CAP_SYS_ADMIN: u32 = 21;

/// The marks in an upper directory.
#[derive(Debug, Default)]
pub struct Survey {
    trusted: bool,
    user: bool,
    fuse: bool,
    whiteout_names: bool,
    /// Owners and modes are not those of the files.
    overridden: bool,
    has_directories: bool,
    /// The root is marked as only `index=on` does.
    pub indexed: bool,
    /// Paths of directories with a redirect.
    pub redirected: Vec<Vec<u8>>,
}

impl Survey {
    /// Reads the names of all directories, and the attributes of these.
    pub fn of(root: &Arc<Directory>, control: &Control) -> Result<Self> {
        let mut survey = Self::default();
        let mut reader = XattrReader::new(XattrPolicy::Capability, root);
        survey.look(root, b"", &mut reader)?;
        // Handles of the directories above, so that a tree of any width needs few.
        let mut todo = vec![(root.clone(), Vec::new())];
        while let Some((directory, path)) = todo.pop() {
            control.check()?;
            let names = match survey.directories_in(&directory) {
                // Gone since: whatever took its place is found, and refused, later.
                Err(error) if error.is_change() => continue,
                names => names?,
            };
            for name in names {
                survey.has_directories = true;
                let child = match directory.open_child(&name) {
                    Err(error) if error.is_change() => continue,
                    child => child?,
                };
                let path =
                    if path.is_empty() { name.to_bytes().to_vec() } else { [&path[..], b"/", name.to_bytes()].concat() };
                survey.look(&child, &path, &mut reader)?;
                todo.push((child, path));
            }
        }
        Ok(survey)
    }

    /// How the directory is marked.
    pub fn format(&self, upper: &Path, told: Option<Format>) -> Result<Format> {
        let refuse = |reason: &str| Err(Error::overlay(upper, reason));
        let format = match told {
            Some(format) => format,
            None if self.whiteout_names && (self.trusted || self.user) => {
                return refuse("names that begin with .wh. stand beside marks of overlayfs: who wrote it cannot be known");
            }
            None if self.whiteout_names || self.fuse => Format::Names,
            None if self.trusted => Format::Trusted,
            None if self.user => Format::User,
            None if self.has_directories && !may_read_trusted() => {
                return refuse("attributes trusted.* cannot be read here, and it may have some");
            }
            None => Format::Trusted,
        };
        match format {
            Format::Trusted if self.has_directories && !may_read_trusted() => {
                refuse("attributes trusted.* cannot be read here")
            }
            Format::Names if self.overridden => refuse("owners and modes are in attributes of fuse-overlayfs"),
            _ => Ok(format),
        }
    }

    fn look(&mut self, directory: &Directory, path: &[u8], reader: &mut XattrReader) -> Result<()> {
        let is_root = path.is_empty();
        let mut has_redirect = false;
        for key in reader.keys(directory, c".")?.split(|&byte| byte == 0) {
            let trusted = key.strip_prefix(b"trusted.overlay.");
            let Some(mark) = trusted.or_else(|| key.strip_prefix(b"user.overlay.")) else {
                self.fuse |= key.starts_with(b"user.fuseoverlayfs.");
                self.overridden |= key.ends_with(b".override_stat");
                continue;
            };
            // An escape is an attribute of an overlay within this one.
            if !mark.starts_with(b"overlay.") {
                self.trusted |= trusted.is_some();
                self.user |= trusted.is_none();
                has_redirect |= mark == b"redirect";
                self.indexed |= is_root && mark == b"origin";
            }
        }
        if has_redirect {
            self.redirected.push(path.to_vec());
        }
        Ok(())
    }

    /// The names of the directories in a directory; whiteouts by name are noticed.
    fn directories_in(&mut self, directory: &Arc<Directory>) -> Result<Vec<std::ffi::CString>> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut found = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(Error::sys("read directory", directory.path_of(c"")))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.whiteout_names |= name.to_bytes().starts_with(whiteout::PREFIX);
            if is_directory(directory, name, entry.file_type())? {
                found.push(name.to_owned());
            }
        }
        Ok(found)
    }
}

fn is_directory(directory: &Directory, name: &CStr, told: FileType) -> Result<bool> {
    match told {
        FileType::Unknown => Ok(directory.find(name)?.is_some_and(|metadata| metadata.is_directory())),
        told => Ok(told == FileType::Directory),
    }
}

/// Whether attributes `trusted.*` are seen: elsewhere they are silently absent.
fn may_read_trusted() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let namespace = std::fs::metadata("/proc/thread-self/ns/user").map_or(0, |found| found.ino());
    effective >> CAP_SYS_ADMIN & 1 == 1 && namespace == INITIAL_USER_NAMESPACE
}
