//! What a file has besides its text, owner and mode: its label, and lists of who may read it.

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// Those that the kernel makes of the text by itself: of another text they would be wrong.
const OF_THE_TEXT: [&str; 2] = ["security.ima", "security.evm"];

/// Gives a new file the extended attributes of the one that it replaces.
///
/// # Errors
/// If one that says who may read it cannot be set, as a label of SELinux: the file is then better not replaced.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    names(from)?.into_iter().try_for_each(|name| read(from, name)?.map_or(Ok(()), |one| one.put_on(to)))
}

/// Those of a file that is gone by now.
pub(super) struct Kept(Vec<Attribute>);

impl Kept {
    /// `None`: a new file has the same.
    pub fn of(file: &File) -> Option<Self> {
        let names = names(file).ok()?;
        let all: Vec<Attribute> = names.into_iter().filter_map(|name| read(file, name).ok()?).collect();
        (!all.iter().all(|one| is_usual(&one.name))).then_some(Self(all))
    }

    /// # Errors
    /// As [`copy`].
    pub fn put_on(&self, to: &File) -> io::Result<()> {
        self.0.iter().try_for_each(|one| one.put_on(to))
    }
}

struct Attribute {
    name: String,
    value: Vec<u8>,
}

impl Attribute {
    fn put_on(&self, to: &File) -> io::Result<()> {
        // Where the file system itself labels what is on it, it does so alike, and nobody else may.
        if value(to, &self.name).is_ok_and(|there| there == self.value) {
            return Ok(());
        }
        unless_it_says_who(&self.name, rustix::fs::fsetxattr(to, &self.name, &self.value, XattrFlags::empty()))
            .map(drop)
    }
}

/// `None`: it is not to be kept, or need not be.
fn read(file: &File, name: String) -> io::Result<Option<Attribute>> {
    if OF_THE_TEXT.contains(&name.as_str()) {
        return Ok(None);
    }
    let value = match value(file, &name) {
        // One that is gone meanwhile is not missed.
        Err(Errno::NODATA) => None,
        other => unless_it_says_who(&name, other)?,
    };
    Ok(value.map(|value| Attribute { name, value }))
}

/// What came of an attribute; `None`: it failed, and nobody may read the file who could not before.
fn unless_it_says_who<T>(name: &str, result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    let says_who = name.starts_with("security.") || name.starts_with("system.posix_acl");
    match result {
        Err(e) if says_who => Err(io::Error::other(format!("its attribute {name} cannot be kept: {e}"))),
        other => Ok(other.ok()),
    }
}

/// Whether a file has no attribute but a label, which every program keeps. What cannot be listed is none.
pub(super) fn are_usual(file: &File) -> bool {
    names(file).is_ok_and(|names| names.iter().all(|name| is_usual(name)))
}

fn is_usual(name: &str) -> bool {
    name.starts_with("security.")
}

fn names(file: &File) -> io::Result<Vec<String>> {
    let length = match rustix::fs::flistxattr_query(file) {
        Ok(length) => length,
        // The file system knows no attributes.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut list = vec![0; length];
    let length = rustix::fs::flistxattr(file, &mut list[..])?;
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

fn value(file: &File, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; rustix::fs::fgetxattr_query(file, name)?];
    let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}
