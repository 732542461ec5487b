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
/// If one cannot be read or set: the file is then better not replaced.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    names(from)?.into_iter().try_for_each(|name| {
        let one = read(from, &name).map_err(|e| cannot_be_kept(&name, e))?;
        one.map_or(Ok(()), |one| one.put_on(to).map_err(|e| cannot_be_kept(&name, e)))
    })
}

fn cannot_be_kept(name: &str, e: Errno) -> io::Error {
    io::Error::other(format!("its attribute {name} cannot be kept: {e}"))
}

/// Those of a file that is gone by now.
#[derive(Default)]
pub(super) struct Kept {
    all: Vec<Attribute>,
    /// What could not be read, in words.
    unread: Vec<String>,
}

impl Kept {
    /// `None`: a new file has the same.
    pub fn of(file: &File) -> Option<Self> {
        let mut kept = Self::default();
        let listed = names(file).unwrap_or_else(|e| {
            kept.unread.push(format!("that cannot be listed ({e})"));
            Vec::new()
        });
        for name in listed {
            match read(file, &name) {
                Ok(one) => kept.all.extend(one),
                Err(e) => kept.unread.push(format!("{name} ({e})")),
            }
        }
        let is_usual = kept.unread.is_empty() && kept.all.iter().all(|one| is_usual(&one.name));
        (!is_usual).then_some(kept)
    }

    /// Those that the file then lacks, in words.
    ///
    /// # Errors
    /// If one that says who may read it cannot be set, as a label of SELinux: the file is then better not there.
    pub fn put_on(self, to: &File) -> io::Result<Vec<String>> {
        let mut lacking = self.unread;
        for one in self.all {
            match one.put_on(to) {
                Ok(()) => {}
                Err(e) if says_who(&one.name) => return Err(cannot_be_kept(&one.name, e)),
                Err(e) => lacking.push(format!("{} ({e})", one.name)),
            }
        }
        Ok(lacking)
    }
}

struct Attribute {
    name: String,
    value: Vec<u8>,
}

impl Attribute {
    fn put_on(&self, to: &File) -> rustix::io::Result<()> {
        // Where the file system itself makes what is on it, it does so alike, and nobody else may.
        if value(to, &self.name).is_ok_and(|there| there == self.value) {
            return Ok(());
        }
        rustix::fs::fsetxattr(to, &self.name, &self.value, XattrFlags::empty())
    }
}

/// `None`: it need not be kept.
fn read(file: &File, name: &str) -> rustix::io::Result<Option<Attribute>> {
    if OF_THE_TEXT.contains(&name) {
        return Ok(None);
    }
    match value(file, name) {
        // One that is gone meanwhile is not missed.
        Err(Errno::NODATA) => Ok(None),
        other => Ok(Some(Attribute { name: name.to_owned(), value: other? })),
    }
}

/// Whether without it somebody may read the file who could not before.
fn says_who(name: &str) -> bool {
    name.starts_with("security.") || name.starts_with("system.")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &str) -> Attribute {
        Attribute { name: name.into(), value: b"monday".to_vec() }
    }

    #[test]
    fn an_attribute_that_cannot_come_back_is_named_and_keeps_no_other_from_it() {
        let file = tempfile::tempfile().unwrap();
        let all = vec![note("of.no.kind"), note("user.backup")];
        let kept = Kept { all, unread: vec!["user.secret (EPERM)".into()] };
        let lacking = kept.put_on(&file).unwrap();
        assert!(lacking[0] == "user.secret (EPERM)" && lacking[1].starts_with("of.no.kind ("), "{lacking:?}");
        assert_eq!((lacking.len(), value(&file, "user.backup")), (2, Ok(b"monday".to_vec())));
        // Of one that says who may read it nothing less will do.
        let kept = Kept { all: vec![note("system.of_no_kind")], unread: Vec::new() };
        let why = kept.put_on(&file).unwrap_err().to_string();
        assert!(why.starts_with("its attribute system.of_no_kind cannot be kept: "), "{why}");
    }
}
