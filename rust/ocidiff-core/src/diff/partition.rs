//! Partition: which layer holds a path, if a change is written as several layers.
//!
//! Laws: the layer depends on the path and the number of layers alone, so a change touches only the layers of its paths. The last
//! layer has all directories, with their times. Others have the directories above what they hold with time 0: a name that comes
//! or goes changes the time of its directory, and would change every layer that has something below it.

use twox_hash::XxHash3_64;

/// Most layers that one change is written as.
pub const MOST_LAYERS: usize = 16;
/// The numbers of layers that are allowed, in words.
pub const LAYERS: &str = "1 to 16";
/// Names of a path that decide. Files below one directory of this depth are in one layer.
const DEPTH: usize = 3;
/// Directories of packages: each directory in them has a layer of its own choice.
const PACKAGES: [&[u8]; 3] = [b"site-packages", b"dist-packages", b"node_modules"];

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

    /// Returns the layer of a path that is no directory.
    pub fn of(self, path: &[u8]) -> usize {
        // Without a second layer there is nothing to choose.
        let others = self.layers.max(2) - 1;
        let place = XxHash3_64::oneshot(unit(path)) % others as u64;
        usize::try_from(place).unwrap_or_default()
    }
}

/// Returns the part of a path that decides: of the directory, up to a package, or so many names.
fn unit(path: &[u8]) -> &[u8] {
    let directory = &path[..path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)];
    let packages = directory.split(|&byte| byte == b'/').position(|name| PACKAGES.contains(&name));
    let names = packages.map_or(DEPTH, |depth| depth + 2);
    let slashes = directory.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
    slashes.map(|(place, _)| &directory[..place]).nth(names - 1).unwrap_or(directory)
}

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(unit(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn one_layer_has_everything() {
        let whole = Partition::new(1);
        assert_eq!((whole.of(b"a/b"), whole.of(b"c"), whole.of_directories()), (0, 0, 0));
    }

    #[test]
    fn the_last_of_several_layers_has_directories_alone() {
        assert_eq!(LAYERS, format!("1 to {MOST_LAYERS}"));
        for layers in 2..=MOST_LAYERS {
            let parts = Partition::new(layers);
            for number in 0..100 {
                assert!(parts.of(format!("{number}/file").as_bytes()) < parts.of_directories());
            }
        }
    }
}
