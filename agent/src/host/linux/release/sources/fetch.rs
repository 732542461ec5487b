//! A file by URL or path: fetched whole, within limits, and used only if its checksum is the expected one.

use crate::host::linux::disk::io_problem;
use plat_model::Problem;
use plat_model::problem::codes;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

/// Largest file that is fetched, in bytes.
pub const FILE_MAX: u64 = 8 << 30;
/// Longest fetch.
pub const FETCH_MAX: Duration = Duration::from_secs(3600);

/// A file whose SHA-256 is the expected one, at its beginning: what was checked is what is read. `staging` is where it
/// is kept until it is closed.
pub fn pinned(url: &str, sha256: &str, staging: &Path) -> Result<File, Problem> {
    let mut file = fetch(url, staging)?;
    let cannot = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot read {url}"), &e);
    let found = checksum(&mut file).map_err(cannot)?;
    if !found.eq_ignore_ascii_case(sha256) {
        return Err(another(url, "SHA-256", &found, sha256));
    }
    file.rewind().map_err(cannot)?;
    Ok(file)
}

/// What was fetched is not what the release says.
pub fn another(url: &str, sum: &str, found: &str, expected: &str) -> Problem {
    Problem::new(codes::SOURCE_CHECKSUM, format!("{url} is not what the release says"))
        .because(format!("its {sum} is {found}, expected {expected}"))
        .fix("check where it comes from; if the new contents are right, put their checksum into the release")
}

/// What is at `url`, http(s) or a path, as an open file without a name; not checked yet.
pub fn fetch(url: &str, staging: &Path) -> Result<File, Problem> {
    let failed = |why: String| {
        Problem::new(codes::SOURCE_FETCH, format!("cannot fetch {url}"))
            .because(why)
            .fix("check the address, and that this node can reach it")
    };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        let path = Path::new(url.strip_prefix("file://").unwrap_or(url));
        if !path.is_absolute() {
            return Err(failed("it is neither a URL nor an absolute path".into()));
        }
        let file = File::open(path).map_err(|e| failed(e.to_string()))?;
        if !file.metadata().is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX) {
            return Err(failed(format!("it is not a file of at most {FILE_MAX} bytes")));
        }
        return Ok(file);
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_MAX))
        .timeout_connect(Some(Duration::from_secs(30)))
        .max_redirects(5)
        .build()
        .into();
    let mut answer = agent.get(url).call().map_err(|e| failed(e.to_string()))?;
    let path = staging.join(".plat-fetched");
    let disk = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot fetch {url}"), &e);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(disk)?;
    // It has no name from here on, so it goes when this process does.
    std::fs::remove_file(&path).map_err(disk)?;
    let mut body = answer.body_mut().with_config().limit(FILE_MAX).reader();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(n) => file.write_all(&buffer[..n]).map_err(disk)?,
            Err(e) => return Err(failed(e.to_string())),
        }
    }
}

/// SHA-256 of all of a file, in hexadecimal.
pub fn checksum(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}
