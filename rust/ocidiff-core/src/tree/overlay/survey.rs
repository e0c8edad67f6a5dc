//! Finds out how an upper directory was written, by reading its directories once.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir};

use super::Format;
use crate::cause::Cause;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::rules::xattr::{Class, FUSE, OVERLAY, OVERLAY_USERXATTR, Owner, mark_of};
use crate::tree::{TreeDir, XattrPolicy, XattrReader};
use crate::whiteout;

const BUFFER_BYTES: usize = 32 << 10;
/// The inode number of the first user namespace (linux/proc_ns.h, `PROC_USER_INIT_INO`).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
/// linux/capability.h
const CAP_SYS_ADMIN: u32 = 21;

/// The marks in an upper directory.
#[derive(Debug, Default)]
pub struct Survey {
    /// Overlayfs alone wrote marks `trusted.overlay.*`, or `user.overlay.*`.
    trusted: bool,
    user: bool,
    /// Attributes `user.fuseoverlayfs.*`, or names that begin with `.wh.`.
    names: bool,
    /// Owners and modes are not those of the files.
    overridden: bool,
    has_directories: bool,
    /// The root is marked as only `index=on` does.
    pub indexed: bool,
    /// Paths of directories with a redirect.
    pub redirected: Vec<Vec<u8>>,
}

/// The facts of a directory that a survey looks at.
#[derive(Default)]
struct Listed {
    directories: Vec<CString>,
    /// All but directories, if they are wanted.
    others: Vec<CString>,
    /// It has names that begin with `.wh.`, among them that which makes it opaque.
    has_whiteouts: bool,
    is_opaque: bool,
}

impl Survey {
    /// Reads the marks of an upper directory.
    ///
    /// If its directories have none, and the caller does not know the format, then its files tell fuse-overlayfs, which
    /// notes where a file was copied from. Last come the layers between it and the lowest one.
    pub fn of(layers: &[Arc<TreeDir>], is_told: bool, control: &Control) -> Result<Self> {
        let mut survey = Self::default();
        let Some((upper, lowers)) = layers.split_first() else { return Ok(survey) };
        survey.read(upper, false, control)?;
        if is_told {
            return Ok(survey);
        }
        if survey.is_unmarked() {
            survey.read(upper, true, control)?;
        }
        for lower in lowers.iter().take(lowers.len().saturating_sub(1)) {
            if !survey.is_unmarked() {
                break;
            }
            let mut below = Self::default();
            below.read(lower, false, control)?;
            // If there are both kinds of marks, they do not say who wrote the upper directory.
            survey.names = below.names && !below.trusted && !below.user;
            (survey.trusted, survey.user) = (below.trusted && !below.names, below.user && !below.names);
        }
        Ok(survey)
    }

    fn is_unmarked(&self) -> bool {
        !self.trusted && !self.user && !self.names
    }

    /// Reads the names of all directories, and the attributes of these; or those of all files.
    fn read(&mut self, root: &Arc<TreeDir>, of_files: bool, control: &Control) -> Result<()> {
        let mut reader = XattrReader::new(XattrPolicy::Capability, root);
        // Handles of the directories above, so that a tree of any width needs few.
        let mut todo = vec![(root.clone(), Vec::new())];
        while let Some((directory, path)) = todo.pop() {
            control.check()?;
            let listed = match list(&directory, of_files) {
                // Gone since: whatever took its place is found, and refused, later.
                Err(error) if error.is_change() => continue,
                listed => listed?,
            };
            if of_files {
                self.look_at_files(&directory, &listed.others, &mut reader)?;
                if self.names {
                    return Ok(());
                }
            } else {
                self.names |= listed.has_whiteouts;
                self.has_directories |= !listed.directories.is_empty();
                self.look(&directory, &path, listed.is_opaque, &mut reader)?;
            }
            for name in listed.directories {
                let child = match directory.open_child(&name) {
                    Err(error) if error.is_change() => continue,
                    child => child?,
                };
                let path =
                    if path.is_empty() { name.to_bytes().to_vec() } else { [&path[..], b"/", name.to_bytes()].concat() };
                todo.push((child, path));
            }
        }
        Ok(())
    }

    /// Returns the format of the marks in the directory.
    pub fn format(&self, upper: &Path, told: Option<Format>) -> Result<Format> {
        let refuse = |reason: Cause| Err(Error::overlay(upper, reason));
        let format = match told {
            Some(format) => format,
            None if self.names && (self.trusted || self.user) => {
                return refuse(Cause::MixedMarks);
            }
            None if self.names => Format::Names,
            None if self.trusted => Format::Trusted,
            None if self.user => Format::User,
            None if self.has_directories && !may_read_trusted() => {
                return refuse(Cause::MayHaveTrusted);
            }
            None => Format::Trusted,
        };
        match format {
            Format::Trusted if self.has_directories && !may_read_trusted() => refuse(Cause::UnreadableTrusted),
            Format::Names if self.overridden => refuse(Cause::OwnersInAttributes),
            _ => Ok(format),
        }
    }

    /// Reads the marks of a directory. Beside the name that makes it opaque, fuse-overlayfs sets the attribute that
    /// overlayfs sets alone.
    fn look(&mut self, directory: &TreeDir, path: &[u8], is_opaque: bool, reader: &mut XattrReader) -> Result<()> {
        let is_root = path.is_empty();
        let mut has_redirect = false;
        for key in reader.keys(directory, c".")?.split(|&byte| byte == 0) {
            match Class::of(key).owner {
                Owner::File => continue,
                Owner::FuseOverlay => self.names = true,
                Owner::Note => self.overridden |= !directory.reads_notes(),
                Owner::Overlay => {}
            }
            let trusted = mark_of(key, OVERLAY);
            let mark = trusted.or_else(|| mark_of(key, OVERLAY_USERXATTR));
            let is_fuse = |mark: &[u8]| mark == b"opaque" && is_opaque;
            if let Some(mark) = mark.filter(|mark| !is_fuse(mark)) {
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

    fn look_at_files(&mut self, directory: &TreeDir, names: &[CString], reader: &mut XattrReader) -> Result<()> {
        for name in names {
            match reader.keys(directory, name) {
                Err(error) if error.is_change() => {}
                keys => self.names |= keys?.split(|&byte| byte == 0).any(|key| key.starts_with(FUSE)),
            }
        }
        Ok(())
    }
}

fn list(directory: &Arc<TreeDir>, with_others: bool) -> Result<Listed> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut entries = RawDir::new(directory.rewound()?.open_fd()?, &mut buffer);
    let mut listed = Listed::default();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(Error::sys("read directory", directory.path_of(c"")))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        listed.has_whiteouts |= name.to_bytes().starts_with(whiteout::PREFIX);
        listed.is_opaque |= name.to_bytes() == whiteout::OPAQUE;
        if is_directory(directory, name, entry.file_type())? {
            listed.directories.push(name.to_owned());
        } else if with_others {
            listed.others.push(name.to_owned());
        }
    }
    Ok(listed)
}

fn is_directory(directory: &TreeDir, name: &CStr, told: FileType) -> Result<bool> {
    match told {
        FileType::Unknown => Ok(directory.find(name)?.is_some_and(|metadata| metadata.is_directory())),
        told => Ok(told == FileType::Directory),
    }
}

/// Returns true if attributes `trusted.*` are seen: elsewhere they are silently absent.
fn may_read_trusted() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let namespace = std::fs::metadata("/proc/thread-self/ns/user").map_or(0, |found| found.ino());
    effective >> CAP_SYS_ADMIN & 1 == 1 && namespace == INITIAL_USER_NAMESPACE
}
