//! The verb diff on real directories.
#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ocidiff_core::change::{ChangeKind, Rules};
use ocidiff_core::compress::Compression;
use ocidiff_core::control::Control;
use ocidiff_core::diff::{DiffOptions, DiffSummary, changes, write_diff};
use ocidiff_core::error::Error;

const PLAIN: DiffOptions = DiffOptions {
    rules: Rules::OCI,
    scope: None,
    compression: Compression::None,
    threads: 2,
    memory_bytes: None,
    spool: None,
    segments: None,
    copy: None,
};
/// The diffID of a tar without entries.
const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

fn diff(lower: Option<&Path>, upper: &Path, options: &DiffOptions) -> (DiffSummary, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let sink = OwnedFd::from(file.try_clone().unwrap());
    let summary = write_diff(lower, upper, sink, options, &Arc::default()).unwrap();
    let mut blob = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut blob).unwrap();
    assert_eq!(blob.len() as u64, summary.blob.size);
    (summary, blob)
}

/// A tree with a directory larger than one task, deep and empty directories, links, and content of several blocks.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("wide")).unwrap();
    for number in 0..3000 {
        fs::write(root.join(format!("wide/{number}")), number.to_string()).unwrap();
        if number % 500 == 0 {
            fs::create_dir(root.join(format!("wide/{number}.d"))).unwrap();
            fs::write(root.join(format!("wide/{number}.d/inner")), "x").unwrap();
        }
    }
    fs::create_dir_all(root.join("deep/".to_owned() + &"d/".repeat(100))).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect();
    fs::write(root.join("large"), large).unwrap();
    fs::hard_link(root.join("large"), root.join("wide/linked")).unwrap();
    symlink("nowhere", root.join("link")).unwrap();
    // Real machine code: made-up content is too even to show what a compressor remembers of the block before.
    fs::copy(std::env::current_exe().unwrap(), root.join("program")).unwrap();
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    for compression in
        [Compression::None, Compression::Gzip { level: 1 }, Compression::Gzip { level: 6 }, Compression::Zstd { level: 3 }]
    {
        let results: Vec<_> =
            [1, 2, 8].map(|threads| diff(None, dir.path(), &DiffOptions { threads, compression, ..PLAIN })).into();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{compression:?}");
    }
}

#[test]
fn every_compression_gives_the_same_diff_id() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let diff_id = |compression| diff(None, dir.path(), &DiffOptions { compression, ..PLAIN }).0.blob.diff_id;
    let plain = diff_id(Compression::None);
    assert_eq!(diff_id(Compression::Gzip { level: 9 }), plain);
    assert_eq!(diff_id(Compression::Zstd { level: 1 }), plain);
}

#[test]
fn a_tree_and_itself_make_an_empty_layer() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let (summary, blob) = diff(Some(dir.path()), dir.path(), &PLAIN);
    assert_eq!((summary.blob.diff_id.to_string().as_str(), blob), (EMPTY, vec![0; 1024]));
    assert_eq!((summary.added, summary.modified, summary.deleted, summary.entries), (0, 0, 0, 0));
}

#[test]
fn changes_come_in_the_order_of_path_components() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["a/z", "a-/x", "a.x", "a0"] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let told: Vec<_> = changes(None, dir.path(), Rules::OCI, 2, &Arc::default())
        .unwrap()
        .map(|change| change.unwrap())
        .map(|change| (change.kind, String::from_utf8(change.path).unwrap()))
        .collect();
    let expected = ["a", "a/z", "a-", "a-/x", "a.x", "a0"].map(|path| (ChangeKind::Add, path.to_owned()));
    assert_eq!(told, expected);
}

#[test]
fn a_cancelled_diff_ends_at_once_even_when_nobody_reads_its_output() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let (_reader, writer) = std::io::pipe().unwrap();
    let control = Arc::new(Control::default());
    let canceller = {
        let control = control.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            control.cancel();
            Instant::now()
        })
    };
    let result = write_diff(None, dir.path(), writer.into(), &PLAIN, &control);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert!(canceller.join().unwrap().elapsed() < Duration::from_millis(100));
}

#[test]
fn a_full_output_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    for compression in [Compression::None, Compression::Gzip { level: 6 }, Compression::Zstd { level: 3 }] {
        let sink = File::options().write(true).open("/dev/full").unwrap();
        let result = write_diff(None, dir.path(), sink.into(), &DiffOptions { compression, ..PLAIN }, &Arc::default());
        match result {
            Err(Error::Io { op: "write", source, .. }) => assert_eq!(source.raw_os_error(), Some(28), "{compression:?}"),
            other => panic!("{compression:?}: {other:?}"),
        }
    }
}

#[test]
fn a_name_that_would_become_a_whiteout_is_refused_unless_containerd_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.x"), "").unwrap();
    let refused = write_diff(None, dir.path(), File::create("/dev/null").unwrap().into(), &PLAIN, &Arc::default());
    assert!(matches!(refused, Err(Error::Unrepresentable { path, .. }) if path == Path::new(".wh.x")));
    let (summary, _) = diff(None, dir.path(), &DiffOptions { rules: Rules::CONTAINERD, ..PLAIN });
    assert_eq!(summary.entries, 1);
}

#[test]
fn a_missing_root_and_a_file_as_root_are_told_by_their_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, errno) in [(dir.path().join("missing"), 2), (file, 20)] {
        match write_diff(Some(&path), dir.path(), File::create("/dev/null").unwrap().into(), &PLAIN, &Arc::default()) {
            Err(Error::Io { path: told, source, .. }) => assert_eq!((told, source.raw_os_error()), (path, Some(errno))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_mode_that_changed_alone_is_a_modification() {
    let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for root in [&lower, &upper] {
        fs::write(root.path().join("f"), "same").unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        File::options().write(true).open(root.path().join("f")).unwrap().set_modified(time).unwrap();
    }
    assert_eq!(diff(Some(lower.path()), upper.path(), &PLAIN).0.modified, 0);
    fs::set_permissions(upper.path().join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(diff(Some(lower.path()), upper.path(), &PLAIN).0.modified, 1);
}
