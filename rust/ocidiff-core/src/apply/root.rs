//! The one door to a directory that is written: whatever a layer names, nothing outside the root is read, made or removed.
//!
//! Directories are found with the kernel's own resolution inside a root (`openat2`), and where that has no answer by walking
//! component by component without following, links being read and resolved here. Both see the root as `/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawMode, ResolveFlags, openat, openat2, readlinkat, unlinkat};
use rustix::io::Errno;

use super::handle::Directory;
use super::path::show;
use super::place::below;
use super::written::Written;
use crate::error::{Error, Result};
use crate::metadata::InodeKey;

/// Links in one path, as the kernel counts them.
const MAX_LINKS: usize = 40;
/// How often the kernel may ask to try again because something was renamed meanwhile.
const MAX_RETRIES: usize = 16;
/// The mode of a directory that the layer does not describe.
const IMPLIED_MODE: RawMode = 0o755;

/// The target of an apply.
#[derive(Debug)]
pub(super) struct Root {
    top: Arc<Directory>,
    path: PathBuf,
    has_openat2: bool,
    /// The directory that was asked for last; see [`Root::forget`].
    current: Option<(Vec<u8>, Arc<Directory>)>,
    /// Where that directory is, through no link.
    real: Vec<u8>,
    granted: Vec<Granted>,
    made: Vec<Made>,
}

/// A directory whose owner got the right to work in it for the time being.
#[derive(Debug)]
pub(super) struct Granted {
    /// Where it is, below the root.
    pub path: Vec<u8>,
    /// What it is.
    pub key: InodeKey,
    /// The mode it had.
    pub mode: RawMode,
}

/// A directory that a path needed, and that no entry has described yet.
#[derive(Debug)]
pub(super) struct Made {
    /// What it is.
    pub key: InodeKey,
    /// The directory itself, where it took the place of something else.
    pub replacing: Option<Arc<Directory>>,
}

/// What becomes of symbolic links on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Followed,
    Refused,
}

