//! Tells the attributes of a file of a [`super::model`] as the kernel would.

use std::ffi::CString;

use super::model::Inode;
use crate::idmap::IdMaps;
use crate::rules::xattr::ACCESS_ACL;
use crate::tree::Xattr;

/// Tags of POSIX ACL entries (linux/posix_acl.h), and how long they are.
const ACL_USER_OBJ: u16 = 0x01;
const ACL_GROUP_OBJ: u16 = 0x04;
const ACL_MASK: u16 = 0x10;
const ACL_OTHER: u16 = 0x20;
const ACL_HEADER_BYTES: usize = 4;
const ACL_ENTRY_BYTES: usize = 8;
/// An ACL without names says no more than the mode, and is not kept.
const ACL_PLAIN_ENTRIES: usize = 3;

/// Returns the attributes as the kernel tells them.
pub fn told_xattrs<C>(inode: &Inode<C>) -> Vec<Xattr> {
    let mut xattrs = Vec::new();
    for (name, value) in &inode.xattrs {
        let mut value = value.clone();
        if name == ACCESS_ACL.to_bytes() && !value.is_empty() && !follow_mode(&mut value, inode.mode) {
            continue;
        }
        // A capability that is bound to the root of the host's namespace is told as one that is bound to none. Without
        // ranges no id is outside a map.
        let _ = IdMaps::default().xattr(name, &mut value);
        xattrs.push((c_string(name), value.into()));
    }
    xattrs
}

/// Gives an ACL the permissions of a mode that was set after it; tells whether it says more than the mode (acl(5)).
fn follow_mode(acl: &mut [u8], mode: u32) -> bool {
    let entries = acl.get_mut(ACL_HEADER_BYTES..).unwrap_or_default();
    let tag = |entry: &[u8]| u16::from_le_bytes([entry[0], entry[1]]);
    let has_mask = entries.chunks_exact(ACL_ENTRY_BYTES).any(|entry| tag(entry) == ACL_MASK);
    for entry in entries.chunks_exact_mut(ACL_ENTRY_BYTES) {
        let permissions = match tag(entry) {
            ACL_USER_OBJ => mode >> 6,
            ACL_MASK => mode >> 3,
            ACL_GROUP_OBJ if !has_mask => mode >> 3,
            ACL_OTHER => mode,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&((permissions & 7) as u16).to_le_bytes());
    }
    entries.len() != ACL_PLAIN_ENTRIES * ACL_ENTRY_BYTES
}

/// Bytes that came from a layer's header, which hold no NUL.
pub fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}
