//! Measures the sha256 of ocidiff beside other implementations; each checks its digest.
//!
//! `OPENSSL_ia32cap=:~0x20000000` hides the SHA instructions of x86-64 from aws-lc, `RUSTFLAGS='--cfg sha2_backend="soft"'`
//! from sha2. ring can only be built without them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ocidiff_core::digest::Hasher;
use ocidiff_deflate::WINDOW_BYTES;
use ocidiff_kernels::machine_code;
use sha2::Digest as _;

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn ours(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish().0.bytes()
}

fn aws_lc(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("32 bytes")
}

fn ring(bytes: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

fn sha2(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

fn sha256(criterion: &mut Criterion) {
    let window = machine_code();
    // A block of a layer, and a small file.
    for (size, bytes) in [("block", &window[..WINDOW_BYTES]), ("1 KiB", &window[..1024])] {
        let mut group = criterion.benchmark_group(format!("sha256 {size}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        for (name, digest) in [("ocidiff", ours as fn(&[u8]) -> _), ("aws-lc-rs", aws_lc), ("ring", ring), ("sha2", sha2)] {
            let shown: String = digest(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(shown, ABC, "{name}");
            group.bench_function(name, |bencher| bencher.iter(|| digest(black_box(bytes))));
        }
        group.finish();
    }
}

criterion_group!(kernels, sha256);
criterion_main!(kernels);
