//! The metadata that a diff compares and a tar header carries.

use rustix::fs::{Statx, StatxAttributes, major, makedev, minor};

use crate::note::{Note, SET_IDS, STAND_IN_MODE};
use crate::rules::linux::MODE_BITS;

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket; never part of a layer.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl FileType {
    /// Returns the kind in a mode, or `None` if it is none that Linux has.
    pub fn of_mode(mode: u32) -> Option<Self> {
        use rustix::fs::FileType as Kind;
        Some(match Kind::from_raw_mode(mode) {
            Kind::RegularFile => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Symlink => Self::Symlink,
            Kind::Fifo => Self::Fifo,
            Kind::Socket => Self::Socket,
            Kind::CharacterDevice => Self::CharDevice,
            Kind::BlockDevice => Self::BlockDevice,
            Kind::Unknown => return None,
        })
    }
}

/// An inode's identity: device and inode number.
pub type InodeKey = (u64, u64);

/// Stands for an identity that is not known; no inode has it.
pub const UNKNOWN_KEY: InodeKey = (0, 0);

/// Everything lstat says that matters to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Kind of the entry.
    pub file_type: FileType,
    /// The low 12 bits of the mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Modification time: whole seconds since 1970, floored.
    pub mtime: i64,
    /// Modification time: nanoseconds after `mtime`.
    pub mtime_ns: u32,
    /// Change time, seconds and nanoseconds. It shows if a file changed while it was read.
    pub ctime: (i64, u32),
    /// Device and inode number.
    pub key: InodeKey,
    /// Number of names.
    pub links: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// True if something is mounted here (known from Linux 5.8 on).
    pub mount_root: bool,
    /// Its owner and set-id bits could neither be kept nor noted, so that nothing is said of them.
    pub lacks_owner: bool,
}

impl Metadata {
    /// Returns the metadata of an entry whose kind alone is known yet.
    pub fn of_kind(file_type: FileType) -> Self {
        Self {
            file_type,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            mtime_ns: 0,
            ctime: (0, 0),
            key: UNKNOWN_KEY,
            links: 1,
            device: (0, 0),
            mount_root: false,
            lacks_owner: false,
        }
    }

    /// Reads a statx result; `None` when the kind of the entry is none that Linux has.
    pub fn from_statx(statx: &Statx) -> Option<Self> {
        let mode = u32::from(statx.stx_mode);
        let file_type = FileType::of_mode(mode)?;
        let device = makedev(statx.stx_rdev_major, statx.stx_rdev_minor);
        Some(Self {
            file_type,
            mode: mode & MODE_BITS,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            size: statx.stx_size,
            mtime: statx.stx_mtime.tv_sec,
            mtime_ns: statx.stx_mtime.tv_nsec,
            ctime: (statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec),
            key: (makedev(statx.stx_dev_major, statx.stx_dev_minor), statx.stx_ino),
            links: statx.stx_nlink,
            device: (major(device), minor(device)),
            mount_root: statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            lacks_owner: false,
        })
    }

    /// Returns true if kind, mode, owner and device number are the same, as far as both are known.
    pub fn has_facts_of(&self, other: &Self) -> bool {
        let facts = |m: &Self| (m.file_type, m.device);
        facts(self) == facts(other) && self.has_mode_of(other) && self.has_owner_of(other)
    }

    /// Returns true if the modes are the same, as far as both are known.
    pub fn has_mode_of(&self, other: &Self) -> bool {
        let unknown = if self.lacks_owner || other.lacks_owner { SET_IDS } else { 0 };
        (self.mode ^ other.mode) & !unknown == 0
    }

    /// Returns true if the owners are the same, as far as both are known.
    pub fn has_owner_of(&self, other: &Self) -> bool {
        self.lacks_owner || other.lacks_owner || (self.uid, self.gid) == (other.uid, other.gid)
    }

    /// Returns this as `note` says it should be. What was changed on the file since the note was written stays: a mode that is not
    /// the one which the file got with the note, content in place of a device.
    pub fn noted(self, note: &Note) -> Self {
        let stands_in = note.kind.filter(|_| self.file_type == FileType::File && self.size == 0);
        let (file_type, device) = stands_in.unwrap_or((self.file_type, self.device));
        let given = if stands_in.is_some() { STAND_IN_MODE } else { note.mode & !SET_IDS };
        let mode = if self.mode == given || self.mode == note.mode { note.mode } else { self.mode };
        Self { file_type, device, mode, uid: note.uid, gid: note.gid, ..self }
    }

    /// Returns true for a whiteout of overlayfs.
    pub fn is_overlay_whiteout(&self) -> bool {
        self.file_type == FileType::CharDevice && self.device == (0, 0)
    }

    /// Returns true for a directory.
    pub fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }
}
