//! Many at once, on a node as one is formatted: users, groups and namespaces of real partitions. Each service, as small as
//! one can be (`say.c`), says by a datagram to the master's machine that it runs.

use super::dev::operator;
use super::start::{until_gone, until_idle};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use plat_tests::eventually::eventually;
use plat_tests::grid::Grid;
use plat_tests::namespace::root_or_skip;
use plat_wire::ends::GridClient;
use plat_wire::v1;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// By which of its words the service's processes are known.
pub const SAY: &str = "fd00:5::1";
const PORT: &str = "7000";
pub const INSTANCES: usize = 500;
pub const ROUNDS: usize = 3;
const HUB: &str = "[fd00:5::1]:7000";
/// One window of metering.
const QUIET: Duration = Duration::from_secs(60);
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Needs root and `ip`.
pub fn measure() -> Result<()> {
    if !root_or_skip("many instances at once") {
        return Ok(());
    }
    println!("burst: {INSTANCES} instances of a formatted node, shim, {ROUNDS} times; medians");
    let mut grid = Grid::new("burst");
    grid.add_node(u32::try_from(INSTANCES)?);
    let node = &mut grid.nodes[0];
    // Metering as it is by default: the harness has it every second.
    let settings = node.space.path("/etc/plat/agent.toml");
    fs::write(&settings, fs::read_to_string(&settings)?.replace("window_seconds = 1", "window_seconds = 60"))?;
    node.agent.stop();
    node.agent.start();
    let program = grid.folder.path().join("program");
    fs::create_dir(&program)?;
    fs::set_permissions(grid.folder.path(), fs::Permissions::from_mode(0o755))?;
    super::say::build(&program)?;
    grid.release("say", &document(&program));
    let (mut running, mut one, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let took = within(&grid, |client, heard| Box::pin(start(client, heard, round, INSTANCES)))?;
        running.push(took.0);
        one.push(took.1);
        if round == 0 {
            memory(&grid)?;
            wakeups(&grid)?;
            restart(&mut grid)?;
        }
        let pids = services(&grid);
        ensure!(pids.len() == INSTANCES, "{} services run", pids.len());
        stopped.push(stop(&grid, pids, round)?);
    }
    print_line("requests sent → all answered", one);
    print_line("requests sent → all run", running);
    print_line("destroyed → no process is left", stopped);
    Ok(())
}

/// A release of the service, whose program is in this folder of the node.
pub fn document(program: &Path) -> String {
    let command = format!("[\"{{{{ release.directory }}}}/say\", \"{SAY}\", \"{PORT}\", \"{{{{ instance.name }}}}\"]");
    let sources = format!("sources:\n  program: {{directory: {{path: \"{}\"}}}}", program.display());
    format!("version: 1\nname: say\n{sources}\nservices:\n  say: {{command: {command}}}\n")
}

/// The median, and all in their order.
pub fn print_line(what: &str, mut times: Vec<Duration>) {
    let seconds = |time: &Duration| format!("{:.2}", time.as_secs_f64());
    let all: Vec<String> = times.iter().map(seconds).collect();
    times.sort();
    println!("  {what:<34} {:>7} s   ({})", seconds(&times[times.len() / 2]), all.join(", "));
}

pub type Work<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// Does something as the operator, from within the master's namespace.
pub fn within<T: Send>(
    grid: &Grid,
    work: impl for<'a> FnOnce(&'a GridClient, &'a tokio::net::UdpSocket) -> Work<'a, T> + Send,
) -> Result<T> {
    let (net, profile) = (File::open(grid.hub.own("ns/net"))?, grid.folder.path().join("operator"));
    let inside = move || -> Result<T> {
        // A thread of its own, which ends: no other is moved.
        rustix::thread::move_into_link_name_space(net.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let heard = tokio::net::UdpSocket::bind(HUB).await?;
            let client = operator(&profile)?;
            // What it takes to be connected is not what is measured.
            client.clone().who_am_i(v1::WhoAmIRequest::default()).await?;
            work(&client, &heard).await
        })
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

fn name(round: usize, number: usize) -> String {
    format!("say-{round}-{number}")
}

pub async fn start(
    client: &GridClient,
    heard: &tokio::net::UdpSocket,
    round: usize,
    instances: usize,
) -> Result<(Duration, Duration)> {
    if round == 0 {
        // The release is installed once the first one runs.
        request(client, "first".into()).await?;
        timeout(PATIENCE, heard.recv(&mut [0; 64])).await.context("the release is not installed")??;
        until_gone(client, "first".into()).await?;
    }
    let begun = Instant::now();
    let asked = async {
        try_join_all((0..instances).map(|number| request(client, name(round, number)))).await?;
        Ok(begun.elapsed())
    };
    let run = async {
        let mut said = std::collections::BTreeSet::new();
        while said.len() < instances {
            let mut name = [0; 64];
            let length = timeout(PATIENCE, heard.recv(&mut name)).await.context("not all start")??;
            said.insert(name[..length].to_vec());
        }
        Ok(begun.elapsed())
    };
    let (answered, running): (Result<Duration>, Result<Duration>) = tokio::join!(asked, run);
    Ok((running?, answered?))
}

pub async fn request(client: &GridClient, name: String) -> Result<()> {
    let ask = v1::RequestRequest { name, release: "say".into(), ..Default::default() };
    client.clone().request(ask).await?;
    Ok(())
}

/// Destroys those that these processes are of: how long until none of them is left. Then all partitions are free.
pub fn stop(grid: &Grid, pids: Vec<u32>, round: usize) -> Result<Duration> {
    let (asked, instances) = (Instant::now(), pids.len());
    within(grid, |client, _| Box::pin(destroy(client, round, instances)))?;
    gone(pids);
    let took = asked.elapsed();
    emptied(grid);
    Ok(took)
}

async fn set(client: &GridClient, name: String) -> Result<()> {
    let key = v1::InstanceKey { name, ..Default::default() };
    let wish = v1::SetWishRequest { key: Some(key), wish: v1::Wish::Destroyed.into(), keep_seconds: 0 };
    client.clone().set_wish(wish).await?;
    Ok(())
}

async fn destroy(client: &GridClient, round: usize, instances: usize) -> Result<()> {
    try_join_all((0..instances).map(|number| set(client, name(round, number)))).await?;
    Ok(())
}

/// Which of these processes have `word` in their command lines.
pub fn with_word(processes: Vec<(u32, u32)>, word: &str) -> Vec<u32> {
    let named = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|one| one == word.as_bytes())
    };
    processes.into_iter().map(|(pid, _)| pid).filter(named).collect()
}

