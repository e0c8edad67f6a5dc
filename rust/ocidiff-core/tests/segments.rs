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
use ocidiff_core::compress::segments::{Kind, Segments, Source};
use ocidiff_core::diff::{DiffOptions, DiffSummary, write_diff};

const MIB: u64 = 1 << 20;
const GZIP: Form = Form {
    compression: Compression::Gzip { level: 6 },
    other: Compression::Gzip { level: 1 },
    small: 3001,
    large: 3 << 20,
    medium: 200_000,
    segment: 512 << 10,
};
const ZSTD: Form = Form {
    compression: Compression::Zstd { level: 3 },
    other: Compression::Zstd { level: 1 },
    small: 40_001,
    large: 20 << 20,
    medium: 5 << 20,
    segment: 8 << 20,
};

/// A compression, another level of it, and bytes of a small file of many, of one with several segments, of one with a single
/// segment, and of the largest segment.
#[derive(Clone, Copy)]
struct Form {
    compression: Compression,
    other: Compression,
    small: usize,
    large: usize,
    medium: usize,
    segment: u64,
}

impl Form {
    fn kind(self) -> Kind {
        Kind::of(self.compression).unwrap()
    }
}

/// A layer, and the table of its segments.
struct Layer {
    kind: Kind,
    summary: DiffSummary,
    blob: File,
    table: File,
}

impl Layer {
    fn source(&self) -> Source {
        source(self.kind, &self.table, &self.blob)
    }
}

/// Writes a layer; with `sources`, segments are copied from them.
fn layer(tree: &Path, compression: Compression, threads: usize, sources: Option<Vec<Source>>) -> Layer {
    proved(tree, compression, threads, sources, false)
}

fn proved(tree: &Path, compression: Compression, threads: usize, sources: Option<Vec<Source>>, proves_all: bool) -> Layer {
    let (blob, table) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let kind = Kind::of(compression).unwrap();
    let options = DiffOptions {
        rules: Rules::OCI,
        scope: None,
        compression,
        threads,
        memory_bytes: None,
        spool: None,
        segments: sources
            .map(|sources| Arc::new(Segments::new(kind, sources, vec![table.try_clone().unwrap()], proves_all))),
        copy: None,
    };
    let sink = OwnedFd::from(blob.try_clone().unwrap());
    let summary = write_diff(None, tree, sink, &options, &Arc::default()).unwrap();
    Layer { kind, summary, blob, table }
}

fn source(kind: Kind, table: &File, blob: &File) -> Source {
    Source::new(kind, table, blob.try_clone().unwrap()).unwrap()
}

fn bytes(mut blob: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    blob.rewind().unwrap();
    blob.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A tree of small files, one of several segments, and one of a single segment.
fn plant(root: &Path, form: Form) {
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let part = |start: usize, size: usize| -> Vec<u8> { program.iter().cycle().skip(start).take(size).copied().collect() };
    fs::create_dir(root.join("small")).unwrap();
    for number in 0..300 {
        fs::write(root.join(format!("small/{number:04}")), part(number * form.small % program.len(), form.small)).unwrap();
    }
    fs::write(root.join("large"), part(0, form.large)).unwrap();
    fs::write(root.join("medium"), part(1 << 20, form.medium)).unwrap();
}

fn compressed(layer: &Layer) -> u64 {
    layer.summary.blob.uncompressed_size - layer.summary.reused_bytes
}

fn is_copied_as_a_whole(form: Form, last: u64) {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), form);
    let plain = layer(dir.path(), form.compression, 2, None);
    for threads in [1, 2, 8] {
        let first = layer(dir.path(), form.compression, threads, Some(Vec::new()));
        let again = layer(dir.path(), form.compression, threads, Some(vec![first.source()]));
        for one in [&first, &again] {
            assert_eq!(one.summary.blob, plain.summary.blob);
            assert!(bytes(&one.blob) == bytes(&plain.blob));
        }
        assert!(bytes(&first.table) == bytes(&again.table));
        assert_eq!(first.summary.reused_bytes, 0);
        assert!(compressed(&again) <= last, "{}", compressed(&again));
    }
}

#[test]
fn a_layer_of_gzip_is_copied_but_for_its_last_segment() {
    is_copied_as_a_whole(GZIP, GZIP.segment);
}

#[test]
fn a_layer_of_zstd_is_copied_as_a_whole() {
    is_copied_as_a_whole(ZSTD, 0);
}

