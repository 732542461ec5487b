//! A machine becomes a node and back; drift, growth, refusals, runs that are cut off.

use super::machine::{ip, on_a_machine, program, until};
use node_format::{FolderNode, format_folder};
use node_format_plan::facts::LinkKind;
use plat_model::node::NodeFile;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_machine_becomes_a_node_and_back() {
    on_a_machine(|machine| {
        machine.configure(3);
        ip("link set lo up");
        let before = machine.everything();
        assert_eq!(machine.run(&["apply"]).0, 0);
        let facts = machine.network();
        assert_eq!(facts.links["part2"].kind, LinkKind::Tap(Some(61002)));
        assert_eq!(facts.links["part2"].bridge.as_deref(), Some("plat0"));
        assert!(facts.links["part2"].up && facts.links["plat0"].up);
        assert_eq!((facts.users["part1"].uid, facts.groups["part1"].gid), (61001, 61001));
        let inside = fs::metadata(machine.path("srv/plat/partitions/part1/run")).unwrap();
        assert_eq!((inside.uid(), inside.gid(), inside.mode() & 0o7777), (61001, 61001, 0o750));
        assert_eq!(fs::metadata(machine.path("srv/plat/partitions")).unwrap().mode() & 0o7777, 0o711);
        let node = NodeFile::parse(&fs::read_to_string(machine.path("var/lib/plat/node.json")).unwrap()).unwrap();
        assert_eq!(node.partitions[1].addresses[0].to_string(), "fd00:1::2:0:0:1");
        assert_eq!(machine.run(&["apply"]), (0, "nothing to do\n".into()));
        assert_eq!(machine.run(&["verify"]), (0, "the machine is as it was formatted\n".into()));
        let announced = machine.must(&["plan", "--reset", "-v"]);
        let (announced, last) = announced.trim_end().rsplit_once('\n').unwrap();
        assert!(last.ends_with("`node-format reset` does it"), "{last}");
        assert_eq!(machine.must(&["reset", "-v"]).trim_end(), announced);
        assert_eq!(machine.everything(), before);
        assert_eq!(machine.run(&["reset"]).1, "nothing to do: there is no record\n");
    });
}

#[test]
fn a_partition_can_listen_on_its_addresses_and_be_reached_on_its_whole_range() {
    on_a_machine(|machine| {
        machine.configure(2);
        ip("link set lo up");
        assert_eq!(machine.run(&["apply"]).0, 0);
        for address in ["[fd00:1::1:0:0:1]:80", "[fd00:1::2:0:0:1]:80", "10.200.0.3:80"] {
            let listener = std::net::TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        }
        assert!(std::net::TcpListener::bind("10.200.0.9:80").is_err(), "nobody's address");
        // Any other of the first half of the share.
        let another = std::net::TcpListener::bind("[fd00:1::2:7fff:0:77]:8080").unwrap();
        std::net::TcpStream::connect(another.local_addr().unwrap()).unwrap();
    });
}

#[test]
fn drift_is_shown_with_exit_code_3_and_repaired() {
    on_a_machine(|machine| {
        machine.configure(2);
        ip("link set lo up");
        assert_eq!(machine.run(&["apply"]).0, 0);
        ip("link delete part1");
        ip("address delete 10.200.0.2/32 dev plat0");
        ip("link set part0 nomaster");
        fs::set_permissions(machine.path("srv/plat/partitions/part0"), fs::Permissions::from_mode(0o777)).unwrap();
        let Output { status, stdout, stderr } = machine.command(&["verify"]).output().unwrap();
        let (diff, problem) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_eq!(status.code(), Some(3));
        assert!(problem.contains("P0506") && problem.contains("node-format apply"), "{problem}");
        for line in
            ["+ tap part1", "+ address 10.200.0.2/32", "~ link part0", "~ directory /srv/plat/partitions/part0 "]
        {
            assert!(diff.contains(line), "{line} in {diff}");
        }
        assert_eq!(machine.run(&["apply"]).0, 0);
        assert_eq!(machine.run(&["verify"]).0, 0);
    });
}

