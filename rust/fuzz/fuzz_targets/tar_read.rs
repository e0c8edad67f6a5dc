//! Any bytes are read as entries, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ocidiff_fuzz::read_entries(data);
    let mut sealed = data.to_vec();
    ocidiff_fuzz::seal(&mut sealed);
    ocidiff_fuzz::read_entries(&sealed);
});
