//! Partition: which layer holds a path, if a change is written as several layers.
//!
//! Laws: the layer depends on the path, the number of layers and on whether a file is large, so a change touches only the layers
//! of its paths. The last layer has all directories, with their times. Others have the directories above what they hold with
//! time 0: a name that comes or goes changes the time of its directory, and would change every layer that has something below it.

use twox_hash::XxHash3_64;

/// Most layers that one change is written as.
pub const MOST_LAYERS: usize = 16;
/// The numbers of layers that are allowed, in words.
pub const LAYERS: &str = "1 to 16";
/// Names of a path that decide. Files below one directory of this depth are in one layer.
const DEPTH: usize = 3;
/// Directories of packages: each directory in them has a layer of its own choice.
const PACKAGES: [&[u8]; 3] = [b"site-packages", b"dist-packages", b"node_modules"];
/// Files of this size or more have a layer of their own choice, so that no layer has most of the large ones.
const LARGE_BYTES: u64 = 16 << 20;

/// The layers of a change.
#[derive(Debug, Clone, Copy)]
pub struct Partition {
    layers: usize,
}

impl Partition {
    /// Returns the partition into so many layers, at least one.
    pub fn new(layers: usize) -> Self {
        Self { layers: layers.max(1) }
    }

    /// Returns the layer that has every directory with its time.
    pub fn of_directories(self) -> usize {
        self.layers - 1
    }

    /// True if a file of `size` bytes has another layer than small ones beside it may have.
    pub fn is_large(self, size: u64) -> bool {
        self.layers > 1 && size >= LARGE_BYTES
    }

    /// Returns the layer of a path that is no directory; `size` is that of a regular file, and else 0.
    pub fn of(self, path: &[u8], size: u64) -> usize {
        // Without a second layer there is nothing to choose.
        let others = self.layers.max(2) - 1;
        let decides = if self.is_large(size) { path } else { unit(path) };
        let place = XxHash3_64::oneshot(decides) % others as u64;
        usize::try_from(place).unwrap_or_default()
    }
}

/// Returns the part of a path that decides: of the directory, up to a package, or so many names.
fn unit(path: &[u8]) -> &[u8] {
    let directory = &path[..path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)];
    let names = || directory.split(|&byte| byte == b'/');
    let in_packages = names().position(|name| PACKAGES.contains(&name)).map(|place| place + 2);
    let with_version = names().skip(DEPTH - 1).position(is_versioned).map(|place| place + DEPTH);
    let count = in_packages.max(with_version).unwrap_or(DEPTH);
    let slashes = directory.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
    slashes.map(|(place, _)| &directory[..place]).nth(count - 1).unwrap_or(directory)
}

/// True for a directory of one version of a package, as in module caches of Go and stores of pnpm: `tool@v1.2.0`.
fn is_versioned(name: &[u8]) -> bool {
    name.iter().skip(1).any(|&byte| byte == b'@')
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_package_or_a_few_names_decide() {
        for (path, expected) in [
            ("file", ""),
            ("a/file", "a"),
            ("a/b/c/file", "a/b/c"),
            ("a/b/c/d/e/file", "a/b/c"),
            ("usr/lib/python3/dist-packages/six.py", "usr/lib/python3/dist-packages"),
            ("usr/lib/python3/dist-packages/numpy/core/a.so", "usr/lib/python3/dist-packages/numpy"),
            ("node_modules/x/node_modules/y/z", "node_modules/x"),
            ("a/site-packages", "a"),
            ("root/go/pkg/mod/example.org/tool@v1.2.0/cmd/main.go", "root/go/pkg/mod/example.org/tool@v1.2.0"),
            ("node_modules/.pnpm/@types+node@20.1.0/node_modules/@types/node/a.ts", "node_modules/.pnpm/@types+node@20.1.0"),
            ("app/web/node_modules/@types/node/a.ts", "app/web/node_modules/@types"),
            ("home/user@host/project/src/main.rs", "home/user@host/project"),
        ] {
            assert_eq!(unit(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn one_layer_has_everything() {
        let whole = Partition::new(1);
        assert_eq!((whole.of(b"a/b", 0), whole.of(b"c", LARGE_BYTES), whole.of_directories()), (0, 0, 0));
    }

    #[test]
    fn a_large_file_is_placed_by_its_path() {
        let parts = Partition::new(16);
        let layers = |size| (0..100).map(|number| parts.of(format!("a/{number}").as_bytes(), size)).collect::<HashSet<_>>();
        assert_eq!(layers(LARGE_BYTES - 1), HashSet::from([parts.of(b"a/x", 0)]));
        assert_eq!(layers(LARGE_BYTES).len(), parts.of_directories());
    }

    #[test]
    fn the_last_of_several_layers_has_directories_alone() {
        assert_eq!(LAYERS, format!("1 to {MOST_LAYERS}"));
        for layers in 2..=MOST_LAYERS {
            let parts = Partition::new(layers);
            for number in 0..100 {
                assert!(parts.of(format!("{number}/file").as_bytes(), number << 20) < parts.of_directories());
            }
        }
    }
}