#[test]
fn a_node_grows_and_shrinks_but_not_below_what_is_used() {
    on_a_machine(|machine| {
        machine.configure(2);
        ip("link set lo up");
        assert_eq!(machine.run(&["apply"]).0, 0);
        machine.configure(4);
        assert_eq!(machine.run(&["apply"]).0, 0);
        fs::write(machine.path("srv/plat/partitions/part3/srv/data"), "kept").unwrap();
        machine.configure(1);
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0509") && why.contains("data"), "{why}");
        assert_eq!(machine.everything(), before);
        fs::remove_file(machine.path("srv/plat/partitions/part3/srv/data")).unwrap();
        assert_eq!(machine.run(&["apply"]).0, 0);
        assert!(!machine.network().links.contains_key("part1"));
        assert!(!machine.path("srv/plat/partitions/part1").exists());
    });
}

#[test]
fn foreign_things_are_refused_before_the_first_effect() {
    on_a_machine(|machine| {
        machine.configure(2);
        ip("link set lo up");
        ip("link add part1 type veth peer name other");
        ip("address add 10.200.0.3/24 dev other");
        symlink("/etc", machine.path("srv/plat")).unwrap();
        fs::write(machine.path("etc/passwd"), "bob:x:61001:100::/:/bin/sh\n").unwrap();
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4);
        for part in ["link part1", "10.200.0.3", "symbolic link", "user bob"] {
            assert!(why.contains(part), "{part} in {why}");
        }
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn a_reset_that_erases_follows_no_link_out_of_a_partition() {
    on_a_machine(|machine| {
        machine.configure(1);
        ip("link set lo up");
        assert_eq!(machine.run(&["apply"]).0, 0);
        fs::create_dir(machine.path("precious")).unwrap();
        fs::write(machine.path("precious/file"), "x").unwrap();
        symlink(machine.path("precious"), machine.path("srv/plat/partitions/part0/srv/link")).unwrap();
        fs::create_dir_all(machine.path("srv/plat/partitions/part0/var/deep/er")).unwrap();
        assert_eq!(machine.run(&["reset"]).0, 4);
        assert_eq!(machine.run(&["reset", "--erase"]).0, 0);
        assert!(machine.path("precious/file").exists() && !machine.path("srv/plat").exists());
    });
}

#[test]
fn a_run_killed_while_it_works_is_completed_or_taken_back_by_the_next() {
    on_a_machine(|machine| {
        machine.configure(40);
        ip("link set lo up");
        let before = machine.everything();
        // Each batch adds its lines to the record before it begins: killing at a length kills inside a batch.
        let record = machine.path("var/lib/plat/format/record");
        let length = || fs::read_to_string(&record).map_or(0, |text| text.lines().count());
        machine.must(&["apply"]);
        let whole = length();
        machine.must(&["reset"]);
        for (n, lines) in (0..9).map(|part| 2 + part * (whole - 4) / 8).enumerate() {
            let mut child = machine.command(&["apply"]).stdout(Stdio::null()).spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while length() < lines && child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "the record never had {lines} lines");
                std::thread::yield_now();
            }
            let _ = child.kill();
            child.wait().unwrap();
            if n % 2 == 0 {
                assert_eq!(machine.run(&["apply"]).0, 0, "{lines}");
                assert_eq!(machine.run(&["verify"]).0, 0, "{lines}");
            }
            let (code, text) = machine.run(&["reset"]);
            assert_eq!(code, 0, "{lines}: {text}");
            assert_eq!(machine.everything(), before, "{lines}");
        }
    });
}

