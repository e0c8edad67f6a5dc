//! The binary form of a POSIX ACL (linux/posix_acl.h, linux/posix_acl_xattr.h).

use std::slice::ChunksExactMut;

/// Tag of the entry of the owner.
pub const OWNER: u16 = 0x01;
/// Tag of an entry that names a user.
pub const USER: u16 = 0x02;
/// Tag of the entry of the group of the file.
pub const OWNING_GROUP: u16 = 0x04;
/// Tag of an entry that names a group.
pub const GROUP: u16 = 0x08;
/// Tag of the entry that bounds all but the owner and others.
pub const MASK: u16 = 0x10;
/// Tag of the entry of all others.
pub const OTHER: u16 = 0x20;

const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// An ACL without names has an entry each for owner, group and others.
const PLAIN_BYTES: usize = HEADER_BYTES + 3 * ENTRY_BYTES;

/// Returns the entries: each a tag, permissions and an id.
pub fn entries(acl: &mut [u8]) -> ChunksExactMut<'_, u8> {
    acl.get_mut(HEADER_BYTES..).unwrap_or_default().chunks_exact_mut(ENTRY_BYTES)
}

/// Returns the tag of an entry.
pub fn tag(entry: &[u8]) -> u16 {
    u16::from_le_bytes([entry[0], entry[1]])
}

/// Returns true if an ACL says no more than the mode, so that the kernel keeps none (acl(5)).
pub fn is_plain(acl: &[u8]) -> bool {
    acl.len() == PLAIN_BYTES
}
