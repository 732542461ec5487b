//! What a program in a partition can do to what is not its own.

use super::*;
use nix::libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, SYS_add_key,
    SYS_bpf, SYS_clone, SYS_io_uring_enter, SYS_io_uring_register, SYS_io_uring_setup, SYS_kcmp, SYS_keyctl,
    SYS_perf_event_open, SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace, SYS_recvmsg, SYS_request_key,
    SYS_sendmsg, SYS_userfaultfd,
};

/// What a shell in the partition says, and whether it went well.
async fn said(host: &LinuxHost, node: &Node, script: &str) -> (bool, String) {
    let ran = host.runtime().run(&place(node), &program(script, 30)).await.unwrap();
    (ran.exit.to_string() == "exit code 0", ran.tail.join("\n"))
}

async fn refused(host: &LinuxHost, node: &Node, script: &str) {
    let (went_well, said) = said(host, node, script).await;
    assert!(!went_well, "{script}: {said}");
}

/// A folder that everybody may write to, beside the machine's own.
pub fn open_folder() -> tempfile::TempDir {
    let parent = if is_root() { Path::new("/var/lib") } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    let folder = tempfile::Builder::new().prefix("plat-test-").tempdir_in(parent).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(folder.path().join("file"), "of somebody").unwrap();
    fs::set_permissions(folder.path().join("file"), fs::Permissions::from_mode(0o666)).unwrap();
    folder
}

