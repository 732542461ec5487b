//! Using what was deployed, as its client would: by what the instance publishes and nothing else.

use plat_model::problem::codes;
use plat_model::{Problem, Result};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(20);

fn failed(what: impl Into<String>, why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::PROMISE_FAILED, what).because(why)
}

fn text<'a>(connection: &'a Map<String, Value>, key: &str) -> Result<&'a str> {
    connection
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| failed("the instance cannot be used", format!("it publishes no `{key}`")))
}

/// Sends `request` to a server and reads what it answers until `enough`.
async fn ask(address: &str, request: &[u8], enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while !enough(&answer) && answer.len() < 1 << 20 {
            match stream.read(&mut part).await? {
                0 => break,
                n => answer.extend_from_slice(&part[..n]),
            }
        }
        Ok::<_, std::io::Error>(answer)
    };
    let talked = tokio::time::timeout(PATIENCE, talk)
        .await
        .map_err(|_| failed(format!("{address} does not answer"), "no answer in 20 s"))?;
    talked.map_err(|e| failed(format!("{address} does not answer"), e))
}

/// GETs a page; its body.
pub async fn http(connection: &Map<String, Value>) -> Result<String> {
    let url = text(connection, "url")?;
    let authority = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next())
        .ok_or_else(|| failed("the URL cannot be used", "it is not http://"))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let answer = ask(authority, request.as_bytes(), |_| false).await?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.trim().to_owned()),
        _ => Err(failed("the page cannot be had", answer.lines().next().unwrap_or("an empty answer"))),
    }
}

/// Writes a key to Redis and reads it back.
pub async fn redis(connection: &Map<String, Value>) -> Result<String> {
    let url = text(connection, "url")?;
    let wrong = || failed("the URL cannot be used", "it is not redis://:PASSWORD@HOST:PORT");
    let (user, rest) = url.strip_prefix("redis://").and_then(|rest| rest.split_once('@')).ok_or_else(wrong)?;
    let password = user.rsplit_once(':').map_or(user, |(_, password)| password);
    let address = rest.split('/').next().unwrap_or(rest);
    let request = format!("AUTH {password}\r\nSET greeting hello\r\nGET greeting\r\n");
    let answer =
        ask(address, request.as_bytes(), |so_far| so_far.ends_with(b"hello\r\n") || so_far.contains(&b'-')).await?;
    if !answer.ends_with(b"hello\r\n") {
        return Err(failed("Redis refused", String::from_utf8_lossy(&answer)));
    }
    Ok("SET greeting hello; GET greeting -> hello".into())
}

/// Asks PostgreSQL something with its own client, which is part of the release. The password reaches it in a file.
pub async fn postgresql(connection: &Map<String, Value>, release: &Path, folder: &Path) -> Result<String> {
    let url = text(connection, "url")?;
    let wrong = || failed("the URL cannot be used", "it is not postgresql://USER:PASSWORD@HOST:PORT/DATABASE");
    let (user, rest) = url.strip_prefix("postgresql://").and_then(|rest| rest.split_once('@')).ok_or_else(wrong)?;
    let (name, password) = user.split_once(':').ok_or_else(wrong)?;
    let passfile = folder.join("demo.pgpass");
    let _ = std::fs::remove_file(&passfile);
    let written =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&passfile).and_then(|mut file| {
            use std::io::Write;
            writeln!(file, "*:*:*:*:{password}")
        });
    written.map_err(|e| failed("the password cannot be handed over", e))?;
    let (psql, libraries) = client_of(release)?;
    let question = "select version(); create table if not exists greeting (text text); insert into greeting values ('hello'); select text from greeting";
    let mut command = Command::new(psql);
    command
        .env_clear()
        .env("LD_LIBRARY_PATH", libraries)
        .env("PGPASSFILE", &passfile)
        .env("PGCONNECT_TIMEOUT", "10")
        .kill_on_drop(true);
    command
        .args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--quiet",
            "--set",
            "ON_ERROR_STOP=1",
            "--command",
            question,
        ])
        .arg(format!("postgresql://{name}@{rest}"));
    let ran = tokio::time::timeout(PATIENCE, command.output()).await;
    let _ = std::fs::remove_file(&passfile);
    let ran = ran
        .map_err(|_| failed("psql takes too long", "no answer in 20 s"))?
        .map_err(|e| failed("psql cannot be run", e))?;
    if !ran.status.success() {
        return Err(failed("PostgreSQL did not answer", String::from_utf8_lossy(&ran.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).trim().replace('\n', "; "))
}

/// psql within an installed release, and where its libraries are.
fn client_of(release: &Path) -> Result<(PathBuf, OsString)> {
    let versions =
        std::fs::read_dir(release.join("usr/lib/postgresql")).map_err(|e| failed("the release has no psql", e))?;
    let psql = versions.flatten().map(|entry| entry.path().join("bin/psql")).find(|path| path.is_file());
    let psql = psql.ok_or_else(|| failed("the release has no psql", "usr/lib/postgresql/*/bin/psql is missing"))?;
    let libraries =
        std::fs::read_dir(release.join("usr/lib")).map_err(|e| failed("the release has no libraries", e))?;
    let folder =
        libraries.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    let folder = folder.unwrap_or_else(|| release.join("usr/lib"));
    // Some packages have theirs in /lib.
    let beside = release.join("lib").join(folder.file_name().unwrap_or_default());
    let libraries = std::env::join_paths([folder, beside]);
    Ok((psql, libraries.map_err(|e| failed("the release's libraries cannot be named", e))?))
}
