//! Names and links that try to leave the root: they end inside it, or fail, and nothing outside changes.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink as make_symlink};

use support::{Sandbox, dir, file, item, kind_of, link, symlink, tar, whiteout};

#[test]
fn names_that_climb_or_are_absolute_end_inside_the_root() {
    for name in ["../passwd", "/../passwd", "a/../../passwd", "/passwd", "./passwd", "passwd/", "//passwd"] {
        let sandbox = Sandbox::default();
        sandbox.apply(&[file(name, "layer")]).unwrap();
        assert_eq!(sandbox.listing(), ["passwd"], "{name}");
    }
}

#[test]
fn parents_that_are_links_are_resolved_inside_the_root() {
    for target in ["/", "/outside", "../outside", "../../../../../../outside"] {
        let sandbox = Sandbox::default();
        fs::create_dir_all(sandbox.at("outside/etc")).unwrap();
        sandbox.apply(&[symlink("l", target), file("l/etc/passwd", "layer"), dir("l/etc/new")]).unwrap();
        let base = if target == "/" { "" } else { "outside/" };
        assert_eq!(fs::read(sandbox.at(&format!("{base}etc/passwd"))).unwrap(), b"layer", "{target}");
        assert!(sandbox.at(&format!("{base}etc/new")).is_dir(), "{target}");
    }
}

#[test]
fn a_link_to_a_real_path_outside_does_not_lead_there() {
    let sandbox = Sandbox::default();
    let outside = sandbox.outside();
    make_symlink(&outside, sandbox.at("l")).unwrap();
    sandbox.apply(&[file("l/etc/passwd", "x"), whiteout("l/etc/.wh.passwd"), whiteout("l/.wh..wh..opq")]).unwrap();
    assert!(sandbox.at("l").is_symlink());
}

#[test]
fn the_last_component_is_never_followed() {
    let kinds = [file("l", "x"), dir("l"), symlink("l", "other"), item(b'6', "l"), link("l", "there")];
    for item in kinds {
        let sandbox = Sandbox::default();
        fs::write(sandbox.at("there"), "").unwrap();
        make_symlink(sandbox.outside().join("etc/passwd"), sandbox.at("l")).unwrap();
        sandbox.apply(&[item.mode(0o777).mtime(5)]).unwrap();
        let found = fs::symlink_metadata(sandbox.at("l")).unwrap();
        assert_eq!(found.mtime(), 5);
        assert!(fs::read_link(sandbox.at("l")).map_or(true, |target| target.as_os_str() == "other"));
    }
}

#[test]
fn hard_links_never_reach_an_inode_outside() {
    for target in ["../passwd", "/../passwd", "../../outside/etc/passwd", "l/etc/passwd"] {
        let sandbox = Sandbox::default();
        make_symlink(sandbox.outside(), sandbox.at("l")).unwrap();
        let result = sandbox.apply(&[link("new", target)]);
        assert_eq!(kind_of(&result), "malformed", "{target}");
        assert_eq!(sandbox.listing(), ["l@"], "{target}");
    }
}

#[test]
fn a_hard_link_to_a_link_links_the_link_and_leaves_its_target_alone() {
    let sandbox = Sandbox::default();
    let target = sandbox.outside().join("etc/passwd");
    make_symlink(&target, sandbox.at("l")).unwrap();
    sandbox.apply(&[link("new", "l").mode(0o6777).mtime(5)]).unwrap();
    let found = fs::symlink_metadata(sandbox.at("new")).unwrap();
    assert_eq!((found.nlink(), found.mtime()), (2, 5));
    assert_eq!(fs::read_link(sandbox.at("new")).unwrap(), target);
}

