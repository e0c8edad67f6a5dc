//! Obstacles to reading a layer: compression, broken archives, lies about sizes, old formats.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write;

use ocidiff_core::Error;
use support::{Sandbox, dir, file, gzip, item, kind_of, link, seal, special, symlink, tar, zstd};

const EMPTY_TAR: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
const NOTHING: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn layer() -> Vec<u8> {
    tar(&[dir("d"), file("d/a", "x".repeat(1000)), file("b", "y".repeat(100_000)), symlink("l", "d")])
}

/// A skippable frame of zstd.
fn skippable(content: &[u8]) -> Vec<u8> {
    [&[0x5a, 0x2a, 0x4d, 0x18][..], &(content.len() as u32).to_le_bytes(), content].concat()
}

#[test]
fn every_compression_gives_the_same_tree_and_diff_id() {
    let plain = layer();
    let (head, tail) = plain.split_at(1500);
    let blobs = [
        plain.clone(),
        gzip(&plain),
        zstd(&plain),
        [gzip(head), gzip(b""), gzip(tail)].concat(),
        [zstd(head), zstd(tail)].concat(),
        [skippable(b"toc"), zstd(head), skippable(b""), zstd(tail), skippable(b"end")].concat(),
    ];
    for blob in blobs {
        let sandbox = Sandbox::default();
        let summary = sandbox.apply_bytes(&blob).unwrap();
        assert_eq!(sandbox.listing(), ["b", "d/", "d/a", "l@"]);
        assert_eq!((summary.size, summary.uncompressed_size), (blob.len() as u64, plain.len() as u64));
        assert_eq!(summary.digest, Sandbox::default().apply_bytes(&[&blob[..]].concat()).unwrap().digest);
        assert_eq!(summary.diff_id, Sandbox::default().apply_bytes(&plain).unwrap().digest);
    }
}

#[test]
fn empty_layers_have_the_known_digests() {
    let sandbox = Sandbox::default();
    let zeros = [0; 1024];
    assert_eq!(sandbox.apply_bytes(&zeros).unwrap().diff_id.to_string(), EMPTY_TAR);
    assert_eq!(sandbox.apply_bytes(&gzip(&zeros)).unwrap().diff_id.to_string(), EMPTY_TAR);
    let nothing = sandbox.apply_bytes(b"").unwrap();
    assert_eq!((nothing.diff_id.to_string().as_str(), nothing.size, nothing.entries), (NOTHING, 0, 0));
    assert!(sandbox.listing().is_empty());
}

#[test]
fn every_prefix_of_a_tar_is_whole_or_fails() {
    let items =
        [file("a", "x".repeat(600)), dir("d"), file("d/b", "y").pax("mtime", "1.5"), symlink("l", "d"), file("z", "")];
    let plain = tar(&items);
    let mut starts: Vec<usize> = vec![0];
    for item in &items {
        starts.push(starts.last().unwrap() + item.blocks().len());
    }
    for end in (0..=plain.len()).filter(|end| end % 512 == 0 || end % 97 == 0) {
        let result = Sandbox::default().apply_bytes(&plain[..end]);
        let whole = starts.contains(&end) || starts.last().is_some_and(|last| end > *last);
        // The end inside the padding of an entry counts as the end of the tar.
        let in_padding = items.iter().zip(&starts).any(|(item, start)| {
            let padding = item.data.len().next_multiple_of(512) - item.data.len();
            let next = start + item.blocks().len();
            end < next && end >= next - padding
        });
        let in_end_mark = starts.last().is_some_and(|last| end > *last) && end % 512 != 0;
        let expected = if (whole && !in_end_mark) || in_padding { "ok" } else { "malformed" };
        assert_eq!(kind_of(&result), expected, "{end}");
    }
}

#[test]
fn every_prefix_of_a_compressed_blob_fails() {
    let layer = tar(&[file("a", "x")]);
    for blob in [gzip(&layer), zstd(&layer)] {
        for end in 5..blob.len() {
            assert_eq!(kind_of(&Sandbox::default().apply_bytes(&blob[..end])), "malformed", "{end} of {}", blob.len());
        }
        let second = [&blob[..], &skippable(b"some")].concat();
        for end in blob.len() + 1..second.len() {
            assert_eq!(kind_of(&Sandbox::default().apply_bytes(&second[..end])), "malformed", "{end} of {}", blob.len());
        }
    }
}

