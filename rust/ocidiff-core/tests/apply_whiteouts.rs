//! Whiteouts hide what lower layers left, and nothing that the same layer holds, wherever they stand.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink as make_symlink;

use support::{Item, Sandbox, dir, file, item, kind_of, link, symlink, whiteout};

/// A lower tree of these paths (a slash makes a directory), the layer on it, and what is there then.
fn check(lower: &[&str], layer: &[Item], expected: &[&str]) {
    let sandbox = Sandbox::default();
    for path in lower {
        match path.strip_suffix('/') {
            Some(path) => fs::create_dir_all(sandbox.at(path)).unwrap(),
            None => fs::write(sandbox.at(path), "lower").unwrap(),
        }
    }
    sandbox.apply(layer).unwrap();
    let names: Vec<String> = layer.iter().map(|item| String::from_utf8_lossy(&item.name).into_owned()).collect();
    assert_eq!(sandbox.listing(), expected, "{names:?}");
}

#[test]
fn a_whiteout_removes_what_was_there() {
    check(&["a", "b"], &[whiteout(".wh.a")], &["b"]);
    check(&["d/", "d/e/", "d/e/f", "d/g"], &[whiteout(".wh.d")], &[]);
    check(&["d/", "d/a", "d/b"], &[dir("d"), whiteout("d/.wh.a")], &["d/", "d/b"]);
    check(&["a"], &[whiteout(".wh.missing")], &["a"]);
    check(&["d/", "d/a"], &[whiteout("d/../.wh.d")], &[]);
}

#[test]
fn what_the_same_layer_wrote_survives_before_and_after() {
    check(&["a"], &[file("a", ""), whiteout(".wh.a")], &["a"]);
    check(&["a"], &[whiteout(".wh.a"), file("a", "")], &["a"]);
    check(&["d/", "d/low", "d/x/", "d/x/low"], &[dir("d"), file("d/new", ""), whiteout(".wh.d")], &["d/", "d/new"]);
    check(&["d/", "d/low"], &[dir("d"), whiteout(".wh.d")], &["d/"]);
    check(&["d/", "d/low"], &[whiteout(".wh.d"), dir("d"), file("d/new", "")], &["d/", "d/new"]);
}

#[test]
fn ancestors_of_what_was_written_count_as_written() {
    let opaque = whiteout("d/.wh..wh..opq");
    let lower = ["d/", "d/x/", "d/x/low", "d/low"];
    check(&lower, &[file("d/x/y", ""), opaque.clone()], &["d/", "d/x/", "d/x/y"]);
    check(&lower, &[opaque.clone(), file("d/x/y", "")], &["d/", "d/x/", "d/x/y"]);
    check(&lower, &[file("d/x/y", ""), whiteout(".wh.d")], &["d/", "d/x/", "d/x/y"]);
    check(&["d/"], &[file("d/new/y", ""), opaque], &["d/", "d/new/", "d/new/y"]);
}

#[test]
fn an_opaque_marker_hides_the_lower_content_whatever_its_place() {
    let marker = whiteout("d/.wh..wh..opq");
    let (parent, child, sub) = (dir("d"), file("d/new", ""), dir("d/sub"));
    let lower = ["d/", "d/low", "d/sub/", "d/sub/low", "other"];
    let orders = [
        [&marker, &parent, &child, &sub],
        [&parent, &marker, &child, &sub],
        [&parent, &child, &marker, &sub],
        [&parent, &sub, &child, &marker],
    ];
    for order in orders {
        let layer: Vec<Item> = order.into_iter().cloned().collect();
        check(&lower, &layer, &["d/", "d/new", "d/sub/", "other"]);
    }
    check(&["a", "d/", "d/b"], &[whiteout(".wh..wh..opq")], &[]);
    check(&["a", "d/", "d/b"], &[file("d/c", ""), whiteout("/.wh..wh..opq")], &["d/", "d/c"]);
}

#[test]
fn repeated_and_nested_whiteouts_agree() {
    let layer = [
        dir("d"),
        dir("d/e"),
        file("d/e/new", ""),
        whiteout("d/e/.wh..wh..opq"),
        whiteout("d/.wh.e"),
        whiteout(".wh.d"),
        whiteout("d/.wh..wh..opq"),
        whiteout(".wh.d"),
    ];
    check(&["d/", "d/e/", "d/e/low", "d/low"], &layer, &["d/", "d/e/", "d/e/new"]);
}

#[test]
fn a_hard_link_to_a_lower_file_does_not_save_that_file() {
    check(&["low"], &[link("new", "low"), whiteout(".wh.low")], &["new"]);
    check(&["d/", "d/low"], &[link("d/new", "d/low"), whiteout("d/.wh..wh..opq")], &["d/", "d/new"]);
}

