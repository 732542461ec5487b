//! The user database: what others wrote in it stays as it is, whatever becomes of a run.

use super::effects::acting_before;
use super::machine::{Machine, ip, on_a_machine, program, until};
use rustix::fs::XattrFlags;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

const DATABASE: [&str; 4] = ["passwd", "group", "shadow", "gshadow"];

fn text(machine: &Machine, name: &str) -> String {
    fs::read_to_string(machine.path("etc").join(name)).unwrap()
}

fn write(machine: &Machine, all: [&str; 4]) {
    DATABASE.iter().zip(all).for_each(|(name, text)| fs::write(machine.path("etc").join(name), text).unwrap());
}

/// The lines of the four files; in which order they come matters to nobody.
fn lines(machine: &Machine) -> Vec<Vec<String>> {
    let sorted = |name: &str| {
        let mut lines: Vec<String> = text(machine, name).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    DATABASE.map(sorted).to_vec()
}

fn edit(machine: &Machine, name: &str, from: &str, to: &str) {
    let text = text(machine, name);
    assert!(text.contains(from), "{from} in {text}");
    fs::write(machine.path("etc").join(name), text.replace(from, to)).unwrap();
}

const PLAIN: [&str; 4] = [
    "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n",
    "root:x:0:\nwww:x:33:\n",
    "root:*:1::::::\nwww:*:1::::::\n",
    "root:*::\nwww:*::\n",
];

/// Part0 gets a shell, a password and another group, and others come into its own.
fn by_hand(machine: &Machine) {
    edit(machine, "passwd", "part0:/usr/sbin/nologin", "part0:/bin/zsh");
    let shadow = text(machine, "shadow");
    let found = shadow.lines().find(|line| line.starts_with("part0:")).unwrap();
    edit(machine, "shadow", found, "part0:$6$hash:7::::::");
    edit(machine, "group", "part0:x:61000:", "part0:x:61000:www");
    edit(machine, "group", "www:x:33:", "www:x:33:part0");
    edit(machine, "gshadow", "www:*::", "www:*:part0:part0");
}

#[test]
fn a_run_that_fails_brings_users_back_with_all_that_somebody_gave_them() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        machine.configure(1);
        machine.must(&["apply"]);
        by_hand(machine);
        let before = lines(machine);
        // The users of the old name go, and those of the new one cannot be made.
        let config = fs::read_to_string(machine.path("format.toml")).unwrap();
        let config = config.replace("[partitions]\n", "[partitions]\nuser_base_name = \"guest\"\n");
        fs::write(machine.path("format.toml"), config).unwrap();
        let plan = machine.must(&["plan"]);
        assert!(plan.contains("- group part0 gid 61000 members www\n"), "{plan}");
        program(&machine.path("bin/systemd-sysusers"), "exit 1");
        let path = format!("{}:{}", machine.path("bin").display(), std::env::var("PATH").unwrap());
        let Output { status, stderr, .. } = machine.command(&["apply"]).env("PATH", path).output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{why}");
        assert!(why.contains("systemd-sysusers failed"), "{why}");
        assert_eq!(lines(machine), before, "{why}");
    });
}

#[test]
fn a_user_who_is_changed_keeps_his_shell_and_password() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        machine.configure(1);
        machine.must(&["apply"]);
        by_hand(machine);
        let plan = machine.must(&["apply", "-v"]);
        assert_eq!(plan, "~ user part0 groups www -> none\n");
        machine.must(&["verify"]);
        assert!(text(machine, "passwd").contains("part0:/bin/zsh\n"));
        assert!(text(machine, "shadow").contains("part0:$6$hash:7::::::\n"));
        assert!(text(machine, "group").contains("www:x:33:\n"));
    });
}