#[test]
fn garbage_behind_a_compressed_stream_fails_zeros_too() {
    for blob in [gzip(&layer()), zstd(&layer())] {
        for garbage in [&b"\0"[..], &[0; 512], b"garbage", b"\x1f\x8b", b"\x1f\x8b\x08"] {
            let result = Sandbox::default().apply_bytes(&[&blob[..], garbage].concat());
            assert_eq!(kind_of(&result), "malformed", "{}", garbage.escape_ascii());
        }
    }
}

#[test]
fn damaged_blobs_fail() {
    for blob in [gzip(&layer()), zstd_with_checksum(&layer())] {
        for index in (4..blob.len()).step_by(7) {
            let mut damaged = blob.clone();
            damaged[index] ^= 0x10;
            let result = Sandbox::default().apply_bytes(&damaged);
            // The header of gzip has fields that nothing depends on.
            assert!(result.is_err() || index < 10, "{index} of {}", blob.len());
        }
    }
}

fn zstd_with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_zstd_window_beyond_128_mib_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&layer()).unwrap();
    assert_eq!(kind_of(&Sandbox::default().apply_bytes(&encoder.finish().unwrap())), "malformed");
}

#[test]
fn many_empty_members_and_frames_take_linear_time() {
    let members = [gzip(b"").repeat(200_000), gzip(&layer())].concat();
    let frames = [zstd(b"").repeat(200_000), skippable(b"").repeat(200_000), zstd(&layer())].concat();
    for blob in [members, frames] {
        let sandbox = Sandbox::default();
        sandbox.apply_bytes(&blob).unwrap();
        assert_eq!(sandbox.listing(), ["b", "d/", "d/a", "l@"]);
    }
}

#[test]
fn what_follows_the_end_mark_is_hashed_and_not_applied() {
    let trailing = [tar(&[file("a", "")]), file("b", "").blocks(), b"garbage".repeat(1000)].concat();
    for blob in [trailing.clone(), gzip(&trailing)] {
        let sandbox = Sandbox::default();
        let summary = sandbox.apply_bytes(&blob).unwrap();
        assert_eq!(sandbox.listing(), ["a"]);
        assert_eq!((summary.size, summary.uncompressed_size), (blob.len() as u64, trailing.len() as u64));
    }
}

#[test]
fn one_block_of_zeros_ends_a_stream_but_no_archive() {
    let one = [file("a", "").blocks(), vec![0; 512]].concat();
    assert_eq!(Sandbox::default().apply_bytes(&one).unwrap().entries, 1);
    let then = [one, file("b", "").blocks()].concat();
    assert_eq!(kind_of(&Sandbox::default().apply_bytes(&then)), "malformed");
}

#[test]
fn a_pax_size_decides_over_the_header() {
    // Whoever believes the header finds an entry in what is data, or data in what is an entry.
    let smuggled = file("smuggled", "").blocks();
    let lies = [
        file("a", &smuggled).size(0).pax("size", "512"),
        file("a", &smuggled).size(1 << 20).pax("size", "512"),
        file("a", &smuggled).size(1).pax("size", "512"),
    ];
    for lie in lies {
        let sandbox = Sandbox::default();
        sandbox.apply(&[lie, file("b", "")]).unwrap();
        assert_eq!(sandbox.listing(), ["a", "b"]);
        assert_eq!(fs::read(sandbox.at("a")).unwrap(), smuggled);
    }
}

#[test]
fn only_files_have_data_whatever_their_headers_say() {
    for item in [dir("x").size(512), symlink("x", "y").size(512), link("x", "b").size(512), item(b'6', "x").size(512)] {
        let sandbox = Sandbox::default();
        let summary = sandbox.apply(&[file("b", ""), item.pax("size", "512"), file("c", "")]).unwrap();
        assert_eq!(summary.entries, 3);
        assert!(sandbox.at("c").is_file());
    }
}

