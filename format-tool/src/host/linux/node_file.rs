//! `node.json`: read whole, replaced by one rename.

use super::directories::Tree;
use super::failed;
use node_format_plan::Action;
use plat_model::problem::{Problem, Result, codes};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Longest node file that is read, in bytes: 10,000 partitions need about 6 MiB.
const SIZE_MAX: u64 = 64 << 20;

pub(super) fn read(tree: &mut Tree, path: &Path) -> Result<Option<String>> {
    let wrong = |why: String| Problem::new(codes::FILE, format!("{} cannot be read", path.display())).because(why);
    let opened = tree.parent(path).and_then(|(parent, name)| {
        rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    });
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(wrong(e.to_string())),
    };
    let mut text = String::new();
    file.take(SIZE_MAX).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
    Ok(Some(text))
}

pub(super) fn perform(tree: &mut Tree, action: &Action) -> Result<()> {
    let Action::WriteNodeFile { path, to, .. } = action else { return Ok(()) };
    let result = match to {
        Some(text) => write(tree, path, text),
        None => remove(tree, path),
    };
    result.map_err(|e| failed(format!("cannot write {}", path.display()), e))
}

fn remove(tree: &mut Tree, path: &Path) -> std::io::Result<()> {
    let (parent, name) = tree.parent(path)?;
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
}

fn write(tree: &mut Tree, path: &Path, text: &str) -> std::io::Result<()> {
    let (parent, name) = tree.parent(path)?;
    let mut new = name.to_os_string();
    new.push(".new");
    match rustix::fs::unlinkat(parent, &new, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(other) => return Err(other.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(parent, &new, flags, Mode::from_raw_mode(0o644))?);
    let written = file.write_all(text.as_bytes()).and_then(|()| {
        // Everybody on the machine may read it, whatever the umask says.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
        file.sync_data()?;
        Ok(rustix::fs::renameat(parent, &new, parent, name)?)
    });
    if written.is_err() {
        let _ = rustix::fs::unlinkat(parent, &new, AtFlags::empty());
        return written;
    }
    let directory =
        rustix::fs::openat(parent, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fsync(directory)?)
}
