//! The name of an entry as a path below the root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cause::{Cause, escaped};
use crate::error::{Error, Result};
use crate::tar::read::TarEntry;

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

    /// Returns true for the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the path of the directory above, empty for the root; and the last component.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }

    /// Returns the components from the root on.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|part| !part.is_empty())
    }

    /// Returns the path itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path for messages.
    pub fn as_path(&self) -> &Path {
        show(&self.0)
    }

    /// Returns the error of an entry that asks for what is never done.
    pub fn unsafe_entry(&self, reason: Cause) -> Error {
        let path = if self.is_root() { Path::new("/") } else { self.as_path() };
        Error::UnsafeEntry { path: path.into(), reason }
    }
}

/// Links in one path, as the kernel counts them.
const MAX_LINKS: usize = 40;
/// Components that the links of one path may bring in all. The kernel would take 40 times 2048, which short entries could
/// have walked again and again.
const MAX_LINK_STEPS: usize = 2048;

/// The way down a path: what is left of it, and what symbolic links have brought in.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    path: &'a [u8],
    /// The last one first.
    pending: Vec<Vec<u8>>,
    links: usize,
    steps: usize,
}

impl<'a> Way<'a> {
    /// Begins at the root.
    pub fn new(path: &'a [u8]) -> Self {
        Self { path, pending: components(path), links: 0, steps: 0 }
    }

    /// Takes the next component, which may be `..`.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        self.pending.pop()
    }

    /// Goes on with the target of a symbolic link; true if that begins at the root.
    ///
    /// # Errors
    /// [`Error::UnsafeEntry`] for too many links, or too long ones.
    pub fn follow(&mut self, target: &[u8]) -> Result<bool> {
        let mut parts = components(target);
        self.links += 1;
        self.steps += parts.len();
        if self.links > MAX_LINKS || self.steps > MAX_LINK_STEPS {
            return Err(Error::UnsafeEntry { path: show(self.path).into(), reason: Cause::TooManyLinks });
        }
        self.pending.append(&mut parts);
        Ok(target.starts_with(b"/"))
    }
}

/// Returns the components of a path, the last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|&byte| byte == b'/').filter(|part| !matches!(part, &b"" | &b".")).map(<[u8]>::to_vec).collect()
}

/// Returns the error of a hard link that cannot be made.
pub(crate) fn link_error(entry: &TarEntry, path: &LayerPath, target: &LayerPath, cause: Cause) -> Error {
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
