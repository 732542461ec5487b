//! A machine's worth of namespaces, made for one test: its own links, mounts, processes and control groups. Its
//! `/etc`, `/srv`, `/var` and `/run` are laid over the host's, in memory, so that what is done in it (users, folders,
//! links) leaves nothing behind. When it is dropped, or the test is killed, the kernel ends every process in it and
//! forgets the rest.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// Of version 1, each a tree of its own, where it is mounted.
const CONTROLLERS: [&str; 5] = ["blkio", "cpu", "cpuacct", "memory", "pids"];
const CGROUP_PREFIX: &str = "plat-tests-";

/// Set in CI, where a test that needs root must not pass by being skipped.
///
/// # Panics
/// Without root where `CI` is set.
pub fn root_or_skip(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{test} needs root, and CI must run it");
    eprintln!("SKIPPED: {test} needs root (network namespaces, users)");
    false
}

pub struct Namespace {
    name: String,
    /// `unshare`, which lives as long as the namespaces do.
    holder: Child,
    /// The first process in it, as the host numbers it.
    init: u32,
    cgroup: Option<PathBuf>,
    /// And those of version 1.
    legacy: Vec<PathBuf>,
}

/// Ends when the test closes its input: also when the test is killed.
const INIT: &str = r#"
set -e
mkdir -p /tmp
mount -t tmpfs -o size=4g,mode=0755 plat-tests /mnt
for folder in etc srv var run; do
  mkdir -p /mnt/$folder/upper /mnt/$folder/work
  mount -t overlay -o lowerdir=/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work plat-tests /$folder
done
if [ -n "$CGROUP_MOUNT" ]; then umount -l "$CGROUP_MOUNT"; mount -t cgroup2 plat-tests "$CGROUP_MOUNT"; fi
for controller in $CGROUP_LEGACY; do
  umount -l /sys/fs/cgroup/$controller; mount -t cgroup -o $controller plat-tests /sys/fs/cgroup/$controller
done
ip link set lo up
for kind in all default; do
  echo 0 > /proc/sys/net/ipv6/conf/$kind/accept_dad
  echo 1 > /proc/sys/net/ipv6/conf/$kind/forwarding
done
echo ready
read -r _
"#;

impl Namespace {
    /// # Panics
    /// If the kernel refuses.
    pub fn new(name: &str) -> Self {
        sweep();
        let mount = CGROUPS.into_iter().map(Path::new).find(|p| p.join("cgroup.procs").exists());
        let group = format!("{CGROUP_PREFIX}{}-{name}", std::process::id());
        let cgroup = mount.map(|mount| mount.join(&group));
        let legacy: Vec<_> = legacy().map(|(_, mount)| mount.join(&group)).collect();
        let join = |cgroup: &PathBuf| {
            fs::create_dir_all(cgroup).unwrap_or_else(|e| panic!("{}: {e}", cgroup.display()));
            format!("echo $$ > {}/cgroup.procs; ", cgroup.display())
        };
        let join: String = cgroup.iter().chain(&legacy).map(join).collect();
        let flags = "--net --mount --pid --cgroup --fork --kill-child=KILL --mount-proc --propagation private";
        let mut holder = Command::new("bash")
            .args(["-c", &format!("{join}exec unshare {flags} bash -c \"$INIT\"")])
            .env("INIT", INIT)
            .env("CGROUP_LEGACY", legacy_names())
            .env("CGROUP_MOUNT", mount.map(Path::as_os_str).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash can be run");
        let mut line = String::new();
        let mut said = BufReader::new(holder.stdout.take().expect("its output was piped"));
        said.read_line(&mut line).expect("its output can be read");
        assert_eq!(line, "ready\n", "the namespaces of {name} cannot be made; see above");
        let init = only_child(holder.id()).expect("unshare has a child");
        Self { name: name.to_owned(), holder, init, cgroup, legacy }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program within. Its own pid is that of the only child of what is spawned: see [`only_child`].
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string()).args(["--mount", "--net", "--pid", "--cgroup", "--"]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a shell script within; what it printed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let out = self.command("bash").args(["-ec", script]).output().expect("nsenter can be run");
        let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "in {}: {script}\n{said}{errors}", self.name);
        said.into_owned()
    }

    /// A path within, as this process can open it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        PathBuf::from(format!("/proc/{}/root", self.init)).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file of its first process in `/proc`, e.g. `ns/net`.
    pub fn own(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.init)).join(file)
    }

    /// Its control group, where cgroup v2 is mounted.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// Joins it to `other`'s bridge `br0` by a link of its own, here called `uplink`.
    pub fn plug_into(&self, other: &Namespace) {
        let port = format!("to-{}", self.name);
        let made = Command::new("nsenter")
            .arg("--target")
            .arg(other.init.to_string())
            .args(["--net", "--", "ip", "link", "add", &port, "type", "veth", "peer", "name", "uplink", "netns"])
            .arg(self.init.to_string())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "no link from {} to {}", self.name, other.name);
        other.sh(&format!("ip link set {port} master br0 up"));
        self.sh("ip link set uplink up");
    }

    /// The pid that the host gives to a process that has `pid` within.
    pub fn host_pid(&self, pid: u32) -> Option<u32> {
        self.processes().into_iter().find_map(|(host, inner)| (inner == pid).then_some(host))
    }

    /// Every process within: the host's pid, the pid within.
    pub fn processes(&self) -> Vec<(u32, u32)> {
        processes_beside(self.init)
    }

    /// The processes within that run as `uid`.
    pub fn processes_of(&self, uid: u32) -> Vec<u32> {
        let runs_as = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status
                .lines()
                .any(|l| l.strip_prefix("Uid:").is_some_and(|l| l.split_whitespace().any(|w| w == uid.to_string())))
        };
        self.processes().into_iter().filter(|(host, _)| runs_as(*host)).map(|(_, inner)| inner).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        self.cgroup.iter().chain(&self.legacy).for_each(|cgroup| remove_cgroup(cgroup));
    }
}

/// Every process in the pid namespace of this one: the host's pid, the pid within.
pub fn processes_beside(init: u32) -> Vec<(u32, u32)> {
    let ours = fs::read_link(format!("/proc/{init}/ns/pid")).ok();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| ours.is_some() && fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == ours)
        .filter_map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
            Some((pid, line.split_whitespace().last()?.parse().ok()?))
        })
        .collect()
}

/// The only child of a process.
pub fn only_child(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split_whitespace().next()?.parse().ok()
}

/// The trees of version 1 that are mounted here.
fn legacy() -> impl Iterator<Item = (&'static str, PathBuf)> {
    let mounts = CONTROLLERS.into_iter().map(|name| (name, Path::new(CGROUPS[1]).join(name)));
    mounts.filter(|(_, mount)| mount.join("cgroup.procs").exists())
}

fn legacy_names() -> String {
    legacy().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

/// Removes what runs that were killed have left: control groups are all that outlives their processes.
fn sweep() {
    for mount in CGROUPS.map(PathBuf::from).into_iter().chain(legacy().map(|(_, mount)| mount)) {
        for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(CGROUP_PREFIX).and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                remove_cgroup(&entry.path());
            }
        }
    }
}

fn remove_cgroup(folder: &Path) {
    let _ = fs::write(folder.join("cgroup.kill"), "1");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // What was killed leaves its group a moment later.
    for _ in 0..100 {
        if fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}
