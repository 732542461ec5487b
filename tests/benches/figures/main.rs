//! Every figure that docs/performance.md tells of, one after another: `cargo bench -p plat-tests --bench figures`.
//! With words behind `--` only those parts: `start`, `burst`, `systemd`, `idle`, `requests`, `store`, `pass`, `format`.

mod burst;
mod dev;
mod idle;
mod say;
mod start;
mod systemd;

use std::process::Command;

/// What is measured elsewhere in the tree, and the cargo command for it.
const OTHERS: [(&str, &[&str]); 4] = [
    ("requests", &["bench", "--quiet", "--package", "plat-master", "--bench", "requests"]),
    ("store", &["bench", "--quiet", "--package", "plat-master", "--bench", "store"]),
    ("pass", &["bench", "--quiet", "--package", "plat-agent", "--features", "fake", "--bench", "pass"]),
    ("format", &["run", "--quiet", "--release", "--package", "node-format", "--example", "figures", "1000"]),
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|word| word == part);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if wanted("start") {
        runtime.block_on(start::measure())?;
    }
    if wanted("burst") {
        burst::measure()?;
    }
    if wanted("systemd") {
        systemd::measure()?;
    }
    if wanted("idle") {
        runtime.block_on(idle::measure())?;
    }
    for (part, command) in OTHERS {
        if wanted(part) {
            println!("\n{part}: cargo {}", command.join(" "));
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let ran = Command::new(cargo).current_dir(plat_tests::source::root()).args(command).status()?;
            anyhow::ensure!(ran.success(), "{part} could not be measured");
        }
    }
    Ok(())
}
