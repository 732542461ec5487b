//! A folder on the node, copied.
//!
//! The checksum of a folder is the SHA-256 of, for each entry in the order of its path's bytes: `d`, `f`, `x` (an
//! executable file) or `l`, the path, a zero byte, and for a file or link the SHA-256 (hexadecimal) of its contents or
//! target; then a zero byte.

use super::fetch::checksum;
use super::tree::Tree;
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::task::Line;
use plat_model::Problem;
use plat_model::problem::codes;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub fn lay(path: &str, sha256: Option<&str>, tree: &Tree, line: &Line) -> Result<Vec<Ingredient>, Problem> {
    line.progress(format!("> copying {path}"))?;
    let top = Path::new(path);
    if !top.is_absolute() {
        return Err(
            Problem::new(codes::SOURCE_FETCH, format!("cannot copy {path}")).because("it is not an absolute path")
        );
    }
    let found = copy(top, tree).map_err(|e| io_problem(codes::SOURCE_FETCH, format!("cannot copy {path}"), &e))?;
    if let Some(expected) = sha256.filter(|expected| !found.eq_ignore_ascii_case(expected)) {
        return Err(Problem::new(codes::SOURCE_CHECKSUM, format!("{path} is not what the release says"))
            .because(format!("its SHA-256 is {found}, expected {expected}"))
            .fix("check the folder; if its contents are right, put their checksum into the release"));
    }
    match tree.link_that_leaves() {
        Ok(None) => Ok(vec![Ingredient { name: path.to_owned(), version: String::new(), sha256: found }]),
        Ok(Some(link)) => Err(Problem::new(codes::BAD_ARCHIVE, format!("cannot copy {path}"))
            .because(format!("the link {} in it leads out of it", link.display()))),
        Err(e) => Err(io_problem(codes::SOURCE_FETCH, format!("cannot copy {path}"), &e)),
    }
}

/// Copies a folder and gives its checksum.
pub fn copy(top: &Path, tree: &Tree) -> io::Result<String> {
    let mut paths = Vec::new();
    list(top, Path::new(""), &mut paths)?;
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let mut hash = Sha256::new();
    for path in paths {
        let from = top.join(&path);
        let kind = fs::symlink_metadata(&from)?;
        let (letter, contents) = if kind.is_dir() {
            tree.make_folder(&path)?;
            ("d", String::new())
        } else if kind.is_symlink() {
            let target = fs::read_link(&from)?;
            tree.link(&path, &target)?;
            ("l", Sha256::digest(target.as_os_str().as_encoded_bytes()).iter().map(|b| format!("{b:02x}")).collect())
        } else if kind.is_file() {
            let mut file = File::from(rustix::fs::open(
                &from,
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?);
            let sum = checksum(&mut file)?;
            file.rewind()?;
            let executable = kind.permissions().mode() & 0o100 != 0;
            tree.write(&path, executable, &mut file)?;
            (if executable { "x" } else { "f" }, sum)
        } else {
            return Err(io::Error::other(format!("{} is neither file, folder nor link", path.display())));
        };
        hash.update(letter);
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(contents);
        hash.update([0]);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn list(top: &Path, below: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    if below.components().count() > 200 {
        return Err(io::Error::other("it is nested too deeply"));
    }
    for entry in fs::read_dir(top.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(top, &path, paths)?;
        }
        paths.push(path);
    }
    Ok(())
}
