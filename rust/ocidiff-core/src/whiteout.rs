//! Whiteouts: deletions as data (image-spec layer.md, "Whiteouts").

use crate::cause::{Cause, escaped};
use crate::error::{Error, Result};

/// The prefix of the name of a whiteout.
pub const PREFIX: &[u8] = b".wh.";
/// The name that hides everything a directory had in lower layers.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// The directory at the root in which AUFS keeps a name of each file that has several; theirs are hard links to it.
pub const PSEUDO_LINKS: &[u8] = b".wh..wh.plnk";
/// The prefix of the names that AUFS kept for itself.
const META_PREFIX: &[u8] = b".wh..wh.";

/// The meaning of the last component of an entry's name for lower layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteout<'a> {
    /// The sibling of this name is gone.
    Removal(&'a [u8]),
    /// All that lower layers had in the directory is gone.
    Opaque,
    /// Bookkeeping of AUFS (`.wh..wh.plnk`, `.wh..wh.aufs`, `.wh..wh.orph`), which is in no tree.
    Meta,
}

impl<'a> Whiteout<'a> {
    /// Reads `name`, the last component of an entry's path; `None` for an ordinary name.
    ///
    /// # Errors
    /// [`Error::MalformedLayer`] for `.wh.`, `.wh..` and `.wh...`, which name nothing, the directory or its parent.
    pub fn parse(name: &'a [u8], offset: u64) -> Result<Option<Self>> {
        let Some(hidden) = name.strip_prefix(PREFIX) else { return Ok(None) };
        match hidden {
            _ if name == OPAQUE => Ok(Some(Self::Opaque)),
            _ if name.starts_with(META_PREFIX) => Ok(Some(Self::Meta)),
            b"" | b"." | b".." => {
                Err(Error::MalformedLayer { offset, reason: Cause::InvalidWhiteout { name: escaped(name) } })
            }
            _ => Ok(Some(Self::Removal(hidden))),
        }
    }
}

/// Returns true for the clean path of a file in [`PSEUDO_LINKS`].
pub fn is_pseudo_link(path: &[u8]) -> bool {
    let name = path.strip_prefix(PSEUDO_LINKS).and_then(|rest| rest.strip_prefix(b"/"));
    name.is_some_and(|name| !name.contains(&b'/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_as_the_image_spec_says() {
        let read = |name| Whiteout::parse(name, 0).unwrap();
        assert_eq!(read(b"plain"), None);
        assert_eq!(read(b".whx"), None);
        assert_eq!(read(b".wh.a"), Some(Whiteout::Removal(b"a")));
        assert_eq!(read(b".wh..a"), Some(Whiteout::Removal(b".a")));
        assert_eq!(read(b".wh....."), Some(Whiteout::Removal(b"....")));
        assert_eq!(read(OPAQUE), Some(Whiteout::Opaque));
        assert_eq!(read(b".wh..wh.plnk"), Some(Whiteout::Meta));
    }

    #[test]
    fn pseudo_links_are_files_in_one_directory_at_the_root() {
        assert!(is_pseudo_link(b".wh..wh.plnk/1.2"));
        for path in [&b".wh..wh.plnk"[..], b".wh..wh.plnk/a/b", b"d/.wh..wh.plnk/1.2", b".wh..wh.plnkx/1.2"] {
            assert!(!is_pseudo_link(path));
        }
    }

    #[test]
    fn whiteouts_of_nothing_are_refused() {
        for name in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(Whiteout::parse(name, 0).is_err());
        }
    }
}
