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
    for name in names(from)? {
        if OF_THE_TEXT.contains(&name.as_str()) {
            continue;
        }
        let set = value(from, &name).and_then(|wanted| {
            // Where the file system itself labels what is on it, it does so alike, and nobody else may.
            if value(to, &name).is_ok_and(|there| there == wanted) {
                return Ok(());
            }
            rustix::fs::fsetxattr(to, &name, &wanted, XattrFlags::empty())
        });
        let says_who = name.starts_with("security.") || name.starts_with("system.posix_acl");
        match set {
            // One that is gone meanwhile is not missed.
            Err(e) if says_who && e != Errno::NODATA => {
                return Err(io::Error::other(format!("its attribute {name} cannot be kept: {e}")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file has no attribute but a label, which every program keeps. What cannot be listed is none.
pub(super) fn are_usual(file: &File) -> bool {
    names(file).is_ok_and(|names| names.iter().all(|name| name.starts_with("security.")))
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
