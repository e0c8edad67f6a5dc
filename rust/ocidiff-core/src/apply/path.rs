//! The name of an entry as a path below the root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cause::{Cause, escaped};
use crate::error::Error;
use crate::tar::read::Entry;

/// A relative path without `.`, `..` and empty components; the only kind of path past the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerPath(Vec<u8>);

impl LayerPath {
    /// Cleans the name of an entry lexically: it is relative to the root, and nothing climbs over that.
    pub fn clean(name: &[u8]) -> Self {
        let mut path: Vec<u8> = Vec::with_capacity(name.len());
        for part in name.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => path.truncate(path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
                _ => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        Self(path)
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of the directory above, empty for the root; and the last component.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }

    /// The components from the root on.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|part| !part.is_empty())
    }

    /// The path itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for messages.
    pub fn as_path(&self) -> &Path {
        show(&self.0)
    }

    /// The error of an entry that asks for what is never done.
    pub fn unsafe_entry(&self, reason: Cause) -> Error {
        let path = if self.is_root() { Path::new("/") } else { self.as_path() };
        Error::UnsafeEntry { path: path.into(), reason }
    }
}

/// The error of a hard link that cannot be made.
pub(crate) fn link_error(entry: &Entry, path: &LayerPath, target: &LayerPath, cause: Cause) -> Error {
    let (path, target, cause) = (escaped(path.as_bytes()), escaped(target.as_bytes()), Box::new(cause));
    Error::MalformedLayer { offset: entry.offset, reason: Cause::HardLink { path, target, cause } }
}

/// Bytes as a path for messages.
pub(crate) fn show(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_stay_below_the_root() {
        let cases = [
            ("a/b", "a/b"),
            ("/a//b/./c/", "a/b/c"),
            ("./a", "a"),
            ("../a", "a"),
            ("/../../a", "a"),
            ("a/../../b", "b"),
            ("a/b/../c", "a/c"),
            ("a/..", ""),
            ("..", ""),
            ("/", ""),
            ("", ""),
            ("...", "..."),
        ];
        for (name, clean) in cases {
            assert_eq!(LayerPath::clean(name.as_bytes()).0, clean.as_bytes(), "{name}");
        }
    }

    #[test]
    fn the_last_component_is_split_off() {
        let split = |name: &str| {
            let path = LayerPath::clean(name.as_bytes());
            let (parent, last) = path.split();
            (parent.to_vec(), last.to_vec())
        };
        assert_eq!(split("a/b/c"), (b"a/b".to_vec(), b"c".to_vec()));
        assert_eq!(split("a"), (b"".to_vec(), b"a".to_vec()));
    }
}
