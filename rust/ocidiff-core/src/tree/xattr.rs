//! Extended attributes by directory handle and name.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{getxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

use super::{TreeDir, access};
use crate::error::Result;
use crate::rules::open::proc_path_below;
use crate::rules::xattr::{CAPABILITY, Class, Lost, XattrPolicy};

/// Name and value.
pub type Xattr = (CString, Box<[u8]>);

/// The attributes of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xattrs {
    /// Those that count and are not empty, sorted by name.
    pub kept: Vec<Xattr>,
    /// Counts of the others, which no layer of these rules holds.
    pub lost: Lost,
}

/// The kernel's limits on one value and on the list of one inode's names (linux/limits.h).
const MAX_BYTES: usize = 64 << 10;
/// Room that nearly every value and list of names fits into.
const FIRST_BYTES: usize = 256;

/// Reads the attributes that count; one for each thread, because it owns a buffer.
pub struct XattrReader {
    policy: XattrPolicy,
    /// getxattrat and listxattrat (Linux 6.13); else the path through /proc is taken.
    by_handle: bool,
    buffer: Vec<u8>,
}

impl XattrReader {
    /// Returns a reader for trees on this kernel; `probe` is any open directory.
    pub fn new(policy: XattrPolicy, probe: &TreeDir) -> Self {
        // A sandbox may answer EPERM for a system call that it does not know.
        let refused = [Errno::NOSYS, Errno::PERM];
        let answer = probe.fd().and_then(|fd| get_by_handle(fd.as_fd(), c".", CAPABILITY, &mut [0; 64]));
        Self { policy, by_handle: !answer.is_err_and(|errno| refused.contains(&errno)), buffer: vec![0; MAX_BYTES] }
    }

    /// Returns the attributes of `name`.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; a missing attribute or a file system without attributes is no error.
    pub fn read(&mut self, directory: &TreeDir, name: &CStr) -> Result<Xattrs> {
        let policy = self.policy;
        let (mut wanted, mut lost) = (Vec::new(), Lost::default());
        for key in self.keys(directory, name)?.split_inclusive(|&byte| byte == 0) {
            match CStr::from_bytes_with_nul(key) {
                Ok(key) if directory.keeps_for_itself(key.to_bytes()) => {}
                Ok(key) if Class::of(key.to_bytes()).is_stored(policy) => wanted.push(key.to_owned()),
                Ok(key) => lost.count(key.to_bytes()),
                Err(_) => {}
            }
        }
        wanted.sort_unstable();
        let kept = wanted.iter().filter_map(|key| self.value(directory, name, key).transpose()).collect::<Result<_>>()?;
        Ok(Xattrs { kept, lost })
    }

    /// Returns the attributes of `name` that are compared.
    ///
    /// # Errors
    /// As [`XattrReader::read`].
    pub fn compared(&mut self, directory: &TreeDir, name: &CStr) -> Result<Vec<Xattr>> {
        match self.policy {
            XattrPolicy::Capability => Ok(self.value(directory, name, CAPABILITY)?.into_iter().collect()),
            XattrPolicy::Portable => self.read(directory, name).map(|xattrs| xattrs.kept),
        }
    }

    /// Returns the names of all attributes of `name`, each with its NUL.
    pub fn keys(&mut self, directory: &TreeDir, name: &CStr) -> Result<&[u8]> {
        let here = directory.open_fd()?;
        let answer = if self.by_handle {
            sized(&mut self.buffer, |buffer| list_by_handle(here.as_fd(), name, buffer))
        } else {
            let path = proc_path_below(here.as_fd(), name.to_bytes());
            sized(&mut self.buffer, |buffer| llistxattr(&path, buffer))
        };
        match answer {
            Ok(length) => Ok(&self.buffer[..length]),
            Err(Errno::OPNOTSUPP) => Ok(&[]),
            Err(errno) => Err(directory.failed("list xattrs", name, errno)),
        }
    }

    fn value(&mut self, directory: &TreeDir, name: &CStr, key: &CStr) -> Result<Option<Xattr>> {
        let Some(value) = self.raw(directory, name, key)?.filter(|value| !value.is_empty()) else { return Ok(None) };
        Ok(Some((key.to_owned(), directory.mapped(name, key, value)?)))
    }