#[test]
fn lines_and_attributes_that_are_not_accounts_outlive_a_node() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let odd = [
            "# people\nroot:x:0:0:root:/root:/bin/sh\n\n-badguy\n",
            "root:x:0:\n# groups\nkvm:x:36:\n",
            "root:*:1::::::\nshort:*\n",
            "root:*::\nkvm:!::\n",
        ];
        write(machine, odd);
        let passwd = machine.path("etc/passwd");
        // Not every file system has attributes.
        let labelled = rustix::fs::setxattr(&passwd, "user.note", b"kept", XattrFlags::empty()).is_ok();
        machine.configure(2);
        let config = fs::read_to_string(machine.path("format.toml")).unwrap();
        fs::write(machine.path("format.toml"), config.replace("[partitions]\n", "[partitions]\ngroups = [\"kvm\"]\n"))
            .unwrap();
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        assert!(text(machine, "passwd").starts_with("# people\n") && text(machine, "passwd").ends_with("\n-badguy\n"));
        assert!(text(machine, "shadow").contains("short:*\npart0:!*:"));
        assert!(text(machine, "group").contains("kvm:x:36:part0,part1\n"));
        machine.must(&["reset"]);
        for (name, text_before) in DATABASE.iter().zip(odd) {
            assert_eq!(text(machine, name), text_before, "{name}");
        }
        let mut note = [0; 8];
        let found = rustix::fs::getxattr(&passwd, "user.note", &mut note[..]);
        assert!(!labelled || found.is_ok_and(|length| &note[..length] == b"kept"), "its attribute is gone");
    });
}

#[test]
fn what_root_locked_stays_locked_with_all_that_is_in_it() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let home = machine.path("srv/plat/partitions/part0");
        let owner =
            |path: &std::path::Path| fs::metadata(path).map(|found| (found.uid(), found.mode() & 0o7777)).unwrap();
        fs::remove_dir(home.join("etc")).unwrap();
        fs::create_dir(home.join("etc")).unwrap();
        chown(&home, Some(0), Some(0)).unwrap();
        fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let said = machine.must(&["apply"]);
        assert!(said.contains("part0 stays locked") && said.contains("nothing to do"), "{said}");
        assert_eq!(owner(&home), (0, 0o700));
        assert_eq!(owner(&home.join("etc")).0, 0, "root made it");
        assert!(machine.must(&["verify"]).contains("part0 stays locked"));
    });
}

#[test]
fn a_name_that_a_group_lists_already_gets_no_user() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        // Of a user who was removed by hand.
        edit(machine, "gshadow", "www:*::", "www:*:part1:");
        edit(machine, "group", "www:x:33:", "www:x:33:part0");
        machine.configure(2);
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0501") && why.contains("group www lists part0 and 1 more already"), "{why}");
        assert_eq!(machine.everything(), before);
        write(machine, PLAIN);
        machine.must(&["apply"]);
    });
}

#[test]
fn a_name_in_any_line_of_any_list_gets_no_user_and_is_said_before_it_is_taken_out() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        // A long list goes on in a further line; gshadow has a line of a group that is gone, and group one of too many fields.
        let group = "www:x:33:ann,part0\nwww:x:33:bob\nodd:x:34::part1\n";
        let gshadow = "www:*::part1\nwww:*::bob\ngone:!:part0:\n";
        let listing = || {
            fs::write(machine.path("etc/group"), format!("{}{group}", text(machine, "group"))).unwrap();
            fs::write(machine.path("etc/gshadow"), format!("{}{gshadow}", text(machine, "gshadow"))).unwrap();
        };
        write(machine, ["root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\n", "root:*:1::::::\n", "root:*::\n"]);
        listing();
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        for said in
            ["group gone lists part0 already", "group odd lists part1 already", "group www lists part0 and 1 more"]
        {
            assert!(why.contains("P0501") && why.contains(said), "{said} in {why}");
        }
        assert_eq!(machine.everything(), before);
        write(machine, ["root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\n", "root:*:1::::::\n", "root:*::\n"]);
        machine.must(&["apply"]);
        // Somebody takes the users away by hand.
        for name in ["passwd", "shadow"] {
            let whole = text(machine, name);
            let others: Vec<&str> = whole.split_inclusive('\n').filter(|line| !line.starts_with("part")).collect();
            fs::write(machine.path("etc").join(name), others.concat()).unwrap();
        }
        listing();
        let said = machine.must(&["plan", "--reset"]);
        for taken in ["gone, names that nobody has any more: part0", "odd, names that nobody has any more: part1"] {
            assert!(said.contains(&format!("! taken out first, and not put back: of group {taken}\n")), "{said}");
        }
        assert!(said.contains("of group www, names that nobody has any more: part0, part1\n"), "{said}");
        machine.must(&["reset"]);
        assert!(text(machine, "group").ends_with("www:x:33:ann\nwww:x:33:bob\nodd:x:34::\n"));
        assert!(text(machine, "gshadow").ends_with("www:*::\nwww:*::bob\ngone:!::\n"));
    });
}

