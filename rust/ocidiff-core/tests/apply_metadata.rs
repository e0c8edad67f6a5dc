//! Owners, modes, extended attributes, times and special files, with and without the right to set them.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use ocidiff_core::apply::{ApplyOptions, ApplySummary, Skipped};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use support::{Sandbox, dir, file, gzip, is_root, item, kind_of, link, symlink, tar, whiteout};

/// A capability set of version 2: cap_net_raw, effective.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const OTHER: u32 = 4242;

/// The attribute that notes owner, mode and device of a file that could not get them.
const RECORD: &str = "user.containers.override_stat";

fn xattr(sandbox: &Sandbox, path: &str, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    lgetxattr(sandbox.at(path), name, &mut value[..]).ok().map(|length| value[..length].to_vec())
}

fn mode(sandbox: &Sandbox, path: &str) -> u32 {
    fs::symlink_metadata(sandbox.at(path)).unwrap().mode() & 0o7777
}

/// Runs one of the tests below again as a user without rights, if we have any. A copy of the test program is run,
/// because that user may not see where it lies.
fn as_nobody(test: &str) -> bool {
    if !is_root() {
        return false;
    }
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = home.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture"]).env("TMPDIR", home.path()).current_dir("/").uid(OTHER).gid(OTHER);
    assert!(command.status().unwrap().success());
    true
}

