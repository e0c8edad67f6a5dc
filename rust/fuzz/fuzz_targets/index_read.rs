//! Any bytes under a right checksum are read as an index, or refused.
#![no_main]

use std::io::Write;

use ocidiff_core::Error;
use ocidiff_core::control::Control;
use ocidiff_core::index::IndexFile;

/// A file can lead to one block many times, so that a walk of all would take for ever.
const MAX_BLOCKS: usize = 1000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    let checksum = twox_hash::XxHash3_128::oneshot(data).to_be_bytes();
    file.write_all(&[data, &checksum].concat()).expect("a temporary file takes what is written");
    let index = match IndexFile::open(file.path(), &Control::default()) {
        Err(Error::IndexFile { .. }) => return,
        opened => opened.expect("only the file can be wrong"),
    };
    let mut todo = vec![index.root()];
    for _ in 0..MAX_BLOCKS {
        let Some(extent) = todo.pop() else { return };
        let folder = match index.folder(extent) {
            Err(Error::IndexFile { .. }) => continue,
            read => read.expect("only the file can be wrong"),
        };
        for number in 0..folder.names().len() {
            assert!(number == 0 || folder.name(number - 1) < folder.name(number), "names are out of order");
            let record = index.record(&folder, number).expect("a block that was read has whole records");
            let below = record.children().filter(|below| below.length > 0);
            assert!(below.is_none_or(|below| below.offset < extent.offset), "a directory is in itself");
            todo.extend(below);
        }
    }
});
