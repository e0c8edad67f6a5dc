//! Flags that open files and directories, and paths that lead to what is open.
//!
//! Law: nothing is followed but the path that a caller gives a root by, and no descriptor is inherited.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::OFlags;

/// A directory to list. Its path may be a symbolic link.
pub const ROOT: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A root without a right to read it. Its path may be a symbolic link.
pub const ROOT_HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A directory to list.
pub const DIRECTORY: OFlags = ROOT.union(OFlags::NOFOLLOW);
/// A directory without a right to read it.
pub const DIRECTORY_HANDLE: OFlags = ROOT_HANDLE.union(OFlags::NOFOLLOW);
/// Any inode, without a right to read it.
pub const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A file to read. It may be a pipe by now, which must not block.
pub const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// A file that does not exist yet.
pub const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Returns a path to the inode of a descriptor, for calls that refuse handles.
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Returns a path to `name` in a directory, for calls that take no directory. Only `name` is looked up again.
pub fn proc_path_below(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = proc_path(directory).into_bytes();
    path.push(b'/');
    path.extend_from_slice(name);
    path
}
