//! The one door to a directory that is written: whatever a layer names, nothing outside the root is read, made or removed.
//!
//! Directories are found with the kernel's own resolution inside a root (`openat2`), and where that has no answer by walking
//! component by component without following, links being read and resolved here. Both see the root as `/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, ResolveFlags, openat, openat2, readlinkat, unlinkat};
use rustix::io::Errno;

use super::directories::Directories;
use super::handle::WritableDir;
use super::place::below;
use crate::apply::path::Way;
use crate::apply::plan::IMPLIED_MODE;
use crate::error::{Error, Result};
use crate::metadata::InodeKey;
use crate::rules::linux::MODE_BITS;
use crate::rules::open;

/// Attempts of a call that the kernel asks to repeat because something was renamed meanwhile.
const MAX_RETRIES: usize = 16;
/// The target of an apply.
#[derive(Debug)]
pub(super) struct ApplyRoot {
    top: Arc<WritableDir>,
    path: PathBuf,
    has_openat2: bool,
    /// Owners are noted, those of directories that the layer does not describe too.
    notes_owners: bool,
    /// The directory that was asked for last; see [`ApplyRoot::forget`].
    current: Option<(Vec<u8>, Arc<WritableDir>)>,
}

/// Says what becomes of missing directories on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The path leads nowhere.
    Absent,
    /// They are made to be written into, also in place of what is no directory.
    Made,
    /// They are made in an upperdir to hold a mark, unless no lower layer can have anything there.
    MadeForMark,
}