impl Root {
    /// Opens the directory `path`, which may be a symbolic link to one.
    ///
    /// # Errors
    /// [`Error::Io`] when it is missing or no directory.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(Error::sys("open", path))?;
        let top = Arc::new(Directory::new(fd).map_err(Error::sys("stat", path))?);
        Ok(Self {
            top,
            path: path.to_owned(),
            has_openat2: true,
            current: None,
            real: Vec::new(),
            granted: Vec::new(),
            made: Vec::new(),
        })
    }

    /// The root itself.
    pub fn top(&self) -> &Arc<Directory> {
        &self.top
    }

    /// The directory `path` if it is there already and easily found, which does not depend on files that are still to be
    /// made.
    pub fn reach(&mut self, path: &[u8]) -> Result<Option<Arc<Directory>>> {
        if let Some((known, directory)) = &self.current
            && known == path
        {
            return Ok(Some(directory.clone()));
        }
        let found = self.open_directly(path)?;
        if let Some(found) = &found {
            self.current = Some((path.to_vec(), found.clone()));
            self.real = path.to_vec();
        }
        Ok(found)
    }

    /// The directory `path`; missing components are made, and those that are no directories replaced.
    ///
    /// # Errors
    /// [`Error::UnsafeEntry`] for too many symbolic links; [`Error::Io`].
    pub fn make(&mut self, path: &[u8], written: &mut Written) -> Result<Arc<Directory>> {
        let walked = self.walk(path, Links::Followed, Some(written))?;
        let (found, real) = walked.ok_or_else(|| self.failed("open", path)(Errno::NOENT))?;
        self.current = Some((path.to_vec(), found.clone()));
        self.real = real;
        Ok(found)
    }

    /// The directory `path`; `None` when there is none.
    pub fn find(&mut self, path: &[u8]) -> Result<Option<Arc<Directory>>> {
        match &self.current {
            Some((known, directory)) if known == path => Ok(Some(directory.clone())),
            _ => self.look_up(path, Links::Followed),
        }
    }

    /// The directory whose real path is `path`; `None` when there is none. A link on the way leads to what has nothing to do
    /// with it, and must not be touched.
    pub fn find_real(&mut self, path: &[u8]) -> Result<Option<Arc<Directory>>> {
        self.look_up(path, Links::Refused)
    }

    fn look_up(&mut self, path: &[u8], links: Links) -> Result<Option<Arc<Directory>>> {
        match self.open_directly(path)? {
            Some(found) => Ok(Some(found)),
            None => Ok(self.walk(path, links, None)?.map(|(found, _)| found)),
        }
    }

    /// Where `name` of the directory that was reached or made last is, through no link: one may go, and the object stays.
    pub fn real_path(&self, name: &[u8]) -> Vec<u8> {
        match self.real.is_empty() {
            true => name.to_vec(),
            false => [&self.real, &b"/"[..], name].concat(),
        }
    }

    /// Has the next path looked up anew: what is removed may be a link that the last one led through.
    pub fn forget(&mut self) {
        self.current = None;
    }

    /// What was granted since the last call.
    pub fn take_granted(&mut self) -> Vec<Granted> {
        std::mem::take(&mut self.granted)
    }

    /// The directories that were made since the last call because a path leads through them.
    pub fn take_made(&mut self) -> Vec<Made> {
        std::mem::take(&mut self.made)
    }

    /// The error of a call on `path`, with the path that the caller knows it by.
    pub fn failed<'a>(&'a self, op: &'static str, path: &'a [u8]) -> impl Fn(Errno) -> Error + 'a {
        move |errno| Error::io(op, below(&self.path, path), errno)
    }

    /// Asks the kernel; `None` when it cannot tell, or a link is on the way: then the walk finds out.
    fn open_directly(&mut self, path: &[u8]) -> Result<Option<Arc<Directory>>> {
        if path.is_empty() {
            return Ok(Some(self.top.clone()));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        for _ in 0..MAX_RETRIES {
            if !self.has_openat2 {
                break;
            }
            match openat2(&*self.top, path, flags, Mode::empty(), inside) {
                Ok(fd) => {
                    let found = Directory::new(fd).map_err(self.failed("stat", path))?;
                    return self.grant(found, path).map(Some);
                }
                Err(Errno::AGAIN) => {}
                // An old kernel, or a sandbox that does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2 = false,
                Err(_) => break,
            }
        }
        Ok(None)
    }

    /// Goes down `path` by itself, and tells where that leads. With `create`, makes what is missing; else answers `None` for it.
    fn walk(
        &mut self,
        path: &[u8],
        follow: Links,
        mut create: Option<&mut Written>,
    ) -> Result<Option<(Arc<Directory>, Vec<u8>)>> {
        let base = self.path.clone();
        let failed = |errno| Error::io("open", below(&base, path), errno);
        let mut pending: Vec<Vec<u8>> = components(path);
        let mut here = self.top.clone();
        // The real path to `here`: names, and the handles' identities to go back by.
        let (mut real, mut above): (Vec<Vec<u8>>, Vec<InodeKey>) = (Vec::new(), Vec::new());
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == b".." {
                if let Some(key) = above.pop() {
                    real.pop();
                    here = Arc::new(here.enter(&name).map_err(&failed)?);
                    if here.key() != key {
                        // Somebody moves directories under us: `..` may lead anywhere.
                        return Err(failed(Errno::AGAIN));
                    }
                }
                continue;
            }
            let mut replaces = false;
            let entered = match here.enter(&name) {
                Err(Errno::NOENT) => None,
                Err(Errno::NOTDIR | Errno::LOOP) => match readlinkat(&*here, name.as_slice(), Vec::new()) {
                    Ok(_) if follow == Links::Refused => return Ok(None),
                    Ok(target) => {
                        links += 1;
                        if links > MAX_LINKS {
                            let reason = "too many symbolic links".into();
                            return Err(Error::UnsafeEntry { path: show(path).into(), reason });
                        }
                        if target.as_bytes().starts_with(b"/") {
                            here = self.top.clone();
                            real.clear();
                            above.clear();
                        }
                        pending.append(&mut components(target.as_bytes()));
                        continue;
                    }
                    Err(Errno::INVAL) if create.is_some() => {
                        unlinkat(&*here, name.as_slice(), AtFlags::empty()).map_err(&failed)?;
                        replaces = true;
                        None
                    }
                    Err(Errno::INVAL) => return Ok(None),
                    Err(errno) => return Err(failed(errno)),
                },
                other => Some(other.map_err(&failed)?),
            };
            above.push(here.key());
            real.push(name.clone());
            here = match (entered, &mut create) {
                (Some(entered), _) => self.grant(entered, &real.join(&b'/'))?,
                (None, Some(written)) => {
                    let made = here.make(&name).and_then(|made| made.set_mode(IMPLIED_MODE).map(|()| made));
                    let made = made.map_err(self.failed("mkdir", &real.join(&b'/')))?;
                    written.add(here.key(), &name);
                    written.settle(made.key());
                    let made = Arc::new(made);
                    self.made.push(Made { key: made.key(), replacing: replaces.then(|| made.clone()) });
                    made
                }
                (None, None) => return Ok(None),
            };
        }
        Ok(Some((here, real.join(&b'/'))))
    }

    /// Makes sure that we can work in a directory of ours.
    fn grant(&mut self, directory: Directory, path: &[u8]) -> Result<Arc<Directory>> {
        if let Some(mode) = directory.grant().map_err(self.failed("chmod", path))? {
            self.granted.push(Granted { path: path.to_vec(), key: directory.key(), mode });
        }
        Ok(Arc::new(directory))
    }
}

/// The components of a path, the last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|&byte| byte == b'/').filter(|part| !matches!(part, &b"" | &b".")).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// A root, and the same without openat2.
    fn roots(path: &Path) -> [Root; 2] {
        let mut old = Root::open(path).unwrap();
        old.has_openat2 = false;
        [Root::open(path).unwrap(), old]
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
            for (asked, expected) in cases {
                let found = root.find(asked.as_bytes()).unwrap().map(|directory| directory.key());
                let expected = expected.map(|expected| {
                    let metadata = fs::metadata(path.join(expected)).unwrap();
                    (metadata.dev(), metadata.ino())
                });
                assert_eq!(found, expected, "{asked}, openat2: {}", root.has_openat2);
            }
            assert!(matches!(root.find(b"loop/x"), Err(Error::UnsafeEntry { .. })));
        }
    }

    #[test]
    fn what_is_missing_is_made_inside_the_root() {
        for with_openat2 in [true, false] {
            let outside = tree();
            let path = outside.path().join("root");
            let mut root = Root::open(&path).unwrap();
            root.has_openat2 = with_openat2;
            let mut written = Written::default();
            for asked in ["x/y/z", "climbs/new", "dead/new", "file/new", "to-file/new"] {
                let made = root.make(asked.as_bytes(), &mut written).unwrap();
                assert!(written.is_settled(made.key()), "{asked}");
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
            let made = root.make(path.as_bytes(), &mut Written::default()).unwrap();
            root.current = None;
            assert_eq!(root.find(path.as_bytes()).unwrap().unwrap().key(), made.key());
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
            assert!(root.find(b"l40/b").unwrap().is_some());
            assert!(matches!(root.find(b"l41/b"), Err(Error::UnsafeEntry { .. })));
        }
    }
}
