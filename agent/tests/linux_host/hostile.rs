//! A partition whose service tries what a hostile tenant would, beside one that works. Each attempt is refused or contained;
//! the neighbour and the agent go on. Disks that fill are `tests/guest`'s, where the kernel has limits for them.
//!
//! Every runtime holds it in: `suite!` makes a test of each check, on a street of its own whose host has that runtime.

mod lingers;

use super::doors::listen_on;
use super::*;
use nix::libc::SYS_ptrace;
use plat_agent_plan::SOCKET;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;

pub use lingers::*;

/// A test of each check, with users of its own each: `$next` gives the first of two.
macro_rules! suite {
    (one [$($note:meta),*] $runtime:expr, $next:expr, $check:ident) => {
        $(#[$note])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $check() {
            match $crate::hostile::Street::new($runtime, $next).await {
                Some(street) => $crate::hostile::$check(street).await,
                None => eprintln!("SKIPPED: {} needs root", stringify!($check)),
            }
        }
    };
    ($notes:tt $runtime:expr, $next:expr) => {
        $crate::hostile::suite!($notes $runtime, $next;
            links_in_its_folders_lead_the_agent_nowhere
            no_file_gives_it_rights
            a_fork_bomb_stays_within_its_partition
            what_it_writes_too_much_is_bounded_where_the_node_says_so
            it_reads_nothing_of_its_neighbour_nor_of_the_agent
            it_speaks_with_nobody_at_a_socket_that_is_not_its_own
            it_puts_no_word_into_its_neighbours_log
            it_does_nothing_to_processes_that_are_not_its_own
            what_it_sends_along_to_the_agent_keeps_nobody_waiting
            what_it_sends_along_to_who_stands_by_a_service_keeps_nobody_waiting
            it_changes_no_release_and_no_mount
            nothing_of_it_stays_when_it_is_stopped_or_erased
            what_its_user_runs_elsewhere_on_the_machine_ends_when_it_is_erased
        );
    };
    ($notes:tt $runtime:expr, $next:expr; $($check:ident)*) => {
        $($crate::hostile::suite!(one $notes $runtime, $next, $check);)*
    };
}
pub(crate) use suite;

/// Two partitions with users of their own: the hostile one is `p0`.
pub struct Street {
    node: Node,
    host: Arc<LinuxHost>,
    own: u32,
    /// The neighbour's service, and its run.
    victim: (u32, String),
}

/// Runs are told apart by more than a script, which may be long.
fn with_script(name: &str, script: &str) -> ServiceSpec {
    ServiceSpec { fingerprint: format!("{:?}", Instant::now()), ..spec(name, script) }
}

const SECRET: &str = "the neighbour's secret";

fn neighbour() -> PartitionName {
    PartitionName::parse("p1").unwrap()
}

/// Listens at a socket that is open to all, with a secret in its environment.
const VICTIM: &str = r#"exec perl -MIO::Socket::UNIX -e '
    umask 0; mkdir "run"; chmod 0777, "run"; unlink "run/db.sock";
    my $open = IO::Socket::UNIX->new(Local => "run/db.sock", Listen => 5) or die; print STDERR "I am up\n";
    open(my $up, ">", "up");
    while (my $peer = $open->accept) { open(my $heard, ">>", "heard"); print $heard "somebody\n"; }'"#;

impl Street {
    /// `None` where there is no root.
    pub async fn new(runtime: Runtime, own: u32) -> Option<Self> {
        if !root_is_here() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("plat-test-").tempdir_in("/var/lib").unwrap();
        let mut node = Node::at(folder, Some(account(own)));
        node.runtime = runtime;
        let path = node.folder.path().join("node.json");
        let mut file = NodeFile::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        let other = NodePartition { account: Some(account(own + 1)), ..NodePartition::bare(neighbour()) };
        file.partitions.push(other);
        fs::write(&path, file.to_json()).unwrap();
        for (home, uid) in [(node.home(), own), (node.home().with_file_name("p1"), own + 1)] {
            for folder in ["", "etc", "tmp", "run"].map(|name| home.join(name)) {
                fs::create_dir_all(&folder).unwrap();
                chown(&folder, Some(uid), Some(uid)).unwrap();
            }
        }
        let host = Arc::new(node.occupied().await);
        let instance = InstanceId::parse(&"b".repeat(32)).unwrap();
        let occupy = Action::Occupy { partition: neighbour(), instance: instance.clone(), secrets: BTreeMap::new() };
        host.perform(&occupy).await.unwrap();
        let mut spec = ServiceSpec { instance, ..with_script("victim", VICTIM) };
        spec.environment.insert("SECRET".into(), SECRET.into());
        host.perform(&Action::StartService { partition: neighbour(), spec }).await.unwrap();
        let home = node.home().with_file_name("p1");
        until("the neighbour is up", async || home.join("up").exists()).await;
        // As careless as it can be: nothing of it is kept from others but by the agent.
        fs::write(home.join("secret"), SECRET).unwrap();
        for path in [home.clone(), home.join("secret"), home.join("etc")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut street = Self { node, host, own, victim: (0, String::new()) };
        let fact = street.neighbours().await;
        street.victim = (running(&fact), fact.run);
        Some(street)
    }

    async fn neighbours(&self) -> ServiceFact {
        self.host.observe_partition(&neighbour()).await.unwrap().services[&service("victim")].clone()
    }

    fn theirs(&self, path: &str) -> PathBuf {
        self.node.home().with_file_name("p1").join(path)
    }

    /// Processes of its user, each as the kernel tells it.
    fn own(&self) -> Vec<String> {
        let is_own = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|about| about.uid() == self.own);
        let own = fs::read_dir("/proc").unwrap().flatten().filter(is_own);
        own.map(|entry| fs::read_to_string(entry.path().join("stat")).unwrap_or_default()).collect()
    }

