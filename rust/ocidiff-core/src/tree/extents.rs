//! Files that share their blocks: reflink copies on XFS, and copies and snapshots on btrfs, are equal without being read.

use std::os::fd::OwnedFd;

use rustix::fs::{fstat, fstatfs};
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

/// Smaller files are read faster than they are looked up.
const LEAST_BYTES: u64 = 16 << 10;
/// Extents that one call gives.
const BATCH: usize = 64;

const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;

/// Bring what waits to be written to its place first (linux/fiemap.h).
const SYNC: u32 = 1;
const LAST: u32 = 1;
const SHARED: u32 = 0x2000;
/// The flag of neighbours that are reported as one extent.
const MERGED: u32 = 0x1000;
/// All that says nothing of the content.
const HARMLESS: u32 = LAST | SHARED | MERGED;

/// `FS_XFLAG_REALTIME`.
const REAL_TIME: u32 = 1;

const FIEMAP: Opcode = opcode::read_write::<Request>(b'f', 11);
const XFS_ATTRIBUTES: Opcode = opcode::read::<Attributes>(b'X', 31);
const BTRFS_FS_INFO: Opcode = opcode::read::<FsInfo>(0x94, 31);

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_flags: [u32; 3],
}

/// `struct fiemap` without its extents; the number of the call is made of its size.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    capacity: u32,
    reserved: u32,
}

#[repr(C)]
struct Map {
    request: Request,
    extents: [Extent; BATCH],
}

/// `struct fsxattr`.
#[repr(C)]
struct Attributes {
    flags: u32,
    rest: [u32; 6],
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FsInfo {
    counts: [u64; 2],
    fsid: [u8; 16],
    rest: [u8; 992],
}

/// Returns true if both files, of `size` bytes each, lie in the same blocks of one file system. False says nothing.
pub fn share_all_blocks(files: &[OwnedFd; 2], size: u64) -> bool {
    // Data that is still to be written has no place yet, or, on XFS, hides behind its old one. So both are brought to the
    // disk, but only when the answer hangs on it.
    size >= LEAST_BYTES && on_one_file_system(files) && same_extents(files, size, 0) && same_extents(files, size, SYNC)
}

fn on_one_file_system([first, second]: &[OwnedFd; 2]) -> bool {
    match fstatfs(first).map(|found| found.f_type as u64) {
        // Files of its second device, for real time, have places of their own.
        Ok(XFS) => {
            let place = |file| {
                // SAFETY: this call fills an `fsxattr`.
                let attributes = unsafe { ioctl(file, Getter::<XFS_ATTRIBUTES, Attributes>::new()) }.ok()?;
                fstat(file).ok().map(|found| (found.st_dev, attributes.flags & REAL_TIME))
            };
            place(first).is_some_and(|found| place(second) == Some(found))
        }
        // Every subvolume has a device number of its own.
        Ok(BTRFS) => {
            let fsid = |file| {
                // SAFETY: this call fills a `btrfs_ioctl_fs_info_args`.
                unsafe { ioctl(file, Getter::<BTRFS_FS_INFO, FsInfo>::new()) }.ok().map(|found| found.fsid)
            };
            fsid(first).is_some_and(|found| fsid(second) == Some(found))
        }
        _ => false,
    }
}

fn same_extents([first, second]: &[OwnedFd; 2], size: u64, flags: u32) -> bool {
    let mut maps = [EMPTY; 2];
    let mut start = 0;
    while start < size {
        // Blocks that were set aside behind the end are nobody's content.
        let range = (start, size - start);
        let [a, b] = &mut maps;
        let (Some(a), Some(b)) = (extents(first, range, flags, a), extents(second, range, flags, b)) else { return false };
        if a.len() != b.len() || !a.iter().zip(b).all(|(a, b)| same_place(a, b)) {
            return false;
        }
        // Nothing more is a hole to the end in both, which reads as zeros.
        let Some(end) = a.last().filter(|last| last.flags & LAST == 0) else { return true };
        start = end.logical + end.length;
    }
    true
}

fn same_place(a: &Extent, b: &Extent) -> bool {
    (a.logical, a.physical, a.length) == (b.logical, b.physical, b.length)
        && a.flags & b.flags & SHARED != 0
        && (a.flags | b.flags) & !HARMLESS == 0
}

const EMPTY: Map = Map {
    request: Request { start: 0, length: 0, flags: 0, mapped: 0, capacity: 0, reserved: 0 },
    extents: [Extent { logical: 0, physical: 0, length: 0, reserved: [0; 2], flags: 0, reserved_flags: [0; 3] }; BATCH],
};

/// Returns the extents of a range, given by start and length, as far as one call gives them; `None` where they are not
/// told.
fn extents<'a>(file: &OwnedFd, (start, length): (u64, u64), flags: u32, map: &'a mut Map) -> Option<&'a [Extent]> {
    map.request = Request { start, length, flags, mapped: 0, capacity: BATCH as u32, reserved: 0 };
    // SAFETY: this call reads a `fiemap` and fills up to `capacity` extents behind it, which are there.
    unsafe { ioctl(file, Updater::<FIEMAP, Map>::new(map)) }.ok()?;
    map.extents.get(..map.request.mapped as usize)
}
