//! What a file or directory has besides its text, owner and mode: its label, lists of who may read it, flags of chattr(1).

use super::failed;
use plat_model::id::shorten;
use plat_model::problem::Problem;
use rustix::fd::AsFd;
use rustix::fs::{IFlags, XattrFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;

/// Those that the kernel makes of the text by itself: of another text they would be wrong.
const OF_THE_TEXT: [&CStr; 2] = [c"security.ima", c"security.evm"];

/// Lists of access control: who else may read it, or come in; and what is put on whatever is made in it.
const LISTS: [&str; 2] = ["system.posix_acl_access", DEFAULT_LIST];
const DEFAULT_LIST: &str = "system.posix_acl_default";

/// Takes the lists away that something new has from its directory: it is for whom its mode says.
pub(super) fn take_lists(of: impl AsFd) -> rustix::io::Result<()> {
    LISTS.iter().filter(|list| has(&of, list)).try_for_each(|list| match rustix::fs::fremovexattr(&of, *list) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(other) => Err(other),
    })
}

/// Whether a directory puts a list on whatever is made in it.
pub(super) fn hands_lists_on(directory: impl AsFd) -> bool {
    has(&directory, DEFAULT_LIST)
}

fn has(of: impl AsFd, name: &str) -> bool {
    rustix::fs::fgetxattr(of, name, &mut [0u8; 0]).is_ok()
}

/// Gives a new file without a text what there must be before it has one, of the file that it replaces: flags of chattr(1). It
/// has nothing of its directory's.
///
/// # Errors
/// If they cannot be set: the file is then better not replaced.
pub(super) fn copy_flags(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    Flags::of(from).put_on(to).map_err(|e| io::Error::other(format!("its flags (`lsattr`) cannot be kept: {e}")))
}

/// Gives a new file, which has none of its directory's lists any more ([`take_lists`]), the extended attributes of the one that it
/// replaces.
///
/// # Errors
/// If one cannot be read or set: the file is then better not replaced.
pub(super) fn copy(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let (from, to) = (&from, &to);
    names(from)?.into_iter().try_for_each(|name| {
        let one = read(from, &name).map_err(|e| cannot_be_kept(&name, e))?;
        one.map_or(Ok(()), |one| one.put_on(to).map_err(|e| cannot_be_kept(&name, e)))
    })
}

/// What is to be told of something that came back without these.
pub(super) fn without(path: &Path, lacking: &[String]) -> Option<Problem> {
    let what = || format!("{} does not get back all that it had", path.display());
    let why = || format!("it is there without its attributes {}", lacking.join(", "));
    (!lacking.is_empty()).then(|| failed(what(), why()))
}

fn cannot_be_kept(name: &CStr, e: Errno) -> io::Error {
    io::Error::other(format!("its attribute {} cannot be kept: {e}", shown(name)))
}

/// A name is any bytes, and may be a partition's user's.
fn shown(name: &CStr) -> String {
    shorten(&name.to_string_lossy())
}

/// Flags of chattr(1) but those that keep it from being changed, and what is a project's: who sees to these is elsewhere.
#[derive(Clone, Copy, Default)]
struct Flags(Option<IFlags>);

impl Flags {
    const MEANT: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND).union(IFlags::PROJECT_INHERIT).complement();

    /// `None` in it: its file system knows none.
    fn of(file: impl AsFd) -> Self {
        Self(ioctl_getflags(file).ok().map(|flags| flags & Self::MEANT))
    }

    fn has_none(self) -> bool {
        self.0.is_none_or(|flags| flags.is_empty())
    }

    fn put_on(self, to: impl AsFd) -> rustix::io::Result<()> {
        let Self(Some(wanted)) = self else { return Ok(()) };
        let now = match ioctl_getflags(&to) {
            Err(_) if wanted.is_empty() => return Ok(()),
            now => now?,
        };
        if now & Self::MEANT == wanted {
            return Ok(());
        }
        ioctl_setflags(&to, (now - Self::MEANT) | wanted)?;
        // Some are passed over in silence.
        if Self::of(&to).0 == Some(wanted) { Ok(()) } else { Err(Errno::OPNOTSUPP) }
    }
}

/// What something had that is gone by now.
#[derive(Default)]
pub(super) struct Kept {
    flags: Flags,
    all: Vec<Attribute>,
    /// What could not be read, in words.
    unread: Vec<String>,
}

impl Kept {
    /// `room`: how many bytes there may be, and then how many more.
    pub fn of(file: impl AsFd, room: &mut usize) -> Self {
        let mut kept = Self { flags: Flags::of(&file), ..Self::default() };
        let listed = names(&file).unwrap_or_else(|e| {
            kept.unread.push(format!("that cannot be listed ({e})"));
            Vec::new()
        });
        let mut left_out = 0;
        for name in listed {
            match read(&file, &name) {
                Ok(None) => {}
                Ok(Some(one)) => match room.checked_sub(name.count_bytes() + one.value.len()) {
                    Some(left) => {
                        *room = left;
                        kept.all.push(one);
                    }
                    None => left_out += 1,
                },
                Err(e) => kept.unread.push(format!("{} ({e})", shown(&name))),
            }
        }
        kept.unread.extend((left_out > 0).then(|| format!("that are too long ({left_out})")));
        kept
    }

