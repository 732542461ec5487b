//! The daemons of a development grid: made, started, and ended in order.

use super::binaries::Binaries;
use super::place::Place;
use super::prerequisite;
use crate::args::DevArgs;
use crate::output::{self, Printer, clean};
use crate::session::Session;
use crate::wait::Progress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plat_model::problem::codes;
use plat_model::{Problem, Result};
use plat_wire::v1;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

/// The name of the one node.
const NODE: &str = "here";
/// How long a daemon may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Grid {
    place: Place,
    binaries: Binaries,
    printer: Printer,
    partitions: u32,
    format: bool,
    daemons: BTreeMap<&'static str, Child>,
}

impl Grid {
    pub fn new(place: Place, binaries: Binaries, printer: Printer, args: &DevArgs) -> Self {
        Self { place, binaries, printer, partitions: args.partitions, format: args.format, daemons: BTreeMap::new() }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub async fn session(&self) -> Result<Session> {
        Session::open(&self.place.profile()).await
    }

    /// Makes what is missing and starts everything; returns when the node is online.
    pub async fn up(&mut self) -> Result<()> {
        let mut progress = Progress::new(self.printer);
        let up = self.start(&mut progress).await;
        progress.end();
        up
    }

    async fn start(&mut self, progress: &mut Progress) -> Result<()> {
        self.copy_binaries()?;
        if !self.place.path("master.toml").exists() {
            progress.say("making the grid: its authority and the first operator's credentials");
            self.init_master().await?;
        }
        progress.say("starting the master");
        let config = self.place.path("master.toml");
        let master = self.spawn("plat-master", &["run", "--config", &shown(&config)])?;
        self.ready("plat-master", master).await?;
        progress.say("formatting the node");
        self.format_node().await?;
        let session = self.session().await?;
        if !self.place.path("agent.toml").exists() {
            progress.say("enrolling the node");
            self.enroll(&session).await?;
        }
        progress.say("starting the agent");
        let config = self.place.path("agent.toml");
        let agent = self.spawn("plat-agent", &["run", "--config", &shown(&config)])?;
        self.daemons.insert("plat-agent", agent);
        progress.say("waiting for the node");
        self.online(&session).await?;
        output::note(&format!(
            "the grid is up: one node, {} partitions, in {}",
            self.partitions,
            self.place.path("").display()
        ));
        Ok(())
    }

    /// An account without rights may not be able to reach where the binaries were built.
    fn copy_binaries(&self) -> Result<()> {
        let folder = self.place.path("bin");
        self.place.folder(&folder)?;
        for (name, opened) in &self.binaries.0 {
            let to = folder.join(name);
            let _ = fs::remove_file(&to);
            let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&to);
            written
                .and_then(|mut written| std::io::copy(&mut &*opened, &mut written))
                .map_err(|e| Problem::new(codes::FILE, format!("cannot write {}", to.display())).because(e))?;
        }
        Ok(())
    }

    fn command(&self, binary: &str) -> Command {
        let mut command = Command::new(self.place.path("bin").join(binary));
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8");
        command.env("HOME", self.place.path("")).current_dir(self.place.path("")).stdin(Stdio::null());
        // Ctrl-C on the terminal is for plat alone, which ends the others in order.
        command.process_group(0);
        command
    }

    /// Runs something to its end; its last words are the reason if it fails.
    async fn run(&self, binary: &str, arguments: &[&str]) -> Result<()> {
        let ran = timeout(PATIENCE, self.command(binary).args(arguments).kill_on_drop(true).output()).await;
        let ran = ran.map_err(|_| Problem::new(codes::WAIT_TIMEOUT, format!("`{binary}` takes too long")))?;
        let ran = ran.map_err(|e| prerequisite(format!("`{binary}` cannot be run"), e, "look whether it is there"))?;
        if ran.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
        Err(Problem::new(
            codes::INTERNAL,
            format!("`{binary} {}` failed: {}", arguments.first().unwrap_or(&""), ran.status),
        )
        .because(clean(said.trim())))
    }

    async fn init_master(&self) -> Result<()> {
        let port = free_port()?;
        let (address, url) = (format!("127.0.0.1:{port}"), format!("https://127.0.0.1:{port}"));
        let (data, config, profile) = (self.place.path("master"), self.place.path("master.toml"), self.place.profile());
        self.run(
            "plat-master",
            &[
                "init",
                "--grid",
                "dev",
                "--data",
                &shown(&data),
                "--listen",
                &address,
                "--url",
                &url,
                "--operator",
                "developer",
                "--config",
                &shown(&config),
                "--profile",
                &shown(&profile),
            ],
        )
        .await
    }