#[test]
fn modes_are_exact_whatever_the_umask_and_set_id_bits_survive_the_owner() {
    let sandbox = Sandbox::default();
    let items = [
        file("all", "x").mode(0o7777),
        file("none", "x").mode(0),
        dir("d").mode(0o3777),
        item(b'6', "pipe").mode(0o622),
        dir("closed").mode(0),
        file("closed/inside", "x").mode(0o4711),
    ];
    sandbox.apply(&items).unwrap();
    for item in &items {
        let name = String::from_utf8_lossy(&item.name);
        if is_root() || name != "closed/inside" {
            assert_eq!(mode(&sandbox, &name), item.mode, "{name}");
        }
    }
    fs::set_permissions(sandbox.at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn owners_are_kept_for_every_kind_of_entry() {
    if !is_root() {
        // Without rights the attempt itself is the failure.
        assert_eq!(kind_of(&Sandbox::default().apply(&[file("a", "").owner(OTHER + 1, OTHER)])), "io");
        return;
    }
    let sandbox = Sandbox::default();
    let items = [dir("d"), file("f", ""), symlink("l", "f"), item(b'6', "p"), item(b'3', "c").device(1, 3)];
    let items = items.map(|item| item.owner(OTHER, OTHER + 1).mode(0o6711));
    sandbox.apply(&items).unwrap();
    for item in &items {
        let found = fs::symlink_metadata(sandbox.at(&String::from_utf8_lossy(&item.name))).unwrap();
        assert_eq!((found.uid(), found.gid()), (OTHER, OTHER + 1));
        assert!(found.is_symlink() || found.mode() & 0o7777 == 0o6711);
    }
    let big = file("big", "").pax("uid", "4294967294").pax("gid", "2097152");
    sandbox.apply(&[big]).unwrap();
    let found = fs::metadata(sandbox.at("big")).unwrap();
    assert_eq!((found.uid(), found.gid()), (4_294_967_294, 2_097_152));
}

#[test]
fn owners_that_chown_would_misread_are_refused() {
    for id in ["4294967295", "4294967296", "-1", "9223372036854775807", "-9223372036854775808"] {
        for key in ["uid", "gid"] {
            let sandbox = Sandbox::default();
            assert_eq!(kind_of(&sandbox.apply(&[file("a", "").pax(key, id)])), "unsafe", "{key} {id}");
            assert!(sandbox.listing().is_empty());
        }
    }
}

#[test]
fn without_same_owner_owners_stay_and_set_id_bits_go() {
    let options = ApplyOptions::default();
    let sandbox = Sandbox::default();
    let items = [
        file("theirs", "x").owner(OTHER + 1, OTHER + 1).mode(0o6755),
        file("ours", "x").mode(0o6755),
        dir("d").owner(OTHER + 1, OTHER + 1).mode(0o3755),
        symlink("l", "x").owner(OTHER + 1, 0),
    ];
    let summary = sandbox.apply_with(&tar(&items), &options).unwrap();
    assert_eq!(summary.skipped, Skipped { owners: 3, recorded: 2, ..Skipped::default() });
    assert_eq!(mode(&sandbox, "theirs"), 0o755);
    assert_eq!(mode(&sandbox, "ours"), 0o6755);
    assert_eq!(mode(&sandbox, "d"), 0o1755);
    assert_eq!(xattr(&sandbox, "theirs", RECORD), Some(b"4243:4243:06755".to_vec()));
    assert_eq!(xattr(&sandbox, "d", RECORD), Some(b"4243:4243:03755".to_vec()));
    assert_eq!(xattr(&sandbox, "ours", RECORD), None);
    for name in ["theirs", "ours", "d", "l"] {
        assert_eq!(fs::symlink_metadata(sandbox.at(name)).unwrap().uid(), rustix::process::geteuid().as_raw());
    }
}

#[test]
fn without_rights_devices_are_noted_and_capabilities_left_out_and_counted() {
    if as_nobody("without_rights_devices_are_noted_and_capabilities_left_out_and_counted") {
        return;
    }
    let sandbox = Sandbox::default();
    fs::write(sandbox.at("c"), "old").unwrap();
    let items = [
        item(b'3', "c").device(1, 3),
        link("also", "c"),
        item(b'4', "b").device(8, 0),
        item(b'6', "pipe"),
        file("cap", "x").xattr("security.capability", CAPABILITY),
        symlink("l", "x").xattr("user.a", "x"),
    ];
    let summary: ApplySummary = sandbox.apply_with(&tar(&items), &ApplyOptions::default()).unwrap();
    assert_eq!(summary.skipped, Skipped { recorded: 2, devices: 2, xattrs: 2, ..Skipped::default() });
    assert_eq!(sandbox.listing(), ["also", "b", "c", "cap", "l@", "pipe|"]);
    let owner = rustix::process::geteuid().as_raw();
    assert_eq!(xattr(&sandbox, "b", RECORD), Some(format!("{owner}:{owner}:0644:block-8-0").into_bytes()));
    assert_eq!(xattr(&sandbox, "also", RECORD), Some(format!("{owner}:{owner}:0644:char-1-3").into_bytes()));
    assert_eq!(mode(&sandbox, "c"), 0o400);
    for item in &items[..1] {
        assert_eq!(kind_of(&sandbox.apply(std::slice::from_ref(item))), "io");
    }
    assert_eq!(kind_of(&sandbox.apply(&items[4..5])), "io");
}

#[test]
fn without_rights_closed_directories_are_written_into_and_closed_again() {
    if as_nobody("without_rights_closed_directories_are_written_into_and_closed_again") {
        return;
    }
    let sandbox = Sandbox::default();
    let layer = [
        dir("a").mode(0o555).mtime(5),
        file("a/f", "x"),
        dir("a/b").mode(0),
        file("a/b/f", "x"),
        dir("a/b/c").mode(0o111),
        file("a/b/c/f", "x"),
        dir("gone").mode(0),
    ];
    let options = ApplyOptions::default();
    sandbox.apply_with(&tar(&layer), &options).unwrap();
    assert_eq!((mode(&sandbox, "a"), fs::metadata(sandbox.at("a")).unwrap().mtime()), (0o555, 5));
    assert_eq!(mode(&sandbox, "a/b"), 0);
    // Another layer works below them without naming them, and they stay as they are.
    sandbox.apply_with(&tar(&[file("a/b/c/g", "y"), whiteout("a/.wh.f"), whiteout(".wh.gone")]), &options).unwrap();
    assert_eq!((mode(&sandbox, "a"), mode(&sandbox, "a/b")), (0o555, 0));
    for path in ["a", "a/b", "a/b/c"] {
        fs::set_permissions(sandbox.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert_eq!(sandbox.listing(), ["a/", "a/b/", "a/b/c/", "a/b/c/f", "a/b/c/g", "a/b/f"]);
}

#[test]
fn xattrs_are_set_and_those_of_the_host_never() {
    let sandbox = Sandbox::default();
    let layer = [
        file("f", "x").xattr("user.a", "one").xattr("trusted.x", "x").pax("LIBARCHIVE.xattr.user.b", "x"),
        file("g", "x").xattr("user.overlay.opaque", "y").xattr("trusted.overlay.opaque", "y").xattr("no-namespace", "x"),
        dir("d").xattr("user.binary", b"\0\xff=\n"),
    ];
    let summary = sandbox.apply(&layer).unwrap();
    assert_eq!(summary.skipped, Skipped { xattrs: 4, ..Skipped::default() });
    assert_eq!(xattr(&sandbox, "f", "user.a").unwrap(), b"one");
    assert_eq!(xattr(&sandbox, "d", "user.binary").unwrap(), b"\0\xff=\n");
    for (path, name) in [("f", "trusted.x"), ("f", "user.b"), ("g", "user.overlay.opaque"), ("g", "trusted.overlay.opaque")]
    {
        assert_eq!(xattr(&sandbox, path, name), None, "{name}");
    }
}

#[test]
fn attributes_that_no_kernel_takes_are_named() {
    for (name, value) in [("user.large", vec![0; 70_000]), (&format!("user.{}", "n".repeat(300)), vec![0])] {
        let result = Sandbox::default().apply(&[file("f", "").xattr(name, value)]);
        assert_eq!(kind_of(&result), "unsafe");
        assert!(result.unwrap_err().to_string().contains(name));
    }
}

#[test]
fn a_capability_survives_owner_mode_and_a_later_link() {
    if !is_root() {
        assert_eq!(kind_of(&Sandbox::default().apply(&[file("f", "").xattr("security.capability", CAPABILITY)])), "io");
        return;
    }
    let sandbox = Sandbox::default();
    let ping = file("ping", "x").owner(OTHER, OTHER).mode(0o755).xattr("security.capability", CAPABILITY);
    // GNU tar writes it so: the link repeats owner and mode but no attributes.
    sandbox.apply(&[ping, link("also", "ping").owner(OTHER, OTHER).mode(0o755)]).unwrap();
    assert_eq!(xattr(&sandbox, "also", "security.capability").unwrap(), CAPABILITY);
    assert_eq!(fs::metadata(sandbox.at("ping")).unwrap().nlink(), 2);
}

#[test]
fn the_attributes_of_an_entry_replace_those_of_a_directory_that_was_there() {
    let sandbox = Sandbox::default();
    fs::create_dir(sandbox.at("d")).unwrap();
    for (name, value) in [("user.stays", "old"), ("user.goes", "old"), ("user.overlay.x", "host")] {
        lsetxattr(sandbox.at("d"), name, value.as_bytes(), XattrFlags::empty()).unwrap();
    }
    sandbox.apply(&[dir("d").mode(0o751).mtime(9).xattr("user.stays", "new")]).unwrap();
    assert_eq!(xattr(&sandbox, "d", "user.stays").unwrap(), b"new");
    assert_eq!(xattr(&sandbox, "d", "user.goes"), None);
    assert_eq!(xattr(&sandbox, "d", "user.overlay.x").unwrap(), b"host");
    assert_eq!((mode(&sandbox, "d"), fs::metadata(sandbox.at("d")).unwrap().mtime()), (0o751, 9));
}

#[test]
fn acls_come_from_entries_and_are_not_inherited() {
    // user::rwx, user:1:rwx, group::r-x, mask::rwx, other::r-x
    let acl: Vec<u8> = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[2, 0, 7, 0, 1, 0, 0, 0],
        &[4, 0, 5, 0, 255, 255, 255, 255],
        &[16, 0, 7, 0, 255, 255, 255, 255],
        &[32, 0, 5, 0, 255, 255, 255, 255],
    ]
    .concat();
    let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
    let sandbox = Sandbox::default();
    let layer = [
        dir("d").xattr(default, &acl),
        file("d/plain", "x").mode(0o600),
        file("d/own", "x").mode(0o775).xattr(access, &acl),
        item(b'6', "d/pipe").mode(0o600),
        dir("d/sub"),
        file("d/implied/x", ""),
        link("d/link", "d/own").mode(0o775).xattr(access, &acl),
    ];
    if sandbox.apply(&layer).unwrap().skipped.xattrs > 0 {
        // The file system has no ACLs: then there are none to inherit either.
        assert_eq!(xattr(&sandbox, "d", default), None);
        return;
    }
    assert_eq!(xattr(&sandbox, "d", default).unwrap(), acl);
    assert_eq!(xattr(&sandbox, "d/own", access).unwrap(), acl);
    for path in ["d/plain", "d/pipe", "d/sub", "d/implied"] {
        assert_eq!((xattr(&sandbox, path, access), xattr(&sandbox, path, default)), (None, None), "{path}");
    }
    assert_eq!((mode(&sandbox, "d/plain"), mode(&sandbox, "d/own")), (0o600, 0o775));
}

#[test]
fn times_are_kept_for_every_kind_and_directories_get_theirs_last() {
    let sandbox = Sandbox::default();
    let items = [
        dir("d").mtime(1),
        dir("d/e").mtime(2),
        file("d/e/f", "x").mtime(3),
        symlink("d/l", "nowhere").mtime(4),
        item(b'6', "d/p").mtime(5),
        link("d/e/g", "d/e/f").mtime(6),
        whiteout("d/.wh.x"),
        file("late", "x").mtime(7),
    ];
    sandbox.apply(&items).unwrap();
    for (path, mtime) in [("d", 1), ("d/e", 2), ("d/e/f", 6), ("d/l", 4), ("d/p", 5), ("late", 7)] {
        let found = fs::symlink_metadata(sandbox.at(path)).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec(), found.atime()), (mtime, 0, mtime), "{path}");
    }
}

#[test]
fn times_are_as_precise_as_the_entry_says() {
    let cases = [
        ("1700000000.123456789", None, (1_700_000_000, 123_456_789), (1_700_000_000, 123_456_789)),
        ("5.5", Some("6.25"), (5, 500_000_000), (6, 250_000_000)),
        ("7", Some("3"), (7, 0), (7, 0)),
        ("-1.25", None, (-2, 750_000_000), (-2, 750_000_000)),
        ("-86400", None, (-86400, 0), (-86400, 0)),
        ("5000000000.5", None, (5_000_000_000, 500_000_000), (5_000_000_000, 500_000_000)),
    ];
    for (mtime, atime, expected_mtime, expected_atime) in cases {
        let sandbox = Sandbox::default();
        for item in [file("x", "x"), dir("x"), symlink("x", "y")] {
            let item = item.pax("mtime", mtime);
            sandbox.apply(&[atime.into_iter().fold(item, |item, atime| item.pax("atime", atime))]).unwrap();
            let found = fs::symlink_metadata(sandbox.at("x")).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), expected_mtime, "{mtime}");
            assert_eq!((found.atime(), found.atime_nsec()), expected_atime, "{mtime}");
        }
    }
}

