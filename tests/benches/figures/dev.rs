//! A grid of one node, as `plat dev` makes it, with the real programs.

use anyhow::{Context, Result};
use plat_link::{Credentials, DialSettings, Trust};
use plat_model::id::GridName;
use plat_tests::binaries::binary;
use plat_wire::ends::GridClient;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The programs of a grid that stay.
pub const DAEMONS: [&str; 2] = ["plat-master", "plat-agent"];

/// Ended, with its daemons, when it is dropped.
pub struct Dev {
    plat: Child,
    folder: tempfile::TempDir,
}

impl Dev {
    pub fn start(partitions: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("plat-figures-").tempdir()?;
        let plat = Command::new(binary("plat"))
            .args(["--plain", "dev", "--partitions", &partitions.to_string(), "--folder"])
            .arg(folder.path().join("grid"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // Made before anything can fail, so that it is ended.
        let mut dev = Self { plat, folder };
        let mut errors = BufReader::new(dev.plat.stderr.take().context("no output")?);
        let mut said = String::new();
        while !said.contains("the grid is up") {
            anyhow::ensure!(errors.read_line(&mut said)? > 0, "plat dev ended: {said}");
        }
        // Read on, or it would block.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Ok(dev)
    }

    /// The grid's own folder.
    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("grid")
    }

    pub fn client(&self) -> Result<GridClient> {
        operator(&self.path().join("profile"))
    }

    /// The processes of [`DAEMONS`].
    pub fn daemons(&self) -> Result<Vec<u32>> {
        DAEMONS.iter().map(|name| self.daemon(name)).collect()
    }

    fn daemon(&self, name: &str) -> Result<u32> {
        let program = self.path().join("bin").join(name);
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if runs(pid, &program) {
                return Ok(pid);
            }
        }
        anyhow::bail!("{name} does not run")
    }
}

/// A connection with the credentials of a profile.
pub fn operator(profile: &Path) -> Result<GridClient> {
    let text = fs::read_to_string(profile.join("profile.toml"))?;
    let said = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
        line.map(|value| value.trim().trim_matches('"').to_owned()).with_context(|| format!("no {key} in {text}"))
    };
    let credentials = Credentials::load(GridName::parse(&said("grid")?)?, &profile.join("credentials.pem"))?;
    let address = plat_link::Address::parse(&said("url")?)?;
    let trust = Trust::Credentials(credentials);
    Ok(plat_wire::ends::grid_client(plat_link::dial(&address, trust, DialSettings::default(), plat_link::tcp)?))
}

/// Time on a processor, of all its threads: the first number of each thread's `schedstat`, in nanoseconds.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Whether a process is the daemon itself, and not a shim of it.
fn runs(pid: u32, program: &Path) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0);
    words.next() == Some(program.as_os_str().as_encoded_bytes()) && words.next() == Some(b"run")
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.plat.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.plat.wait();
    }
}
