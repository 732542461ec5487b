//! Files that survive a crash at any instant: written whole beside the old one, synced, renamed, and the folder
//! synced. Their first line says the form, its version and the SHA-256 of the rest, so that a damaged one shows.

use plat_model::Problem;
use plat_model::problem::codes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest file that is read back.
const FILE_MAX: u64 = 256 * 1024 * 1024;

pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of the agent's state that cannot be used.
pub(crate) fn unusable(path: &Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::BAD_STATE_FILE, format!("`{}` cannot be used", path.display()))
        .because(why)
        .fix("see docs/errors/P0412.md for what each file holds and what is lost without it")
}

fn full(path: &Path, why: &io::Error) -> Problem {
    let problem = match why.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Problem::new(codes::DISK_FULL, format!("`{}` cannot be written", path.display()))
                .fix("make room on the disk of the agent's data folder")
        }
        _ => unusable(path, ""),
    };
    problem.because(why)
}

/// Writes `bytes` in place of whatever is at `path`, readable by its owner alone.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    prepare(path, bytes)?;
    put_in_place(path)
}

/// Writes `bytes` beside `path`, durably. What is at `path` stays, and if it fails nothing stays beside it.
pub(crate) fn prepare(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let beside = beside(path);
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|why| {
        let _ = fs::remove_file(&beside);
        full(path, &why)
    })
}

/// Puts what was prepared in the place of what is at `path`.
pub(crate) fn put_in_place(path: &Path) -> Result<(), Problem> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let renamed = fs::rename(beside(path), path).and_then(|()| File::open(folder)?.sync_all());
    renamed.map_err(|why| full(path, &why))
}

fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    beside.into()
}

/// Writes a value with its head.
pub(crate) fn write(path: &Path, form: &str, version: u32, value: &impl Serialize) -> Result<(), Problem> {
    let body = serde_json::to_vec(value).map_err(|why| unusable(path, why))?;
    let mut bytes = format!("{form} {version} {}\n", hash(&body)).into_bytes();
    bytes.extend(body);
    replace(path, &bytes)
}

/// Reads what [`write`] wrote; `None` if there is no file.
///
/// # Errors
/// BAD_STATE_FILE if it is damaged, of another form, or of a newer version.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, form: &str, version: u32) -> Result<Option<T>, Problem> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(unusable(path, why)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(|why| unusable(path, why))?;
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| unusable(path, "it has no head"))?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|why| unusable(path, why))?;
    let body = &bytes[end + 1..];
    let words: Vec<&str> = head.split(' ').collect();
    let [said_form, said_version, said_hash] = words[..] else {
        return Err(unusable(path, "its head is damaged"));
    };
    if said_form != form {
        return Err(unusable(path, format!("it is not a file of the form `{form}`")));
    }
    if said_version != version.to_string() {
        return Err(unusable(path, format!("it is of version {said_version}, this agent reads version {version}")));
    }
    if said_hash != hash(body) {
        return Err(unusable(path, "its checksum does not fit its contents"));
    }
    serde_json::from_slice(body).map(Some).map_err(|why| unusable(path, why))
}

/// Makes a folder that only its owner may enter; those above it that are missing are for all to pass.
pub(crate) fn private_folder(path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(|why| full(above, &why))?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|why| full(path, &why))
}
