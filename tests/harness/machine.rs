//! A Debian machine that boots, systemd as its first process, plugged into a hub's bridge. Its disk is laid over a root
//! that is built once and kept in the target folder. It can be switched off, or lose its power, and boots again: what is
//! on the disk stays; links, control groups, `/run` and the boot's id do not.
//!
//! All of it is within the hub's namespaces (the mount of its disk, its processes, its end of the link), so that it goes
//! with the hub, however the test ends.

use crate::binaries::binary;
use crate::daemon::{Daemon, send};
use crate::debian::{self, root_and_tools_or_skip};
use crate::eventually::eventually;
use crate::namespace::{Namespace, processes_beside};
use crate::relay;
use crate::source::root;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long a boot, or an orderly end, may take on a loaded machine; within a second on an idle one.
const PATIENCE: Duration = Duration::from_secs(60);
/// What makes a machine, and the Debian package that it is in.
const TOOLS: [(&str, &str); 2] = [("systemd-nspawn", "systemd-container"), ("mmdebstrap", "mmdebstrap")];
/// What is on the disk besides what is essential to Debian: what a small server has.
const PACKAGES: &str =
    "systemd-sysv,dbus,udev,libnss-systemd,iproute2,iputils-ping,procps,nftables,passwd,ca-certificates";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether machines can be made here. In CI they must.
///
/// # Panics
/// Where `CI` is set, without root or the tools.
pub fn machine_or_skip(test: &str) -> bool {
    if !root_and_tools_or_skip(test, &TOOLS) {
        return false;
    }
    if Path::new("/dev/net/tun").exists() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{test} needs /dev/net/tun, and CI must run it");
    eprintln!("SKIPPED: {test} needs /dev/net/tun, which this kernel does not have");
    false
}

pub struct Machine {
    name: String,
    hub: Arc<Namespace>,
    /// Its disk, as the hub sees it.
    disk: PathBuf,
    /// `systemd-nspawn`, while it is on.
    power: Daemon,
    /// Its first process, as the host numbers it; while it is on.
    init: Option<u32>,
}