#[test]
fn hard_links_to_nothing_to_themselves_or_to_directories_are_refused_and_destroy_nothing() {
    for target in ["missing", "missing/deeper", "later", "d", "/", "..", "new", "./new"] {
        let sandbox = Sandbox::default();
        fs::create_dir(sandbox.at("d")).unwrap();
        fs::write(sandbox.at("new"), "old").unwrap();
        let result = sandbox.apply(&[link("new", target), file("later", "")]);
        assert_eq!(kind_of(&result), "malformed", "{target}");
        assert_eq!(fs::read(sandbox.at("new")).unwrap(), b"old", "{target}");
    }
}

#[test]
fn the_root_is_a_directory_and_stays_one() {
    let sandbox = Sandbox::default();
    let before = fs::metadata(sandbox.root()).unwrap();
    for (time, name) in (1..).zip([".", "./", "/", "..", "", "a/.."]) {
        let summary = sandbox.apply(&[dir(name).mode(0o1700).mtime(time), file("x", "")]).unwrap();
        let now = fs::metadata(sandbox.root()).unwrap();
        assert_eq!((now.mode() & 0o7777, now.mtime(), summary.has_root), (0o1700, time, true));
        for item in [file(name, ""), symlink(name, "/etc"), link(name, "x"), item(b'6', name)] {
            assert_eq!(kind_of(&sandbox.apply(&[item])), "unsafe", "{name:?}");
        }
    }
    let after = fs::metadata(sandbox.root()).unwrap();
    assert_eq!(before.ino(), after.ino());
}

#[test]
fn a_loop_of_links_as_parent_is_refused() {
    let sandbox = Sandbox::default();
    let result = sandbox.apply(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "")]);
    assert_eq!(kind_of(&result), "unsafe");
}

#[test]
fn links_keep_any_target() {
    let long = "t".repeat(4095);
    for target in ["/", "..", "../../../etc/passwd", "dangling", "loop", &long] {
        let sandbox = Sandbox::default();
        sandbox.apply(&[symlink("loop", target).pax("linkpath", target)]).unwrap();
        assert_eq!(fs::read_link(sandbox.at("loop")).unwrap().as_os_str(), target);
    }
}

