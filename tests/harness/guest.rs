//! A Debian machine with Debian's own kernel, emulated by QEMU: for what the host's kernel may lack (project quota, the
//! controllers of cgroup v2). It boots in half a minute, so the tests of one program share one. What it writes to its
//! disk is gone when it is.

use crate::binaries::target;
use crate::debian::{self, root_and_tools_or_skip};
use crate::eventually::eventually;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a boot or one script may take on a loaded machine: an emulated processor has a tenth of a real one's speed.
const PATIENCE: Duration = Duration::from_secs(300);
/// What makes and runs a guest, and the Debian package that it is in.
const TOOLS: [(&str, &str); 3] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("mmdebstrap", "mmdebstrap"), ("mkfs.ext4", "e2fsprogs")];
const PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,dbus,udev,kmod,libnss-systemd,iproute2,procps,nftables,passwd,\
                        ca-certificates,e2fsprogs,xfsprogs,btrfs-progs,quota,busybox-static";
const MAKE: &str = include_str!("guest.sh");
/// How much of its console is shown when a test fails.
const SHOWN: usize = 4_000;

/// Whether guests can be had here: x86-64 alone. In CI they must.
///
/// # Panics
/// Where `CI` is set, without root or the tools.
pub fn guest_or_skip(test: &str) -> bool {
    if cfg!(not(target_arch = "x86_64")) {
        eprintln!("SKIPPED: {test} needs an x86-64 machine");
        return false;
    }
    root_and_tools_or_skip(test, &TOOLS)
}

pub struct Guest {
    /// A shell that ends QEMU when its input is closed: also when the test is killed.
    holder: Child,
    channel: BufReader<UnixStream>,
    console: File,
}

impl Guest {
    /// Boots one, and waits until it can be asked. `files` of the host are in its folder `/host`, under the names given.
    ///
    /// # Panics
    /// If it cannot be made, or does not boot.
    pub fn boot(files: &[(PathBuf, &str)]) -> Self {
        let recipe = format!("{} {PACKAGES}\n{MAKE}", debian::suite());
        let base = debian::once("guest", &recipe, make);
        // On the disk of the target folder, where files can be brought by a link; gone once QEMU has opened what is in it.
        let folder = folder();
        let (socket, brought) = (folder.path().join("socket"), folder.path().join("brought"));
        bring(files, &folder.path().join("files"), &brought);
        let listener = UnixListener::bind(&socket).expect("a socket can be made in the target folder");
        listener.set_nonblocking(true).expect("a socket need not block");
        let console = tempfile::tempfile().expect("a file can be made");
        let mut holder = qemu(&base, &brought, &socket, &console);
        let channel = eventually("connected to its console", Duration::from_secs(30), || match listener.accept() {
            Ok((channel, _)) => Ok(channel),
            Err(_) if holder.try_wait().is_ok_and(|ended| ended.is_none()) => Err("QEMU starts".to_owned()),
            Err(_) => panic!("QEMU ended: {}", shown(&console)),
        });
        channel
            .set_nonblocking(false)
            .and_then(|()| channel.set_read_timeout(Some(PATIENCE)))
            .expect("a socket can wait");
        let mut guest = Self { holder, channel: BufReader::new(channel), console };
        assert_eq!(guest.line(), "ready");
        guest
    }