impl ApplyRoot {
    /// Opens the directory `path`, which may be a symbolic link to one.
    ///
    /// # Errors
    /// [`Error::Io`] when it is missing or no directory.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = openat(CWD, path, open::ROOT_HANDLE, Mode::empty()).map_err(Error::sys("open", path))?;
        let top = Arc::new(WritableDir::new(fd).map_err(Error::sys("stat", path))?);
        Ok(Self { top, path: path.to_owned(), has_openat2: true, notes_owners: false, current: None })
    }

    /// Opens the root again, whose attributes have changed.
    pub fn reopen(&mut self) -> Result<()> {
        self.top = Arc::new(self.top.enter(b".").map_err(Error::sys("open", &self.path))?);
        self.current = None;
        Ok(())
    }

    /// Returns the root itself.
    pub fn top(&self) -> &Arc<WritableDir> {
        &self.top
    }

    /// Says of the root that there are notes below it: with one of its own, by which a reader knows that they count.
    pub fn mark(&self) -> rustix::io::Result<()> {
        match self.is_marked() {
            true => Ok(()),
            false => self.top.note(self.top.stat().st_mode & MODE_BITS),
        }
    }

    /// Marks the root, and from now on notes that directories which no entry describes are root's.
    pub fn note_owners(&mut self) -> rustix::io::Result<()> {
        self.notes_owners = true;
        self.mark()
    }

    /// Returns true if notes below the root count.
    pub fn is_marked(&self) -> bool {
        self.top.has_note()
    }

    /// Returns the directory `path` if it is there, whatever files are still to be made. It is remembered for the next call.
    pub fn reach(&mut self, path: &[u8], known: &mut Directories) -> Result<Option<Arc<WritableDir>>> {
        let found = self.find(path, known)?;
        if let Some(found) = &found
            && self.current.as_ref().is_none_or(|(current, _)| current != path)
        {
            self.current = Some((path.to_vec(), found.clone()));
        }
        Ok(found)
    }

    /// Returns the directory `path`; `None` if it does not exist.
    pub fn find(&mut self, path: &[u8], known: &mut Directories) -> Result<Option<Arc<WritableDir>>> {
        match &self.current {
            _ if path.is_empty() => return Ok(Some(self.top.clone())),
            Some((current, directory)) if current == path => return Ok(Some(directory.clone())),
            _ => {}
        }
        match self.open_directly(path)? {
            Some(found) if known.has(found.key()) => self.grant(found, path, known).map(Some),
            // The walk meets the directories above it, too.
            _ => self.walk(path, Missing::Absent, known),
        }
    }

    /// Returns the directory `path`. Missing components are made, and other objects on the way are replaced.
    ///
    /// # Errors
    /// [`Error::UnsafeEntry`] for too many symbolic links; [`Error::Io`].
    pub fn make(&mut self, path: &[u8], known: &mut Directories) -> Result<Arc<WritableDir>> {
        let made = self.walk(path, Missing::Made, known)?;
        let made = made.ok_or_else(|| self.failed("open", path)(Errno::NOENT))?;
        self.current = Some((path.to_vec(), made.clone()));
        Ok(made)
    }

    /// Has the next path looked up anew: what is removed may be a link that the last one led through.
    pub fn forget(&mut self) {
        self.current = None;
    }

    /// Returns the error of a call on `path`, with the path that the caller knows it by.
    pub fn failed<'a>(&'a self, op: &'static str, path: &'a [u8]) -> impl Fn(Errno) -> Error + 'a {
        move |errno| Error::io(op, below(&self.path, path), errno)
    }

    /// Asks the kernel; `None` when it cannot tell, or a link is on the way: then the walk finds out.
    fn open_directly(&mut self, path: &[u8]) -> Result<Option<WritableDir>> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        for _ in 0..MAX_RETRIES {
            if !self.has_openat2 {
                break;
            }
            match openat2(&*self.top, path, open::ROOT_HANDLE, Mode::empty(), inside) {
                Ok(fd) => return WritableDir::new(fd).map(Some).map_err(self.failed("stat", path)),
                Err(Errno::AGAIN) => {}
                // An old kernel, or a sandbox that does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2 = false,
                Err(_) => break,
            }
        }
        Ok(None)
    }

    /// Goes down `path` by itself, and meets every directory on the way; `None` when it leads nowhere.
    ///
    /// # Errors
    /// [`Error::UnsafeEntry`] for too many symbolic links, or too long ones; [`Error::Io`].
    pub fn walk(&self, path: &[u8], missing: Missing, known: &mut Directories) -> Result<Option<Arc<WritableDir>>> {
        let mut way = Way::new(path);
        let mut here = self.top.clone();
        // The identities of the directories above, to go back by.
        let mut above: Vec<InodeKey> = Vec::new();
        while let Some(name) = way.next() {
            if name == b".." {
                if let Some(key) = above.pop() {
                    here = Arc::new(here.enter(&name).map_err(self.failed("open", path))?);
                    if here.key() != key {
                        // Somebody moves directories under us: `..` may lead anywhere.
                        return Err(self.failed("open", path)(Errno::AGAIN));
                    }
                }
                continue;
            }
            let mut replaces = false;
            let entered = match here.enter(&name) {
                Err(Errno::NOENT) => None,
                Err(Errno::NOTDIR | Errno::LOOP) => match readlinkat(&*here, name.as_slice(), Vec::new()) {
                    Ok(target) => {
                        if way.follow(target.as_bytes())? {
                            here = self.top.clone();
                            above.clear();
                        }
                        continue;
                    }
                    Err(Errno::INVAL) if missing == Missing::Made => {
                        unlinkat(&*here, name.as_slice(), AtFlags::empty()).map_err(self.failed("remove", path))?;
                        replaces = true;
                        None
                    }
                    Err(Errno::INVAL) => return Ok(None),
                    Err(errno) => return Err(self.failed("open", path)(errno)),
                },
                other => Some(other.map_err(self.failed("open", path))?),
            };
            above.push(here.key());
            here = match (entered, missing) {
                (Some(entered), _) => {
                    known.enter(here.key(), &name, &entered);
                    self.grant(entered, path, known)?
                }
                (None, Missing::Absent) => return Ok(None),
                (None, Missing::MadeForMark) if known.is_hidden(here.key()) => return Ok(None),
                (None, _) => {
                    let made = here.make(&name).and_then(|made| made.set_mode(IMPLIED_MODE).map(|()| made));
                    let made = made.map_err(self.failed("mkdir", path))?;
                    if self.notes_owners {
                        made.note(IMPLIED_MODE).map_err(self.failed("set xattr of", path))?;
                    }
                    if missing == Missing::Made {
                        known.write(here.key(), &name);
                        known.make(here.key(), &name, &made);
                    } else {
                        known.make_for_mark(here.key(), &name, &made);
                    }
                    if replaces {
                        known.make_opaque(&made).map_err(self.failed("make opaque", path))?;
                    }
                    Arc::new(made)
                }
            };
        }
        Ok(Some(here))
    }

    /// Opens the mode of a directory that this process owns, so that files can be made in it.
    fn grant(&self, directory: WritableDir, path: &[u8], known: &mut Directories) -> Result<Arc<WritableDir>> {
        if let Some(mode) = directory.grant().map_err(self.failed("chmod", path))? {
            known.restore(directory.key(), mode);
        }
        Ok(Arc::new(directory))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// Returns a root, and the same without openat2.
    fn roots(path: &Path) -> [ApplyRoot; 2] {
        let mut old = ApplyRoot::open(path).unwrap();
        old.has_openat2 = false;
        [ApplyRoot::open(path).unwrap(), old]
    }

    fn known(root: &ApplyRoot) -> Directories {
        Directories::new(root.top(), false, None)
    }

    fn tree() -> tempfile::TempDir {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(outside.path().join("etc")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let links = [
            ("absolute", "/etc"),
            ("climbs", "../../../../etc"),
            ("to-root", "/"),
            ("chain", "a/up/absolute"),
            ("a/up", ".."),
            ("a/b/back", "../../a/./b/"),
            ("loop", "loop"),
            ("dead", "/gone/deep"),
            ("to-file", "file"),
        ];
        for (link, target) in links {
            symlink(target, root.join(link)).unwrap();
        }
        outside
    }

    #[test]
    fn both_resolvers_see_the_root_as_slash() {
        let outside = tree();
        let path = outside.path().join("root");
        let cases = [
            ("", Some("")),
            ("a/b", Some("a/b")),
            ("absolute", Some("etc")),
            ("climbs", Some("etc")),
            ("to-root/a", Some("a")),
            ("to-root", Some("")),
            ("chain", Some("etc")),
            ("a/b/back/back", Some("a/b")),
            ("dead", None),
            ("missing/x", None),
            ("file", None),
            ("file/x", None),
            ("to-file", None),
        ];
        for mut root in roots(&path) {
            let mut known = known(&root);
            for (asked, expected) in cases {
                let found = root.find(asked.as_bytes(), &mut known).unwrap().map(|directory| directory.key());
                let expected = expected.map(|expected| {
                    let metadata = fs::metadata(path.join(expected)).unwrap();
                    (metadata.dev(), metadata.ino())
                });
                assert_eq!(found, expected, "{asked}, openat2: {}", root.has_openat2);
            }
            assert!(matches!(root.find(b"loop/x", &mut known), Err(Error::UnsafeEntry { .. })));
        }
    }

    #[test]
    fn what_is_missing_is_made_inside_the_root() {
        for with_openat2 in [true, false] {
            let outside = tree();
            let path = outside.path().join("root");
            let mut root = ApplyRoot::open(&path).unwrap();
            root.has_openat2 = with_openat2;
            let mut known = known(&root);
            for asked in ["x/y/z", "climbs/new", "dead/new", "file/new", "to-file/new"] {
                let made = root.make(asked.as_bytes(), &mut known).unwrap();
                assert!(known.is_clear(made.key()), "{asked}");
            }
            for made in ["x/y/z", "etc/new", "gone/deep/new", "file/new"] {
                assert_eq!(fs::symlink_metadata(path.join(made)).unwrap().mode(), 0o40755, "{made}");
            }
            assert_eq!(fs::read_dir(outside.path().join("etc")).unwrap().count(), 0);
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn paths_beyond_the_limit_of_system_calls_resolve() {
        let outside = tree();
        for mut root in roots(&outside.path().join("root")) {
            let path = vec!["d".repeat(250); 40].join("/");
            let mut known = known(&root);
            let made = root.make(path.as_bytes(), &mut known).unwrap();
            root.current = None;
            assert_eq!(root.find(path.as_bytes(), &mut known).unwrap().unwrap().key(), made.key());
        }
    }

    #[test]
    fn forty_links_are_followed_and_no_more() {
        let outside = tree();
        let path = outside.path().join("root");
        symlink("a", path.join("l1")).unwrap();
        for index in 2..=41 {
            symlink(format!("l{}", index - 1), path.join(format!("l{index}"))).unwrap();
        }
        for mut root in roots(&path) {
            let mut known = known(&root);
            assert!(root.find(b"l40/b", &mut known).unwrap().is_some());
            assert!(matches!(root.find(b"l41/b", &mut known), Err(Error::UnsafeEntry { .. })));
        }
    }

    #[test]
    fn what_links_bring_into_a_path_is_bounded() {
        let outside = tree();
        let path = outside.path().join("root");
        symlink("a/../".repeat(512), path.join("half")).unwrap();
        symlink("a/../".repeat(512) + "half", path.join("more")).unwrap();
        for mut root in roots(&path) {
            let mut known = known(&root);
            assert!(root.find(b"half/half/a", &mut known).unwrap().is_some());
            assert!(matches!(root.find(b"more/a", &mut known), Err(Error::UnsafeEntry { .. })));
        }
    }
}