    /// Those that run: one that is dead, and that nobody has asked yet how it ended, does nothing more.
    fn live(&self) -> Vec<String> {
        self.own().into_iter().filter(|process| !process.is_empty() && !process.contains(") Z ")).collect()
    }

    fn count_own(&self) -> usize {
        self.own().len()
    }

    /// What the service says, when it has ended with everything that it started.
    async fn tries(&self, script: &str) -> (String, String) {
        let spec = with_script("attack", script);
        start(&self.host, &spec).await.unwrap();
        let fact = ended(&self.host, "attack").await;
        assert_eq!(self.live(), [""; 0], "something of it is left: {script}");
        (fact.last_exit, fact.last_lines.join("\n"))
    }

    /// It fails, for one of these reasons.
    async fn is_refused(&self, script: &str, why: &[&str]) {
        let (exit, said) = self.tries(script).await;
        assert_ne!(exit, "exit code 0", "{script}: {said}");
        assert!(why.iter().any(|why| said.contains(why)), "{script}: {exit}: {said}");
    }

    /// The last lines that are told of a partition.
    async fn log(&self, partition: &PartitionName, lines: usize) -> Vec<String> {
        let asked = LogsAsked { of: LogOf::Services(partition.clone(), None), lines, follow: Follow::No };
        let (mut lines, mut said) = (self.host.logs(&asked).await.unwrap(), Vec::new());
        while let Some((_, text)) = lines.recv().await {
            said.push(text);
        }
        said
    }

    /// The neighbour runs as before, and the agent does what it is asked to.
    async fn goes_on(&self) {
        let fact = self.neighbours().await;
        assert_eq!((running(&fact), &fact.run), (self.victim.0, &self.victim.1));
        assert_eq!(fs::read_to_string(self.theirs("secret")).unwrap(), SECRET);
        assert!(!self.theirs("heard").exists(), "somebody spoke to the neighbour");
        let run = Run {
            name: "init".into(),
            command: vec!["/bin/sh".into(), "-c".into(), "cat secret | grep -q secret & wait $!".into()],
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            directory: String::new(),
            timeout_seconds: 30,
        };
        self.host.perform(&Action::RunHook { partition: neighbour(), run }).await.unwrap();
    }

    async fn done(self) {
        self.goes_on().await;
        let Self { node, host, .. } = self;
        for partition in [part(), neighbour()] {
            host.perform(&Action::Erase { partition: partition.clone() }).await.unwrap();
            host.perform(&Action::Free { partition }).await.unwrap();
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&node.folder.path().display().to_string()), "a mount is left on the machine");
    }
}

/// Of what its user could do, but for what shuts it in.
const GONE: [&str; 4] = ["No such file", "nonexistent", "Permission denied", "Read-only file system"];
/// Of what its user could not do either, if it were there.
const ABSENT: [&str; 1] = ["No such file"];

/// All that files beneath a folder take on the disk.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => size_of(&entry.path()),
        about => about.map_or(0, |about| about.blocks() * 512),
    };
    entries.map(size).sum()
}

fn size_of_journals() -> u64 {
    ["/var/log/journal", "/run/log/journal"].iter().map(|folder| size_of(Path::new(folder))).sum()
}