#[test]
fn a_path_through_a_link_names_the_same_thing() {
    let sandbox = Sandbox::default();
    fs::create_dir(sandbox.at("real")).unwrap();
    fs::write(sandbox.at("real/low"), "").unwrap();
    make_symlink("real", sandbox.at("alias")).unwrap();
    sandbox.apply(&[file("alias/new", ""), whiteout("real/.wh..wh..opq"), whiteout("real/.wh.new")]).unwrap();
    assert_eq!(sandbox.listing(), ["alias@", "real/", "real/new"]);
}

#[test]
fn a_whiteout_of_a_link_removes_the_link_only() {
    let sandbox = Sandbox::default();
    make_symlink(sandbox.outside(), sandbox.at("l")).unwrap();
    fs::create_dir(sandbox.at("d")).unwrap();
    make_symlink(sandbox.outside(), sandbox.at("d/l")).unwrap();
    sandbox.apply(&[whiteout(".wh.l"), whiteout(".wh.d")]).unwrap();
    assert!(sandbox.listing().is_empty());
}

#[test]
fn a_whiteout_below_a_dead_link_stays_inside() {
    let sandbox = Sandbox::default();
    make_symlink(sandbox.outside().join("missing"), sandbox.at("l")).unwrap();
    sandbox.apply(&[whiteout("l/.wh.passwd"), whiteout("l/.wh..wh..opq")]).unwrap();
    assert!(sandbox.at("l").is_symlink());
}

#[test]
fn a_whiteout_makes_no_directory_and_replaces_no_file() {
    for below in ["r/.wh.f", "r/s/.wh.f", "r/.wh..wh..opq", "r/s/.wh..wh..opq"] {
        check(&["r/", "r/f", "r/s/", "r/s/f"], &[file("r", "kept"), whiteout(below)], &["r"]);
        check(&["r/", "r/f", "r/s/", "r/s/f"], &[whiteout(below), file("r", "kept")], &["r"]);
        check(&["r"], &[whiteout(below)], &["r"]);
        check(&["other"], &[whiteout(below)], &["other"]);
    }
}

#[test]
fn a_whiteout_is_known_by_its_name_alone() {
    let shapes = [
        file(".wh.a", "data"),
        dir(".wh.a"),
        symlink(".wh.a", "/etc"),
        link(".wh.a", "missing"),
        item(b'6', ".wh.a"),
        item(b'3', ".wh.a"),
        whiteout(".wh.a").owner(0, 0).pax("uid", "-1"),
    ];
    for shape in shapes {
        check(&["a", "b"], &[shape, file("after", "")], &["after", "b"]);
    }
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."] {
        let sandbox = Sandbox::default();
        fs::create_dir(sandbox.at("d")).unwrap();
        fs::write(sandbox.at("d/low"), "").unwrap();
        assert_eq!(kind_of(&sandbox.apply(&[whiteout(name)])), "malformed", "{name}");
        assert_eq!(sandbox.listing(), ["d/", "d/low"], "{name}");
    }
}

#[test]
fn the_bookkeeping_of_aufs_is_left_out_and_counted() {
    let sandbox = Sandbox::default();
    let layer = [dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", ""), dir("d/.wh..wh.orph")];
    let summary = sandbox.apply(&layer).unwrap();
    assert_eq!((summary.skipped.aufs, summary.whiteouts, summary.entries), (3, 0, 4));
    assert!(sandbox.listing().is_empty());
}

#[test]
fn a_directory_component_that_looks_like_a_whiteout_is_a_name() {
    check(&["a"], &[file(".wh.a/b", "")], &[".wh.a/", ".wh.a/b", "a"]);
}

#[test]
fn whiteouts_are_counted() {
    let sandbox = Sandbox::default();
    let summary = sandbox.apply(&[dir("d"), whiteout("d/.wh.x"), whiteout("d/.wh..wh..opq")]).unwrap();
    assert_eq!((summary.entries, summary.whiteouts), (3, 2));
}

#[test]
fn a_tree_deeper_than_any_stack_is_removed() {
    let sandbox = Sandbox::default();
    let root = rustix::fs::open(sandbox.root(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let mut here = root;
    for _ in 0..5000 {
        rustix::fs::mkdirat(&here, "d", rustix::fs::Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, "d", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    drop(here);
    sandbox.apply(&[whiteout(".wh.d")]).unwrap();
    assert!(fs::read_dir(sandbox.root()).unwrap().next().is_none());
}

#[test]
fn a_wide_tree_is_removed() {
    let sandbox = Sandbox::default();
    for directory in 0..3 {
        fs::create_dir_all(sandbox.at(&format!("d/{directory}"))).unwrap();
        for index in 0..3000 {
            fs::write(sandbox.at(&format!("d/{directory}/{index:050}")), "").unwrap();
        }
    }
    sandbox.apply(&[file("d/1/new", ""), whiteout(".wh.d")]).unwrap();
    assert_eq!(sandbox.listing(), ["d/", "d/1/", "d/1/new"]);
}