#[test]
fn times_beyond_all_file_systems_do_no_harm() {
    for mtime in ["9223372036854775807", "-9223372036854775808", "253402300800.99999999999999999999"] {
        Sandbox::default().apply(&[file("x", "x").pax("mtime", mtime), dir("d").pax("mtime", mtime)]).unwrap();
    }
    assert_eq!(kind_of(&Sandbox::default().apply(&[file("x", "").pax("mtime", "9223372036854775808")])), "malformed");
}

#[test]
fn device_numbers_are_kept_or_refused() {
    let refused = [(4096, 0), (0, 1 << 20), (2_097_151, 2_097_151)];
    for (major, minor) in refused {
        let result = Sandbox::default().apply(&[item(b'4', "b").device(major, minor)]);
        assert_eq!(kind_of(&result), "unsafe", "{major}:{minor}");
    }
    assert_eq!(kind_of(&Sandbox::default().apply(&[item(b'3', "c")])), "unsafe", "a whiteout of overlayfs");
    if is_root() {
        for (major, minor) in [(1, 3), (4095, (1 << 20) - 1), (8, 300)] {
            let sandbox = Sandbox::default();
            sandbox.apply(&[item(b'4', "b").device(major, minor).mode(0o666)]).unwrap();
            let found = fs::symlink_metadata(sandbox.at("b")).unwrap();
            assert_eq!(found.rdev(), rustix::fs::makedev(major, minor));
            assert_eq!(found.mode() & 0o7777, 0o666);
        }
    }
}

