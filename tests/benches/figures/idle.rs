//! What an idle grid costs: memory and processor time of the daemons, with a node connected and nothing asked.

use super::dev::{DAEMONS, Dev, processor_time};
use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// Until the daemons have settled.
const SETTLE: Duration = Duration::from_secs(10);
const LENGTH: Duration = Duration::from_secs(60);

pub async fn measure() -> Result<()> {
    let dev = Dev::start(8)?;
    tokio::time::sleep(SETTLE).await;
    let pids = dev.daemons()?;
    let before = pids.iter().map(|pid| processor_time(*pid)).collect::<Result<Vec<_>>>()?;
    tokio::time::sleep(LENGTH).await;
    println!("idle: plat dev, 8 empty partitions, for {} s", LENGTH.as_secs());
    for ((name, pid), before) in DAEMONS.iter().zip(&pids).zip(before) {
        let part = (processor_time(*pid)? - before).as_secs_f64() / LENGTH.as_secs_f64() * 100.0;
        println!("  {name:<12} {:6.1} MiB resident   {part:.3} % of a core", resident(*pid)? as f64 / 1024.0);
    }
    Ok(())
}

/// KiB.
fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
