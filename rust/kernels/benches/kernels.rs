//! Measures deflate at every level, tar headers, and the walk of two trees; each checks what it made.

use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::DeflateDecoder;
use ocidiff_core::change::Rules;
use ocidiff_core::control::Control;
use ocidiff_core::diff::changes;
use ocidiff_core::tar::header::{BLOCK_BYTES, EntryType, Header};
use ocidiff_deflate::{DICTIONARY_BYTES, Encoder, Level, WINDOW_BYTES};
use ocidiff_kernels::machine_code;

const DIRECTORIES: usize = 100;
const FILES: usize = 100;

fn deflate(criterion: &mut Criterion) {
    let window = machine_code();
    let mut group = criterion.benchmark_group("deflate");
    group.throughput(Throughput::Bytes((WINDOW_BYTES - DICTIONARY_BYTES) as u64));
    for level in 1..=9 {
        let mut encoder = Encoder::new(Level::new(level));
        // Without a dictionary, which the decoder is not given.
        let packed = encoder.encode(&window, 0, WINDOW_BYTES, true).to_vec();
        let mut plain = Vec::new();
        DeflateDecoder::new(&packed[..]).read_to_end(&mut plain).expect("it is deflate");
        assert!(plain == window[..WINDOW_BYTES], "level {level} gives back what it was given");
        group.bench_function(BenchmarkId::from_parameter(level), |bencher| {
            bencher.iter(|| encoder.encode(black_box(&window), DICTIONARY_BYTES, WINDOW_BYTES, false).len());
        });
    }
    group.finish();
}

fn headers(criterion: &mut Criterion) {
    let header = |name| Header {
        name,
        entry_type: EntryType::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 4096,
        mtime: 1_700_000_000,
        link_name: b"",
        device: (0, 0),
        xattrs: &[],
    };
    let long = [b'n'; 200];
    let mut group = criterion.benchmark_group("header");
    for (title, name, blocks) in [("short", &b"usr/bin/env"[..], 1), ("pax", &long[..], 3)] {
        let mut out = Vec::new();
        header(name).write(&mut out).expect("it can be said");
        assert_eq!(out.len(), blocks * BLOCK_BYTES);
        group.bench_function(title, |bencher| {
            bencher.iter(|| {
                out.clear();
                header(black_box(name)).write(&mut out)
            });
        });
    }
    group.finish();
}

fn walk(criterion: &mut Criterion) {
    let place = tempfile::tempdir().expect("a directory");
    let [lower, upper] = ["lower", "upper"].map(|name| place.path().join(name));
    for tree in [&lower, &upper] {
        for directory in 0..DIRECTORIES {
            fill(&tree.join(directory.to_string()));
        }
    }
    fs::write(upper.join("7/new"), "new").expect("a file");
    let found = || {
        let changes = changes(Some(&lower), &upper, Rules::OCI, 2, &Arc::new(Control::default())).expect("two trees");
        changes.map(|change| change.expect("a change").path).collect::<Vec<_>>()
    };
    assert!(found().contains(&b"7/new".to_vec()));
    let mut group = criterion.benchmark_group("walk");
    group.throughput(Throughput::Elements((2 * DIRECTORIES * FILES) as u64));
    group.bench_function("two trees", |bencher| bencher.iter(|| found().len()));
    group.finish();
}

fn fill(directory: &Path) {
    fs::create_dir_all(directory).expect("a directory");
    for file in 0..FILES {
        let file = fs::File::create(directory.join(file.to_string())).expect("a file");
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 1);
        file.set_modified(time).expect("a time");
    }
}

criterion_group!(kernels, deflate, headers, walk);
criterion_main!(kernels);