#[test]
fn a_line_that_a_new_account_would_take_over_is_refused() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        let left = [
            ("shadow", "part1:$6$hash:7::::::\n", "/etc/shadow has a line of part1 already"),
            // As a run that was killed leaves it; but no run of ours was.
            ("gshadow", "part0:!*::\n", "/etc/gshadow has a line of part0 already"),
        ];
        for (file, line, said) in left {
            write(machine, PLAIN);
            fs::write(machine.path("etc").join(file), format!("{}{line}", text(machine, file))).unwrap();
            let before = machine.everything();
            let (code, why) = machine.run(&["apply"]);
            assert_eq!(code, 4, "{why}");
            assert!(why.contains("P0501") && why.contains(said), "{why}");
            assert_eq!(machine.everything(), before);
        }
        write(machine, PLAIN);
        machine.must(&["apply"]);
        // Removed by hand, as vipw would, with what somebody had given it.
        let found = text(machine, "shadow").lines().find(|line| line.starts_with("part1:")).unwrap().to_owned();
        edit(machine, "shadow", &found, "part1:$6$hash:7::::::");
        let user = text(machine, "passwd").lines().find(|line| line.starts_with("part1:")).unwrap().to_owned();
        edit(machine, "passwd", &(user + "\n"), "");
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("/etc/shadow has a line of part1 already"), "{why}");
        edit(machine, "shadow", "part1:$6$hash:7::::::\n", "");
        machine.must(&["apply"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_number_that_is_somebodys_first_group_is_no_partitions() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        edit(machine, "passwd", "www:x:33:33:", "www:x:33:61001:");
        machine.configure(2);
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("gid 61001 of part1 is taken") && why.contains("user www"), "{why}");
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn numbers_and_names_behind_blanks_are_somebodys() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        let mut people = text(machine, "passwd");
        people.push_str("bob:x: 61000:33::/:/bin/sh\n part1:x:63001:33::/:/bin/sh\nann:x:61002:33\n");
        fs::write(machine.path("etc/passwd"), people).unwrap();
        edit(machine, "group", "www:x:33:", "www:x:33:\nusers:x:\t61001:");
        machine.configure(3);
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        let taken = |what: &str, by: &str| why.contains(&format!("error[P0501]: {what}\n  because: {by}"));
        assert!(taken("uid 61000 of part0 is taken", "user bob has it"), "{why}");
        assert!(taken("user part1 exists already", "it has uid 63001"), "{why}");
        assert!(taken("uid 61002 of part2 is taken", "user ann has it"), "{why}");
        assert!(taken("gid 61001 of part1 is taken", "group users has it"), "{why}");
        assert_eq!(machine.everything(), before);
        // Of a user of node-format's own it is no other number.
        write(machine, PLAIN);
        machine.must(&["apply"]);
        edit(machine, "passwd", "part0:x:61000:61000:", " part0:x: 61000:\t61000:");
        edit(machine, "group", "part0:x:61000:", "part0:x: 61000:");
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        machine.must(&["reset"]);
        assert_eq!(text(machine, "passwd"), PLAIN[0]);
        assert_eq!(text(machine, "group"), PLAIN[1]);
    });
}

#[test]
fn a_number_in_any_line_is_somebodys() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        edit(machine, "group", "www:x:33:", "www:x:33:\nwww:x:61000:\nodd:x:61001:www:");
        edit(machine, "passwd", "www:x:33:", "www:x:61002:33::/:/bin/sh\nwww:x:33:");
        machine.configure(3);
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        for (kind, number, name, line) in [
            ("gid", 61_000, "part0", "www in /etc/group"),
            ("gid", 61_001, "part1", "odd in /etc/group"),
            ("uid", 61_002, "part2", "www in /etc/passwd"),
        ] {
            let said =
                format!("error[P0501]: {kind} {number} of {name} is taken\n  because: a further line of {line} has it");
            assert!(why.contains(&said), "{said} in {why}");
        }
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn a_partition_whose_containers_run_stays() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        machine.configure(2);
        machine.must(&["apply"]);
        fs::write(machine.path("etc/subuid"), "part1:1610000:10\n").unwrap();
        let mut inside = Command::new("cat").uid(1_610_003).stdin(Stdio::piped()).spawn().unwrap();
        for verbs in [&["reset"][..], &["reset", "--erase"]] {
            let (code, why) = machine.run(verbs);
            assert_eq!(code, 4, "{why}");
            assert!(why.contains("user part1 cannot be removed") && why.contains("uid 1610003 are running"), "{why}");
        }
        drop(inside.stdin.take());
        inside.wait().unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn an_account_that_somebody_gave_another_number_is_named_when_it_is_left() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        machine.configure(2);
        machine.must(&["apply"]);
        edit(machine, "passwd", "part1:x:61001:", "part1:x:4001:");
        let said = machine.must(&["reset"]);
        assert!(said.contains("! user part1 is left: it has uid 4001 by now, and was made with 61001\n"), "{said}");
        assert!(said.contains("! group part1 is left: it is the first group of user part1\n"), "{said}");
        assert!(
            text(machine, "passwd").contains("part1:x:4001:61001:")
                && text(machine, "group").contains("part1:x:61001:")
        );
        assert!(!text(machine, "passwd").contains("part0"));
    });
}

