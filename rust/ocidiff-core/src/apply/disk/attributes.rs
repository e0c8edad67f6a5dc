//! Sets what an entry says of an object besides its content: owner, extended attributes, mode and times, in this order.
//!
//! A new owner clears set-id bits and capabilities, so those come after it; writing changes times, so they come last.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, RawMode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, fchmod, fchown,
    flistxattr, fremovexattr, fsetxattr, fstat, futimens, lgetxattr, llistxattr, lremovexattr, lsetxattr, openat, utimensat,
};
use rustix::io::{Errno, Result as SystemResult};
use rustix::path::Arg;
use rustix::process::{getegid, geteuid};

use super::handle::OWNER_ALL;
use super::place::Place;
use crate::apply::{ApplyOptions, Destination, Skipped};
use crate::cause::{Cause, escaped};
use crate::error::{Result, words_of};
use crate::metadata;
use crate::note::{MAX_NOTE_BYTES, Note, SET_IDS, STAND_IN_MODE};
use crate::rules::linux::MODE_BITS;
use crate::rules::open::{HANDLE, proc_path};
use crate::rules::xattr::{ACCESS_ACL, Class, Ids, NOTE, OVERLAY, OVERLAY_USERXATTR, XattrPolicy, escape};
use crate::tar::Time;
use crate::tar::read::TarEntry;

/// The kernel's limit on the list of one inode's attributes (linux/limits.h).
const LIST_BYTES: usize = 64 << 10;
/// The rights that the owner of a file needs to read and set its attributes.
const OWNER_RW: RawMode = 0o600;

/// The kind that an empty file stands for, and the number of a device.
pub(super) type NotedKind = (metadata::FileType, (u32, u32));

/// The rules by which all entries of one apply get their attributes.
#[derive(Debug)]
pub(super) struct Policy {
    /// Owners are set, and each failure is an error.
    pub same_owner: bool,
    /// The owner of what this process makes.
    pub identity: (u32, u32),
    /// Devices that may not be made are no error.
    pub may_lack_devices: bool,
    /// There may be notes of layers before, which are wrong once an entry can keep what it says.
    pub has_notes: bool,
    /// True if it is an error that an attribute which a layer stores cannot be kept.
    pub is_exact: bool,
    /// The prefix of the attributes that overlayfs reads in this target.
    pub overlay_prefix: Option<&'static [u8]>,
}

impl Policy {
    /// Returns the rules for this process. `has_notes` is true if the target has notes.
    pub fn new(options: &ApplyOptions, has_notes: bool) -> Self {
        Self {
            same_owner: options.same_owner,
            identity: (geteuid().as_raw(), getegid().as_raw()),
            may_lack_devices: !options.same_owner || is_in_user_namespace(),
            has_notes: has_notes || !options.same_owner,
            is_exact: options.is_upper,
            overlay_prefix: match options.destination {
                Destination::Directory => None,
                Destination::Overlay => Some(OVERLAY),
                Destination::OverlayUserxattr => Some(OVERLAY_USERXATTR),
            },
        }
    }

    fn keeps(&self, owner: (u32, u32)) -> bool {
        self.same_owner || owner == self.identity
    }

    /// Returns true if the owner of an entry is noted. The owner is noted too if it is this user: files that the user
    /// makes later have no note, and are root's in a tree whose root the user is.
    pub fn notes(&self, owner: (u32, u32)) -> bool {
        !self.keeps(owner) || self.notes_all()
    }

    /// Returns true if all owners are noted.
    pub fn notes_all(&self) -> bool {
        !self.same_owner && self.identity != (0, 0)
    }

    /// Returns the mode of an entry, without set-id bits where its owner is not kept: they would lend the rights of
    /// somebody else.
    pub fn mode_of(&self, entry: &TarEntry, owner: (u32, u32)) -> RawMode {
        if self.keeps(owner) { entry.mode } else { entry.mode & !SET_IDS }
    }
}

/// Returns true in a user namespace, where even root cannot make devices. False if that is not known.
fn is_in_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Counts what could not be kept; shared by all threads that write.
#[derive(Debug, Default)]
pub(super) struct Tally {
    owners: AtomicU64,
    recorded: AtomicU64,
    devices: AtomicU64,
    xattrs: AtomicU64,
    aufs: AtomicU64,
}

