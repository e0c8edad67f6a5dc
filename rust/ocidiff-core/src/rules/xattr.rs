//! The table of extended attributes: what each class of names means to layers. All that decides by the name of an attribute asks
//! it. The other engine has the same table in `python/ocidiff/layer/xattrs.py`; tests hold both to docs/layer-format.md.

use std::ffi::CStr;

use crate::metadata::FileType;

/// Capabilities of a file.
pub const CAPABILITY: &CStr = c"security.capability";
/// POSIX ACL of a file.
pub const ACCESS_ACL: &CStr = c"system.posix_acl_access";
/// POSIX ACL that is given to what is made in a directory.
pub const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// The note of what a file could not get; see [`crate::note`].
pub const NOTE: &CStr = c"user.containers.override_stat";
/// The prefix of the marks of overlayfs without the mount option `userxattr`.
pub const OVERLAY: &[u8] = b"trusted.overlay.";
/// See [`OVERLAY`].
pub const OVERLAY_USERXATTR: &[u8] = b"user.overlay.";
/// The prefix of the marks of fuse-overlayfs.
pub const FUSE: &[u8] = b"user.fuseoverlayfs.";
/// The prefix of the marks of a fuse-overlayfs that root runs; its mounts show them.
pub const FUSE_OF_ROOT: &[u8] = b"security.fuseoverlayfs.";

/// The prefix that escapes a mark of an overlay within another one.
const ESCAPE: &[u8] = b"overlay.";

/// The extended attributes that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrPolicy {
    /// `security.capability` alone, as containerd does.
    Capability,
    /// Also `user.*` without overlayfs's own, and POSIX ACLs.
    Portable,
}

/// The profiles whose layers have an attribute: they compare it and store it. An entry without it removes it from the
/// directory that it merges with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Never,
    ByOci,
    ByAll,
}

/// The ids in the value of an attribute, which an id map changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// There are none.
    None,
    /// The id of the root of a user namespace, as capabilities of revision 3 have.
    OfRoot,
    /// Those of users and groups that an ACL names.
    OfAcl,
}

/// The files that can have an attribute (xattr(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    All,
    AllButSymlinks,
    /// Regular files and directories.
    Regular,
}

/// The owner of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The file itself.
    File,
    /// overlayfs.
    Overlay,
    /// fuse-overlayfs.
    FuseOverlay,
    /// The note of what a file could not get.
    Note,
}

/// Attributes that are treated alike.
#[derive(Debug, PartialEq, Eq)]
pub struct Class {
    /// A name, or what names begin with: then it ends in a dot, or is empty.
    pattern: &'static [u8],
    stored: Stored,
    /// True if an apply sets it. Others belong to the host, or mean something to overlayfs or to us.
    pub is_accepted: bool,
    /// The ids that an id map changes.
    pub ids: Ids,
    files: Files,
    /// The owner of the attribute.
    pub owner: Owner,
}

/// The classes. The first one that fits a name counts.
#[rustfmt::skip]
static CLASSES: [Class; 12] = [
    Class { pattern: CAPABILITY.to_bytes(),  stored: Stored::ByAll, is_accepted: true,  ids: Ids::OfRoot, files: Files::All,            owner: Owner::File },
    Class { pattern: ACCESS_ACL.to_bytes(),  stored: Stored::ByOci, is_accepted: true,  ids: Ids::OfAcl,  files: Files::AllButSymlinks, owner: Owner::File },
    Class { pattern: DEFAULT_ACL.to_bytes(), stored: Stored::ByOci, is_accepted: true,  ids: Ids::OfAcl,  files: Files::AllButSymlinks, owner: Owner::File },
    Class { pattern: NOTE.to_bytes(),        stored: Stored::Never, is_accepted: false, ids: Ids::None,   files: Files::Regular,        owner: Owner::Note },
    Class { pattern: OVERLAY_USERXATTR,      stored: Stored::Never, is_accepted: false, ids: Ids::None,   files: Files::Regular,        owner: Owner::Overlay },
    Class { pattern: FUSE,                   stored: Stored::ByOci, is_accepted: true,  ids: Ids::None,   files: Files::Regular,        owner: Owner::FuseOverlay },
    Class { pattern: b"user.",               stored: Stored::ByOci, is_accepted: true,  ids: Ids::None,   files: Files::Regular,        owner: Owner::File },
    Class { pattern: OVERLAY,                stored: Stored::Never, is_accepted: false, ids: Ids::None,   files: Files::All,            owner: Owner::Overlay },
    Class { pattern: b"trusted.",            stored: Stored::Never, is_accepted: false, ids: Ids::None,   files: Files::All,            owner: Owner::File },
    Class { pattern: FUSE_OF_ROOT,           stored: Stored::Never, is_accepted: true,  ids: Ids::None,   files: Files::All,            owner: Owner::FuseOverlay },
    Class { pattern: b"system.",             stored: Stored::Never, is_accepted: true,  ids: Ids::None,   files: Files::AllButSymlinks, owner: Owner::File },
    Class { pattern: b"",                    stored: Stored::Never, is_accepted: true,  ids: Ids::None,   files: Files::All,            owner: Owner::File },
];