    /// Gives something new what there must be before it holds anything.
    pub fn begin(&mut self, to: impl AsFd) {
        let problem = self.flags.put_on(to).err();
        self.unread.extend(problem.map(|e| format!("of `lsattr` ({e})")));
    }

    /// Those that it then lacks, in words.
    ///
    /// # Errors
    /// If one that says who may read it cannot be set, as a label of SELinux: it is then better not there.
    pub fn put_on(self, to: impl AsFd) -> io::Result<Vec<String>> {
        let mut lacking = self.unread;
        for one in self.all {
            match one.put_on(&to) {
                Ok(()) => {}
                Err(e) if says_who(&one.name) => return Err(cannot_be_kept(&one.name, e)),
                Err(e) => lacking.push(format!("{} ({e})", shown(&one.name))),
            }
        }
        Ok(lacking)
    }
}

struct Attribute {
    name: CString,
    value: Vec<u8>,
}

impl Attribute {
    fn put_on(&self, to: impl AsFd) -> rustix::io::Result<()> {
        // Where the file system itself makes what is on it, it does so alike, and nobody else may.
        if value(&to, &self.name).is_ok_and(|there| there == self.value) {
            return Ok(());
        }
        rustix::fs::fsetxattr(to, self.name.as_c_str(), &self.value, XattrFlags::empty())
    }
}

/// `None`: it need not be kept.
fn read(file: impl AsFd, name: &CStr) -> rustix::io::Result<Option<Attribute>> {
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
fn says_who(name: &CStr) -> bool {
    [b"security.".as_slice(), b"system."].iter().any(|kind| name.to_bytes().starts_with(kind))
}

/// Whether a file has nothing but what every program keeps, or the kernel makes anew: a label of SELinux. Of what cannot be listed
/// there is none.
pub(super) fn is_usual(file: impl AsFd) -> bool {
    let is_kept = |name: &CString| name.as_c_str() == c"security.selinux" || OF_THE_TEXT.contains(&name.as_c_str());
    Flags::of(&file).has_none() && names(&file).is_ok_and(|names| names.iter().all(is_kept))
}

fn names(file: impl AsFd) -> io::Result<Vec<CString>> {
    let length = match rustix::fs::flistxattr_query(&file) {
        Ok(length) => length,
        // The file system knows no attributes.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut list = vec![0; length];
    let length = rustix::fs::flistxattr(&file, &mut list[..])?;
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(CString::new).collect::<Result<_, _>>()?)
}

fn value(file: impl AsFd, name: &CStr) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; rustix::fs::fgetxattr_query(&file, name)?];
    let length = rustix::fs::fgetxattr(&file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &CStr) -> Attribute {
        Attribute { name: name.to_owned(), value: b"monday".to_vec() }
    }

    #[test]
    fn a_name_is_any_bytes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let name = c"user.gr\xf6\xdfe";
        note(name).put_on(&from).unwrap();
        assert!(!is_usual(&from));
        copy(&from, &to).unwrap();
        assert_eq!(value(&to, name), Ok(b"monday".to_vec()));
        let again = tempfile::tempfile().unwrap();
        assert!(Kept::of(&from, &mut 1000).put_on(&again).unwrap().is_empty());
        assert_eq!(value(&again, name), Ok(b"monday".to_vec()));
    }

    #[test]
    fn an_attribute_that_cannot_come_back_is_named_and_keeps_no_other_from_it() {
        let file = tempfile::tempfile().unwrap();
        let all = vec![note(c"of.no.kind"), note(c"user.backup")];
        let kept = Kept { all, flags: Flags::default(), unread: vec!["user.secret (EPERM)".into()] };
        let lacking = kept.put_on(&file).unwrap();
        assert!(lacking[0] == "user.secret (EPERM)" && lacking[1].starts_with("of.no.kind ("), "{lacking:?}");
        assert_eq!((lacking.len(), value(&file, c"user.backup")), (2, Ok(b"monday".to_vec())));
        // Of one that says who may read it nothing less will do.
        let kept = Kept { all: vec![note(c"system.of_no_kind")], ..Kept::default() };
        let why = kept.put_on(&file).unwrap_err().to_string();
        assert!(why.starts_with("its attribute system.of_no_kind cannot be kept: "), "{why}");
    }

    #[test]
    fn only_so_much_is_kept_and_what_is_not_is_named() {
        let file = tempfile::tempfile().unwrap();
        for name in ["user.a", "user.b"] {
            rustix::fs::fsetxattr(&file, name, &[1; 100], XattrFlags::empty()).unwrap();
        }
        let mut room = 150;
        let kept = Kept::of(&file, &mut room);
        assert_eq!((kept.all.len(), room), (1, 44));
        assert_eq!(kept.unread, ["that are too long (1)"]);
    }
}