impl Tally {
    pub fn device(&self) {
        self.devices.fetch_add(1, Relaxed);
    }

    pub fn aufs(&self) {
        self.aufs.fetch_add(1, Relaxed);
    }

    /// Returns the counts so far.
    pub fn skipped(&self) -> Skipped {
        Skipped {
            owners: self.owners.load(Relaxed),
            recorded: self.recorded.load(Relaxed),
            devices: self.devices.load(Relaxed),
            xattrs: self.xattrs.load(Relaxed),
            aufs: self.aufs.load(Relaxed),
        }
    }
}

/// An object that was made, merged or linked. It is changed by its descriptor if that can be written, else by its name.
pub(super) struct Node<'a> {
    pub place: &'a Place<'a>,
    pub fd: Option<BorrowedFd<'a>>,
    pub file_type: FileType,
    /// The stat of the object now, if it is known.
    pub now: Option<Stat>,
    /// True if this entry made the object.
    pub is_new: bool,
}

impl Node<'_> {
    /// Sets owner, attributes and mode.
    pub fn describe(&self, entry: &TarEntry, owner: (u32, u32), policy: &Policy, tally: &Tally) -> Result<()> {
        let place = self.place;
        let is_closed = self.is_closed(policy);
        if is_closed {
            // Only a user who may write can set attributes.
            self.set_mode(OWNER_ALL).map_err(place.failed("chmod"))?;
        }
        let gave = match policy.same_owner {
            true => self.set_owner(owner).map_err(|errno| match errno {
                Errno::INVAL => place.unsafe_entry(Cause::UnknownOwner { uid: owner.0, gid: owner.1 }),
                _ => place.failed("chown")(errno),
            })?,
            // An earlier layer may have given it another owner. It becomes what this process would have made: else the
            // owner would seem to have been changed after the note.
            false if !self.is_new && !place.path.is_root() => match self.set_owner(policy.identity) {
                Err(Errno::PERM) => false,
                done => done.map_err(place.failed("chown"))?,
            },
            false => false,
        };
        self.remove_other_xattrs(entry).map_err(place.failed("remove xattr of"))?;
        // An ACL may forbid its owner to set more of them.
        let is_acl = |(name, _): &(&Vec<u8>, _)| Class::of(name).ids == Ids::OfAcl;
        let (acls, others): (Vec<_>, Vec<_>) = entry.xattrs.iter().partition(is_acl);
        for (name, value) in others {
            self.apply_xattr(name, value, policy, tally)?;
        }
        if policy.notes(owner) {
            let is_noted = self.note(owner, entry.mode, None)?;
            // Whoever reads the tree as a user takes what has no note for root's.
            if policy.is_exact && !is_noted && owner != (0, 0) {
                return Err(place.unsupported(Cause::OwnerOfRootOnly { uid: owner.0, gid: owner.1 }));
            }
            let lacks = u64::from(!policy.keeps(owner));
            tally.owners.fetch_add(lacks, Relaxed);
            tally.recorded.fetch_add(lacks & u64::from(is_noted), Relaxed);
        } else if policy.has_notes && self.can_have(NOTE.to_bytes()) && !self.is_new {
            // A note on the root says that there are others.
            match place.path.is_root() {
                true => drop(self.note(owner, entry.mode, None)?),
                false => self.remove_xattr(NOTE).map_err(place.failed("remove xattr of"))?,
            }
        }
        for (name, value) in acls {
            self.apply_xattr(name, value, policy, tally)?;
        }
        let mut mode = policy.mode_of(entry, owner);
        if self.file_type == FileType::Directory {
            // Its own mode could forbid what is still to be made in it.
            mode |= OWNER_ALL;
        }
        let is_set = self.now.is_some_and(|now| now.st_mode & MODE_BITS == mode) && entry.xattrs.is_empty();
        if is_set && !is_closed && !(gave && mode & SET_IDS != 0) {
            return Ok(());
        }
        self.set_mode(mode).map_err(place.failed("chmod"))
    }

    /// Gives the object its owner, unless it has it: the kernel would clear capabilities that no entry sets again. Tells
    /// whether it did.
    fn set_owner(&self, (uid, gid): (u32, u32)) -> SystemResult<bool> {
        if self.now.is_some_and(|now| (now.st_uid, now.st_gid) == (uid, gid)) {
            return Ok(false);
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self.fd {
            Some(fd) => fchown(fd, uid, gid)?,
            None => chownat(&*self.place.parent, self.place.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?,
        }
        Ok(true)
    }

    fn apply_xattr(&self, name: &[u8], value: &[u8], policy: &Policy, tally: &Tally) -> Result<()> {
        let escaped = policy.overlay_prefix.and_then(|prefix| escape(name, prefix));
        let name = escaped.as_deref().unwrap_or(name);
        let left_out = if escaped.is_none() && !Class::of(name).is_accepted {
            true
        } else {
            match self.set_xattr(name, value) {
                Ok(()) => false,
                Err(errno) => self.may_lack(name, errno, policy)?,
            }
        };
        tally.xattrs.fetch_add(left_out.into(), Relaxed);
        Ok(())
    }

    /// Returns true if the object may lack an attribute that could not be set.
    fn may_lack(&self, name: &[u8], errno: Errno, policy: &Policy) -> Result<bool> {
        let is_needed = policy.is_exact && Class::of(name).is_stored(XattrPolicy::Portable);
        match errno {
            Errno::OPNOTSUPP | Errno::PERM if is_needed => Err(self.place.failed("set xattr of")(errno)),
            Errno::OPNOTSUPP => Ok(true),
            Errno::PERM if !self.can_have(name) => Ok(true),
            Errno::PERM if is_for_root(name) && !policy.same_owner => Ok(true),
            // The kernel refuses the attribute itself, not the file.
            Errno::INVAL | Errno::RANGE | Errno::TOOBIG | Errno::NOSPC => {
                let (name, why) = (escaped(name), words_of(&errno.into()));
                Err(self.place.unsafe_entry(Cause::RefusedXattr { name, why }))
            }
            _ => Err(self.place.failed("set xattr of")(errno)),
        }
    }

    /// Returns true for a file of this process that an earlier entry made, and that its mode keeps us from writing to.
    fn is_closed(&self, policy: &Policy) -> bool {
        let is_ours = |now: &Stat| now.st_uid == policy.identity.0 && now.st_mode & OWNER_RW != OWNER_RW;
        let is_old_file = !self.is_new && self.file_type == FileType::RegularFile;
        is_old_file && policy.identity.0 != 0 && self.now.as_ref().is_some_and(is_ours)
    }

    /// Returns the kind that an empty file stands for, if its note says one.
    pub fn noted_kind(&self, policy: &Policy) -> Result<Option<NotedKind>> {
        if self.file_type != FileType::RegularFile || self.now.is_none_or(|now| now.st_size != 0) {
            return Ok(None);
        }
        if self.is_closed(policy) {
            self.set_mode(STAND_IN_MODE).map_err(self.place.failed("chmod"))?;
        }
        let mut value = [0; MAX_NOTE_BYTES];
        match lgetxattr(self.place.parent.proc_path_of(self.place.name()), NOTE, &mut value) {
            Ok(length) => Ok(Note::parse(&value[..length]).and_then(|note| note.kind)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::ACCESS) => Ok(None),
            Err(errno) => Err(self.place.failed("read xattr of")(errno)),
        }
    }

    /// Makes an empty file stand for what `kind` says; false when that cannot be noted. Counted in `tally`, unless by the
    /// entry that made it.
    pub fn stand_in(
        &self,
        entry: &TarEntry,
        owner: (u32, u32),
        kind: NotedKind,
        policy: &Policy,
        tally: Option<&Tally>,
    ) -> Result<bool> {
        if self.is_closed(policy) {
            self.set_mode(OWNER_ALL).map_err(self.place.failed("chmod"))?;
        }
        let is_noted = self.note(owner, entry.mode, Some(kind))?;
        if let Some(tally) = tally {
            if self.place.parent.has_default_acl() {
                self.remove_xattr(ACCESS_ACL.to_bytes()).map_err(self.place.failed("remove xattr of"))?;
            }
            tally.xattrs.fetch_add(entry.xattrs.len() as u64, Relaxed);
            tally.owners.fetch_add(u64::from(!policy.keeps(owner)), Relaxed);
            tally.recorded.fetch_add(u64::from(is_noted), Relaxed);
        }
        if !is_noted {
            return Ok(false);
        }
        self.set_mode(STAND_IN_MODE).map(|()| true).map_err(self.place.failed("chmod"))
    }

    /// Returns true if the kernel lets a file of this type have the attribute `name`.
    fn can_have(&self, name: &[u8]) -> bool {
        let file_type = metadata::FileType::of_mode(self.file_type.as_raw_mode());
        file_type.is_some_and(|file_type| Class::of(name).fits(file_type))
    }

    /// Notes what the entry says and the object may not have, for a diff to restore; false when that cannot be.
    fn note(&self, (uid, gid): (u32, u32), mode: RawMode, kind: Option<NotedKind>) -> Result<bool> {
        if !self.can_have(NOTE.to_bytes()) {
            return Ok(false);
        }
        match self.set_xattr(NOTE.to_bytes(), &Note { uid, gid, mode, kind }.encode()) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(self.place.failed("set xattr of")(errno)),
        }
    }

    /// Removes the attributes that a layer can carry and this entry does not have.
    fn remove_other_xattrs(&self, entry: &TarEntry) -> SystemResult<()> {
        if self.file_type == FileType::Directory && !self.is_new {
            for name in self.xattrs()?.split(|&byte| byte == 0) {
                if Class::of(name).is_stored(XattrPolicy::Portable) && !entry.xattrs.contains_key(name) {
                    self.remove_xattr(name)?;
                }
            }
        }
        let inherits = self.is_new && !matches!(self.file_type, FileType::Directory | FileType::Symlink);
        if inherits && self.place.parent.has_default_acl() && !entry.xattrs.contains_key(ACCESS_ACL.to_bytes()) {
            return self.remove_xattr(ACCESS_ACL.to_bytes());
        }
        Ok(())
    }

    fn xattrs(&self) -> SystemResult<Vec<u8>> {
        let mut list = vec![0; LIST_BYTES];
        let length = match self.fd {
            Some(fd) => flistxattr(fd, &mut list[..]),
            None => llistxattr(self.place.parent.proc_path_of(self.place.name()), &mut list[..]),
        };
        match length {
            Ok(length) => list.truncate(length),
            Err(Errno::OPNOTSUPP) => list.clear(),
            Err(errno) => return Err(errno),
        }
        Ok(list)
    }

    /// Sets one attribute.
    fn set_xattr(&self, name: &[u8], value: &[u8]) -> SystemResult<()> {
        match self.fd {
            Some(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            None => lsetxattr(self.place.parent.proc_path_of(self.place.name()), name, value, XattrFlags::empty()),
        }
    }

    fn remove_xattr(&self, name: impl Arg + Copy) -> SystemResult<()> {
        let removed = match self.fd {
            Some(fd) => fremovexattr(fd, name),
            None => lremovexattr(self.place.parent.proc_path_of(self.place.name()), name),
        };
        match removed {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    /// Changes the mode; a symbolic link has none.
    fn set_mode(&self, mode: RawMode) -> SystemResult<()> {
        let mode = Mode::from_raw_mode(mode);
        match self.fd {
            Some(fd) => fchmod(fd, mode),
            None if self.file_type == FileType::Symlink => Ok(()),
            None => {
                // There is no chmod that does not follow before Linux 6.6: pin the inode and look at it.
                let pinned = openat(&*self.place.parent, self.place.name(), HANDLE, Mode::empty())?;
                if FileType::from_raw_mode(fstat(&pinned)?.st_mode) != self.file_type {
                    return Err(Errno::LOOP);
                }
                chmod(proc_path(pinned.as_fd()), mode)
            }
        }
    }

    /// Sets both times.
    pub fn set_times(&self, times: &Timestamps) -> Result<()> {
        let done = match self.fd {
            Some(fd) => futimens(fd, times),
            None => utimensat(&*self.place.parent, self.place.name(), times, AtFlags::SYMLINK_NOFOLLOW),
        };
        done.map_err(self.place.failed("set times of"))
    }
}

/// Returns the times of an entry, whole: the file system rounds or bounds what it cannot hold. Reading counts as no later
/// than writing where the entry does not say.
pub(super) fn times_of(entry: &TarEntry) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    let atime = entry.atime.map_or(entry.mtime, |atime| atime.max(entry.mtime));
    Timestamps { last_access: spec(atime), last_modification: spec(entry.mtime) }
}

/// Returns true if only root may set the attribute.
fn is_for_root(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.")
}