pub async fn links_in_its_folders_lead_the_agent_nowhere(street: Street) {
    let (outside, theirs) = (street.node.folder.path().join("open"), street.theirs("etc"));
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    let write = async || {
        let template = Prepared::verbatim("mine");
        let files = vec![FileTemplate { path: "etc/conf".into(), mode: 0o640, template }];
        street.host.perform(&Action::WriteFiles { partition: part(), files }).await
    };
    for place in [&outside, &theirs] {
        let (exit, said) = street.tries(&format!("rm -rf etc; ln -s {} etc", place.display())).await;
        assert_eq!(exit, "exit code 0", "{said}");
        assert_eq!(write().await.unwrap_err().code, codes::FILES_FAILED);
        assert!(!place.join("conf").exists(), "written through a link");
    }
    // A link in place of the file is replaced itself.
    fs::write(outside.join("file"), "theirs").unwrap();
    fs::set_permissions(outside.join("file"), fs::Permissions::from_mode(0o666)).unwrap();
    street.tries(&format!("rm etc; mkdir etc; ln -s {}/file etc/conf", outside.display())).await;
    write().await.unwrap();
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "theirs");
    // Its /tmp is a folder of its own partition: a link there is no way out, and no way to a start that fails.
    let (exit, said) =
        street.tries("echo x > /tmp/mine; cat tmp/mine; rm -r /tmp/mine; rmdir tmp; ln -s /etc tmp").await;
    assert_eq!((exit.as_str(), said.as_str()), ("exit code 0", "x"));
    let (exit, said) = street.tries("[ ! -e /tmp/passwd ] && echo x > /tmp/mine && cat /tmp/mine").await;
    assert_eq!((exit.as_str(), said.as_str()), ("exit code 0", "x"));
    // What is emptied is the partition, not what links lead to.
    street.tries(&format!("ln -s {} out; ln -s {} out2", outside.display(), street.theirs("").display())).await;
    street.host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(outside.join("file").exists());
    street.done().await;
}

pub async fn no_file_gives_it_rights(street: Street) {
    street.is_refused("cp /bin/sh sh; chmod 4755 sh", &["not permitted"]).await;
    street.is_refused("umask 0; install -m 6755 /bin/sh sh", &["not permitted"]).await;
    street
        .is_refused(
            "perl -e 'use Fcntl; sysopen(F, \"f\", O_CREAT | O_WRONLY, 04755) or die \"$!\\n\"'",
            &["not permitted"],
        )
        .await;
    // One of root's that there is already.
    let given = street.node.folder.path().join("id");
    fs::copy("/usr/bin/id", &given).unwrap();
    fs::set_permissions(&given, fs::Permissions::from_mode(0o4755)).unwrap();
    let (_, said) = street.tries(&format!("{} -u", given.display())).await;
    assert_eq!(said, street.own.to_string());
    street.done().await;
}

pub async fn a_fork_bomb_stays_within_its_partition(street: Street) {
    let resources = Resources { processes: Some(40), ..Resources::default() };
    street.host.perform(&Action::Limit { partition: part(), resources }).await.unwrap();
    assert!(street.host.enforces().processes, "a user of its own is held to it where no group is");
    // A shell that tries again where it cannot fork: one that ends then makes room for others, and soon there is none.
    let bomb = spec("bomb", "exec bash -c 'trap \"\" TERM; bomb() { bomb & bomb & wait; }; bomb'");
    start(&street.host, &bomb).await.unwrap();
    until("it has gone as far as it can", async || street.count_own() >= 38).await;
    street.goes_on().await;
    assert!(street.count_own() <= 40);
    street.host.perform(&Action::StopService { partition: part(), service: service("bomb") }).await.unwrap();
    until("all of it has ended", async || street.count_own() == 0).await;
    street.done().await;
}

pub async fn what_it_writes_too_much_is_bounded_where_the_node_says_so(street: Street) {
    // Its log, which nothing makes smaller; where systemd keeps it, as much as its journal is allowed is there.
    let before = size_of_journals();
    let (exit, _) = street.tries("head -c 15000000 /dev/urandom | base64 -w 1000; echo the end").await;
    assert_eq!(exit, "exit code 0");
    let kept = size_of(&street.node.state());
    assert!(kept < 4 << 20, "{kept} bytes of its log are kept");
    let grown = size_of_journals().saturating_sub(before);
    assert!(grown < 100 << 20, "the journal has grown by {grown} bytes");
    let told = street.log(&part(), 10_000).await;
    assert_eq!(told.last().map(String::as_str), Some("the end"));
    let told: usize = told.iter().map(String::len).sum();
    assert!((1 << 20..3 << 20).contains(&told), "{told} bytes are told");
    assert_eq!(street.log(&neighbour(), 100).await, ["I am up"], "its neighbour's is as it was");
    // What is in memory counts as its memory.
    let resources = Resources { memory_mib: Some(64), ..Resources::default() };
    street.host.perform(&Action::Limit { partition: part(), resources }).await.unwrap();
    let (exit, said) = street.tries("head -c 200000000 /dev/zero > /dev/shm/full").await;
    assert_eq!(exit != "exit code 0", street.host.enforces().memory, "{exit}: {said}");
    assert!(!street.host.enforces().disk, "this node was formatted without limits of disks, and says so");
    street.done().await;
}

