//! Id maps: which id in a container an id of the host stands for (user_namespaces(7)).

use crate::metadata::Metadata;
use crate::rules::acl;
use crate::rules::xattr::{Class, Ids};

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the container.
    pub container: u32,
    /// The first id on the host.
    pub host: u32,
    /// The number of ids.
    pub count: u32,
}

/// Maps ids of files; without ranges they stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// Ranges of user ids.
    pub users: Vec<IdRange>,
    /// Ranges of group ids.
    pub groups: Vec<IdRange>,
}

/// An id that is outside its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsideMap {
    /// `user` or `group`.
    pub kind: &'static str,
    /// The id on the host.
    pub id: u32,
}

/// Stands for an id outside the map: no file can have it (user_namespaces(7), "4294967295 is left unmapped").
pub const UNMAPPED: u32 = u32::MAX;

/// `security.capability` with and without the id of the root of a namespace (linux/capability.h).
const CAPABILITY_BYTES: [usize; 2] = [24, 20];
const CAPABILITY_REVISIONS: [u8; 2] = [3, 2];

impl IdMaps {
    /// Returns true if all ids stay as they are.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Returns the metadata with ids of the container, [`UNMAPPED`] for one outside: marks of an overlay may have any
    /// owner.
    pub fn metadata(&self, found: Metadata) -> Metadata {
        let uid = map(&self.users, found.uid).unwrap_or(UNMAPPED);
        let gid = map(&self.groups, found.gid).unwrap_or(UNMAPPED);
        Metadata { uid, gid, ..found }
    }

    /// Checks that the map has both ids of the host.
    ///
    /// # Errors
    /// The first id that it does not have.
    pub fn check(&self, uid: u32, gid: u32) -> Result<(), OutsideMap> {
        self.user(uid)?;
        self.group(gid).map(|_| ())
    }

    /// Gives the value of the attribute `key` ids of the container: a capability of the container's root needs none.
    ///
    /// # Errors
    /// The first id that is outside the map.
    pub fn xattr(&self, key: &[u8], value: &mut Vec<u8>) -> Result<(), OutsideMap> {
        match Class::of(key).ids {
            Ids::None => Ok(()),
            Ids::OfRoot => self.capability(value),
            Ids::OfAcl => self.acl(value),
        }
    }

    fn capability(&self, value: &mut Vec<u8>) -> Result<(), OutsideMap> {
        if value.len() != CAPABILITY_BYTES[0] || value[3] != CAPABILITY_REVISIONS[0] {
            return Ok(());
        }
        match self.user(id_at(value, CAPABILITY_BYTES[1]))? {
            0 => {
                value.truncate(CAPABILITY_BYTES[1]);
                value[3] = CAPABILITY_REVISIONS[1];
            }
            root => value[CAPABILITY_BYTES[1]..].copy_from_slice(&root.to_le_bytes()),
        }
        Ok(())
    }

    fn acl(&self, value: &mut [u8]) -> Result<(), OutsideMap> {
        for entry in acl::entries(value) {
            let id = id_at(entry, 4);
            let mapped = match acl::tag(entry) {
                acl::USER => self.user(id)?,
                acl::GROUP => self.group(id)?,
                _ => continue,
            };
            entry[4..].copy_from_slice(&mapped.to_le_bytes());
        }
        Ok(())
    }

    fn user(&self, id: u32) -> Result<u32, OutsideMap> {
        map(&self.users, id).ok_or(OutsideMap { kind: "user", id })
    }

    fn group(&self, id: u32) -> Result<u32, OutsideMap> {
        map(&self.groups, id).ok_or(OutsideMap { kind: "group", id })
    }
}

fn map(ranges: &[IdRange], id: u32) -> Option<u32> {
    if ranges.is_empty() {
        return Some(id);
    }
    let range = ranges.iter().find(|range| id.checked_sub(range.host).is_some_and(|offset| offset < range.count))?;
    range.container.checked_add(id - range.host)
}

fn id_at(bytes: &[u8], start: usize) -> u32 {
    bytes.get(start..start + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}
