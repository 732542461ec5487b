//! Releases whose packages are locked, of an archive that goes on.

use crate::grid::quiet_grid;
use plat_tests::grid::Grid;
use plat_tests::namespace::{Namespace, root_or_skip};
use plat_tests::relay;
use std::fs;

/// The archive, in the hub.
const ARCHIVE: &str = "[fd00:5::1]:8000";

const GREETER: &str = "
version: 1
name: greeter
sources:
  words: {deb: {packages: [plat-words]}}
services:
  greeter:
    command:
      - /bin/sh
      - -c
      - 'cat \"$0\" > srv/said && exec sleep 100000'
      - \"{{ release.directory }}/usr/share/plat-words\"
promises:
  greets: {exec: [/usr/bin/test, -s, \"{{ partition.directory }}/srv/said\"]}
resources: {memory_mib: 16}
";

/// Puts one more version of the only package into the archive, beside those that are there.
fn publish(grid: &Grid, version: &str) {
    let folder = grid.folder.path().join("archive");
    grid.hub.sh(&format!(
        "mkdir -p {folder} && cd {folder}
         new=$(mktemp -d) && mkdir -p $new/DEBIAN $new/usr/share
         echo 'words of {version}' > $new/usr/share/plat-words
         printf '%s\\n' 'Package: plat-words' 'Version: {version}' 'Architecture: all' \\
           'Maintainer: nobody <a@b.example>' 'Description: words' > $new/DEBIAN/control
         chmod 755 $new && dpkg-deb --root-owner-group --build $new plat-words_{version}_all.deb && rm -r $new
         for file in *.deb; do
           dpkg-deb --field $file
           printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' $file $(stat -c %s $file) $(sha256sum < $file | cut -c -64)
         done > Packages
         printf 'SHA256:\n %s %s Packages\n' $(sha256sum < Packages | cut -c -64) $(stat -c %s Packages) > Release",
        folder = folder.display()
    ));
}

/// Points the apt of a machine to that archive alone.
fn reach_archive(space: &Namespace) {
    space.sh("cd /etc/apt && rm -rf sources.list.d/* apt.conf.d/*proxy*");
    let line = format!("deb [trusted=yes] http://{ARCHIVE}/ ./\n");
    fs::write(space.path("/etc/apt/sources.list"), line).expect("a namespace's file can be written");
    let direct = "Acquire::http::Proxy \"DIRECT\";\n";
    fs::write(space.path("/etc/apt/apt.conf.d/99direct"), direct).expect("a namespace's file can be written");
}

#[test]
fn a_locked_release_is_the_same_to_the_byte_and_is_installed_as_locked_whatever_its_archive_has_by_now() {
    if !root_or_skip("a locked release") {
        return;
    }
    let grid = quiet_grid("locked", &[1]);
    publish(&grid, "1.0");
    relay::serve(&grid.hub, ARCHIVE, grid.folder.path().join("archive"));
    reach_archive(&grid.hub);
    reach_archive(&grid.nodes[0].space);
    let document = grid.write("greeter.yaml", GREETER);
    let lock = grid.folder.path().join("greeter.lock.yaml");
    let path = lock.display().to_string();
    let locked = |arguments: &[&str]| {
        let said = grid.plat.json(&[&["release", "lock", &document], arguments].concat());
        assert_eq!(said["file"], *path, "{said}");
        (fs::read_to_string(&lock).expect("it is beside its document"), said["digest"].clone())
    };
    let first = locked(&[]);
    assert!(first.0.contains("\"1.0\"") && first.0.contains(ARCHIVE), "{}", first.0);
    publish(&grid, "2.0");
    assert_eq!(locked(&[]), first);

    let added = grid.plat.json(&["release", "add", &path]);
    assert_eq!(added["digest"], first.1);
    grid.plat.json(&["supply", "greeter", "--all", "--wait", "--timeout", "60"]);
    let ready = grid.plat.json(&["request", "one", "--release", "greeter", "--wait", "--timeout", "60"]);
    let said = grid.nodes[0].partition(ready["partition"].as_str().expect("it is placed")).join("srv/said");
    assert_eq!(fs::read_to_string(said).expect("it ran"), "words of 1.0\n");

    let newer = locked(&["--update"]);
    assert!(newer.0.contains("\"2.0\"") && !newer.0.contains("\"1.0\""), "{}", newer.0);
    assert_ne!(newer.1, first.1);
}