#[test]
fn a_run_after_a_kill_waits_for_the_program_that_still_makes_users() {
    on_a_machine(|machine| {
        machine.configure(3);
        ip("link set lo up");
        let (started, go, path) = (machine.path("started"), machine.path("go"), machine.path("bin"));
        program(
            &path.join("systemd-sysusers"),
            &format!(
                "input=$(cat); touch {}; while [ ! -e {} ]; do sleep 0.01; done\n\
                 echo \"$input\" | PATH={} exec systemd-sysusers \"$@\"",
                started.display(),
                go.display(),
                std::env::var("PATH").unwrap()
            ),
        );
        let slow = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
        let mut killed = machine.command(&["apply"]).env("PATH", slow).spawn().unwrap();
        until("systemd-sysusers is started", || started.exists());
        killed.kill().unwrap();
        killed.wait().unwrap();
        let mut next = machine.command(&["apply"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(next.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("waiting for an earlier run, or a program that it started"), "{said}");
        assert!(next.try_wait().unwrap().is_none(), "it waits");
        fs::write(&go, "").unwrap();
        assert!(next.wait().unwrap().success());
        assert_eq!(machine.run(&["verify"]).0, 0);
        assert_eq!(machine.run(&["reset"]).0, 0);
        assert!(!machine.path("var/lib/plat").exists());
    });
}

#[test]
fn users_are_made_by_useradd_where_systemd_sysusers_is_missing() {
    on_a_machine(|machine| {
        machine.configure(2);
        ip("link set lo up");
        let path = machine.path("bin");
        fs::create_dir(&path).unwrap();
        symlink("/usr/sbin/groupadd", path.join("groupadd")).unwrap();
        // Without this it writes into the running machine's log of logins.
        let only = "case \" $* \" in *' --no-log-init '*) exec /usr/sbin/useradd \"$@\" ;; *) exit 9 ;; esac";
        program(&path.join("useradd"), only);
        for name in ["passwd", "shadow", "group", "gshadow"] {
            fs::write(machine.path("etc").join(name), "").unwrap();
        }
        let Output { status, stderr, .. } = machine.command(&["apply"]).env("PATH", &path).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let facts = machine.network();
        assert_eq!((facts.users["part1"].uid, facts.users["part1"].gid), (61001, 61001));
        assert_eq!(machine.run(&["verify"]).0, 0);
        assert_eq!(machine.run(&["reset"]).0, 0);
        assert!(machine.network().users.is_empty() && machine.network().groups.is_empty());
    });
}

#[test]
fn without_any_program_that_makes_users_nothing_is_changed() {
    on_a_machine(|machine| {
        machine.configure(2);
        ip("link set lo up");
        let before = machine.everything();
        let Output { status, stderr, .. } = machine.command(&["apply"]).env("PATH", "/nowhere").output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{why}");
        assert!(why.contains("neither systemd-sysusers nor useradd"), "{why}");
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn an_account_that_somebody_makes_meanwhile_is_not_taken_for_ours() {
    on_a_machine(|machine| {
        machine.configure(2);
        ip("link set lo up");
        // Between the look and the program that makes users, whose work it hides.
        let path = machine.path("bin");
        let passwd = "part0:x:7001:7001::/home/ann:/bin/sh";
        let shadow = "part0:$6$hash:1::::::";
        program(
            &path.join("systemd-sysusers"),
            &format!(
                "cat > /dev/null; echo '{passwd}' > {0}/passwd; echo '{shadow}' > {0}/shadow; exit 1",
                machine.path("etc").display()
            ),
        );
        let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
        let Output { status, stderr, .. } = machine.command(&["apply"]).env("PATH", path).output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{why}");
        let text = |name: &str| fs::read_to_string(machine.path("etc").join(name)).unwrap();
        assert_eq!((text("passwd"), text("shadow")), (format!("{passwd}\n"), format!("{shadow}\n")));
        assert!(!machine.path("var/lib/plat").exists(), "{why}");
    });
}

#[test]
fn whoever_runs_a_set_uid_program_runs_something() {
    // Nobody else's: other tests, beside this one, take partitions away.
    const UID: &str = "63500";
    on_a_machine(|machine| {
        machine.configure(1);
        let config = machine.path("format.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(config, text.replace("first_uid = 61000", &format!("first_uid = {UID}"))).unwrap();
        ip("link set lo up");
        machine.must(&["apply"]);
        // Real and effective uid differ. It ends with the other end of its standard input.
        let mut program = Command::new("setpriv");
        program.args(["--ruid", UID, "cat"]).stdin(Stdio::piped());
        let mut running = program.stdout(Stdio::piped()).spawn().unwrap();
        let mut begun = [0];
        running.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        running.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
        let (code, why) = machine.run(&["reset"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains(&format!("processes of uid {UID} are running")), "{why}");
        drop(running.stdin.take());
        running.wait().unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn a_link_in_the_user_database_of_a_root_is_not_followed() {
    on_a_machine(|machine| {
        machine.configure(1);
        ip("link set lo up");
        let secret = machine.path("secret");
        fs::write(&secret, "root:$6$hash:1::::::\n").unwrap();
        fs::write(machine.path("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        symlink(&secret, machine.path("etc/shadow")).unwrap();
        let files = || {
            let found = Command::new("find").arg(machine.root.path()).output().unwrap();
            String::from_utf8(found.stdout).unwrap()
        };
        let before = files();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("etc/shadow") && why.contains("no symbolic link is followed"), "{why}");
        assert_eq!(files(), before);
        // Nor is a pipe waited for.
        fs::remove_file(machine.path("etc/shadow")).unwrap();
        fs::remove_file(machine.path("etc/passwd")).unwrap();
        nix::unistd::mkfifo(&machine.path("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("etc/passwd"), "{why}");
    });
}

#[test]
fn a_node_in_a_folder_needs_no_privilege_and_can_be_made_twice() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = |partitions| FolderNode {
        folder: folder.path().join("node"),
        partitions,
        ipv4_network: "127.9.0.0/16".parse().unwrap(),
    };
    let node = format_folder(&wanted(2)).unwrap();
    assert_eq!(node, format_folder(&wanted(2)).unwrap());
    assert_eq!(node.partitions[1].addresses[0].to_string(), "127.9.0.3");
    assert!(node.partitions[1].account.is_none() && node.builder.is_none());
    std::net::TcpListener::bind((node.partitions[1].addresses[0], 0)).unwrap();
    assert!(Path::new(&node.root).join("part1/etc").is_dir());
    assert_eq!(format_folder(&wanted(3)).unwrap().partitions.len(), 3);
}

#[test]
fn a_record_is_not_used_in_another_network_namespace_while_its_own_is_there() {
    on_a_machine(|machine| {
        machine.configure(1);
        ip("link set lo up");
        machine.must(&["apply"]);
        let before = fs::read(machine.path("var/lib/plat/format/record")).unwrap();
        // It ends with the other end of its standard input.
        let mut holder = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let elsewhere_with = |verb: &[&str]| {
            let inside = machine.command(verb);
            let mut command = Command::new("unshare");
            command
                .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
                .arg(inside.get_program())
                .args(inside.get_args())
                .output()
                .unwrap()
        };
        for verb in ["apply", "verify", "reset"] {
            let Output { status, stderr, .. } = elsewhere_with(&[verb]);
            let said = String::from_utf8(stderr).unwrap();
            assert_eq!(status.code(), Some(4), "{verb}: {said}");
            assert!(said.contains("made in the network namespace"), "{verb}: {said}");
        }
        assert_eq!(fs::read(machine.path("var/lib/plat/format/record")).unwrap(), before);
        // Whoever says so is believed: there, the links are to be made.
        let Output { status, stdout, .. } = elsewhere_with(&["plan", "--links-gone"]);
        let said = String::from_utf8(stdout).unwrap();
        assert!(status.success() && said.contains("+ bridge plat0"), "{said}");
        drop(holder.stdin.take());
        holder.wait().unwrap();
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}
