//! Packages that a lock names by digest: read from the cache and unpacked here, within the limits of every source.

use super::{cannot_unpack, merge_usr};
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::release::cache::pin::Pin;
use crate::host::linux::release::cache::store::Shelf;
use crate::host::linux::release::sources::tree::{Links, Tree};
use crate::host::linux::release::sources::unpack::{Form, Room, problem, unpack};
use crate::host::linux::task::Line;
use plat_document::release::{DebLock, LockedPackage};
use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Head of a file in an archive of `ar`, and what the archive begins with.
const HEAD: u64 = 60;
const MAGIC: &[u8] = b"!<arch>\n";

/// The packages for this kind of machine; `None` if the release has no lock.
///
/// # Errors
/// PREREQUISITE if it has, and none is for this kind.
pub fn lock_of(locks: &BTreeMap<String, DebLock>) -> Result<Option<&[LockedPackage]>, Problem> {
    if locks.is_empty() {
        return Ok(None);
    }
    let here = plat_source::here()?;
    locks.get(here.as_str()).map(|lock| Some(lock.packages.as_slice())).ok_or_else(|| {
        let kinds: Vec<&str> = locks.keys().map(String::as_str).collect();
        Problem::new(codes::PREREQUISITE, format!("the release has no lock for {here}"))
            .because(format!("its packages are locked for {}", kinds.join(", ")))
            .fix("run `plat release lock` on a machine of this kind too, or supply the release to other nodes")
    })
}

pub fn lay_locked(
    packages: &[LockedPackage],
    shelf: &Shelf,
    into: &Path,
    line: &Line,
) -> Result<Vec<Ingredient>, Problem> {
    merge_usr(into).map_err(|e| cannot_unpack(into, &e))?;
    let tree = Tree::open(into, "")?;
    let (mut room, mut ingredients) = (Room::of_a_source(), Vec::new());
    for (n, package) in packages.iter().enumerate() {
        let LockedPackage { name, version, sha256, .. } = package.clone();
        line.progress(format!("> unpacking {name} ({} of {})", n + 1, packages.len()))?;
        let file = shelf.checked(&Pin::sha256(&sha256)?)?;
        contents(file)
            .and_then(|contents| unpack(contents, Form::Built, &tree, &mut room))
            .map_err(|e| problem(format!("cannot unpack {name} {version}"), &e))?;
        ingredients.push(Ingredient { name, version, sha256 });
    }
    tree.root_links(Links::ToWhatIsThere).map_err(|e| cannot_unpack(into, &e))?;
    Ok(ingredients)
}

/// The archive of a package's files within the package.
fn contents(mut file: File) -> io::Result<Window> {
    let odd = || io::Error::other("it is no Debian package");
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(odd());
    }
    let mut at = MAGIC.len() as u64;
    loop {
        let mut head = [0; HEAD as usize];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut head).map_err(|_| odd())?;
        let text = |from: usize, to: usize| std::str::from_utf8(&head[from..to]).map(str::trim_end).map_err(|_| odd());
        let size: u64 = text(48, 58)?.parse().map_err(|_| odd())?;
        if text(0, 16)?.starts_with("data.tar") {
            return Ok(Window { file, start: at + HEAD, size, at: 0 });
        }
        // Each begins at an even place.
        at = at.checked_add(HEAD + size + size % 2).ok_or_else(odd)?;
    }
}

/// A part of a file.
struct Window {
    file: File,
    start: u64,
    size: u64,
    at: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(buffer.len());
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let n = self.file.read(&mut buffer[..left])?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at = at.min(self.size);
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn package(members: &[(&str, &[u8])]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(MAGIC).unwrap();
        for (name, bytes) in members {
            writeln!(file, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", bytes.len()).unwrap();
            file.write_all(bytes).unwrap();
            file.write_all(&b"\n"[..bytes.len() % 2]).unwrap();
        }
        file.rewind().unwrap();
        file
    }

    #[test]
    fn the_files_of_a_package_are_found_behind_whatever_comes_before() {
        let members: [(&str, &[u8]); 3] =
            [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.zst", b"the data")];
        let mut found = contents(package(&members)).unwrap();
        let mut text = String::new();
        found.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the data");
        found.rewind().unwrap();
        text.clear();
        assert_eq!(found.read_to_string(&mut text).unwrap(), 8);
    }

    #[test]
    fn what_is_no_package_is_told() {
        assert!(contents(package(&[("debian-binary", b"2.0\n")])).is_err());
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(b"<html>no such package</html>").unwrap();
        other.rewind().unwrap();
        assert!(contents(other).is_err());
    }
}
