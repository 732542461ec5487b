//! Project quota of ext4 and xfs: each of a partition's directories is held to its limit.

use super::guest;
use plat_tests::guest::Guest;

pub const FORMAT: &str = "/host/node-format --config /root/format.toml";

pub fn configure(guest: &mut Guest, disk_mib: u32) {
    let text = format!(
        "version = 1\n[partitions]\namount = 3\n[network]\nmode = \"none\"\ntaps = false\nguard = false\n\
         [limits]\ndisk_mib = {disk_mib}\ndisk_quota = true\n"
    );
    guest.sh(&format!("cat > /root/format.toml <<'END'\n{text}END\n"));
}

/// Writes a file as the user of a partition.
fn write(guest: &mut Guest, partition: &str, name: &str, mib: u32) -> (i32, String) {
    let file = format!("/srv/plat/partitions/{partition}/srv/{name}");
    guest.run(&format!(
        "LC_ALL=C runuser -u {partition} -- dd if=/dev/zero of={file} bs=1M count={mib} conv=fsync status=none"
    ))
}

/// The projects of a file system that have a limit.
fn limited(guest: &mut Guest) -> Vec<String> {
    // User -- used soft hard grace used soft hard grace
    let report = guest.sh("repquota -P -n -O csv /srv");
    let hard =
        |line: &str| line.split(',').nth(5).is_some_and(|limit| limit.parse::<u64>().is_ok_and(|limit| limit > 0));
    report.lines().filter(|line| line.starts_with('#') && hard(line)).map(str::to_owned).collect()
}

fn a_life(guest: &mut Guest, make: &str, beyond: &str) {
    guest.sh(&format!(
        "truncate -s 512M /var/tmp/disk && {make} /var/tmp/disk && mount -o loop,prjquota /var/tmp/disk /srv && chmod 755 /srv"
    ));
    configure(guest, 16);
    let plan = guest.sh(&format!("{FORMAT} plan -v"));
    assert!(plan.contains("16 MiB"), "{plan}");
    guest.sh(&format!("{FORMAT} apply"));
    assert_eq!(guest.sh(&format!("{FORMAT} apply")), "nothing to do\n");
    guest.sh(&format!("{FORMAT} verify"));
    assert_eq!(limited(guest).len(), 3);
    assert_eq!(write(guest, "part0", "fits", 8).0, 0);
    let (code, why) = write(guest, "part0", "too-much", 16);
    assert!(code != 0 && why.contains(beyond), "{why}");
    assert_eq!(write(guest, "part1", "a-neighbour", 8).0, 0, "a neighbour has his own limit");

    // A directory that somebody removed comes back, and is limited as before.
    guest.sh("rm -r /srv/plat/partitions/part1");
    assert_eq!(guest.run(&format!("{FORMAT} verify")).0, 3);
    guest.sh(&format!("{FORMAT} apply && {FORMAT} verify"));
    let (code, why) = write(guest, "part1", "too-much", 32);
    assert!(code != 0 && why.contains(beyond), "{why}");

    // So is one that its user took out of his project; what he had written counts again.
    guest.sh("rm /srv/plat/partitions/part0/srv/too-much; chattr -R -p 0 /srv/plat/partitions/part0");
    assert_eq!(guest.run(&format!("{FORMAT} verify")).0, 3);
    guest.sh(&format!("{FORMAT} apply && {FORMAT} verify"));
    let (code, why) = write(guest, "part0", "too-much", 12);
    assert!(code != 0 && why.contains(beyond), "{why}");

    configure(guest, 64);
    assert_eq!(guest.run(&format!("{FORMAT} verify")).0, 3);
    guest.sh(&format!("{FORMAT} apply && {FORMAT} verify"));
    assert_eq!(write(guest, "part0", "fits-now", 32), (0, String::new()));

    // What its user makes deeper than can be erased at once, in a directory that takes in nothing of the project it is of.
    guest.sh("mkdir -p /srv/plat/partitions/part1/srv/$(printf 'd/%.0s' $(seq 300)); \
         chattr -p 4711 /srv/plat/partitions/part1 && chattr +P /srv/plat/partitions/part1");
    // A limit is its project's, not its directory's: none stays, not even of a directory that is gone.
    guest.sh("rm -r /srv/plat/partitions/part2");
    guest.sh(&format!("{FORMAT} reset --erase"));
    assert_eq!(limited(guest), Vec::<String>::new());
    assert_eq!(guest.sh("ls -A /srv | grep -vE '^(lost\\+found|aquota)' || true"), "");

    // What somebody else has limited is his.
    guest.sh("setquota -P 20001 0 1000 0 0 /srv");
    let before = guest.sh("cat /etc/passwd; find /srv");
    let (code, why) = guest.run(&format!("{FORMAT} apply"));
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("P0501") && why.contains("20001"), "{why}");
    assert_eq!(guest.sh("cat /etc/passwd; find /srv"), before);

    // Of a disk that is not there any more nothing is kept, though what its directories would lie on has no such limits.
    guest.sh(&format!("setquota -P 20001 0 0 0 0 /srv && {FORMAT} apply"));
    let said = guest.sh(&format!("umount /srv && {FORMAT} reset"));
    assert!(said.contains("/srv/plat is not there") && !said.contains("disk limit"), "{said}");
    assert_eq!(guest.sh("ls -A /var/lib/plat/format 2>/dev/null || true"), "");
    guest.sh("rm /var/tmp/disk");
}

#[test]
fn partitions_on_ext4_are_held_to_their_limits() {
    let Some(mut guest) = guest("project quota of ext4") else { return };
    a_life(&mut guest, "mkfs.ext4 -q -O quota,project", "Disk quota exceeded");
}

#[test]
fn partitions_on_xfs_are_held_to_their_limits() {
    let Some(mut guest) = guest("project quota of xfs") else { return };
    a_life(&mut guest, "mkfs.xfs -q", "No space left on device");
}

/// Those of node-format's own tests that only such a kernel can run.
#[test]
fn what_was_ignored_for_want_of_project_quota_holds() {
    let Some(mut guest) = guest("node-format's tests of project quota") else { return };
    let said = guest.sh("CI=true /host/node-format-unit-tests --ignored");
    let passed = said.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(passed.is_some_and(|passed| passed >= 3), "{said}");
}