pub async fn it_reads_nothing_of_its_neighbour_nor_of_the_agent(street: Street) {
    let (home, victim) = (street.theirs(""), street.victim.0);
    street.is_refused(&format!("cat {}/secret", home.display()), &GONE).await;
    street.is_refused(&format!("echo x > {}/etc/planted", home.display()), &GONE).await;
    street.is_refused(&format!("cat /proc/{victim}/environ"), &ABSENT).await;
    street.is_refused(&format!("ls /proc/{victim}"), &GONE).await;
    street.is_refused(&format!("ls /proc/{victim}/root/"), &ABSENT).await;
    street.is_refused(&format!("ls {}/host", street.node.state().display()), &ABSENT).await;
    let (_, said) = street.tries(&format!("ls -A {}", home.parent().unwrap().display())).await;
    assert_eq!(said, "p0", "it sees no neighbour");
    street.is_refused("head -c 1 /proc/$PPID/mem", &ABSENT).await;
    let left = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    fs::set_permissions(left.path(), fs::Permissions::from_mode(0o644)).unwrap();
    street.is_refused(&format!("cat {}", left.path().display()), &GONE).await;
    street.done().await;
}

pub async fn it_speaks_with_nobody_at_a_socket_that_is_not_its_own(street: Street) {
    let (inside, _) = listen_on(&street.host);
    let partitions = street.host.node().await.unwrap().partitions;
    let instances = [instance(), InstanceId::parse(&"b".repeat(32)).unwrap()];
    for (partition, instance) in partitions.iter().zip(&instances) {
        inside.keep(partition, Some(instance)).await;
    }
    fs::set_permissions(street.theirs(SOCKET), fs::Permissions::from_mode(0o777)).unwrap();
    let dial = |path: PathBuf| {
        format!("perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Peer => shift) or die \"$!\\n\"' {}", path.display())
    };
    street.is_refused(&dial(street.theirs("run/db.sock")), &GONE).await;
    street.is_refused(&dial(street.theirs(SOCKET)), &GONE).await;
    // Its own it may replace: it hears its own words, and the agent makes another.
    let (exit, said) = street.tries(&dial(street.node.home().join(SOCKET))).await;
    assert_eq!(exit, "exit code 0", "{said}");
    let fake = format!(
        "rm -f {SOCKET}; exec perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Local => \"{SOCKET}\", Listen => 5) \
         or die \"$!\\n\"; open(F, \">\", \"faked\"); while (my $c = $s->accept) {{ print $c \"{{}}\\n\" while 1; }}'"
    );
    start(&street.host, &with_script("fake", &fake)).await.unwrap();
    until("it listens", async || street.node.home().join("faked").exists()).await;
    let fake = fs::metadata(street.node.home().join(SOCKET)).unwrap().ino();
    street.goes_on().await;
    let (fresh, _) = listen_on(&street.host);
    fresh.keep(&partitions[0], Some(&instances[0])).await;
    assert_ne!(fs::metadata(street.node.home().join(SOCKET)).unwrap().ino(), fake, "the agent's own is there again");
    street.host.perform(&Action::StopService { partition: part(), service: service("fake") }).await.unwrap();
    street.done().await;
}

/// Says so at the two sockets of a journal that is kept for all, in the words of who runs the neighbour. One that cannot be
/// reached is no way.
const FORGES: &str = r#"perl -MSocket -e '
    my ($unit, $instance) = @ARGV;
    socket(my $native, AF_UNIX, SOCK_DGRAM, 0); socket(my $stream, AF_UNIX, SOCK_STREAM, 0);
    my @fields = ("MESSAGE=forged", "PLAT_INSTANCE=$instance", "PLAT_PARTITION=p1", "PLAT_SERVICE=victim",
        "UNIT=$unit", "_SYSTEMD_UNIT=$unit", "_TRANSPORT=stdout");
    send($native, join("\n", @fields, ""), 0, pack_sockaddr_un("/run/systemd/journal/socket"));
    if (connect($stream, pack_sockaddr_un("/run/systemd/journal/stdout"))) {
        syswrite($stream, join("\n", "victim", $unit, 6, 0, 0, 0, 0, "forged", ""));
    }'"#;

