//! From a request to the process: an idle grid with the release installed; the process says by a datagram that it runs.

use super::dev::{Dev, processor_time};
use anyhow::{Context, Result};
use plat_tests::eventually::eventually;
use plat_wire::ends::GridClient;
use plat_wire::v1;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const RUNS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn measure() -> Result<()> {
    let dev = Dev::start(4)?;
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    // Of the files of /tmp a service sees none but its own.
    let heard = tokio::net::UdpSocket::bind("[::1]:0").await?;
    let program = folder.path().join("program");
    fs::create_dir(&program)?;
    super::say::build(&program)?;
    let document = format!(
        "version: 1\nname: say\nsources:\n  program: {{directory: {{path: \"{}\"}}}}\nservices:\n  say:\n    command: \
         [\"{{{{ release.directory }}}}/say\", \"::1\", \"{}\", \"{{{{ instance.name }}}}\"]\n",
        program.display(),
        heard.local_addr()?.port()
    );
    let daemons = dev.daemons()?;
    let mut grid = dev.client()?;
    grid.add_release(v1::AddReleaseRequest { name: String::new(), document }).await?;
    let supply = v1::SupplyRequest { release: "say".into(), all_nodes: true, ..Default::default() };
    grid.supply(supply).await?;
    let (mut accepted, mut running) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let name = format!("say-{run}");
        let asked = Instant::now();
        let ask = v1::RequestRequest { name: name.clone(), release: "say".into(), ..Default::default() };
        grid.request(ask).await?;
        let answered = Instant::now();
        let mut said = [0; 64];
        let length = timeout(PATIENCE, heard.recv(&mut said)).await.context("the service does not start")??;
        let at = Instant::now();
        anyhow::ensure!(said[..length] == *name.as_bytes(), "another one started");
        // The first waits for the release.
        if run > 0 {
            accepted.push(at.saturating_duration_since(answered));
            running.push(at - asked);
        }
        until_gone(&grid, name).await?;
        until_idle(&daemons);
    }
    println!("start: {RUNS} instances one after another, plat dev, shim, the agent without rights of root");
    print_line("request sent → process runs", running);
    print_line("request accepted → process runs", accepted);
    Ok(())
}

/// Destroys an instance, and waits until it is gone.
pub async fn until_gone(grid: &GridClient, name: String) -> Result<()> {
    let key = v1::InstanceKey { name, ..Default::default() };
    let wish = v1::SetWishRequest { key: Some(key.clone()), wish: v1::Wish::Destroyed.into(), keep_seconds: 0 };
    grid.clone().set_wish(wish).await?;
    let mut watch = grid.clone().watch_instance(key).await?.into_inner();
    while let Ok(Some(_)) = timeout(PATIENCE, watch.message()).await.context("it is not destroyed")? {}
    Ok(())
}

/// Returns once neither daemon has used a processor from one look to the next: what the run before left to be done is
/// done.
pub fn until_idle(daemons: &[u32]) {
    let mut before = Vec::new();
    eventually("idle", PATIENCE, || {
        let now = daemons.iter().map(|pid| processor_time(*pid)).collect::<Result<Vec<_>>>()?;
        let is_idle = now == std::mem::replace(&mut before, now.clone());
        anyhow::ensure!(is_idle, "the daemons still work");
        Ok(())
    });
}

pub fn print_line(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("  {what:<34} median {:6.2} ms   p90 {:6.2} ms   p99 {:6.2} ms", at(50), at(90), at(99));
}