pub async fn what_runs_writes_nowhere_but_into_its_partition(node: Node) {
    let (open, host) = (open_folder(), node.occupied().await);
    let (outside, releases) = (open.path().display(), node.folder.path().join("releases"));
    fs::create_dir_all(&releases).unwrap();
    fs::set_permissions(&releases, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(releases.join("program"), "echo released").unwrap();
    for script in [
        format!("echo x > {outside}/new"),
        format!("echo x >> {outside}/file"),
        format!("rm -f {outside}/file"),
        format!("echo x > {}/new", releases.display()),
        "echo x > /etc/plat-was-here".to_owned(),
        "echo x > /run/plat-was-here".to_owned(),
    ] {
        refused(&host, &node, &script).await;
    }
    let release = format!("sh {}/program", releases.display());
    assert_eq!(said(&host, &node, &release).await, (true, "released".into()), "they are read");
    // A service is held in by the same.
    let script = format!("echo x > here; echo x > {outside}/new || echo refused > there; exec sleep 600");
    begin(&host, &node, &spec("writes", &script)).await.unwrap();
    until("it was refused", async || node.home().join("there").exists()).await;
    assert!(node.home().join("here").exists());
    assert_eq!(fs::read_to_string(open.path().join("file")).unwrap(), "of somebody");
    assert!(!open.path().join("new").exists() && !releases.join("new").exists());
    node.done(host).await;
}

pub async fn what_is_temporary_is_its_own(node: Node) {
    let host = node.occupied().await;
    let mine = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let (path, name) = (mine.path().display(), mine.path().file_name().unwrap().display());
    let script = format!(
        "[ ! -e {path} ] && [ ! -e /run/systemd/system ] && for d in /tmp /var/tmp /dev/shm; do echo x > $d/{name}-its || exit 1; done"
    );
    assert_eq!(said(&host, &node, &script).await, (true, String::new()));
    let is_there = |folder: &str| Path::new(folder).join(format!("{name}-its")).exists();
    assert_eq!(["/tmp", "/var/tmp", "/dev/shm"].map(is_there), [false; 3]);
    node.done(host).await;
}

pub async fn what_is_temporary_is_in_the_partition_as_long_as_a_folder_is_left_there_for_it(node: Node) {
    // One in /tmp has to be put back there itself.
    let folder = open_folder();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    let runtime = node.runtime;
    let mut node = Node::at(folder, node.account.clone());
    node.runtime = runtime;
    let (host, tmp) = (node.occupied().await, node.home().join("tmp"));
    let make = || {
        fs::create_dir(&tmp).unwrap();
        let of = node.account.as_ref();
        chown(&tmp, of.map(|account| account.uid), of.map(|account| account.gid)).unwrap();
    };
    let holds = |name: &str| fs::read_to_string(tmp.join(name)).unwrap_or_default();
    make();
    assert_eq!(said(&host, &node, "echo x > /tmp/one; echo y > /var/tmp/two; cat tmp/one").await, (true, "x".into()));
    assert_eq!((holds("one").as_str(), holds("two").as_str()), ("x\n", "y\n"));
    // Another folder is another /tmp, for who is started from then on.
    begin(&host, &node, &spec("old", "until [ -e tmp/new ]; do sleep 0.01; done; echo x > /tmp/old; exec sleep 600"))
        .await
        .unwrap();
    fs::rename(&tmp, node.home().join("before")).unwrap();
    make();
    begin(&host, &node, &spec("new", "echo x > /tmp/new; exec sleep 600")).await.unwrap();
    until("both wrote", async || holds("new") == "x\n" && node.home().join("before/old").exists()).await;
    // A link leads nowhere, and nor does nothing.
    fs::rename(&tmp, node.home().join("after")).unwrap();
    symlink(&outside, &tmp).unwrap();
    assert!(said(&host, &node, "echo x > /tmp/three && echo x > /var/tmp/four").await.0);
    fs::remove_file(&tmp).unwrap();
    assert!(said(&host, &node, "echo x > /tmp/five").await.0);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    host.runtime().clear(&place(&node)).await.unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let home = node.home().display().to_string();
    assert!(!mounts.contains(&home), "{mounts}");
    node.done(host).await;
}

pub async fn what_runs_sees_processes_of_its_user_and_of_nobody_else(node: Node) {
    let host = node.occupied().await;
    begin(&host, &node, &spec("db", "exec sleep 600")).await.unwrap();
    let own = running(&fact(&host, "db").await);
    let script = format!("kill -0 {own} && cut -d ' ' -f 1 /proc/{own}/stat");
    assert_eq!(said(&host, &node, &script).await, (true, own.to_string()), "what is of the same instance is seen");
    if let Some(account) = &node.account {
        let users = said(&host, &node, "stat -c %u /proc/[0-9]* | sort -u").await;
        assert_eq!(users, (true, account.uid.to_string()));
        refused(&host, &node, "ls /proc/1").await;
        refused(&host, &node, "kill -0 1").await;
    }
    node.done(host).await;
}

pub async fn what_runs_has_sockets_of_four_families_and_no_others(node: Node) {
    let host = node.occupied().await;
    // UNIX, INET, INET6, NETLINK; PACKET, ALG, VSOCK. 97 is EAFNOSUPPORT.
    let script = "perl -e 'for ([1, 1], [2, 1], [10, 1], [16, 3], [17, 3], [38, 5], [40, 1]) {
        print socket(my $s, $$_[0], $$_[1], 0) ? \"yes\" : $! + 0, \" \" }'";
    assert_eq!(said(&host, &node, script).await.1.trim(), "yes yes yes yes 97 97 97");
    node.done(host).await;
}

pub async fn what_runs_makes_no_program_that_gives_rights_and_no_namespace(node: Node) {
    let host = node.occupied().await;
    for script in [
        "cp /bin/true t; chmod u+s t",
        "cp /bin/true t; chmod 2755 t",
        "umask 0; install -m 4755 /bin/true t",
        "unshare --user true",
        "unshare --mount true",
        "unshare --net true",
        "mkdir -p m; mount -t tmpfs none m",
    ] {
        refused(&host, &node, script).await;
    }
    // Nor while it is split in two, for which root needs no namespace of users. 17 is SIGCHLD, 1 EPERM.
    let flags = [CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET];
    let flags = flags.map(|flag| flag.to_string()).join(", ");
    let script = format!(
        "exec perl -MPOSIX -e 'for ({flags}) {{
            my $made = syscall({SYS_clone}, $_ | 17, 0, 0, 0, 0); POSIX::_exit(0) if $made == 0;
            print $made > 0 ? \"made \" : $! + 0 . \" \" }}'"
    );
    assert_eq!(said(&host, &node, &script).await.1.trim(), "1 1 1 1 1 1 1");
    node.done(host).await;
}

pub async fn what_runs_may_not_ask_the_kernel_for_what_no_program_needs(node: Node) {
    let host = node.occupied().await;
    // In such a way that the kernel itself has another answer for whoever asks: a trace of itself by whoever began it, keys
    // that there are not, memory that is not there. 1 is EPERM.
    let calls = [
        (SYS_bpf, "99, 0, 0"),
        (SYS_keyctl, "9999, 0, 0, 0, 0"),
        (SYS_add_key, "0, 0, 0, 0, 0"),
        (SYS_request_key, "0, 0, 0, 0"),
        (SYS_io_uring_setup, "0, 0"),
        (SYS_io_uring_enter, "-1, 0, 0, 0, 0, 0"),
        (SYS_io_uring_register, "-1, 0, 0, 0"),
        (SYS_ptrace, "0, 0, 0, 0"),
        (SYS_process_vm_readv, "$$, 0, 0, 0, 0, 0"),
        (SYS_process_vm_writev, "$$, 0, 0, 0, 0, 0"),
        (SYS_kcmp, "$$, $$, 99, 0, 0"),
        (SYS_perf_event_open, "0, 0, 0, -1, 0"),
        (SYS_userfaultfd, "1 << 30"),
    ];
    let asked = calls.map(|(call, with)| format!("syscall({call}, {with}) == -1 ? $! + 0 : \"done\""));
    let script = format!("exec perl -e 'print join(\" \", {})'", asked.join(", "));
    assert_eq!(said(&host, &node, &script).await, (true, ["1"; 13].join(" ")));
    node.done(host).await;
}

/// Hands its output over a socket to whoever listens there, and ends; a message is made as sendmsg(2) has it.
fn hands_over() -> String {
    format!(
        "until [ -e hand ]; do sleep 0.01; done; exec perl -MSocket -e '
        socket(my $to, AF_UNIX, SOCK_STREAM, 0); connect($to, pack_sockaddr_un(\"hand\")) or die \"$!\";
        my ($text, $rights) = (\"x\", pack(\"Q i i i x4\", 20, 1, 1, 1)); my $parts = pack(\"P Q\", $text, 1);
        my $message = pack(\"P L x4 P Q P Q i x4\", undef, 0, $parts, 1, $rights, 24, 0);
        syscall({SYS_sendmsg}, fileno($to), $message, 0) == 1 or die \"$!\"; sysread($to, $text, 1); exit 3'"
    )
}

/// Takes it, says so, and writes there for ever.
fn takes_over() -> String {
    format!(
        "exec perl -MSocket -e '
        socket(my $at, AF_UNIX, SOCK_STREAM, 0); bind($at, pack_sockaddr_un(\"new\")) or die; listen($at, 1);
        rename(\"new\", \"hand\"); accept(my $from, $at);
        my ($text, $rights) = (\"-\" x 1, \"-\" x 24); substr($_, 0, 1) = \"x\" for $text, $rights;
        my $parts = pack(\"P Q\", $text, 1); my $message = pack(\"P L x4 P Q P Q i x4\", undef, 0, $parts, 1, $rights, 24, 0);
        syscall({SYS_recvmsg}, fileno($from), $message, 0) == 1 or die \"$!\";
        open(my $out, \">&=\", unpack(\"x16 i\", $rights)) or die \"$!\"; $SIG{{PIPE}} = \"IGNORE\"; syswrite($from, \"x\");
        1 while syswrite($out, \"more\\n\"); open(my $over, \">\", \"over\"); sleep 600'"
    )
}

pub async fn a_program_whose_output_another_has_ends_all_the_same(node: Node) {
    let host = node.occupied().await;
    begin(&host, &node, &spec("takes", &takes_over())).await.unwrap();
    let (place, program) = (place(&node), program(&hands_over(), 60));
    let ran = tokio::time::timeout(Duration::from_secs(90), host.runtime().run(&place, &program)).await;
    let ran = ran.expect("it ends with its program").unwrap();
    assert_eq!(ran.exit.to_string(), "exit code 3", "{:?}", ran.tail);
    until("nobody reads any more", async || node.home().join("over").exists()).await;
    node.done(host).await;
}
