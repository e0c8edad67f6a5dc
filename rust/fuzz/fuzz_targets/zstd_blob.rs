//! Any bytes behind the magic of zstd, or of its skippable frames, are decompressed, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ocidiff_fuzz::decompress(data);
    ocidiff_fuzz::decompress(&[&[0x28, 0xb5, 0x2f, 0xfd], data].concat());
    ocidiff_fuzz::decompress(&[&[0x5a, 0x2a, 0x4d, 0x18], data].concat());
});
