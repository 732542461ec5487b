//! A master on this machine with an operator, as old as a test wants it.

use plat_link::{Address, Credentials, DialSettings, Trust};
use plat_master::clock::{Clock, HandClock, SystemClock};
use plat_master::init::{Init, init};
use plat_master::store::EngineKind;
use plat_model::id::{GridName, UserName};
use plat_tests::binaries::binary;
use plat_tests::plat::{Plat, Ran};
use plat_wire::v1;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct World {
    pub plat: Plat,
    pub url: String,
    pub folder: tempfile::TempDir,
    master: Option<Child>,
}

/// A release that does nothing much, with parameters.
pub const RELEASE: &str = "version: 1\nname: quiet\ntitle: does nothing\nparameters:\n  type: object\n  properties:\n    \
                           port: {type: integer, minimum: 1, default: 5432, description: where it listens}\n\
                           services:\n  web:\n    command: [\"/bin/true\"]\n";

impl World {
    /// A grid that was made some days ago and whose operator has done nothing since; its master runs.
    pub fn aged(days: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("https://{address}");
        let ask = Init {
            data: folder.path().join("master"),
            config: None,
            grid: GridName::parse("campus").unwrap(),
            url: Address::parse(&url).unwrap(),
            listen: vec![address],
            operator: UserName::parse("ada").unwrap(),
            profile: folder.path().join("ada"),
            store: EngineKind::Redb,
            owner: None,
        };
        let then = HandClock::at(SystemClock.now().minus(Duration::from_secs(days * 86_400)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(init(&ask, &then)).unwrap();
        drop(listener);
        let mut world = Self { plat: plat(ask.profile), url, folder, master: None };
        world.start_master();
        world
    }

    pub fn new() -> Self {
        Self::aged(0)
    }

    pub fn start_master(&mut self) {
        let mut command = Command::new(binary("plat-master"));
        command.args(["run", "--config"]).arg(self.config()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut master = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(master.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.master = Some(master);
        assert!(line.starts_with("ready "), "{line:?}");
    }

    pub fn stop_master(&mut self) {
        if let Some(mut master) = self.master.take() {
            let pid = rustix::process::Pid::from_child(&master);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            master.wait().unwrap();
        }
    }

    pub fn config(&self) -> PathBuf {
        self.path("master/master.toml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// A release that is known to the grid.
    pub fn release(&self) {
        let file = self.write("quiet.yaml", RELEASE);
        self.done(&["release", "add", &file]);
    }

    /// Runs the operator's `plat`, which must succeed.
    #[track_caller]
    pub fn done(&self, arguments: &[&str]) -> Ran {
        let ran = self.plat.run(arguments);
        assert_eq!(ran.code, 0, "plat {}: {}{}", arguments.join(" "), ran.errors, ran.out);
        ran
    }

    /// A token in a file.
    pub fn token(&self, arguments: &[&str]) -> String {
        let path = self.path("token").display().to_string();
        let _ = std::fs::remove_file(&path);
        self.done(&[&["token", "create", "--out", &path], arguments].concat());
        path
    }

    /// Enrols a node whose agent never runs.
    pub fn node(&self, name: &str) {
        let token = self.token(&["--node", name]);
        let mut command = Command::new(binary("plat-agent"));
        let data = self.path(&format!("agent-{name}"));
        command.args(["enroll", "--master", &self.url, "--token-file", &token, "--data"]).arg(data);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

impl World {
    /// Says for an enrolled node that it is there and offers a partition, as long as what this returns lives.
    pub async fn present(&self, name: &str) -> tonic::Streaming<v1::Nudge> {
        let (mut client, inventory) = self.node_client(name);
        client.sync(v1::SyncRequest { inventory: Some(inventory), ..Default::default() }).await.unwrap();
        client.watch(v1::WatchRequest {}).await.unwrap().into_inner()
    }

    /// Says for an enrolled node how a release is there; what it is told to hold.
    pub async fn says(&self, name: &str, installation: v1::Installation) -> v1::SyncResponse {
        let (mut client, inventory) = self.node_client(name);
        let (inventory, installations) = (Some(inventory), vec![installation]);
        let said = v1::SyncRequest { inventory, installations, ..Default::default() };
        client.sync(said).await.unwrap().into_inner()
    }

    /// Says for an enrolled node what is wrong with it as a whole.
    pub async fn in_trouble(&self, name: &str, problem: &plat_model::Problem) {
        let (mut client, inventory) = self.node_client(name);
        let inventory = Some(v1::Inventory { troubles: vec![problem.into()], ..inventory });
        client.sync(v1::SyncRequest { inventory, ..Default::default() }).await.unwrap();
    }

    fn node_client(&self, name: &str) -> (plat_wire::ends::NodeClient, v1::Inventory) {
        let file = self.path(&format!("agent-{name}")).join("identity.pem");
        let credentials = Credentials::load(GridName::parse("campus").unwrap(), &file).unwrap();
        let (address, trust) = (Address::parse(&self.url).unwrap(), Trust::Credentials(credentials));
        let channel = plat_link::dial(&address, trust, DialSettings::default(), plat_link::tcp).unwrap();
        let offer = v1::PartitionOffer { name: "part0".into(), ..Default::default() };
        let inventory = v1::Inventory { partitions: vec![offer], does_once: true, ..Default::default() };
        (plat_wire::ends::node_client(channel), inventory)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut master) = self.master.take() {
            let _ = master.kill();
            let _ = master.wait();
        }
    }
}

/// `plat` with a profile.
pub fn plat(profile: PathBuf) -> Plat {
    Plat::new(profile, || Command::new(binary("plat")))
}

/// The end of a profile's certificate, as `whoami` tells it.
pub fn end_of(plat: &Plat) -> String {
    plat.json(&["whoami"])["expires"].as_str().unwrap().to_owned()
}

/// `plat-master operator`.
pub fn new_operator(config: &Path, profile: &Path) -> std::process::Output {
    let mut command = Command::new(binary("plat-master"));
    command.args(["operator", "--name", "ada", "--config"]).arg(config).arg("--profile").arg(profile);
    command.output().unwrap()
}
