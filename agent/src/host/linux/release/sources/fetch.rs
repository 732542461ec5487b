//! What a source is unpacked from: a file of the cache, or of this node, used only if it has the digest that the release says.

use crate::host::linux::disk::io_problem;
use crate::host::linux::release::cache::FILE_MAX;
use crate::host::linux::release::cache::pin::Pin;
use crate::host::linux::release::cache::store::Shelf;
use crate::host::linux::release::cache::task::another;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Whether it is fetched; if not it is a path.
pub fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A file that has the digest, at its beginning: what was checked is what is read.
pub fn pinned(url: &str, pin: &Pin, shelf: &Shelf) -> Result<File, Problem> {
    let cannot = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot read {url}"), &e);
    let mut file = if is_url(url) {
        shelf.get(pin).map_err(|e| {
            io_problem(codes::SOURCE_FETCH, format!("{url} is not in the cache any more"), &e)
                .fix("it is fetched again by itself")
        })?
    } else {
        local(url)?
    };
    let found = pin.measure(&mut file).map_err(cannot)?;
    if &found != pin {
        return Err(another(url, &found, pin));
    }
    file.rewind().map_err(cannot)?;
    Ok(file)
}

fn local(url: &str) -> Result<File, Problem> {
    let failed = |why: String| {
        Problem::new(codes::SOURCE_FETCH, format!("cannot fetch {url}"))
            .because(why)
            .fix("check the address, and that this node can reach it")
    };
    let path = Path::new(url.strip_prefix("file://").unwrap_or(url));
    if !path.is_absolute() {
        return Err(failed("it is neither a URL nor an absolute path".into()));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags).map_err(|e| failed(e.to_string()))?);
    if !file.metadata().is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX) {
        return Err(failed(format!("it is not a file of at most {FILE_MAX} bytes")));
    }
    Ok(file)
}

/// Opens what a release names on this node: what its user finds there, not what this process holds open.
pub fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).map_err(|e| match e {
        rustix::io::Errno::LOOP => io::Error::other(
            "it leads over links without end, or over a link of /proc to what \
             a process holds open",
        ),
        e => e.into(),
    })
}

/// SHA-256 of all of a file, in hexadecimal.
pub fn checksum(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    Ok(Pin::measure_sha256(file)?.to_string())
}

/// A checksum is not the expected one; both as people read them.
pub fn unlike(what: &str, sum: &str, found: &str, expected: &str) -> Problem {
    Problem::new(codes::SOURCE_CHECKSUM, format!("{what} is not what the release says"))
        .because(format!("its {sum} is {found}, expected {expected}"))
        .fix("check where it comes from; if the new contents are right, put their checksum into the release")
}
