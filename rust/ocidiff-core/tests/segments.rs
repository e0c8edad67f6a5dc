//! Segments that are copied from older blobs: the layer has the same bytes as without them.
#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use ocidiff_core::change::Rules;
use ocidiff_core::compress::Compression;
use ocidiff_core::compress::segments::{Segments, Source};
use ocidiff_core::diff::{DiffOptions, DiffSummary, write_diff};

const LEVEL: i32 = 6;

/// A layer, and the table of its segments.
struct Layer {
    summary: DiffSummary,
    blob: File,
    table: File,
}

impl Layer {
    fn source(&self) -> Source {
        source(&self.table, &self.blob)
    }
}

/// Writes a layer; with `sources`, segments are copied from them.
fn layer(tree: &Path, level: i32, threads: usize, sources: Option<Vec<Source>>) -> Layer {
    proved(tree, level, threads, sources, false)
}

fn proved(tree: &Path, level: i32, threads: usize, sources: Option<Vec<Source>>, proves_all: bool) -> Layer {
    let (blob, table) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let options = DiffOptions {
        rules: Rules::OCI,
        scope: None,
        compression: Compression::Gzip { level },
        threads,
        memory_bytes: None,
        spool: None,
        segments: sources.map(|sources| Arc::new(Segments::new(sources, vec![table.try_clone().unwrap()], proves_all))),
        copy: None,
    };
    let sink = OwnedFd::from(blob.try_clone().unwrap());
    let summary = write_diff(None, tree, sink, &options, &Arc::default()).unwrap();
    Layer { summary, blob, table }
}

fn source(table: &File, blob: &File) -> Source {
    Source::new(table, blob.try_clone().unwrap()).unwrap()
}

fn bytes(mut blob: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    blob.rewind().unwrap();
    blob.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A tree of small files, one of several segments, and one of a single segment.
fn plant(root: &Path) {
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    fs::create_dir(root.join("small")).unwrap();
    for (number, part) in program.chunks(3001).take(300).enumerate() {
        fs::write(root.join(format!("small/{number:04}")), part).unwrap();
    }
    fs::write(root.join("large"), &program[..3 << 20]).unwrap();
    fs::write(root.join("medium"), &program[1 << 20..][..200_000]).unwrap();
}

#[test]
fn a_layer_is_copied_but_for_its_last_segment() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let plain = layer(dir.path(), LEVEL, 2, None);
    for threads in [1, 2, 8] {
        let first = layer(dir.path(), LEVEL, threads, Some(Vec::new()));
        let again = layer(dir.path(), LEVEL, threads, Some(vec![first.source()]));
        for one in [&first, &again] {
            assert_eq!(one.summary.blob, plain.summary.blob);
            assert!(bytes(&one.blob) == bytes(&plain.blob));
        }
        assert!(bytes(&first.table) == bytes(&again.table));
        assert_eq!(first.summary.reused_bytes, 0);
        let compressed = again.summary.blob.uncompressed_size - again.summary.reused_bytes;
        assert!(compressed < 512 << 10, "{compressed}");
    }
}

#[test]
fn an_insertion_disturbs_only_what_is_near() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let first = layer(dir.path(), LEVEL, 2, Some(Vec::new()));
    fs::write(dir.path().join("a"), "early in the tree").unwrap();
    let changed = layer(dir.path(), LEVEL, 2, Some(vec![first.source()]));
    assert!(bytes(&changed.blob) == bytes(&layer(dir.path(), LEVEL, 2, None).blob));
    let compressed = changed.summary.blob.uncompressed_size - changed.summary.reused_bytes;
    // The first small segment, which the insertion is in, and the last one.
    assert!(compressed < 700 << 10, "{compressed}");
}

#[test]
fn what_has_another_level_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let first = layer(dir.path(), LEVEL, 2, Some(Vec::new()));
    let other = layer(dir.path(), 1, 2, Some(vec![first.source()]));
    assert_eq!(other.summary.reused_bytes, 0);
    assert!(bytes(&other.blob) == bytes(&layer(dir.path(), 1, 2, None).blob));
}

#[test]
fn damage_does_not_spread() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let first = layer(dir.path(), LEVEL, 2, Some(Vec::new()));
    let whole = bytes(&first.blob);
    for place in (0..whole.len()).step_by(whole.len() / 50) {
        let mut damaged = tempfile::tempfile().unwrap();
        damaged.write_all(&whole).unwrap();
        damaged.write_at(&[whole[place] ^ 0x10], place as u64).unwrap();
        let again = layer(dir.path(), LEVEL, 2, Some(vec![source(&first.table, &damaged)]));
        assert!(bytes(&again.blob) == whole, "{place}");
        assert!(again.summary.reused_bytes > 2 << 20);
    }
    // A blob that was cut off, and one that is another.
    let (short, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    short.write_all_at(&whole[..whole.len() / 2], 0).unwrap();
    other.write_all_at(&vec![7; whole.len()], 0).unwrap();
    for blob in [&short, &other] {
        assert!(bytes(&layer(dir.path(), LEVEL, 2, Some(vec![source(&first.table, blob)])).blob) == whole);
    }
}

#[test]
fn a_table_with_any_fault_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let first = layer(dir.path(), LEVEL, 2, Some(Vec::new()));
    let table = bytes(&first.table);
    let is_read = |table: &[u8]| {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(table, 0).unwrap();
        Source::new(&file, first.blob.try_clone().unwrap()).is_some()
    };
    assert!(is_read(&table));
    for place in 0..table.len() {
        let mut damaged = table.clone();
        damaged[place] ^= 1;
        assert!(!is_read(&damaged), "{place}");
        assert!(!is_read(&table[..place]), "{place}");
    }
}

#[test]
fn copies_are_proved_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let first = layer(dir.path(), LEVEL, 2, Some(Vec::new()));
    let again = proved(dir.path(), LEVEL, 2, Some(vec![first.source()]), true);
    assert!(again.summary.reused_bytes > 2 << 20);
    assert!(bytes(&again.blob) == bytes(&first.blob));
}