    async fn format_node(&self) -> Result<()> {
        let config = self.place.path("format.toml");
        if !config.exists() {
            self.place.write(&config, &format_toml(|name| self.place.path(name), self.partitions, self.format))?;
        }
        self.run("node-format", &["apply", "--config", &shown(&config)]).await
    }

    async fn enroll(&self, session: &Session) -> Result<()> {
        let url = session.url().to_owned();
        let purpose = v1::create_token_request::Purpose::Node(NODE.into());
        let ask = v1::CreateTokenRequest { purpose: Some(purpose), valid_seconds: 600 };
        let token =
            session.admin().create_token(ask).await.map_err(|s| plat_wire::status::to_problem(&s))?.into_inner();
        let file = self.place.path("node.token");
        let _ = fs::remove_file(&file);
        crate::commands::write_secret(&file, &token.token)?;
        let data = self.place.path("agent");
        let enrolled = self
            .run("plat-agent", &["enroll", "--master", &url, "--token-file", &shown(&file), "--data", &shown(&data)])
            .await;
        let _ = fs::remove_file(&file);
        enrolled?;
        let config = format!(
            "# Written by `plat dev`.\nversion = 1\nmaster = {:?}\ndata = {:?}\nnode_file = {:?}\nwindow_seconds = 2\n",
            url,
            shown(&data),
            shown(&self.place.path("node.json"))
        );
        self.place.write(&self.place.path("agent.toml"), &config)
    }

    fn spawn(&self, name: &'static str, arguments: &[&str]) -> Result<Child> {
        let log = self.place.path(&format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(|e| Problem::new(codes::FILE, format!("cannot write {}", log.display())).because(e))?;
        let mut command = self.command(name);
        command.args(arguments).stderr(file).stdout(Stdio::piped());
        command.spawn().map_err(|e| prerequisite(format!("`{name}` cannot be started"), e, "look whether it is there"))
    }

    /// Waits for the daemon's first line, which it prints when it is ready.
    async fn ready(&mut self, name: &'static str, mut daemon: Child) -> Result<()> {
        let mut line = String::new();
        let said = match daemon.stdout.take() {
            Some(out) => timeout(PATIENCE, BufReader::new(out).read_line(&mut line)).await,
            None => Ok(Ok(0)),
        };
        self.daemons.insert(name, daemon);
        match said {
            Ok(Ok(1..)) => Ok(()),
            Ok(_) => Err(Problem::new(codes::INTERNAL, format!("`{name}` ended at once")).because("its log is below")),
            Err(_) => {
                Err(Problem::new(codes::WAIT_TIMEOUT, format!("`{name}` is not ready after {} s", PATIENCE.as_secs())))
            }
        }
    }

    async fn online(&mut self, session: &Session) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let problem = |status: tonic::Status| plat_wire::status::to_problem(&status);
        let mut nudges = session.grid().watch_grid(v1::WatchGridRequest {}).await.map_err(problem)?.into_inner();
        loop {
            let node = session.grid().show_node(v1::NodeKey { node: NODE.into() }).await.map_err(problem)?.into_inner();
            if node.online && !node.partitions.is_empty() {
                return Ok(());
            }
            let agent = self.daemons.get_mut("plat-agent");
            if let Some(status) = agent.and_then(|agent| agent.try_wait().ok().flatten()) {
                return Err(
                    Problem::new(codes::INTERNAL, format!("`plat-agent` ended: {status}")).because("its log is below")
                );
            }
            // A node that comes online is no change of the store, so the nudges alone do not do.
            let tick = Instant::now() + Duration::from_millis(200);
            let _ = timeout_at(tick, nudges.message()).await;
            if Instant::now() > deadline {
                return Err(Problem::new(codes::WAIT_TIMEOUT, "the node is not online")
                    .because("its agent did not report; its log is below"));
            }
        }
    }

    /// Returns when a daemon ends, which none should.
    pub async fn until_something_ends(&mut self) -> Result<()> {
        let mut waits: Vec<_> =
            self.daemons.iter_mut().map(|(name, child)| Box::pin(async move { (*name, child.wait().await) })).collect();
        if waits.is_empty() {
            return Ok(());
        }
        let ((name, status), ..) = futures_util::future::select_all(waits.drain(..)).await;
        let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
        Err(Problem::new(codes::INTERNAL, format!("`{name}` ended: {status}")).because("its log is below"))
    }