fn is_disturbed_nearby(form: Form, most: u64) {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), form);
    let first = layer(dir.path(), form.compression, 2, Some(Vec::new()));
    fs::write(dir.path().join("a"), "early in the tree").unwrap();
    let changed = layer(dir.path(), form.compression, 2, Some(vec![first.source()]));
    assert!(bytes(&changed.blob) == bytes(&layer(dir.path(), form.compression, 2, None).blob));
    assert!(compressed(&changed) < most, "{}", compressed(&changed));
}

#[test]
fn an_insertion_disturbs_only_what_is_near() {
    // The first small segment, which the insertion is in, and the last one.
    is_disturbed_nearby(GZIP, 700 << 10);
    is_disturbed_nearby(ZSTD, MIB);
}

#[test]
fn what_has_another_level_or_compression_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), GZIP);
    for form in [GZIP, ZSTD] {
        let first = layer(dir.path(), form.compression, 2, Some(Vec::new()));
        let other = layer(dir.path(), form.other, 2, Some(vec![first.source()]));
        assert_eq!(other.summary.reused_bytes, 0);
        assert!(bytes(&other.blob) == bytes(&layer(dir.path(), form.other, 2, None).blob));
        let kind = if form.kind() == Kind::Gzip { Kind::Zstd } else { Kind::Gzip };
        assert!(Source::new(kind, &first.table, first.blob).is_none());
    }
}

fn damage_stays(form: Form, places: usize, least: u64) {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), form);
    let first = layer(dir.path(), form.compression, 2, Some(Vec::new()));
    let whole = bytes(&first.blob);
    let copied = |blob: &File| layer(dir.path(), form.compression, 2, Some(vec![source(form.kind(), &first.table, blob)]));
    for place in (0..whole.len()).step_by(whole.len() / places) {
        let mut damaged = tempfile::tempfile().unwrap();
        damaged.write_all(&whole).unwrap();
        damaged.write_at(&[whole[place] ^ 0x10], place as u64).unwrap();
        let again = copied(&damaged);
        assert!(bytes(&again.blob) == whole, "{place}");
        assert!(again.summary.reused_bytes > least);
    }
    // A blob that was cut off, and one that is another.
    let (short, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    short.write_all_at(&whole[..whole.len() / 2], 0).unwrap();
    other.write_all_at(&vec![7; whole.len()], 0).unwrap();
    for blob in [&short, &other] {
        assert!(bytes(&copied(blob).blob) == whole);
    }
}

#[test]
fn damage_does_not_spread() {
    damage_stays(GZIP, 50, 2 * MIB);
    damage_stays(ZSTD, 8, 16 * MIB);
}

#[test]
fn a_table_with_any_fault_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), GZIP);
    for form in [GZIP, ZSTD] {
        let first = layer(dir.path(), form.compression, 2, Some(Vec::new()));
        let table = bytes(&first.table);
        let is_read = |table: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(table, 0).unwrap();
            Source::new(form.kind(), &file, first.blob.try_clone().unwrap()).is_some()
        };
        assert!(is_read(&table));
        for place in 0..table.len() {
            let mut damaged = table.clone();
            damaged[place] ^= 1;
            assert!(!is_read(&damaged), "{place}");
            assert!(!is_read(&table[..place]), "{place}");
        }
    }
}

#[test]
fn copies_are_proved_on_demand() {
    for (form, least) in [(GZIP, 2 * MIB), (ZSTD, 16 * MIB)] {
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), form);
        let first = layer(dir.path(), form.compression, 2, Some(Vec::new()));
        let again = proved(dir.path(), form.compression, 2, Some(vec![first.source()]), true);
        assert!(again.summary.reused_bytes > least);
        assert!(bytes(&again.blob) == bytes(&first.blob));
    }
}

#[test]
fn frames_of_zstd_begin_and_end_with_large_contents() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), ZSTD);
    let blob = bytes(&layer(dir.path(), ZSTD.compression, 2, None).blob);
    let (mut rest, mut sizes) = (&blob[..], Vec::new());
    while !rest.is_empty() {
        let length = zstd::zstd_safe::find_frame_compressed_size(rest).unwrap();
        let frame = &rest[..length];
        let size = zstd::zstd_safe::get_frame_content_size(frame).unwrap().unwrap();
        assert_eq!(zstd::decode_all(frame).unwrap().len() as u64, size);
        sizes.push(size);
        rest = &rest[length..];
    }
    assert!(sizes.iter().all(|&size| size <= ZSTD.segment), "{sizes:?}");
    // The header of "large", its content, the header of "medium", its content, and the small files.
    assert_eq!(sizes[..6], [512, 8 * MIB, 8 * MIB, 4 * MIB, 512, 5 * MIB]);
    assert!(sizes[6..].len() > 1);
    assert!(sizes[6..sizes.len() - 1].iter().all(|&size| size >= 4 * MIB), "{sizes:?}");
}