fn processes(grid: &Grid, word: &str) -> Vec<u32> {
    with_word(grid.nodes[0].space.processes(), word)
}

fn services(grid: &Grid) -> Vec<u32> {
    processes(grid, SAY)
}

fn gone(mut pids: Vec<u32>) {
    eventually("no process is left", PATIENCE, || {
        while pids.last().is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            pids.pop();
        }
        if pids.is_empty() { Ok(()) } else { Err(pids.len()) }
    });
}

/// Waits until every partition is free again.
fn emptied(grid: &Grid) {
    eventually("free partitions", PATIENCE, || {
        let left = grid.plat.json(&["list"]).as_array().map_or(0, Vec::len);
        if left == 0 { Ok(()) } else { Err(left) }
    });
}

/// Kilobytes of a line of a process's `smaps_rollup`.
fn kilobytes(pid: u32, lines: &[&str]) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let number = |line: &str| line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    text.lines().filter(|line| lines.iter().any(|one| line.starts_with(one))).filter_map(number).sum()
}

/// Root's part of the agent, and the network's.
fn daemons(grid: &Grid) -> Vec<u32> {
    [grid.nodes[0].agent.pid()].into_iter().chain(processes(grid, "network")).collect()
}

fn mib(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}

/// What both parts of an agent hold.
pub fn resident(daemons: &[u32]) {
    for (pid, part) in daemons.iter().zip(["root's part", "the network's part"]) {
        println!("  resident, {part:<24} {:>7.1} MiB", mib(kilobytes(*pid, &["Rss:"])));
    }
    // Not by shares (`Pss`): shims are the same program, and each would take one of what the two have in common.
    let own = |pid: &u32| kilobytes(*pid, &["Private_Clean:", "Private_Dirty:"]);
    let shared = daemons.iter().map(|pid| kilobytes(*pid, &["Rss:"]).saturating_sub(own(pid))).max().unwrap_or(0);
    let all = daemons.iter().map(own).sum::<u64>() + shared;
    println!("  both, what they share once         {:>7.1} MiB", mib(all));
}

fn memory(grid: &Grid) -> Result<()> {
    resident(&daemons(grid));
    let mut shims: Vec<u64> =
        processes(grid, "shim").into_iter().map(|pid| kilobytes(pid, &["Private_Clean:", "Private_Dirty:"])).collect();
    ensure!(shims.len() >= INSTANCES, "{} shims run", shims.len());
    shims.sort_unstable();
    let (median, most) = (shims[shims.len() / 2], shims[shims.len() - 1]);
    println!("  private memory of a shim           {:>7.2} MiB, at most {:.2}", mib(median), mib(most));
    Ok(())
}

/// How often each thread of these processes was given a processor.
fn switches(pids: &[u32]) -> BTreeMap<PathBuf, u64> {
    let threads = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    let counted = threads.map(|thread| {
        let text = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        (thread.path(), lines.filter_map(|(_, number)| number.trim().parse::<u64>().ok()).sum())
    });
    counted.collect()
}

/// How much more that is than before; a thread that ended meanwhile tells nothing of its last.
fn more(before: &BTreeMap<PathBuf, u64>, now: &BTreeMap<PathBuf, u64>) -> u64 {
    now.iter().map(|(thread, count)| count - before.get(thread).unwrap_or(&0)).sum()
}

/// With nothing asked, and all that was has been told.
fn wakeups(grid: &Grid) -> Result<()> {
    let (daemons, shims) = (daemons(grid), processes(grid, "shim"));
    until_idle(&daemons);
    let before = (switches(&daemons), switches(&shims));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async { tokio::time::sleep(QUIET).await });
    let (agent, shims) = (more(&before.0, &switches(&daemons)), more(&before.1, &switches(&shims)));
    println!("  woken up in {} s, both parts of the agent {agent} times, all shims {shims} times", QUIET.as_secs());
    Ok(())
}

/// The agent is killed and started again: until it has taken over what runs.
fn restart(grid: &mut Grid) -> Result<()> {
    const SIGN: &str = "services taken over";
    let before = services(grid);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let agent = &mut grid.nodes[0].agent;
        agent.kill();
        let seen = agent.said().matches(SIGN).count();
        let begun = Instant::now();
        agent.start();
        eventually("taken over", PATIENCE, || {
            if agent.said().matches(SIGN).count() > seen { Ok(()) } else { Err("not yet") }
        });
        times.push(begun.elapsed());
    }
    print_line("agent killed → all taken over", times);
    // It looks at each partition once more: the next figure is not of that.
    until_idle(&daemons(grid));
    ensure!(services(grid) == before, "a service was disturbed");
    Ok(())
}