#[test]
fn missing_parents_are_made_and_others_replaced() {
    let sandbox = Sandbox::default();
    fs::write(sandbox.at("file"), "").unwrap();
    sandbox.apply(&[file("a/b/c", ""), file("file/x", "")]).unwrap();
    assert_eq!(sandbox.listing(), ["a/", "a/b/", "a/b/c", "file/", "file/x"]);
    assert_eq!(fs::metadata(sandbox.at("a/b")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn an_entry_takes_the_place_of_what_is_there_unless_both_are_directories() {
    type Prepare = fn(&Sandbox);
    let make: [(&str, Prepare); 3] = [
        ("directory", |sandbox| fs::create_dir_all(sandbox.at("x/deep/er")).unwrap()),
        ("file", |sandbox| fs::write(sandbox.at("x"), "old").unwrap()),
        ("link", |sandbox| make_symlink("y", sandbox.at("x")).unwrap()),
    ];
    let items = [
        (file("x", "new"), vec!["x", "y/"]),
        (dir("x"), vec!["x/", "y/"]),
        (symlink("x", "z"), vec!["x@", "y/"]),
        (item(b'6', "x"), vec!["x|", "y/"]),
    ];
    for (before, prepare) in make {
        for (item, expected) in &items {
            let sandbox = Sandbox::default();
            fs::create_dir(sandbox.at("y")).unwrap();
            prepare(&sandbox);
            sandbox.apply(std::slice::from_ref(item)).unwrap();
            let merged = before == "directory" && item.kind == b'5';
            let expected = if merged { vec!["x/", "x/deep/", "x/deep/er/", "y/"] } else { expected.clone() };
            assert_eq!(sandbox.listing(), expected, "{before}");
        }
    }
}

#[test]
fn of_two_entries_with_one_name_the_last_wins_whatever_they_are() {
    let kinds = [file("x", "1"), dir("x"), symlink("x", "y"), link("x", "y"), item(b'6', "x")];
    for first in &kinds {
        for second in &kinds {
            let sandbox = Sandbox::default();
            fs::write(sandbox.at("y"), "").unwrap();
            sandbox.apply(&[first.clone(), second.clone()]).unwrap();
            let kind = sandbox.listing()[0].chars().nth(1);
            let expected = match second.kind {
                b'5' => Some('/'),
                b'2' => Some('@'),
                b'6' => Some('|'),
                _ => None,
            };
            assert_eq!(kind, expected);
        }
    }
}

#[test]
fn names_are_bytes() {
    let sandbox = Sandbox::default();
    let name = b"-\xff\xfe\n\x1b[31m";
    sandbox.apply(&[file(name, "x")]).unwrap();
    assert_eq!(sandbox.listing(), [r"-\xff\xfe\n\x1b[31m"]);
    let result = sandbox.apply(&[file(b"\x1b[31m\n", "x").owner(u32::MAX, 0).pax("uid", "-1")]);
    assert!(result.unwrap_err().to_string().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
}

#[test]
fn a_path_longer_than_a_system_call_takes_works_and_a_component_longer_than_a_name_fails() {
    let sandbox = Sandbox::default();
    let path = vec!["d".repeat(200); 30].join("/");
    let blob = tar(&[file("x", "x").pax("path", format!("{path}/x")), link("y", "x").pax("linkpath", format!("{path}/x"))]);
    sandbox.apply_bytes(&blob).unwrap();
    assert_eq!(fs::read(sandbox.at("y")).unwrap(), b"x");
    sandbox
        .apply(&[whiteout(format!(".wh.{}", "d".repeat(90))), whiteout("x").pax("path", format!(".wh.{}", "d".repeat(200)))])
        .unwrap();
    assert_eq!(sandbox.listing(), ["y"]);
    assert_eq!(kind_of(&sandbox.apply(&[file("x", "").pax("path", "n".repeat(256))])), "io");
}

#[test]
fn directories_that_a_later_link_hides_keep_the_times_of_what_it_leads_to() {
    let sandbox = Sandbox::default();
    fs::create_dir(sandbox.at("other")).unwrap();
    let items = [dir("d").mtime(7), dir("d/e").mtime(8), symlink("d", "other"), dir("d/e").mtime(9), symlink("l", "/")];
    sandbox.apply(&[&items[..], &[dir("gone").mtime(3), file("gone", "")]].concat()).unwrap();
    assert_ne!(fs::metadata(sandbox.at("other")).unwrap().mtime(), 7);
    assert_eq!(fs::metadata(sandbox.at("other/e")).unwrap().mtime(), 9);
}

#[test]
fn no_sequence_of_entries_reaches_outside() {
    // A multiplicative generator: the same layers in every run.
    let mut state = 1u64;
    let mut pick = |count: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % count
    };
    let parts = ["a", "b", "l", "..", ".", "", "etc", "passwd", "outside", ".wh.a", ".wh.passwd", ".wh..wh..opq"];
    let (mut applied, mut refused) = (0, 0);
    for _ in 0..100 {
        let sandbox = Sandbox::default();
        let absolute = sandbox.outside().into_os_string().into_string().unwrap();
        make_symlink(&absolute, sandbox.at("l")).unwrap();
        for _ in 0..20 {
            let name = |pick: &mut dyn FnMut(usize) -> usize| {
                let start = ["", "/", "../", "l/", "a/"][pick(5)];
                let rest: Vec<&str> = (0..=pick(3)).map(|_| parts[pick(parts.len())]).collect();
                format!("{start}{}", rest.join("/"))
            };
            let path = name(&mut pick);
            let target = if pick(4) == 0 { absolute.clone() } else { name(&mut pick) };
            let entry = match pick(6) {
                0 => dir(&path),
                1 => symlink(&path, &target),
                2 => link(&path, &target),
                3 => item(b'6', &path),
                _ => file(&path, "layer"),
            };
            match sandbox.apply(&[entry.mode(0o777).mtime(1)]) {
                Ok(_) => applied += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(applied > 1000 && refused > 100, "{applied} {refused}");
}
