//! Files that hold keys: written once with mode 0600 and synced, and read only if nobody else could have read or
//! replaced them.

use plat_model::Problem;
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Largest key or certificate file in bytes; a chain of three P-256 certificates has about 3 KiB.
const MAX: u64 = 64 * 1024;

fn wrong(path: &Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::KEY_FILE, format!("`{}` cannot be used", path.display())).because(why)
}

/// A file or folder that cannot be made.
pub(crate) fn unwritable(path: &Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::KEY_FILE, format!("`{}` cannot be made", path.display()))
        .because(why)
        .fix("name a place that this user may write to and that has room, or run it as one who may")
}

/// Makes a folder that only its owner may enter. The one above it is there.
///
/// # Errors
/// [`codes::KEY_FILE`] if it cannot be made.
pub fn make_folder(path: &Path) -> Result<(), Problem> {
    std::fs::DirBuilder::new().mode(0o700).create(path).map_err(|e| unwritable(path, e))
}

/// Writes a new file that only its owner may read, and makes sure that it is on the disk.
///
/// # Errors
/// [`codes::KEY_FILE`] if it exists already or cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), Problem> {
    write_with(path, text, 0o600)
}

/// Writes a new file without secrets, which all may read, and makes sure that it is on the disk.
///
/// # Errors
/// [`codes::KEY_FILE`] if it exists already or cannot be written.
pub fn write_public(path: &Path, text: &str) -> Result<(), Problem> {
    write_with(path, text, 0o644)
}

fn write_with(path: &Path, text: &str, mode: u32) -> Result<(), Problem> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = open.map_err(|e| unwritable(path, e))?;
    // What is cut short, by a full disk for instance, is taken away again: it was not there before.
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| {
        let _ = std::fs::remove_file(path);
        unwritable(path, e)
    })
}

/// Makes sure that the entries of a folder are on the disk.
///
/// # Errors
/// [`codes::KEY_FILE`] if the system refuses.
pub fn sync_folder(path: &Path) -> Result<(), Problem> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| wrong(path, e))
}

/// Reads a key: a regular file of this user that nobody else can read or write.
///
/// # Errors
/// [`codes::KEY_FILE`] if it is anything else.
pub fn read_secret(path: &Path) -> Result<Secret, Problem> {
    let owner = rustix::process::geteuid().as_raw();
    let mut file = open(path)?;
    let meta = file.metadata().map_err(|e| wrong(path, e))?;
    if meta.uid() != owner {
        return Err(wrong(path, format!("it belongs to uid {}, not to uid {owner}", meta.uid())).fix(format!(
            "run it as the user that the master's data belongs to, or give the whole folder to one user: `chown -R … {}`",
            path.parent().and_then(Path::parent).unwrap_or(path).display()
        )));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(wrong(path, format!("its mode {:04o} lets others at it", meta.mode() & 0o7777)).fix(format!(
            "`chmod 0600 {}`; if others may have read it, make a new grid or replace the key",
            path.display()
        )));
    }
    read_open(&mut file, path).map(Secret::new)
}

/// Reads a certificate file.
///
/// # Errors
/// [`codes::KEY_FILE`] if it is missing, too large or not text.
pub fn read_public(path: &Path) -> Result<String, Problem> {
    read_open(&mut open(path)?, path)
}

fn open(path: &Path) -> Result<File, Problem> {
    // A link could lead a reader with more rights than the link's maker to any file.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let file = file.map_err(|e| wrong(path, e))?;
    match file.metadata() {
        Ok(meta) if meta.is_file() => Ok(file),
        Ok(_) => Err(wrong(path, "it is not a regular file")),
        Err(e) => Err(wrong(path, e)),
    }
}

fn read_open(file: &mut File, path: &Path) -> Result<String, Problem> {
    let mut text = String::new();
    file.take(MAX + 1).read_to_string(&mut text).map_err(|e| wrong(path, e))?;
    if text.len() as u64 > MAX {
        return Err(wrong(path, format!("it has more than {MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        write(&path, "secret").unwrap();
        assert_eq!(read_secret(&path).unwrap().reveal(), "secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let problem = read_secret(&path).unwrap_err();
        assert_eq!(problem.code, codes::KEY_FILE);
        assert!(problem.why.contains("0640"), "{}", problem.why);
    }

    #[test]
    fn a_key_is_never_written_over_and_never_read_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        write(&path, "one").unwrap();
        assert_eq!(write(&path, "two").unwrap_err().code, codes::KEY_FILE);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read_secret(&link).unwrap_err().code, codes::KEY_FILE);
    }
}
