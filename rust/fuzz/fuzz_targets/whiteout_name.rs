//! A whiteout names a sibling, never anything else.
#![no_main]

use ocidiff_core::whiteout::{PREFIX, Whiteout};

libfuzzer_sys::fuzz_target!(|name: &[u8]| {
    if name.contains(&b'/') {
        return;
    }
    match Whiteout::parse(name, 0) {
        Ok(None) => assert!(!name.starts_with(PREFIX)),
        Ok(Some(Whiteout::Removal(hidden))) => {
            assert_eq!([PREFIX, hidden].concat(), name);
            assert!(!hidden.is_empty() && hidden != b"." && hidden != b"..");
        }
        Ok(Some(_)) => assert!(name.starts_with(b".wh..wh.")),
        Err(_) => assert!(name.starts_with(PREFIX) && name.len() <= PREFIX.len() + 2),
    }
});
