//! The real `plat-master`: it makes a grid once, runs it, and is asked by its first operator.

use plat_link::{Address, Credentials, DialSettings, Trust};
use plat_model::id::GridName;
use plat_wire::v1;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn master(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plat-master"));
    command.args(arguments);
    command
}

fn init(folder: &Path) -> Output {
    let (data, profile) = (folder.join("data"), folder.join("profile"));
    let (data, profile) = (data.to_str().unwrap(), profile.to_str().unwrap());
    let listen = ["--listen", "127.0.0.1:0", "--url", "https://127.0.0.1:7443", "--grid", "campus"];
    master(&["init", "--data", data, "--profile", profile]).args(listen).output().unwrap()
}

/// Killed if the test fails before it has ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(folder: &Path) -> (Running, Address) {
    let config = folder.join("data/master.toml");
    let mut child = master(&["run", "--config", config.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("not a ready line: {line:?}"));
    let address = Address::parse(&format!("https://{address}")).unwrap();
    (Running(child), address)
}

fn stop(mut running: Running) {
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
}

fn operator(profile: &Path) -> std::sync::Arc<Credentials> {
    Credentials::load(GridName::parse("campus").unwrap(), &profile.join("credentials.pem")).unwrap()
}

async fn who_am_i(address: &Address, profile: &Path) -> v1::WhoAmIResponse {
    let trust = Trust::Credentials(operator(profile));
    let channel = plat_link::dial(address, trust, DialSettings::default(), plat_link::tcp).unwrap();
    plat_wire::ends::grid_client(channel).who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_is_made_once_and_its_operator_is_known_after_each_start() {
    let folder = tempfile::tempdir().unwrap();
    let made = init(folder.path());
    assert!(made.status.success(), "{made:?}");
    for _ in 0..2 {
        let (running, address) = run(folder.path());
        let me = who_am_i(&address, &folder.path().join("profile")).await;
        assert_eq!((me.user.as_str(), me.role.as_str(), me.grid.as_str()), ("operator", "operator", "campus"));
        stop(running);
    }
    let again = init(folder.path());
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("P0302"), "{again:?}");
}

#[test]
fn what_init_makes_is_readable_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    assert!(init(folder.path()).status.success());
    for name in ["data/ca/root.key", "data/ca/issuing.key", "profile/credentials.pem", "profile/profile.toml"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let config = std::fs::metadata(folder.path().join("data/master.toml")).unwrap().permissions().mode();
    assert_eq!(config & 0o777, 0o644, "no secret is in it");
    for name in ["data", "data/ca", "data/store", "profile"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[test]
fn a_failed_init_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("profile"), "in the way").unwrap();
    assert!(!init(folder.path()).status.success());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["profile"]);
}

/// `init` below folders that are missing, its configuration apart; what it is told more.
fn init_far(folder: &Path, more: &[&str]) -> Output {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (data, profile, config) = (at("var/plat/master"), at("home/ada/plat"), at("etc/plat/master.toml"));
    master(&["init", "--data", &data, "--profile", &profile, "--config", &config]).args(more).output().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn folders_above_what_init_makes_are_made_for_all_to_pass() {
    let folder = tempfile::tempdir().unwrap();
    let made = init_far(folder.path(), &[]);
    assert!(made.status.success(), "{made:?}");
    for above in ["var", "var/plat", "home", "home/ada", "etc", "etc/plat"] {
        assert_eq!(mode(&folder.path().join(above)), 0o755, "{above}");
    }
    assert_eq!(mode(&folder.path().join("var/plat/master")), 0o700);
    assert_eq!(mode(&folder.path().join("etc/plat/master.toml")), 0o644);
}

#[test]
fn an_init_that_fails_late_leaves_none_of_the_folders_that_it_made() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("etc"), "in the way").unwrap();
    let failed = init_far(folder.path(), &[]);
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && told.contains("P0211") && told.contains("try:"), "{told}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["etc"]);
}

#[test]
fn what_init_makes_is_given_to_the_user_that_will_run_the_master() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    // As the folders above /var/lib are: the owner has to pass.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let made = init_far(folder.path(), &["--owner", "nobody"]);
    if !rustix::process::geteuid().is_root() {
        assert!(String::from_utf8_lossy(&made.stderr).contains("P0701"), "{made:?}");
        return;
    }
    assert!(made.status.success(), "{made:?}");
    let data = folder.path().join("var/plat/master");
    for name in ["", "ca", "ca/issuing.key", "store", "store/FORMAT"] {
        assert_ne!(std::fs::metadata(data.join(name)).unwrap().uid(), 0, "{name}");
    }
    assert_eq!(std::fs::metadata(folder.path().join("home/ada/plat")).unwrap().uid(), 0);

    // Root makes an operator anew, and the store stays with its owner.
    let made = new_operator(&folder.path().join("etc/plat/master.toml"), &folder.path().join("again"));
    assert!(made.status.success(), "{made:?}");
    for entry in std::fs::read_dir(data.join("store")).unwrap() {
        let path = entry.unwrap().path();
        assert_ne!(std::fs::metadata(&path).unwrap().uid(), 0, "{}", path.display());
    }

    // Where the owner has put a link, root goes no further than the owner could.
    let own = folder.path().join("of-root");
    std::fs::create_dir(&own).unwrap();
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::rename(data.join("store"), own.join("store")).unwrap();
    std::os::unix::fs::symlink(own.join("store"), data.join("store")).unwrap();
    let refused = new_operator(&folder.path().join("etc/plat/master.toml"), &folder.path().join("third"));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("P0310"), "{told}");
    assert!(!folder.path().join("third").exists());
}

fn new_operator(config: &Path, profile: &Path) -> Output {
    let (config, profile) = (config.to_str().unwrap(), profile.to_str().unwrap());
    master(&["operator", "--config", config, "--name", "operator", "--profile", profile]).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_whose_credentials_are_lost_gets_new_ones_on_the_stopped_master() {
    let folder = tempfile::tempdir().unwrap();
    assert!(init(folder.path()).status.success());
    let (config, profile) = (folder.path().join("data/master.toml"), folder.path().join("again"));
    let (running, _) = run(folder.path());
    let refused = new_operator(&config, &profile);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("P0310") && told.contains("stop the master"), "{told}");
    assert!(!profile.exists());
    stop(running);

    let made = new_operator(&config, &profile);
    assert!(made.status.success(), "{made:?}");
    let (running, address) = run(folder.path());
    let me = who_am_i(&address, &profile).await;
    assert_eq!((me.user.as_str(), me.role.as_str()), ("operator", "operator"));
    stop(running);
    let again = new_operator(&config, &profile);
    assert!(String::from_utf8_lossy(&again.stderr).contains("P0302"), "nothing is written over: {again:?}");
}

#[test]
fn a_wrong_configuration_is_told_whole_and_the_process_fails() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("master.toml");
    std::fs::write(&config, "version = 1\nlisten = [\"x\"]\nurl = \"y\"\ndata = \".\"\n").unwrap();
    let ended = master(&["run", "--config", config.to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success());
    assert!(told.contains("listen") && told.contains("url") && told.contains("P0130"), "{told}");
}
