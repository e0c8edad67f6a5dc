//! Bounds and ends of an apply: limits, cancellation, a source that fails or sleeps; and its progress.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use ocidiff_core::apply::{ApplyOptions, Limits, apply_layer};
use ocidiff_core::control::Control;
use ocidiff_core::stream::Stream;
use ocidiff_core::{Error, Result};
use support::{Item, Sandbox, dir, file, gzip, kind_of, special, symlink, tar, zstd};

fn limited(blob: &[u8], limits: Limits) -> (Sandbox, Result<u64>) {
    let sandbox = Sandbox::default();
    let options = ApplyOptions { same_owner: true, limits, ..ApplyOptions::default() };
    let result = sandbox.apply_with(blob, &options).map(|summary| summary.entries);
    (sandbox, result)
}

fn limit_of(result: Result<u64>) -> &'static str {
    match result {
        Err(Error::LimitExceeded { limit, .. }) => limit,
        other => kind_of(&other),
    }
}

#[test]
fn a_bomb_stops_at_the_limit_wherever_it_hides() {
    let max = Limits { max_bytes: Some(1 << 20), ..Limits::default() };
    let bomb = vec![0; 64 << 20];
    let items = tar(&[file("before", "x")]);
    let (sandbox, result) = limited(&gzip(&tar(&[file("bomb", &bomb)])), max);
    assert_eq!((limit_of(result), sandbox.listing().len()), ("max_bytes", 0));
    let (sandbox, result) = limited(&zstd(&[&items[..], &bomb].concat()), max);
    assert_eq!((limit_of(result), sandbox.listing().len()), ("max_bytes", 1));
    let exact = Limits { max_bytes: Some(items.len() as u64), ..max };
    assert_eq!(limit_of(limited(&items, exact).1), "ok");
    assert_eq!(limit_of(limited(&gzip(&items), exact).1), "ok");
    let (_, result) = limited(&[&items[..], &[0]].concat(), exact);
    assert_eq!(limit_of(result), "max_bytes");
    assert_eq!(limit_of(limited(&gzip(&[&items[..], &bomb].concat()), exact).1), "max_bytes");
}

#[test]
fn entries_depth_and_headers_are_limited() {
    let max = Limits { max_entries: Some(2), max_depth: 3, max_header_bytes: 1024, ..Limits::default() };
    let items = [file("a", ""), file("b", ""), file("c", "")];
    assert_eq!(limit_of(limited(&tar(&items[..2]), max).1), "ok");
    let (sandbox, result) = limited(&tar(&items), max);
    assert_eq!((limit_of(result), sandbox.listing().len()), ("max_entries", 2));
    assert_eq!(limit_of(limited(&tar(&[file("a/b/c", "")]), max).1), "ok");
    assert_eq!(limit_of(limited(&tar(&[file("a/b/c/d", "")]), max).1), "max_depth");
    let long = file("a", "").pax("comment", "x".repeat(2000));
    assert_eq!(limit_of(limited(&tar(&[long]), max).1), "max_header_bytes");
    let deep = file("a", "").pax("path", "d/".repeat(100_000));
    assert_eq!(limit_of(limited(&tar(&[deep]), Limits::default()).1), "max_depth");
    let huge: Vec<u8> = special(b'x', &vec![b'x'; (1 << 20) + 1]);
    assert_eq!(limit_of(limited(&huge, Limits::default()).1), "max_header_bytes");
}

/// Cancels after some blocks, then goes on for ever.
struct Endless<'a> {
    control: &'a Control,
    left: u32,
}

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.control.cancel();
        }
        let block = &file("a", "").blocks()[..];
        for (target, source) in buffer.iter_mut().zip(block.iter().cycle()) {
            *target = *source;
        }
        Ok(buffer.len() / 512 * 512)
    }
}

#[test]
fn a_cancelled_apply_ends() {
    let sandbox = Sandbox::default();
    let control = Control::default();
    let source = Endless { control: &control, left: 10 };
    let result = apply_layer(source, &sandbox.root(), &ApplyOptions::default(), &control);
    assert_eq!(kind_of(&result), "cancelled");
}

#[test]
fn a_source_that_sleeps_holds_up_neither_a_failure_nor_a_cancellation() {
    for (content, expected) in [(b"garbage ".repeat(50_000), "malformed"), (b"".to_vec(), "cancelled")] {
        let (sandbox, control) = (Sandbox::default(), Arc::new(Control::default()));
        let (reader, mut writer) = io::pipe().unwrap();
        let other_end = std::thread::spawn({
            let (control, is_silent) = (control.clone(), content.is_empty());
            move || {
                // The call may end before it has taken all.
                let _ = writer.write_all(&content);
                std::thread::sleep(Duration::from_millis(50));
                if is_silent {
                    control.cancel();
                }
                // Held open, and returned only when the call has ended.
                writer
            }
        });
        let source = Stream::new(reader.into(), control.clone()).unwrap();
        let result = apply_layer(source, &sandbox.root(), &ApplyOptions::default(), &control);
        assert_eq!(kind_of(&result), expected);
        drop(other_end.join().unwrap());
    }
}

/// Fails in the middle.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let blob = tar(&[file("a", ""), file("b", vec![0; 100_000])]);
        if self.0 > 50_000 {
            return Err(io::Error::from_raw_os_error(5));
        }
        let count = buffer.len().min(blob.len() - self.0).min(7);
        buffer[..count].copy_from_slice(&blob[self.0..self.0 + count]);
        self.0 += count;
        Ok(count)
    }
}

#[test]
fn a_failure_of_the_source_is_told_as_such() {
    let sandbox = Sandbox::default();
    match apply_layer(Broken(0), &sandbox.root(), &ApplyOptions::default(), &Control::default()) {
        Err(Error::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(5)),
        other => assert_eq!(kind_of(&other), "io"),
    }
}

#[test]
fn progress_counts_bytes_and_entries() {
    let (sandbox, control) = (Sandbox::default(), Control::default());
    let plain = tar(&[dir("d"), file("d/a", "x".repeat(1000)), file("b", "y"), symlink("l", "d")]);
    let blob = gzip(&plain);
    apply_layer(&blob[..], &sandbox.root(), &ApplyOptions::default(), &control).unwrap();
    let seen = control.progress();
    assert_eq!((seen.entries, seen.bytes_plain, seen.bytes_blob), (4, plain.len() as u64, blob.len() as u64));
}

#[test]
fn the_target_must_be_a_directory() {
    let sandbox = Sandbox::default();
    fs::write(sandbox.at("file"), "").unwrap();
    for target in [sandbox.at("file"), sandbox.at("missing")] {
        let result = apply_layer(&b""[..], &target, &ApplyOptions::default(), &Control::default());
        assert_eq!(kind_of(&result), "io");
    }
}

#[test]
fn a_layer_of_many_small_files_is_whole() {
    let items: Vec<Item> = (0..5000).map(|index| file(format!("d/{}/{index}", index % 50), format!("{index}"))).collect();
    let sandbox = Sandbox::default();
    assert_eq!(sandbox.apply_bytes(&gzip(&tar(&items))).unwrap().entries, 5000);
    for index in (0..5000).step_by(501) {
        assert_eq!(fs::read(sandbox.at(&format!("d/{}/{index}", index % 50))).unwrap(), index.to_string().as_bytes());
    }
}