/// Packs a directory with a foreign tool, as root or not; what comes out of the layer is what went in.
fn round_trip(pack: &str, arguments: &[&str], compress: bool) {
    let source = Sandbox::default();
    let long = format!("{}/{}", "directory".repeat(20), "name".repeat(30));
    source
        .apply(&[
            dir("a").mtime(11).mode(0o2755),
            file("a/f", "content".repeat(1000)).mode(0o4755),
            link("a/hard", "a/f").mode(0o4755),
            symlink("a/l", "../b"),
            item(b'6', "a/p").mode(0o600),
            file("ünïcödé", "x").pax("mtime", "1700000000.5"),
            file("long", "y").pax("path", &long),
            symlink("far", "z").pax("linkpath", "target/".repeat(30)),
            file("empty", "").xattr("user.note", "kept"),
            dir("closed").mode(0o500),
        ])
        .unwrap();
    let output = Command::new(pack).args(arguments).current_dir(source.root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let blob = if compress { gzip(&output.stdout) } else { output.stdout };
    let copy = Sandbox::default();
    copy.apply_bytes(&blob).unwrap();
    assert_eq!(copy.listing(), source.listing());
    for path in source.paths() {
        let facts = |sandbox: &Sandbox| {
            let path = sandbox.root().join(&path);
            let found = fs::symlink_metadata(&path).unwrap();
            let content = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let target = fs::read_link(&path).ok();
            let links = if found.is_dir() { 0 } else { found.nlink() };
            (found.mode(), found.uid(), found.gid(), found.mtime(), links, content, target)
        };
        assert_eq!(facts(&copy), facts(&source), "{}", path.display());
    }
}

#[test]
fn what_gnu_tar_packs_in_any_of_its_formats_is_applied_as_it_was() {
    for format in ["--format=pax", "--format=gnu"] {
        round_trip("tar", &["-c", format, "--xattrs", "."], false);
        round_trip("tar", &["-cz", format, "."], false);
    }
}

#[test]
fn what_python_packs_in_any_of_its_formats_is_applied_as_it_was() {
    for format in ["PAX_FORMAT", "GNU_FORMAT"] {
        let program = format!(
            "import sys, tarfile\nwith tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.{format}) as t:\n t.add('.')"
        );
        round_trip("python3", &["-c", &program], true);
    }
}
