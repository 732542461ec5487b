//! Formats 1000 partitions (or as many as the first argument says) in a network namespace of its own, and prints how long it
//! took. The root folder is in memory, so that it is node-format and the kernel that are measured; a second argument names a
//! folder on a disk instead. Needs root. `cargo run --release -p node-format --example figures [AMOUNT [FOLDER]]`

use node_format::{Epoch, LinuxHost, Record, Wish, apply, drift};
use node_format_plan::{Contents, Layout, parse};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

fn main() {
    let amount: u32 = std::env::args().nth(1).map_or(1000, |text| text.parse().expect("a number of partitions"));
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, for a network namespace of its own");
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "the namespace's lo is up");
    let on_disk = std::env::args().nth(2).map(std::path::PathBuf::from);
    let above = on_disk.clone().unwrap_or_else(std::env::temp_dir);
    let root = above.join(format!("node-format-figures-{}", std::process::id()));
    fs::create_dir(&root).expect("a folder for the root");
    if on_disk.is_none() {
        in_memory(&root);
    }
    for directory in ["etc", "srv", "var/lib"] {
        fs::create_dir_all(root.join(directory)).expect("a folder for the root");
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("its mode");
    let text = format!(
        "version = 1\n[partitions]\namount = {amount}\n[network]\nmode = \"bridge\"\nguard = false\n\
         ipv6_prefix = \"fd00:1::/64\"\nipv4_network = \"10.200.0.0/16\"\n[builder]\n"
    );
    let settings = parse("figures", &text).expect("a configuration");
    let layout = Layout::new(&settings).expect("a layout");
    let wish = Wish::new(&layout, Contents::Keep);
    let empty = Layout::default();
    let nothing = Wish::new(&empty, Contents::Keep);
    println!(
        "{amount} partitions: users, isolated taps on a bridge, IPv6 and IPv4 addresses, 8 directories and a file each"
    );
    for (name, wish) in [("first apply", wish), ("second apply", wish)] {
        timed(name, || change(wish, &settings, &root));
    }
    timed("verify", || {
        let mut host = LinuxHost::new(&root).expect("the root");
        let record = Record::read(&host.beneath_root(&settings.paths.record), &Epoch::current()).expect("the record");
        assert!(drift(wish, &mut host, &record).expect("no problem").is_empty(), "the machine drifted");
    });
    timed("reset", || change(nothing, &settings, &root));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    println!("{:14} {}", "peak memory", peak.trim());
    let _ = nix::mount::umount(&root);
    fs::remove_dir_all(&root).expect("the folder can be removed");
}

/// Mounts memory on the folder, where only this process sees it.
fn in_memory(root: &std::path::Path) {
    let nothing = None::<&str>;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own");
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(nothing, "/", nothing, private, nothing).expect("mounts of its own");
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), root, Some("tmpfs"), none, nothing).expect("memory for the root");
}

fn timed(name: &str, run: impl FnOnce()) {
    let (start, busy) = (Instant::now(), processor_time());
    run();
    let (passed, used) = (start.elapsed().as_secs_f64() * 1e3, (processor_time() - busy) * 1e3);
    println!("{name:14} {passed:>7.1} ms, {used:>7.1} ms of a processor");
}

/// Seconds that this process has used a processor, in the kernel and outside.
fn processor_time() -> f64 {
    let used =
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("the usage of this process");
    [used.user_time(), used.system_time()].map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).iter().sum()
}

fn change(wish: Wish, settings: &node_format_plan::Settings, root: &std::path::Path) {
    let mut host = LinuxHost::new(root).expect("the root");
    let path = host.beneath_root(&settings.paths.record);
    let mut record = Record::open(&path, &Epoch::current()).expect("the record");
    let mut last = (Instant::now(), processor_time(), String::from("looking"));
    let mut step = |next: String| {
        let (since, busy, doing) = std::mem::replace(&mut last, (Instant::now(), processor_time(), next));
        let (passed, used) = (since.elapsed().as_secs_f64() * 1e3, (processor_time() - busy) * 1e3);
        println!("  {doing:32} {passed:>7.1} ms, {used:>7.1} ms of a processor");
    };
    let result = apply(wish, &mut host, &mut record, &mut |kind, batch| {
        step(format!("{} ({})", kind.doing(), batch.len()));
    });
    step("looking again".into());
    result.expect("it is applied");
    record.finish().expect("the record");
    step(String::new());
}
