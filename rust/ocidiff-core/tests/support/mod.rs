//! Layers built by code, header by header, so that they can also be wrong; and a place to apply them to.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ocidiff_core::apply::{ApplyOptions, ApplySummary, apply_layer};
use ocidiff_core::control::Control;
use ocidiff_core::{Error, Result};

/// The time of every entry that does not say another.
pub const TIME: i64 = 1_600_000_000;

/// An entry, with harmless values for all that a test does not care for; its owner is who runs the test.
#[derive(Clone)]
pub struct Item {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: Option<u64>,
    pub mtime: i64,
    pub link: Vec<u8>,
    pub device: (u32, u32),
    pub data: Vec<u8>,
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

pub fn item(kind: u8, name: impl AsRef<[u8]>) -> Item {
    Item {
        name: name.as_ref().to_vec(),
        kind,
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        size: None,
        mtime: TIME,
        link: Vec::new(),
        device: (0, 0),
        data: Vec::new(),
        pax: Vec::new(),
    }
}

pub fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Item {
    Item { data: data.as_ref().to_vec(), ..item(b'0', name) }
}

pub fn dir(name: impl AsRef<[u8]>) -> Item {
    item(b'5', name)
}

pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    Item { link: target.as_ref().to_vec(), ..item(b'2', name) }
}

pub fn link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    Item { link: target.as_ref().to_vec(), ..item(b'1', name) }
}

pub fn whiteout(name: impl AsRef<[u8]>) -> Item {
    Item { mode: 0, mtime: 0, uid: 0, gid: 0, ..item(b'0', name) }
}

impl Item {
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn mtime(mut self, mtime: i64) -> Self {
        self.mtime = mtime;
        self
    }

    pub fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    /// Says this size in the header, whatever the data is.
    pub fn size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    pub fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(format!("SCHILY.xattr.{name}"), value)
    }

    /// The blocks of the entry: PAX header, header, data.
    pub fn blocks(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.pax.is_empty() {
            let records: Vec<u8> = self.pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            out.extend(special(b'x', &records));
        }
        let mut block = [0u8; 512];
        let put = |block: &mut [u8; 512], at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(&mut block, 0, &self.name[..self.name.len().min(100)]);
        put(&mut block, 100, format!("{:07o}\0", self.mode).as_bytes());
        put(&mut block, 108, format!("{:07o}\0", self.uid.min(0o7_777_777)).as_bytes());
        put(&mut block, 116, format!("{:07o}\0", self.gid.min(0o7_777_777)).as_bytes());
        put(&mut block, 124, format!("{:011o}\0", self.size.unwrap_or(self.data.len() as u64)).as_bytes());
        put(&mut block, 136, format!("{:011o}\0", self.mtime.max(0)).as_bytes());
        block[156] = self.kind;
        put(&mut block, 157, &self.link[..self.link.len().min(100)]);
        put(&mut block, 257, b"ustar\x0000");
        put(&mut block, 329, format!("{:07o}\0", self.device.0).as_bytes());
        put(&mut block, 337, format!("{:07o}\0", self.device.1).as_bytes());
        seal(&mut block);
        out.extend(block);
        out.extend(&self.data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

/// Writes the checksum.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Returns a PAX record.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

/// A header that describes the next entry (`x`, `L`, `K`) or all of them (`g`).
pub fn special(kind: u8, content: &[u8]) -> Vec<u8> {
    file("././@Header", content).kind(kind).blocks()
}

impl Item {
    fn kind(mut self, kind: u8) -> Self {
        self.kind = kind;
        self
    }
}

/// A whole tar.
pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut out: Vec<u8> = items.iter().flat_map(Item::blocks).collect();
    out.resize(out.len() + 1024, 0);
    out
}

/// Returns a gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns a zstd frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

/// A root to apply to, and things beside it that no layer may touch.
pub struct Sandbox {
    home: tempfile::TempDir,
    outside: BTreeMap<PathBuf, String>,
}

impl Default for Sandbox {
    fn default() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("root")).unwrap();
        fs::create_dir_all(home.path().join("outside/etc")).unwrap();
        fs::write(home.path().join("outside/etc/passwd"), "secret").unwrap();
        fs::write(home.path().join("passwd"), "secret").unwrap();
        let outside = Self::facts_outside(home.path());
        Self { home, outside }
    }
}

impl Sandbox {
    pub fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// A directory outside the root, with `etc/passwd` in it.
    pub fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    pub fn apply(&self, items: &[Item]) -> Result<ApplySummary> {
        self.apply_bytes(&tar(items))
    }

    pub fn apply_bytes(&self, blob: &[u8]) -> Result<ApplySummary> {
        self.apply_with(blob, &ApplyOptions { same_owner: true, ..ApplyOptions::default() })
    }

    /// Applies, and checks that nothing outside the root was touched, whatever came of it.
    pub fn apply_with(&self, blob: &[u8], options: &ApplyOptions) -> Result<ApplySummary> {
        let result = apply_layer(blob, &self.root(), options, &Control::default());
        assert_eq!(Self::facts_outside(self.home.path()), self.outside, "something outside the root was touched");
        result
    }

    /// The paths below the root, in order, relative to it.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.root(), &mut |path| {
            found.push(path.strip_prefix(self.root()).unwrap().to_owned());
            true
        });
        found
    }

    /// Returns the names as text, each with what `ls -F` puts behind it.
    pub fn listing(&self) -> Vec<String> {
        let mark = |path: &Path| match fs::symlink_metadata(self.root().join(path)).unwrap().file_type() {
            kind if kind.is_dir() => "/",
            kind if kind.is_symlink() => "@",
            kind if kind.is_fifo() => "|",
            _ => "",
        };
        let show = |path: PathBuf| format!("{}{}", path.as_os_str().as_bytes().escape_ascii(), mark(&path));
        self.paths().into_iter().map(show).collect()
    }

    fn facts_outside(home: &Path) -> BTreeMap<PathBuf, String> {
        let mut facts = BTreeMap::new();
        let root = home.join("root");
        walk(home, &mut |path| {
            if path != root {
                let found = fs::symlink_metadata(path).unwrap();
                let text = format!(
                    "{:o} {}:{} {} {}.{} {}.{}",
                    found.mode(),
                    found.uid(),
                    found.gid(),
                    found.nlink(),
                    found.mtime(),
                    found.mtime_nsec(),
                    found.ctime(),
                    found.ctime_nsec()
                );
                facts.insert(path.to_owned(), text);
            }
            path != root
        });
        facts
    }
}

/// Visits all below `directory` in order; goes into a directory when `visit` says so.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path) -> bool) {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if visit(&path) && fs::symlink_metadata(&path).unwrap().is_dir() {
            walk(&path, visit);
        }
    }
}

/// Returns true if the test may give files away and make devices.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The name of the error's variant, for comparisons.
pub fn kind_of<T>(result: &Result<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Error::MalformedLayer { .. } | Error::MalformedCompression { .. }) => "malformed",
        Err(Error::UnsafeEntry { .. }) => "unsafe",
        Err(Error::LimitExceeded { .. }) => "limit",
        Err(Error::Unsupported { .. }) => "unsupported",
        Err(Error::Unrepresentable { .. }) => "unrepresentable",
        Err(Error::Io { .. }) => "io",
        Err(Error::Cancelled) => "cancelled",
        Err(_) => "other",
    }
}