    /// Runs a script by bash (`-eu`) as root; its exit code, and all that it printed. One script at a time.
    ///
    /// # Panics
    /// If the guest is gone, or the script takes too long.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> (i32, String) {
        let asked = format!("{}\n{script}", script.len());
        self.channel.get_mut().write_all(asked.as_bytes()).unwrap_or_else(|e| self.gone(&e));
        let answer = self.line();
        let (code, length) = answer.split_once(' ').expect("an exit code and a length");
        let mut said = vec![0; length.parse().expect("a length")];
        self.channel.read_exact(&mut said).unwrap_or_else(|e| self.gone(&e));
        (code.parse().expect("an exit code"), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs a script, which must succeed; what it printed.
    ///
    /// # Panics
    /// With that, if it fails.
    #[track_caller]
    pub fn sh(&mut self, script: &str) -> String {
        let (code, said) = self.run(script);
        assert_eq!(code, 0, "in the guest: {script}\n{said}");
        said
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        match self.channel.read_line(&mut line) {
            Ok(1..) => line.trim_end().to_owned(),
            Ok(0) => self.gone(&"it ended"),
            Err(e) => self.gone(&e),
        }
    }

    fn gone(&self, why: &dyn std::fmt::Display) -> ! {
        panic!("the guest does not answer: {why}; its console ends with:\n{}", shown(&self.console));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A folder for what QEMU opens while it starts. Those of tests that were killed meanwhile are swept.
fn folder() -> tempfile::TempDir {
    let guests = target().join("guest");
    let owner = |name: &str| name.strip_prefix("boot-").and_then(|rest| rest.split('-').next()).map(str::to_owned);
    for entry in fs::read_dir(&guests).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(owner);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let named = tempfile::Builder::new().prefix(&format!("boot-{}-", std::process::id())).tempdir_in(guests);
    named.expect("the target folder can be written")
}

/// Kernel, initrd and disk, in a new folder.
fn make(new: &Path) {
    let root = new.with_extension("root");
    let _ = fs::remove_dir_all(&root);
    debian::unpack(&root, PACKAGES, "true");
    let made =
        Command::new("bash").args(["-c", MAKE, "guest.sh"]).arg(&root).arg(new).output().expect("bash can be run");
    assert!(made.status.success(), "no guest was made: {}", String::from_utf8_lossy(&made.stderr));
    fs::remove_dir_all(&root).expect("the target folder can be written");
}

/// A file system with the files in it.
fn bring(files: &[(PathBuf, &str)], folder: &Path, image: &Path) {
    fs::create_dir(folder).expect("the target folder can be written");
    let mut bytes = 16 << 20;
    for (file, name) in files {
        let at = folder.join(name);
        fs::hard_link(file, &at).or_else(|_| fs::copy(file, &at).map(|_| ())).unwrap_or_else(|e| panic!("{name}: {e}"));
        bytes += fs::metadata(file).map_or(0, |meta| meta.len()) / 10 * 11;
    }
    File::create(image).and_then(|file| file.set_len(bytes)).expect("the target folder can be written");
    let made =
        Command::new("mkfs.ext4").args(["-q", "-d"]).args([folder, image]).output().expect("mkfs.ext4 can be run");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn qemu(base: &Path, brought: &Path, socket: &Path, console: &File) -> Child {
    let mut qemu = Command::new("bash");
    // Whichever ends first ends the other: QEMU, or the test.
    qemu.args([
        "-c",
        r#"exec 3<&0; "$@" </dev/null & qemu=$!; { read -r _; kill -9 $qemu; } <&3 & wait $qemu; kill $!"#,
    ]);
    qemu.args(["guest", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    qemu.args(["-nographic", "-no-reboot", "-nic", "none", "-kernel"]).arg(base.join("kernel"));
    qemu.arg("-initrd").arg(base.join("initrd"));
    let quiet = "console=ttyS0 quiet panic=-1 mitigations=off audit=0 systemd.show_status=0";
    qemu.args(["-append", quiet]);
    qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", base.join("disk").display()));
    qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,readonly=on", brought.display()));
    qemu.arg("-chardev").arg(format!("socket,id=plat,path={}", socket.display()));
    qemu.args(["-device", "virtio-serial", "-device", "virtserialport,chardev=plat,name=plat"]);
    let output = || console.try_clone().expect("a file has two handles");
    qemu.stdin(Stdio::piped()).stdout(output()).stderr(output()).spawn().expect("bash can be run")
}

/// The end of what was written to a console.
fn shown(mut console: &File) -> String {
    let mut text = Vec::new();
    let _ = console.rewind().and_then(|()| console.read_to_end(&mut text));
    String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN)..]).into_owned()
}
