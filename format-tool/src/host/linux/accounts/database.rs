//! The four files of the user database, rewritten whole beneath the lock that every tool on them takes
//! (`/etc/.pwd.lock`, as lckpwdf), each replaced by one rename.

use super::super::failed;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use plat_model::problem::{Problem, Result, codes};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest file of the user database that is read, in bytes.
const SIZE_MAX: u64 = 64 << 20;
/// How long another program may hold the database, as lckpwdf(3) waits.
const LOCK_MAX: Duration = Duration::from_secs(15);
/// How often it is tried.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn read(root: &Path, name: &str) -> Result<String> {
    let path = root.join("etc").join(name);
    let wrong = |why: String| Problem::new(codes::FILE, format!("{} cannot be read", path.display())).because(why);
    match fs::metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Ok(found) if found.len() > SIZE_MAX => return Err(wrong("it is larger than 64 MiB".into())),
        _ => {}
    }
    // Names and numbers are ASCII; a comment in another encoding must survive a rewrite, so it is refused, not mangled.
    fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))
}

/// Takes users and groups out of every file. The file that says whether there is such a user, or such a group, is
/// rewritten last: whoever was killed before is done with only then.
pub(super) fn remove(root: &Path, users: &BTreeSet<&str>, groups: &BTreeSet<&str>) -> Result<()> {
    let _lock = lock(root)?;
    for (name, gone) in [("shadow", users), ("gshadow", groups), ("group", groups), ("passwd", users)] {
        let text = read(root, name)?;
        let new = without(&text, gone, users, name);
        if new != text {
            let path = root.join("etc").join(name);
            replace(&path, &new).map_err(|e| failed(format!("cannot rewrite {}", path.display()), e))?;
        }
    }
    Ok(())
}

/// The file without the lines of `gone`, and without `users` as members (group, gshadow) or administrators (gshadow).
fn without(text: &str, gone: &BTreeSet<&str>, users: &BTreeSet<&str>, file: &str) -> String {
    let from = match file {
        "group" => 3,
        "gshadow" => 2,
        _ => usize::MAX,
    };
    let kept = text.lines().filter(|line| !gone.contains(line.split(':').next().unwrap_or_default()));
    kept.map(|line| {
        let fields = line.split(':').enumerate().map(|(n, field)| {
            if n < from || !field.split(',').any(|member| users.contains(member)) {
                return field.to_owned();
            }
            field.split(',').filter(|member| !users.contains(member)).collect::<Vec<_>>().join(",")
        });
        fields.collect::<Vec<_>>().join(":") + "\n"
    })
    .collect()
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("etc/.pwd.lock");
    let wrong = |why: String| failed(format!("the user database cannot be locked ({})", path.display()), why);
    let mut options = OpenOptions::new();
    let file =
        options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(|e| wrong(e.to_string()))?;
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let start = Instant::now();
    loop {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
            Ok(_) => return Ok(file),
            Err(e) if !matches!(e, Errno::EAGAIN | Errno::EACCES) => return Err(wrong(e.to_string())),
            Err(e) if start.elapsed() > LOCK_MAX => return Err(wrong(format!("another program holds it ({e})"))),
            Err(_) => std::thread::park_timeout(LOOK_EVERY),
        }
    }
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let old = fs::metadata(path)?;
    let new = path.with_extension("plat-new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fchown(&file, Some(old.uid()), Some(old.gid()))?;
    file.set_permissions(old.permissions())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_taken_out() {
        let users = BTreeSet::from(["part1"]);
        let passwd = "root:x:0:0::/root:/bin/sh\npart1:x:1:1::/:/x\npart10:x:2:2:part1:/:/x\n";
        assert_eq!(without(passwd, &users, &users, "passwd"), passwd.replace("part1:x:1:1::/:/x\n", ""));
        let group = "kvm:x:5:part1,part10,ann\npart1:x:1:\nw:x:7:part1\n";
        assert_eq!(without(group, &users, &users, "group"), "kvm:x:5:part10,ann\nw:x:7:\n");
        assert_eq!(without("kvm:!:part1:part1,a\n", &BTreeSet::new(), &users, "gshadow"), "kvm:!::a\n");
    }
}
