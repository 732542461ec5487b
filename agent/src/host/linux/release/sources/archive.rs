//! A tar archive: fetched or opened, checked whole against its checksum, and only then unpacked.

use super::tree::Tree;
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::task::Line;
use plat_model::Problem;
use plat_model::problem::codes;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tar::EntryType;

/// Largest archive, in bytes.
const ARCHIVE_MAX: u64 = 8 << 30;
/// Most of everything that one archive may unpack to: bytes, entries.
const UNPACKED_MAX: u64 = 32 << 30;
const ENTRIES_MAX: u64 = 2_000_000;
/// Longest fetch.
const FETCH_MAX: Duration = Duration::from_secs(3600);

pub fn lay(
    url: &str,
    sha256: &str,
    strip: u32,
    tree: &Tree,
    staging: &Path,
    line: &Line,
) -> Result<Vec<Ingredient>, Problem> {
    let name = url.rsplit('/').next().unwrap_or(url);
    line.progress(format!("> fetching {name}"))?;
    let mut file = fetch(url, staging)?;
    let cannot = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot read {url}"), &e);
    let found = checksum(&mut file).map_err(cannot)?;
    if !found.eq_ignore_ascii_case(sha256) {
        return Err(Problem::new(codes::SOURCE_CHECKSUM, format!("{url} is not what the release says"))
            .because(format!("its SHA-256 is {found}, expected {sha256}"))
            .fix("check where it comes from; if the new contents are right, put their checksum into the release"));
    }
    file.rewind().map_err(cannot)?;
    line.progress(format!("> unpacking {name}"))?;
    unpack(file, strip, tree).map_err(|e| {
        let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let code = if full { codes::DISK_FULL } else { codes::BAD_ARCHIVE };
        io_problem(code, format!("cannot unpack {url}"), &e)
    })?;
    match tree.link_that_leaves() {
        Ok(None) => Ok(vec![Ingredient { name: url.to_owned(), version: String::new(), sha256: found }]),
        Ok(Some(link)) => Err(Problem::new(codes::BAD_ARCHIVE, format!("cannot unpack {url}"))
            .because(format!("the link {} in it leads out of the release", link.display()))),
        Err(e) => Err(io_problem(codes::BAD_ARCHIVE, format!("cannot unpack {url}"), &e)),
    }
}

/// The archive as an open file: the one that was checked is the one that is unpacked.
fn fetch(url: &str, staging: &Path) -> Result<File, Problem> {
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
        if !file.metadata().is_ok_and(|m| m.is_file() && m.len() <= ARCHIVE_MAX) {
            return Err(failed(format!("it is not a file of at most {ARCHIVE_MAX} bytes")));
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
    let mut body = answer.body_mut().with_config().limit(ARCHIVE_MAX).reader();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(n) => file.write_all(&buffer[..n]).map_err(disk)?,
            Err(e) => return Err(failed(e.to_string())),
        }
    }
}

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

/// By what it is, not by what it is called.
fn decompress(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 6];
    let n = file.read(&mut magic)?;
    file.rewind()?;
    let file = BufReader::new(file);
    Ok(match &magic[..n] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(liblzma::read::XzDecoder::new_multi_decoder(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

fn unpack(file: File, strip: u32, tree: &Tree) -> io::Result<()> {
    let mut archive = tar::Archive::new(decompress(file)?);
    let (mut bytes, mut count) = (0_u64, 0_u64);
    for entry in archive.entries()? {
        let mut entry = entry?;
        count += 1;
        let refuse = |why: &str, path: &Path| io::Error::other(format!("{} {why}", path.display()));
        let named = entry.path()?.into_owned();
        if count > ENTRIES_MAX {
            return Err(refuse("is one entry too many", &named));
        }
        let Some(path) = stripped(&named, strip).map_err(|why| refuse(why, &named))? else { continue };
        match entry.header().entry_type() {
            EntryType::Directory => tree.make_folder(&path)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let executable = entry.header().mode()? & 0o100 != 0;
                let mut contents = (&mut entry).take(UNPACKED_MAX + 1 - bytes);
                bytes += tree.write(&path, executable, &mut contents)?;
                if bytes > UNPACKED_MAX {
                    return Err(refuse("is larger than all of an archive may be", &named));
                }
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| refuse("is a link to nothing", &named))?;
                if target.is_absolute() {
                    return Err(refuse("is a link to an absolute path", &named));
                }
                tree.link(&path, &target)?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| refuse("is a link to nothing", &named))?.into_owned();
                let of = stripped(&target, strip).map_err(|why| refuse(why, &target))?;
                tree.hard_link(&path, &of.ok_or_else(|| refuse("is a link to what was dropped", &named))?)?;
            }
            EntryType::XGlobalHeader => {}
            _ => return Err(refuse("is neither file, folder nor link", &named)),
        }
    }
    Ok(())
}

/// The path within the release; `None` for what is dropped.
fn stripped(path: &Path, strip: u32) -> Result<Option<PathBuf>, &'static str> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("has `..` in its path"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
    }
    let kept: PathBuf = parts.into_iter().skip(strip as usize).collect();
    Ok((!kept.as_os_str().is_empty()).then_some(kept))
}