#[test]
fn a_program_has_all_that_it_reads_although_the_run_is_killed() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        // More than a pipe holds.
        machine.configure(1000);
        let root = machine.root.path().display();
        let script = format!("kill -9 $PPID\ncat >{root}/reading\nmv {root}/reading {root}/read");
        program(&machine.path("bin/systemd-sysusers"), &script);
        let path = format!("{}:{}", machine.path("bin").display(), std::env::var("PATH").unwrap());
        let ended = machine.command(&["apply"]).env("PATH", path).output().unwrap();
        assert_eq!(ended.status.signal(), Some(9), "{ended:?}");
        until("all is read", || machine.path("read").exists());
        let read = fs::read_to_string(machine.path("read")).unwrap();
        assert!(read.len() > 1 << 16 && read.contains("u part999 ") && read.ends_with('\n'), "{}", read.len());
    });
}

#[test]
fn an_account_that_somebody_removed_by_hand_is_known_still_after_an_apply_that_fails() {
    on_a_machine(|machine| {
        ip("link set lo up");
        write(machine, PLAIN);
        machine.configure(2);
        let before = machine.everything();
        machine.must(&["apply"]);
        for name in DATABASE {
            let whole = text(machine, name);
            let others: Vec<&str> = whole.split_inclusive('\n').filter(|line| !line.starts_with("part1:")).collect();
            fs::write(machine.path("etc").join(name), others.concat()).unwrap();
        }
        let (removed, known) = (machine.everything(), machine.must(&["show"]));
        let in_the_way = machine.path("var/lib/plat/.node-format-node.json");
        machine.configure_with(2, "mode = \"bridge\"\nguard = false\n", "[limits]\nmemory_mib = 512\n");
        fs::create_dir_all(in_the_way.join("here")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        fs::remove_dir_all(in_the_way).unwrap();
        assert!(code == 1 && why.contains("the machine is as it was before the run\n"), "{why}");
        assert_eq!((machine.everything(), machine.must(&["show"])), (removed, known));
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn names_that_a_reset_takes_out_of_groups_are_said_and_come_back_where_a_run_took_them() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let line = |name: &str| {
            let line = text(machine, name).lines().find(|line| line.starts_with("docker:")).map(str::to_owned);
            line.unwrap_or_default()
        };
        // In one of the files alone.
        edit(machine, "group", "part0:", "docker:x:999:part0\npart0:");
        edit(machine, "gshadow", "part0:", "docker:!*::\npart0:");
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", "[limits]\nmemory_mib = 512\n");
        let in_the_way = machine.path("var/lib/plat/.node-format-node.json");
        fs::create_dir_all(in_the_way.join("here")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        fs::remove_dir_all(in_the_way).unwrap();
        assert!(code == 1 && why.contains("as it was before the run\n"), "{why}");
        assert_eq!([line("group"), line("gshadow")], ["docker:x:999:part0", "docker:!*::"]);
        // Somebody takes the user away by hand, and forgets the group.
        for name in ["passwd", "shadow"] {
            let whole = text(machine, name);
            let others: Vec<&str> = whole.split_inclusive('\n').filter(|line| !line.starts_with("part0:")).collect();
            fs::write(machine.path("etc").join(name), others.concat()).unwrap();
        }
        let taken = "of group docker, names that nobody has any more: part0\n";
        let said = machine.must(&["plan", "--reset"]);
        assert!(said.contains(&format!("! taken out first, and not put back: {taken}")), "{said}");
        let his = machine.path("srv/plat/partitions/part0/srv/his");
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || fs::write(&his, "").unwrap());
        assert!(code == 1 && why.contains("what was taken out first of group docker"), "{why}");
        assert_eq!([line("group"), line("gshadow")], ["docker:x:999:", "docker:!*::"]);
        fs::remove_file(his).unwrap();
        machine.must(&["reset"]);
    });
}
