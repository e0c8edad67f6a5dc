//! Any tar is applied to a temporary root, or refused; nothing beside the root changes, and the outcome is always the same.
#![no_main]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ocidiff_core::apply::{ApplyOptions, Destination, Limits, apply_layer};
use ocidiff_core::control::Control;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut tar = data.to_vec();
    ocidiff_fuzz::seal(&mut tar);
    let overlay = Destination::OverlayUserxattr;
    for (destination, is_upper) in [(Destination::Directory, false), (overlay, false), (overlay, true)] {
        let outcome = || apply(&tar, destination, is_upper);
        assert_eq!(outcome(), outcome(), "the outcome depends on more than the layer");
    }
});

/// Applies a layer to a root in which there is something already; returns the outcome.
fn apply(tar: &[u8], destination: Destination, is_upper: bool) -> String {
    let Ok(home) = tempfile::tempdir_in("/dev/shm") else { return String::new() };
    let root = home.path().join("root");
    let made = fs::create_dir_all(root.join("d/x"))
        .and_then(|()| fs::write(root.join("a"), "lower"))
        .and_then(|()| fs::write(root.join("d/x/old"), "lower"))
        .and_then(|()| std::os::unix::fs::symlink("..", root.join("up")))
        .and_then(|()| std::os::unix::fs::symlink("/d", root.join("l")))
        .and_then(|()| fs::create_dir(home.path().join("outside")))
        .and_then(|()| fs::write(home.path().join("outside/secret"), "secret"));
    assert!(made.is_ok());
    let before = facts(home.path(), &root);
    let limits = Limits { max_bytes: Some(1 << 20), max_entries: Some(200), max_depth: 40, ..Limits::default() };
    let options = ApplyOptions { same_owner: false, destination, is_upper, threads: 0, limits };
    let result = apply_layer(tar, &root, &options, &Control::default());
    assert_eq!(facts(home.path(), &root), before, "something beside the root changed");
    assert!(fs::symlink_metadata(&root).is_ok_and(|found| found.is_dir()));
    // Names in messages hold the temporary directory's.
    let outcome = result
        .map(|summary| summary.skipped)
        .map_err(|error| error.to_string().replace(&*home.path().to_string_lossy(), ""));
    let mut listing = format!("{outcome:?}");
    if outcome.is_ok() {
        list(&root, &root, &mut listing);
    }
    listing
}

/// Returns the names, kinds and contents beside the root, and of the root itself.
fn facts(home: &Path, root: &Path) -> String {
    let mut text = String::new();
    for path in [home.join("outside"), home.join("outside/secret")] {
        if let Ok(found) = fs::symlink_metadata(&path) {
            let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
            text += &format!("{path:?} {:o} {} {} {times:?}\n", found.mode(), found.nlink(), found.ino());
        }
    }
    let inode = fs::symlink_metadata(root).map(|found| found.ino()).unwrap_or(0);
    let count = fs::read_dir(home).map(Iterator::count).unwrap_or(0);
    text + &format!("{inode} {count}")
}

fn list(root: &Path, directory: &Path, text: &mut String) {
    let mut paths: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let name = path.strip_prefix(root).unwrap_or(&path);
        *text +=
            &format!("{name:?} {:o} {} {}\n", found.mode(), found.nlink(), if found.is_dir() { 0 } else { found.size() });
        if found.is_dir() {
            list(root, &path, text);
        }
    }
}
