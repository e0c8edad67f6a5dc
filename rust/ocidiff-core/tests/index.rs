//! The verb index on real directories.
#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ocidiff_core::apply::{ApplyOptions, Limits, apply_layer};
use ocidiff_core::change::{ChangeKind, Changes, Rules, TreeSource, Trees};
use ocidiff_core::compress::Compression;
use ocidiff_core::control::Control;
use ocidiff_core::diff::{DiffOptions, write_layer};
use ocidiff_core::error::Error;
use ocidiff_core::index::{Header, IndexFile};
use ocidiff_core::indexer::{IndexOptions, write_index, write_index_of_layers};
use ocidiff_core::tree::TreeDir;

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
const HEADER: Header = Header { has_sha256: true, chain_id: [0; 32] };

fn tree(path: &Path) -> TreeSource {
    TreeSource::Directory(TreeDir::open_root(path).unwrap())
}

fn index(path: &Path, place: &Path, threads: usize) {
    let trees = Trees::Plain { lower: None, upper: tree(path) };
    let sink = File::create(place).unwrap().into();
    let options = IndexOptions { header: HEADER, stamps: false, cross_mounts: false, threads };
    let summary = write_index(trees, sink, options, &Arc::default()).unwrap();
    assert_eq!(summary.size, fs::metadata(place).unwrap().len());
}

fn open(place: &Path) -> TreeSource {
    TreeSource::Index(Arc::new(IndexFile::open(place, &Control::default()).unwrap()))
}

fn layer(lower: Option<TreeSource>, upper: &Path, place: &Path) -> Vec<u8> {
    let sink = File::create(place).unwrap().into();
    write_layer(Trees::Plain { lower, upper: tree(upper) }, sink, &PLAIN, &Arc::default()).unwrap();
    fs::read(place).unwrap()
}

fn changes(lower: TreeSource, upper: TreeSource) -> Vec<(ChangeKind, Vec<u8>)> {
    let trees = Trees::Plain { lower: Some(lower), upper };
    let changes = Changes::start(trees, Rules::OCI, None, 2, Arc::default()).unwrap();
    changes.map(|change| change.map(|change| (change.kind, change.path)).unwrap()).collect()
}

/// A wide directory, a deep one, a large file, links; all with whole seconds.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("wide/empty")).unwrap();
    for number in 0..3000 {
        fs::write(root.join(format!("wide/{number}")), number.to_string()).unwrap();
    }
    fs::create_dir_all(root.join("deep/".to_owned() + &"d/".repeat(300))).unwrap();
    fs::write(root.join("deep/file"), "x").unwrap();
    fs::write(root.join("large"), vec![7; 3_000_000]).unwrap();
    symlink("nowhere", root.join("link")).unwrap();
    settle(root);
}

fn settle(root: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            settle(&path);
        } else if metadata.is_file() {
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}

#[test]
fn an_index_gives_what_its_tree_gives() {
    let dir = tempfile::tempdir().unwrap();
    let [lower, upper, below, above] = ["lower", "upper", "lower.idx", "upper.idx"].map(|name| dir.path().join(name));
    plant(&lower);
    plant(&upper);
    fs::write(upper.join("wide/17"), "71").unwrap();
    fs::write(upper.join("deep/file"), "y").unwrap();
    fs::remove_dir(upper.join("wide/empty")).unwrap();
    settle(&upper);
    index(&lower, &below, 1);
    index(&upper, &above, 4);
    let again = dir.path().join("again.idx");
    index(&lower, &again, 4);
    assert_eq!(fs::read(&below).unwrap(), fs::read(&again).unwrap());

    let place = dir.path().join("layer");
    assert_eq!(layer(Some(open(&below)), &upper, &place), layer(Some(tree(&lower)), &upper, &place));
    let expected: Vec<_> = [
        (ChangeKind::Modify, "deep/file"),
        // The times of a symbolic link cannot be set here.
        (ChangeKind::Modify, "link"),
        (ChangeKind::Modify, "wide/17"),
        (ChangeKind::Delete, "wide/empty"),
    ]
    .map(|(kind, path)| (kind, path.as_bytes().to_vec()))
    .into();
    assert_eq!(changes(tree(&lower), tree(&upper)), expected);
    assert_eq!(changes(open(&below), tree(&upper)), expected);
    assert_eq!(changes(open(&below), open(&above)), expected);
    assert_eq!(changes(tree(&lower), open(&above)), expected);
    let upper_index = Trees::Plain { lower: None, upper: open(&above) };
    let refused = write_layer(upper_index, File::create(&place).unwrap().into(), &PLAIN, &Arc::default());
    assert!(matches!(refused, Err(Error::Usage(_))));
}

#[test]
fn the_index_of_layers_is_that_of_the_tree_they_unpack_to() {
    let dir = tempfile::tempdir().unwrap();
    let [lower, upper, target] = ["lower", "upper", "target"].map(|name| dir.path().join(name));
    plant(&lower);
    plant(&upper);
    fs::remove_dir_all(upper.join("deep/d")).unwrap();
    fs::remove_file(upper.join("large")).unwrap();
    fs::create_dir(upper.join("large")).unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    layer(None, &lower, &first);
    layer(Some(tree(&lower)), &upper, &second);
    fs::create_dir(&target).unwrap();
    for blob in [&first, &second] {
        // Only root may set owners; a tree without them would be marked, which no layer is.
        let options = ApplyOptions { same_owner: fs::metadata("/proc/self").unwrap().uid() == 0, ..ApplyOptions::default() };
        apply_layer(File::open(blob).unwrap(), &target, &options, &Control::default()).unwrap();
    }
    let [of_tree, of_layers] = ["tree.idx", "layers.idx"].map(|name| dir.path().join(name));
    index(&target, &of_tree, 2);
    let sources: Vec<OwnedFd> = [&first, &second].map(|blob| File::open(blob).unwrap().into()).into();
    let sink = File::create(&of_layers).unwrap().into();
    let done = write_index_of_layers(sources, sink, &HEADER, Limits::default(), &Arc::default()).unwrap();
    assert_eq!(done.layers[0].digests.size, fs::metadata(&first).unwrap().len());
    assert_eq!(fs::read(&of_layers).unwrap(), fs::read(&of_tree).unwrap());
}
