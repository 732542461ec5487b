//! Many at once, and one after another, on a machine whose first process is systemd: a formatted node with its agent as
//! packaging/ has it.

use super::burst::{
    PATIENCE, ROUNDS, SAY, Work, document, print_line, request, resident, start, stop, with_word, within,
};
use super::start::{print_line as print_each, until_gone, until_idle};
use anyhow::{Context, Result, ensure};
use plat_tests::eventually::eventually;
use plat_tests::grid::{Grid, URL};
use plat_tests::machine::{Machine, machine_or_skip};
use plat_wire::ends::GridClient;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// As many partitions has the machine, each with an instance.
const INSTANCES: usize = 500;
/// How many are started one after another.
const RUNS: usize = 100;
/// Where the service's program is on the machine.
const PROGRAM: &str = "/usr/local/share/say";
const SIGN: &str = "services taken over";

/// Needs root, `systemd-nspawn` and `mmdebstrap`.
pub fn measure() -> Result<()> {
    if !machine_or_skip("many instances under systemd") {
        return Ok(());
    }
    println!("systemd: {INSTANCES} instances of a formatted node under systemd, {ROUNDS} times; medians");
    let grid = Grid::new("units");
    let mut machine = Machine::new(&grid.hub, "keeper", "fd00:5::41/64", &grid.logs());
    machine.boot();
    node(&grid, &machine)?;
    let program = grid.folder.path().join("program");
    std::fs::create_dir(&program)?;
    super::say::build(&program)?;
    machine.install(&program.join("say"), &format!("{PROGRAM}/say"), 0o755);
    grid.release("say", &document(Path::new(PROGRAM)));
    let (mut running, mut stopped, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        running.push(within(&grid, |client, heard| Box::pin(start(client, heard, round, INSTANCES)))?.0);
        if round == 0 {
            let daemons = daemons(&machine);
            until_idle(&daemons);
            resident(&daemons);
            restart(&machine)?;
        }
        alone.push(by_systemd_alone(&machine));
        let pids = with_word(machine.processes(), SAY);
        ensure!(pids.len() == INSTANCES, "{} services run", pids.len());
        stopped.push(stop(&grid, pids, round)?);
    }
    let ratios = running.iter().zip(&alone).map(|(ours, alone)| ours.as_secs_f64() / alone.as_secs_f64());
    let ratios: Vec<String> = ratios.map(|ratio| format!("{ratio:.2}")).collect();
    print_line("requests sent → all run", running);
    print_line("the same units, by systemd alone", alone);
    println!("  times what systemd alone takes     ({})", ratios.join(", "));
    print_line("destroyed → no process is left", stopped);
    let daemons = [vec![grid.master.pid()], daemons(&machine)].concat();
    let each = within(&grid, |client, heard| -> Work<'_, Vec<Duration>> {
        Box::pin(async move { one_by_one(client, heard, &daemons).await })
    })?;
    print_each("one: request sent → process runs", each);
    Ok(())
}

/// Makes the machine a node.
fn node(grid: &Grid, machine: &Machine) -> Result<()> {
    machine.install_packaged("/usr/sbin", ["plat-agent", "node-format"], "plat-agent.service");
    let network = "[network]\nmode = \"bridge\"\ntaps = false\nguard = false\nipv6_prefix = \"fd00:6::/64\"\n";
    let format = format!("version = 1\n[partitions]\namount = {INSTANCES}\n{network}");
    machine.write("/etc/plat/format.toml", &format, 0o644);
    let token = grid.token("keeper.token", &["--node", "keeper"]);
    machine.install(token.as_ref(), "/root/token", 0o600);
    machine.sh(&format!("node-format apply --master {URL} --token-file /root/token"));
    machine.sh("systemctl enable --now plat-agent");
    eventually("online", PATIENCE, || {
        let seen = grid.plat.json(&["node", "show", "keeper"]);
        let is_there = seen["state"] == "online" && seen["runtime"] == "systemd";
        if is_there { Ok(()) } else { Err(seen.to_string()) }
    });
    Ok(())
}

/// Root's part of the agent, and the network's.
fn daemons(machine: &Machine) -> Vec<u32> {
    let named = |word| with_word(machine.processes(), word).into_iter();
    let is_agent =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "plat-agent");
    // The second one's name is that of the link by which the first one starts it.
    named("run").filter(is_agent).chain(named("network")).collect()
}

/// The agent is started again: from when systemd starts its program until it has taken over what runs.
fn restart(machine: &Machine) -> Result<()> {
    let before = with_word(machine.processes(), SAY);
    let seen = || machine.sh("journalctl --unit plat-agent --output json --output-fields MESSAGE --no-pager");
    let told = || -> Vec<u64> {
        let said = seen();
        let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let at = lines.filter(|line| line["MESSAGE"].as_str().is_some_and(|text| text.contains(SIGN)));
        at.filter_map(|line| line["__MONOTONIC_TIMESTAMP"].as_str()?.parse().ok()).collect()
    };
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let earlier = told().len();
        machine.sh("systemctl restart plat-agent");
        let at = eventually("taken over", PATIENCE, || told().get(earlier).copied().ok_or("not yet"));
        let began = machine.sh("systemctl show --property ExecMainStartTimestampMonotonic --value plat-agent");
        times.push(Duration::from_micros(at.saturating_sub(began.trim().parse()?)));
    }
    print_line("agent started → all taken over", times);
    until_idle(&daemons(machine));
    let mut after = with_word(machine.processes(), SAY);
    after.retain(|pid| before.contains(pid));
    ensure!(after.len() == INSTANCES, "a service was disturbed");
    Ok(())
}

/// How long systemd takes for the same units from files: they run beside those that the agent has started, and go again.
fn by_systemd_alone(machine: &Machine) -> Duration {
    // As systemd 252 writes it and does not read it; and the place that is there only while the agent starts something.
    let text = "s/ExecStartEx=/ExecStart=/; s#/var/lib/plat-tmp/plat/([^/]*)/tmp#/srv/plat/partitions/\\1/tmp#g";
    machine.sh(&format!(
        "cd /run/systemd/transient && for unit in plat-part*-say.service; do
           sed -E '{text}' $unit > /run/systemd/system/prepared-$unit
         done && systemctl daemon-reload"
    ));
    let begun = Instant::now();
    machine.sh("cd /run/systemd/system && systemctl start prepared-*.service");
    let took = begun.elapsed();
    machine.sh("cd /run/systemd/system && systemctl stop prepared-*.service && rm prepared-*.service && systemctl daemon-reload");
    took
}

async fn one_by_one(client: &GridClient, heard: &UdpSocket, daemons: &[u32]) -> Result<Vec<Duration>> {
    let mut running = Vec::new();
    for run in 0..RUNS {
        let name = format!("one-{run}");
        let asked = Instant::now();
        request(client, name.clone()).await?;
        timeout(PATIENCE, heard.recv(&mut [0; 64])).await.context("the service does not start")??;
        running.push(asked.elapsed());
        until_gone(client, name).await?;
        until_idle(daemons);
    }
    Ok(running)
}