    /// Returns the attribute `key` of `name` as it is, whatever the policy; it may be empty.
    pub fn raw(&mut self, directory: &TreeDir, name: &CStr, key: &CStr) -> Result<Option<&[u8]>> {
        let here = directory.open_fd()?;
        let mut answer = if self.by_handle {
            sized(&mut self.buffer, |buffer| get_by_handle(here.as_fd(), name, key, buffer))
        } else {
            let path = proc_path_below(here.as_fd(), name.to_bytes());
            sized(&mut self.buffer, |buffer| lgetxattr(&path, key, buffer))
        };
        if matches!(answer, Err(Errno::ACCESS)) && access::is_bound() {
            let buffer = &mut self.buffer;
            answer = access::while_open(here.as_fd(), name, |path| sized(buffer, |buffer| getxattr(path, key, buffer)));
        }
        match answer {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Ok(length) => Ok(Some(&self.buffer[..length])),
            Err(errno) => Err(directory.failed("read xattr", name, errno)),
        }
    }
}

/// Calls with a little room first: the kernel clears as much memory as it is offered, a page of it in the time of the rest.
fn sized(buffer: &mut [u8], call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<usize> {
    match call(&mut buffer[..FIRST_BYTES]) {
        Err(Errno::RANGE) => call(buffer),
        answer => answer,
    }
}

/// `struct xattr_args` of linux/xattr.h.
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

pub(super) fn get_by_handle(
    directory: BorrowedFd<'_>,
    name: &CStr,
    key: &CStr,
    buffer: &mut [u8],
) -> rustix::io::Result<usize> {
    /// The number is the same on every architecture (asm-generic/unistd.h).
    const SYS_GETXATTRAT: libc::c_long = 464;
    let args = XattrArgs { value: buffer.as_mut_ptr() as u64, size: buffer.len() as u32, flags: 0 };
    // SAFETY: all pointers outlive the call; the kernel writes at most `size` bytes to `value`, which is `buffer`.
    let answer = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            directory.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            key.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    length_or_errno(answer)
}

fn list_by_handle(directory: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    /// The number is the same on every architecture (asm-generic/unistd.h).
    const SYS_LISTXATTRAT: libc::c_long = 465;
    // SAFETY: all pointers outlive the call; the kernel writes at most `buffer.len()` bytes to `buffer`.
    let answer = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            directory.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    length_or_errno(answer)
}

fn length_or_errno(answer: libc::c_long) -> rustix::io::Result<usize> {
    usize::try_from(answer).map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_ways_to_the_attributes_agree() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        let file = dir.path().join("f");
        let set = |key: &str, value: &[u8]| rustix::fs::lsetxattr(&file, key, value, rustix::fs::XattrFlags::empty());
        if set("user.b", b"2") == Err(Errno::OPNOTSUPP) {
            assert_ne!(std::env::var("OCIDIFF_REQUIRE").as_deref(), Ok("all"), "the file system has no attributes");
            return;
        }
        set("user.a", b"1").unwrap();
        set("user.empty", b"").unwrap();
        set("user.overlay.origin", b"3").unwrap();
        let long = vec![b'x'; FIRST_BYTES + 1];
        set("user.long", &long).unwrap();
        let root = TreeDir::open_root(dir.path()).unwrap();
        let mut reader = XattrReader::new(XattrPolicy::Portable, &root);
        let expected = [(c"user.a", &b"1"[..]), (c"user.b", b"2"), (c"user.long", &long)];
        let expected: Vec<Xattr> = expected.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        assert_eq!(reader.read(&root, c"f").unwrap().kept, expected);
        reader.by_handle = false;
        assert_eq!(reader.read(&root, c"f").unwrap().kept, expected);
        let mut capability = XattrReader::new(XattrPolicy::Capability, &root);
        assert_eq!(capability.compared(&root, c"f").unwrap(), []);
        let told = |reader: &mut XattrReader| reader.read(&root, c"f").unwrap().lost.told().collect::<Vec<_>>();
        assert_eq!(told(&mut reader), [("xattrs.user", 1)]);
        assert_eq!(told(&mut capability), [("xattrs.user", 5)]);
    }
}
