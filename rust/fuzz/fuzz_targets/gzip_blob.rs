//! Any bytes behind the magic of gzip are decompressed, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ocidiff_fuzz::decompress(data);
    ocidiff_fuzz::decompress(&[&[0x1f, 0x8b, 8], data].concat());
});