pub async fn it_puts_no_word_into_its_neighbours_log(street: Street) {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", street.victim.0)).unwrap();
    let unit = groups.trim_end().rsplit('/').next().unwrap();
    let (exit, said) = street.tries(&format!("{FORGES} {unit} {}; echo tried", "b".repeat(32))).await;
    // In its own it says what it likes.
    assert!(exit == "exit code 0" && said.contains("tried"), "{exit}: {said}");
    assert_eq!(street.log(&neighbour(), 100).await, ["I am up"], "that it said itself");
    street.done().await;
}

pub async fn it_does_nothing_to_processes_that_are_not_its_own(street: Street) {
    let victim = street.victim.0;
    let attach = |pid: &str| format!("perl -e 'syscall({SYS_ptrace}, 16, shift, 0, 0) == 0 or die \"$!\\n\"' {pid}");
    for pid in [victim.to_string(), "$PPID".to_owned(), std::process::id().to_string()] {
        street.is_refused(&format!("kill -9 {pid}"), &["not permitted", "No such process"]).await;
        street.is_refused(&attach(&pid), &["not permitted", "No such process"]).await;
    }
    // All whom it may reach are its own.
    let (_, said) = street.tries("sleep 600 & kill -9 -1; wait; echo alone").await;
    assert_eq!(said.lines().last(), Some("alone"));
    street.done().await;
}

pub async fn it_changes_no_release_and_no_mount(street: Street) {
    let release = street.node.folder.path().join("releases/app");
    fs::create_dir_all(&release).unwrap();
    fs::write(release.join("program"), "released").unwrap();
    for path in [release.clone(), release.join("program")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let path = release.display();
    assert_eq!(street.tries(&format!("cat {path}/program")).await.1, "released");
    street.is_refused(&format!("echo x > {path}/program"), &GONE).await;
    street.is_refused(&format!("mv {path}/program {path}/other"), &GONE).await;
    street.is_refused(&format!("mount -o remount,rw,bind {path}"), &["permi", "must be superuser"]).await;
    street.is_refused("unshare --user --map-root-user --mount sleep 600", &["not permitted"]).await;
    street.is_refused("nsenter -t 1 -m true", &["No such file", "not permitted"]).await;
    street.is_refused("umount /tmp", &["permi", "must be superuser"]).await;
    assert_eq!(fs::read_to_string(release.join("program")).unwrap(), "released");
    street.done().await;
}

pub async fn nothing_of_it_stays_when_it_is_stopped_or_erased(street: Street) {
    // Away from its parent, its session, its variables and its group of processes.
    let hides =
        "trap '' TERM HUP; (env -i setsid sh -c 'trap \"\" TERM HUP; (setsid sleep 600 &) ; setsid sleep 600' &)";
    street.tries(&format!("{hides}; sleep 0.1; exit 0")).await;
    start(&street.host, &with_script("hides", &format!("{hides}; echo x > hidden; sleep 600"))).await.unwrap();
    until("it has hidden", async || street.node.home().join("hidden").exists() && street.count_own() >= 4).await;
    street.host.perform(&Action::StopService { partition: part(), service: service("hides") }).await.unwrap();
    assert_eq!(street.live(), [""; 0]);
    start(&street.host, &spec("again", hides)).await.unwrap();
    street.host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert_eq!(street.live(), [""; 0]);
    street.done().await;
}

pub async fn what_its_user_runs_elsewhere_on_the_machine_ends_when_it_is_erased(street: Street) {
    // Not started by the agent, nor in any of its groups; one does not listen, one does not run at the moment.
    let scripts = ["exec sleep 600", "trap '' TERM HUP; echo; while :; do sleep 600; done", "kill -STOP $$; sleep 600"];
    let mut others = scripts.map(|script| {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", script]).uid(street.own).gid(street.own).current_dir("/").stdin(Stdio::null());
        command.stdout(Stdio::null()).spawn().unwrap()
    });
    start(&street.host, &with_script("web", "exec sleep 600")).await.unwrap();
    let is_stopped = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| text.contains(") T "));
    let [.., stopped] = &others;
    until("one is stopped", async || is_stopped(stopped.id())).await;
    for other in &others {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", other.id())).unwrap();
        assert!(alive(other.id()) && !groups.contains(&street.node.id()), "{groups}");
    }
    street.host.perform(&Action::Erase { partition: part() }).await.unwrap();
    for other in &mut others {
        assert!(other.try_wait().unwrap().is_some(), "it runs still");
    }
    assert_eq!(street.live(), [""; 0]);
    street.done().await;
}