    /// The last lines of each daemon's log.
    pub fn show_logs(&self) {
        for name in self.daemons.keys() {
            let text = fs::read_to_string(self.place.path(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(20).collect();
            for line in lines.into_iter().rev() {
                output::note(&format!("{name}: {}", clean(line)));
            }
        }
    }

    /// Ends everything: the instances first, for their services outlive the agent, then the daemons.
    pub async fn down(&mut self) -> Result<()> {
        if self.daemons.contains_key("plat-agent") {
            let emptied = timeout(PATIENCE, self.empty()).await;
            let emptied =
                emptied.unwrap_or_else(|_| Err(Problem::new(codes::WAIT_TIMEOUT, "the instances do not end in time")));
            emptied.unwrap_or_else(|problem| output::note(&clean(&problem.to_string())));
        }
        for name in ["plat-agent", "plat-master"] {
            if let Some(mut daemon) = self.daemons.remove(name) {
                end(&mut daemon).await;
            }
        }
        if self.format && self.place.is_temporary() {
            self.run("node-format", &["reset", "--config", &shown(&self.place.path("format.toml"))]).await?;
        }
        self.place.remove()
    }

    /// Stops every instance; destroys them if the folder goes too.
    async fn empty(&self) -> Result<()> {
        let session = self.session().await?;
        let problem = |status: tonic::Status| plat_wire::status::to_problem(&status);
        let (wish, done): (_, &[v1::InstanceState]) = if self.place.is_temporary() {
            (v1::Wish::Destroyed, &[v1::InstanceState::Destroyed])
        } else {
            (v1::Wish::Stopped, &[v1::InstanceState::Stopped, v1::InstanceState::Destroyed])
        };
        let mut nudges = session.grid().watch_grid(v1::WatchGridRequest {}).await.map_err(problem)?.into_inner();
        loop {
            let list =
                session.grid().list_instances(v1::ListInstancesRequest::default()).await.map_err(problem)?.into_inner();
            let state = |view: &v1::InstanceView| view.status.as_ref().map(|s| s.state()).unwrap_or_default();
            let open: Vec<_> = list
                .instances
                .into_iter()
                .filter(|view| view.placement.is_some() && !done.contains(&state(view)))
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            for view in open.iter().filter(|view| view.wish() != wish) {
                let key = v1::InstanceKey { project: view.project.clone(), name: view.name.clone() };
                let ask = v1::SetWishRequest { key: Some(key), wish: wish.into(), keep_seconds: 0 };
                session.grid().set_wish(ask).await.map_err(problem)?;
            }
            nudges.message().await.map_err(problem)?;
        }
    }
}

/// Asks a daemon to end, and makes it after a while.
async fn end(daemon: &mut Child) {
    let Some(pid) = daemon.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    // Fails only if it is gone already, which is what is wanted.
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    if timeout(Duration::from_secs(10), daemon.wait()).await.is_err() {
        let _ = daemon.kill().await;
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A port that nobody uses now.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|e| prerequisite("there is no free port", e, "look at what listens on 127.0.0.1"))
}

/// What the node is formatted by.
fn format_toml(place: impl Fn(&str) -> PathBuf, partitions: u32, format: bool) -> String {
    let path = |name: &str| toml::Value::String(shown(&place(name)));
    let (users, network) = if format {
        (
            "true",
            "mode = \"bridge\"\nlink = \"platdev0\"\ntap_base_name = \"platdevtap\"\nipv6_prefix = \"fd00:706c:6174:de::/64\"\nipv4_network = \"10.113.0.0/16\"\n",
        )
    } else {
        ("false", "mode = \"loopback\"\n")
    };
    let base = if format {
        "base_name = \"part\"\nuser_base_name = \"platdev\"\nfirst_uid = 47000\nfirst_gid = 47000\n"
    } else {
        "base_name = \"part\"\n"
    };
    format!(
        "# Written by `plat dev`.\nversion = 1\n\n[paths]\nreleases = {}\nroot = {}\nnode_file = {}\nrecord = {}\n\n[partitions]\namount = {}\nusers = {users}\n{base}\n[network]\n{network}",
        path("releases"),
        path("partitions"),
        path("node.json"),
        path("format-record"),
        partitions
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_development_node_is_formatted_by_is_right() {
        for format in [false, true] {
            let text = format_toml(|name| Path::new("/srv/dev").join(name), 8, format);
            node_format_plan::parse("format.toml", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        }
    }
}