#[test]
fn of_each_kind_the_last_special_header_counts_and_gnu_goes_before_pax() {
    let long = "n".repeat(120);
    let entry = file("short", "x").blocks();
    let layers = [
        ([special(b'L', b"first\0"), special(b'L', [long.as_bytes(), b"\0"].concat().as_slice())].concat(), &long[..]),
        ([special(b'x', b"9 path=a\n"), special(b'x', b"9 path=b\n")].concat(), "b"),
        ([special(b'x', b"9 path=a\n"), special(b'x', b"9 size=1\n")].concat(), "short"),
        ([special(b'L', b"gnu\0"), special(b'x', b"9 path=a\n")].concat(), "gnu"),
        ([special(b'g', b"9 path=a\n")].concat(), "short"),
        ([special(b'x', b"8 path=\n")].concat(), "short"),
    ];
    for (headers, expected) in layers {
        let sandbox = Sandbox::default();
        let summary = sandbox.apply_bytes(&[&headers[..], &entry].concat()).unwrap();
        assert_eq!((sandbox.listing(), summary.entries), (vec![expected.to_owned()], 1));
    }
    let link_target = [special(b'K', b"target\0"), symlink("l", "other").blocks()].concat();
    let sandbox = Sandbox::default();
    sandbox.apply_bytes(&link_target).unwrap();
    assert_eq!(fs::read_link(sandbox.at("l")).unwrap().as_os_str(), "target");
}

#[test]
fn headers_that_describe_nothing_or_are_broken_fail() {
    let entry = file("a", "x").blocks();
    let with = |change: fn(&mut [u8; 512])| -> Vec<u8> {
        let mut block: [u8; 512] = entry[..512].try_into().unwrap();
        change(&mut block);
        [&block[..], &entry[512..]].concat()
    };
    let sealed = |change: fn(&mut [u8; 512])| -> Vec<u8> {
        let mut bytes = with(change);
        let mut block: [u8; 512] = bytes[..512].try_into().unwrap();
        seal(&mut block);
        bytes[..512].copy_from_slice(&block);
        bytes
    };
    let cases = [
        ("x at the end", special(b'x', b"9 path=a\n")),
        ("x before the end mark", [special(b'x', b"9 path=a\n"), vec![0; 1024]].concat()),
        ("L at the end", special(b'L', b"a\0")),
        ("no records", [special(b'x', b"garbage\n"), entry.clone()].concat()),
        ("a record without its end", [special(b'x', b"9 path=a"), entry.clone()].concat()),
        ("NUL in a path", [special(b'x', b"11 path=a\0b\n"), entry.clone()].concat()),
        ("wrong checksum", with(|block| block[0] = b'b')),
        ("no checksum", with(|block| block[148..156].fill(b'x'))),
        ("no number", sealed(|block| block[124] = b'z')),
        ("negative size", sealed(|block| block[124..136].fill(0xff))),
        ("huge size", sealed(|block| block[124..136].copy_from_slice(b"\x80\0\0\0\xff\0\0\0\0\0\0\0"))),
        ("sparse", sealed(|block| block[156] = b'S')),
        ("volume label", sealed(|block| block[156] = b'V')),
        ("garbage", b"garbage ".repeat(64)),
    ];
    for (what, blob) in cases {
        assert_eq!(kind_of(&Sandbox::default().apply_bytes(&blob)), "malformed", "{what}");
    }
    let negative_size = file("a", "x").pax("size", "-1");
    assert_eq!(kind_of(&Sandbox::default().apply(&[negative_size])), "malformed");
    let sparse = file("a", "x").pax("GNU.sparse.major", "1");
    assert_eq!(kind_of(&Sandbox::default().apply(&[sparse])), "unsupported");
}

#[test]
fn a_failure_names_the_place_in_the_tar() {
    let good = file("a", "x").blocks();
    let result = Sandbox::default().apply_bytes(&[&good[..], &b"garbage ".repeat(64)].concat());
    assert!(matches!(result, Err(Error::MalformedLayer { offset: 1536, .. })), "{result:?}");
}

#[test]
fn old_headers_are_read() {
    let mut v7: [u8; 512] = file("old/", "").blocks()[..512].try_into().unwrap();
    v7[156] = 0;
    v7[257..].fill(0);
    seal(&mut v7);
    // A checksum of signed bytes, as some old tools wrote it.
    let mut signed: [u8; 512] = file(b"\xff\xfe", "").blocks()[..512].try_into().unwrap();
    signed[148..156].fill(b' ');
    let sum: i32 = signed.iter().map(|&byte| i32::from(byte.cast_signed())).sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut prefixed: [u8; 512] = file("name", "").blocks()[..512].try_into().unwrap();
    prefixed[345..351].copy_from_slice(b"prefix");
    seal(&mut prefixed);
    let sandbox = Sandbox::default();
    sandbox.apply_bytes(&[v7, signed, prefixed].concat()).unwrap();
    assert_eq!(sandbox.listing(), ["old/", "prefix/", "prefix/name", r"\xff\xfe"]);
}
