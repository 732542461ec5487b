//! The packet filter's tables, by the program `nft`: one listing each, one transaction for a change. Only tables named
//! `plat` of the families that the plan names are looked at or touched.

mod listing;

use super::{failed, program};
use node_format_plan::Action;
use node_format_plan::facts::Guard;
use plat_model::problem::{Problem, Result, codes};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The program, if it is there.
pub(super) fn program() -> Option<PathBuf> {
    program::find("nft")
}

/// The tables of these families, if there is one: as one, for they are made and removed together.
pub(super) fn observe(families: &BTreeSet<String>) -> Result<Option<Guard>> {
    let mut found: Option<Guard> = None;
    for family in tables(families)? {
        let json = nft(&["-j", "list", "table", &family, "plat"], "", None)?;
        let text = nft(&["list", "table", &family, "plat"], "", None)?;
        let table = listing::read(&family, &json, text)?;
        found = Some(match found {
            Some(other) => both(other, table),
            None => table,
        });
    }
    Ok(found)
}

fn both(one: Guard, other: Guard) -> Guard {
    let same = one.fingerprint == other.fingerprint;
    Guard {
        fingerprint: if same { one.fingerprint } else { String::new() },
        rules: one.rules.saturating_add(other.rules),
        elements: one.elements.into_iter().chain(other.elements).collect(),
        script: one.script + &other.script,
    }
}

/// Puts the tables in the place of those that were seen, or removes those. Where none was seen, one that is there by now is
/// somebody else's, and nothing is done.
pub(super) fn perform(action: &Action, held: Option<&File>) -> Result<()> {
    let Action::SetGuard { from, to } = action else { return Ok(()) };
    let (seen, wanted) = (families(from.as_ref()), families(to.as_ref()));
    // Adding first: it may be gone by then.
    let mut script = String::new();
    for family in seen.difference(&wanted) {
        let _ = writeln!(script, "add table {family} plat\ndelete table {family} plat");
    }
    let made = to.as_ref().map_or(String::new(), |to| to.script.clone());
    // Creating fails where there is one.
    script += &wanted.difference(&seen).fold(made, |made, family| {
        made.replacen(&format!("add table {family} plat\n"), &format!("create table {family} plat\n"), 1)
    });
    if script.is_empty() {
        return Ok(());
    }
    nft(&["-f", "-"], &script, held).map(drop)
}

fn families(guard: Option<&Guard>) -> BTreeSet<String> {
    guard.map(Guard::families).unwrap_or_default()
}

/// Those of these families that have a table `plat`.
fn tables(families: &BTreeSet<String>) -> Result<Vec<String>> {
    let names = listing::tables(&nft(&["-j", "list", "tables"], "", None)?)?;
    Ok(families.iter().filter(|family| names.contains(&((*family).clone(), "plat".to_owned()))).cloned().collect())
}

/// Runs nft in this thread's network namespace; what it wrote.
fn nft(arguments: &[&str], script: &str, held: Option<&File>) -> Result<String> {
    let lacking = || {
        Problem::new(codes::PREREQUISITE, "the guard needs the program nft")
            .because("it is neither on PATH nor in /usr/sbin")
            .fix("install nftables, or set `guard = false` in [network]")
    };
    let mut command = Command::new(program().ok_or_else(lacking)?);
    command.args(arguments).stdout(Stdio::piped());
    let ran = program::run(&mut command, script, held).map_err(|e| failed("nft cannot be started", e))?;
    String::from_utf8(ran?.stdout).map_err(|e| failed("nft wrote what is not text", e))
}