impl Class {
    /// Returns the class of the attribute `name`.
    pub fn of(name: &[u8]) -> &'static Self {
        let fits = |class: &&Self| match class.pattern {
            [] => true,
            [.., b'.'] => name.starts_with(class.pattern),
            _ => name == class.pattern,
        };
        let [.., last] = &CLASSES;
        CLASSES.iter().find(fits).unwrap_or(last)
    }

    /// Returns true if layers of this policy have it, so that its absence from an entry says that it is gone.
    pub fn is_stored(&self, policy: XattrPolicy) -> bool {
        match self.stored {
            Stored::Never => false,
            Stored::ByOci => policy == XattrPolicy::Portable,
            Stored::ByAll => true,
        }
    }

    /// Returns true if the kernel lets a file of this type have it.
    pub fn fits(&self, file_type: FileType) -> bool {
        match self.files {
            Files::All => true,
            Files::AllButSymlinks => file_type != FileType::Symlink,
            Files::Regular => matches!(file_type, FileType::File | FileType::Directory),
        }
    }
}

/// Returns the mark of an overlay that an attribute is, without the `prefix` of these marks. An escape is none: it is a mark of
/// an overlay within this one.
pub fn mark_of<'a>(name: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    name.strip_prefix(prefix).filter(|mark| !mark.starts_with(ESCAPE))
}

/// Returns the name under which overlayfs keeps an attribute that users of its mounts shall see as `name`, or `None` if it is
/// the same (Linux overlayfs.rst, "Nesting overlayfs mounts").
pub fn escape(name: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    name.strip_prefix(prefix).map(|rest| [prefix, ESCAPE, rest].concat())
}

/// Attributes that are left out, counted by the namespace of their names (xattr(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    security: u32,
    system: u32,
    trusted: u32,
    user: u32,
    other: u32,
}

impl Lost {
    /// Counts an attribute.
    pub fn count(&mut self, name: &[u8]) {
        let class = match name.split(|&byte| byte == b'.').next() {
            Some(b"security") => &mut self.security,
            Some(b"system") => &mut self.system,
            Some(b"trusted") => &mut self.trusted,
            Some(b"user") => &mut self.user,
            _ => &mut self.other,
        };
        *class = class.saturating_add(1);
    }

    /// Adds the counts of another entry.
    pub fn add(&mut self, other: &Self) {
        self.security = self.security.saturating_add(other.security);
        self.system = self.system.saturating_add(other.system);
        self.trusted = self.trusted.saturating_add(other.trusted);
        self.user = self.user.saturating_add(other.user);
        self.other = self.other.saturating_add(other.other);
    }

    /// Returns the counts that are not 0, each with its reason.
    pub fn told(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let classes = [
            ("xattrs.other", self.other),
            ("xattrs.security", self.security),
            ("xattrs.system", self.system),
            ("xattrs.trusted", self.trusted),
            ("xattrs.user", self.user),
        ];
        classes.into_iter().filter(|&(_, count)| count > 0).map(|(class, count)| (class, count.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a class as the page says it.
    fn row(class: &Class) -> String {
        let pattern = class.pattern.escape_ascii().to_string();
        let name = match class.pattern.last() {
            None => "others".into(),
            Some(b'.') => format!("`{pattern}*`"),
            Some(_) => format!("`{pattern}`"),
        };
        let stored = ["no", "`oci`", "all"][class.stored as usize];
        let accepted = if class.is_accepted { "yes" } else { "no" };
        let ids = ["", "root", "users and groups"][class.ids as usize];
        let files = ["all", "all but symlinks", "files, directories"][class.files as usize];
        let owner = ["", "overlayfs", "fuse-overlayfs", "ocidiff"][class.owner as usize];
        format!("| {name} | {stored} | {accepted} | {ids} | {files} | {owner} |")
            .replace("|  |", "| |")
            .replace("|  |", "| |")
    }

    #[test]
    fn the_page_has_this_table() {
        let page = include_str!("../../../../docs/layer-format.md");
        let table: Vec<_> = page.lines().skip_while(|line| !line.starts_with("| attribute | in layers")).collect();
        let rows: Vec<_> = table.iter().skip(2).take_while(|line| line.starts_with('|')).collect();
        assert_eq!(rows, CLASSES.iter().map(row).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_class_has_its_names_and_no_more() {
        let pattern = |name: &[u8]| Class::of(name).pattern;
        assert_eq!(pattern(b"user.overlay.opaque"), OVERLAY_USERXATTR);
        for name in ["user.overlay", "user.overlayx.y", "user.containers.override_stat2", "user."] {
            assert_eq!(pattern(name.as_bytes()), b"user.", "{name}");
        }
        assert_eq!(pattern(b"security.capability2"), b"");
        assert_eq!(pattern(b"system.posix_acl_"), b"system.");
        assert_eq!(pattern(b"user"), b"");
    }

    #[test]
    fn what_is_stored_is_accepted_again() {
        for class in &CLASSES {
            assert!(class.is_accepted || !class.is_stored(XattrPolicy::Portable), "{}", row(class));
            assert!(class.is_stored(XattrPolicy::Portable) || !class.is_stored(XattrPolicy::Capability), "{}", row(class));
        }
    }
}