impl Machine {
    /// A machine that was installed and is off. When it is on, it has `address` (with the length of its prefix) on the
    /// hub's bridge `br0`. `name` has at most 12 letters: a link is named after it. `logs` is a folder.
    ///
    /// # Panics
    /// If its root cannot be built, or the kernel refuses.
    pub fn new(hub: &Arc<Namespace>, name: &str, address: &str, logs: &Path) -> Self {
        let base = base();
        let disk = PathBuf::from(format!("/mnt/{name}/disk"));
        // systemd wants control groups of one kind, and a /run of its own to clear.
        hub.sh("[ -e /sys/fs/cgroup/cgroup.procs ] || mount -t cgroup2 plat-tests /sys/fs/cgroup
                mkdir -p /run/systemd/nspawn
                mountpoint -q /run/systemd/nspawn || mount -t tmpfs plat-tests /run/systemd/nspawn");
        hub.sh(&format!("cd /mnt && mkdir {name} && cd {name} && mkdir disk upper work"));
        let layers = format!("lowerdir={},upperdir=/mnt/{name}/upper,workdir=/mnt/{name}/work", base.display());
        let laid = hub.command("mount").args(["-t", "overlay", "plat-tests", "-o", &layers]).arg(&disk).status();
        assert!(laid.is_ok_and(|status| status.success()), "the disk of {name} cannot be laid over {}", base.display());
        let (space, (root, machine)) = (hub.clone(), (disk.clone(), name.to_owned()));
        let power = Daemon::new(name, logs, move || {
            let mut nspawn = space.command("systemd-nspawn");
            nspawn.arg("--directory").arg(&root).arg(format!("--machine={machine}"));
            nspawn.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no"]);
            nspawn.args(["--network-bridge=br0", "--bind=/dev/net/tun", "--resolv-conf=off", "--timezone=off"]);
            // It makes control groups beneath its own, which must be the hub's.
            let mut command = Command::new("bash");
            command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]);
            command
                .arg(space.cgroup().expect("cgroup v2 is mounted"))
                .arg(nspawn.get_program())
                .args(nspawn.get_args());
            // Its own network's settings can be written, as on a machine of metal.
            command.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network").stdin(Stdio::null());
            command
        });
        let machine = Self { name: name.to_owned(), hub: hub.clone(), disk, power, init: None };
        machine.write("/etc/hostname", &format!("{name}\n"), 0o644);
        let network = format!(
            "[Match]\nName=host0\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n\
             [Address]\nAddress={address}\nDuplicateAddressDetection=none\n"
        );
        machine.write("/etc/systemd/network/10-host0.network", &network, 0o644);
        machine
    }

    /// Switches it on, and waits until systemd says that all of it runs.
    ///
    /// # Panics
    /// If a unit fails.
    pub fn boot(&mut self) {
        self.power.start();
        let nspawn = self.power.pid();
        let state = eventually("booted", PATIENCE, || {
            let init = child_named(nspawn, "systemd").ok_or("there is no first process")?;
            self.init = Some(init);
            let said = self.command("systemctl").arg("is-system-running").output().expect("nsenter can be run");
            let state = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            if ["running", "degraded"].contains(&&*state) { Ok(state) } else { Err("it starts") }
        });
        assert_eq!(
            state,
            "running",
            "on {}: {}",
            self.name,
            self.sh("systemctl --failed --no-pager; journalctl -n 80")
        );
    }

    /// Shuts it down in order, and waits until it is off.
    pub fn power_off(&mut self) {
        self.init = None;
        self.power.stop();
    }

    /// Takes its power away: every process is gone at once. What it wrote to the disk is there, synced or not.
    pub fn cut_power(&mut self) {
        if let Some(init) = self.init.take() {
            send(rustix::process::Signal::KILL, init);
        }
        self.power.until_ended();
    }

    /// A program within, as root logs in: nothing is inherited from the test. Its own pid is that of the only child of
    /// what is spawned.
    ///
    /// # Panics
    /// If the machine is off.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let init = self.init.unwrap_or_else(|| panic!("{} is off", self.name));
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(init.to_string());
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
        command
            .args(["env", "--ignore-environment", "--chdir=/root", "HOME=/root", PATH])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Every process within: the host's pid, the pid within. None while it is off.
    pub fn processes(&self) -> Vec<(u32, u32)> {
        self.init.map(processes_beside).unwrap_or_default()
    }

    /// Runs a shell script within; its exit code, and all that it printed.
    #[track_caller]
    pub fn run(&self, script: &str) -> (i32, String) {
        let out = self.command("sh").args(["-ec", script]).output().expect("nsenter can be run");
        let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        (out.status.code().unwrap_or(-1), said.into_owned())
    }

    /// Runs a shell script within, which must succeed; what it printed.
    ///
    /// # Panics
    /// With that, if it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let (code, said) = self.run(script);
        assert_eq!(code, 0, "on {}: {script}\n{said}", self.name);
        said
    }

    /// A path on its disk, on or off, as this process can open it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.hub.path(&self.disk).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Points its apt to Debian's archives, through the relay of its hub.
    pub fn reach_debian(&self) {
        let suite = debian::suite();
        self.write("/etc/apt/sources.list", &format!("deb http://deb.debian.org/debian {suite} main\n"), 0o644);
        self.write("/etc/apt/apt.conf.d/99relay", &relay::settings(), 0o644);
    }

    /// Puts a file of the host onto its disk, and the folders on the way.
    ///
    /// # Panics
    /// If it cannot be read or written.
    pub fn install(&self, file: &Path, at: &str, mode: u32) {
        let at = self.path(at);
        fs::create_dir_all(at.parent().expect("a file is in a folder")).expect("its disk can be written");
        fs::copy(file, &at).unwrap_or_else(|e| panic!("{} to {}: {e}", file.display(), at.display()));
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).expect("its disk can be written");
    }

    /// Puts programs and a unit where packaging/README.md says, with what goes with them, and does what it says to do after
    /// that. The machine is on.
    ///
    /// # Panics
    /// If systemd complains.
    pub fn install_packaged(&self, folder: &str, programs: [&str; 2], unit: &str) {
        for program in programs {
            self.install(&binary(program), &format!("{folder}/{program}"), 0o755);
        }
        let packaging = root().join("packaging");
        for file in ["sysusers.d/plat.conf", "tmpfiles.d/plat.conf"] {
            self.install(&packaging.join(file), &format!("/usr/lib/{file}"), 0o644);
        }
        let place = format!("/etc/systemd/system/{unit}");
        self.install(&packaging.join("systemd").join(unit), &place, 0o644);
        self.sh("systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload");
        assert_eq!(self.sh(&format!("systemd-analyze verify {place}")), "", "systemd complains of the unit");
    }

    /// Writes a file onto its disk, and the folders on the way.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, at: &str, text: &str, mode: u32) {
        let at = self.path(at);
        fs::create_dir_all(at.parent().expect("a file is in a folder")).expect("its disk can be written");
        fs::write(&at, text).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).expect("its disk can be written");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.init.is_some() {
            eprintln!("---- the journal of {} ends with:\n{}", self.name, self.run("journalctl -n 40 --no-pager").1);
        }
        self.cut_power();
    }
}

fn child_named(pid: u32, name: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let is = |child: &u32| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == name);
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(is)
}

/// The root of a machine that nobody has used.
fn base() -> PathBuf {
    let recipe = format!("{} {PACKAGES}\n{PREPARE}", debian::suite());
    debian::once("machine", &recipe, |new| debian::unpack(new, PACKAGES, PREPARE))
}

/// What makes a folder of packages a machine of nobody's: nothing of the host's, and a network from files.
const PREPARE: &str = r#"cd "$1" && rm -f etc/apt/sources.list.d/* etc/apt/sources.list etc/hostname etc/resolv.conf &&
: > etc/machine-id && ln -sf /dev/null etc/systemd/system/console-getty.service &&
systemctl --quiet --root="$1" enable systemd-networkd"#;
