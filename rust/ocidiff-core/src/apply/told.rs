//! Tells the attributes of a file of a [`super::model`] as the kernel would.

use super::model::Inode;
use crate::idmap::IdMaps;
use crate::rules::acl;
use crate::rules::xattr::ACCESS_ACL;
use crate::tree::{Xattr, c_string};

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

/// Gives an ACL the permissions of a mode that was set after it. Returns true if it says more than the mode (acl(5)).
fn follow_mode(acl: &mut [u8], mode: u32) -> bool {
    let has_mask = acl::entries(acl).any(|entry| acl::tag(entry) == acl::MASK);
    for entry in acl::entries(acl) {
        let permissions = match acl::tag(entry) {
            acl::OWNER => mode >> 6,
            acl::MASK => mode >> 3,
            acl::OWNING_GROUP if !has_mask => mode >> 3,
            acl::OTHER => mode,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&((permissions & 7) as u16).to_le_bytes());
    }
    !acl::is_plain(acl)
}
