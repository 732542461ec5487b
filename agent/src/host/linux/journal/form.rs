//! The file's lines: `VERSION CHECKSUM SYNCED BODY`, each with all that it takes to tell whether it is whole. An empty
//! line is one that a person has given up.
//!
//! A line's BODY is a list of entries that are there together or not at all. SYNCED is how many lines of the file were durable when this one was written. A cut of power may leave anything behind
//! those: half a line, or nothing where a line was and whole lines after it. Damage before was not made by a cut of power.
//! The first line is the head; its SYNCED is the length of the file as it was last written anew.

use crate::durable::{hash, unusable};
use plat_model::Problem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Version of the form and of the entries, in the first word of each line. An entry that means something else than it did
/// takes another one.
const VERSION: &str = "1";

#[derive(Serialize, Deserialize)]
struct Head {
    boot: String,
}

/// What a file says.
pub struct Found<E> {
    /// `None`: there is no file.
    pub boot: Option<String>,
    pub entries: Vec<E>,
}

pub fn encode(synced: usize, body: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut said = format!("{synced} ").into_bytes();
    serde_json::to_writer(&mut said, body)?;
    let mut line = format!("{VERSION} {} ", hash(&said)).into_bytes();
    line.extend(said);
    line.push(b'\n');
    Ok(line)
}

/// A whole file: a line for each entry, and one more.
pub fn encode_all(boot: &str, entries: &[impl Serialize]) -> serde_json::Result<Vec<u8>> {
    let synced = entries.len() + 1;
    let mut all = encode(synced, &Head { boot: boot.to_owned() })?;
    for entry in entries {
        all.extend(encode(synced, &[entry])?);
    }
    Ok(all)
}

fn decode<E: DeserializeOwned>(line: &[u8]) -> Result<(usize, E), String> {
    let Some(line) = line.strip_suffix(b"\n") else { return Err("it ends too early".into()) };
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (Some(version), Some(checksum), Some(said)) = (words.next(), words.next(), words.next()) else {
        return Err("it is no line of the journal".into());
    };
    if checksum != hash(said).as_bytes() {
        return Err("its checksum does not fit its contents".into());
    }
    if version != VERSION.as_bytes() {
        return Err(format!("it is of a version that this agent does not read ({VERSION})"));
    }
    let space = said.iter().position(|byte| *byte == b' ').ok_or("it has no number")?;
    let synced =
        std::str::from_utf8(&said[..space]).ok().and_then(|text| text.parse().ok()).ok_or("it has no number")?;
    // serde's message may quote what it found, and that may be a secret.
    let body = serde_json::from_slice(&said[space + 1..]);
    Ok((synced, body.map_err(|why| format!("its body is not understood at column {}", why.column()))?))
}

/// # Errors
/// BAD_STATE_FILE, as [`super::Opened::read`].
pub fn read<E: DeserializeOwned>(path: &Path) -> Result<Found<E>, Problem> {
    match fs::read(path) {
        Ok(bytes) => parse(&bytes).map_err(|why| {
            let fix = "restore the agent's data folder from a backup; or empty that line, with the agent stopped: what it \
                       said of one partition is lost then";
            unusable(path, why).fix(fix)
        }),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(Found { boot: None, entries: Vec::new() }),
        Err(why) => Err(unusable(path, why)),
    }
}

fn parse<E: DeserializeOwned>(bytes: &[u8]) -> Result<Found<E>, String> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let head = decode::<Head>(lines.next().unwrap_or_default());
    let (mut synced, head) = head.map_err(|why| format!("line 1: {why}"))?;
    let (mut count, mut entries, mut damage) = (1, Vec::new(), None);
    for line in lines {
        count += 1;
        if line == b"\n" {
            continue;
        }
        match decode(line) {
            Ok((said, list)) => {
                let list: Vec<E> = list;
                synced = synced.max(said);
                // Behind damage it is not in order: it only tells what was durable.
                if damage.is_none() {
                    entries.extend(list);
                }
            }
            Err(why) => drop(damage.get_or_insert((count, why))),
        }
    }
    match damage {
        Some((line, why)) if line <= synced => Err(format!("line {line}: {why}")),
        None if count < synced => Err(format!("it has {count} lines, and {synced} were durable")),
        _ => Ok(Found { boot: Some(head.boot), entries }),
    }
}
