//! The folder that a development grid lives in, and the account that it runs as.

use super::prerequisite;
use crate::args::DevArgs;
use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};
use plat_model::problem::codes;
use plat_model::{Problem, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How many names are tried for a temporary folder.
const FRESH_TRIES: usize = 16;

pub struct Place {
    root: PathBuf,
    /// It is this run's own, and goes with it.
    temporary: bool,
}

impl Place {
    pub fn make(args: &DevArgs) -> Result<Self> {
        let root = Uid::effective().is_root();
        if args.format && !root {
            return Err(prerequisite(
                "--format needs root",
                "it makes users, links and addresses",
                "run `sudo plat dev --format`, or leave --format out",
            ));
        }
        let (place, made) = match &args.folder {
            Some(folder) => {
                let folder = std::path::absolute(folder).map_err(|e| failed(folder, &e))?;
                let place = Self { root: folder, temporary: false };
                let made = place.root.symlink_metadata().is_err();
                place.folder(&place.root)?;
                (place, made)
            }
            None => (Self { root: fresh(&std::env::temp_dir())?, temporary: true }, true),
        };
        if root && !args.format {
            drop_rights(made.then_some(&place.root))?;
        }
        // After the rights were dropped: it must be the account's that the grid runs as.
        trust(&place.root)?;
        Ok(place)
    }

    /// Makes a folder that only this account can read. One that is there stays.
    pub fn folder(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
            fs::create_dir_all(parent).map_err(|e| failed(parent, &e))?;
        }
        DirBuilder::new().mode(0o700).create(path).map_err(|e| failed(path, &e))
    }

    /// Writes a file that the daemons may read.
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).map_err(|e| failed(path, &e))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn profile(&self) -> PathBuf {
        self.path("profile")
    }

    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Removes the folder if it was this run's own.
    pub fn remove(&self) -> Result<()> {
        if !self.temporary {
            return Ok(());
        }
        open_up(&self.root);
        fs::remove_dir_all(&self.root).map_err(|e| failed(&self.root, &e))
    }
}

/// Makes a folder with a name that nobody can foretell, in one that every account may write in: one that is there
/// already is somebody else's and is left alone. Its name is short, for those of Unix sockets must fit in 107 bytes.
fn fresh(parent: &Path) -> Result<PathBuf> {
    for _ in 0..FRESH_TRIES {
        let random = getrandom::u32().map_err(|e| prerequisite("there are no random numbers", e, "try again"))?;
        let path = parent.join(format!("plat-dev-{random:08x}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(&path, &e)),
        }
    }
    Err(failed(parent, &std::io::ErrorKind::AlreadyExists.into()))
}

/// A folder in which another account could put or change files would let it choose the grid's keys and binaries.
fn trust(folder: &Path) -> Result<()> {
    let about = folder.symlink_metadata().map_err(|e| failed(folder, &e))?;
    let why = if !about.is_dir() {
        "it is a link or a file"
    } else if about.uid() != Uid::effective().as_raw() {
        "it belongs to another account"
    } else if about.mode() & 0o022 != 0 {
        "its group or every account may write in it"
    } else {
        return Ok(());
    };
    Err(Problem::new(codes::FILE, format!("{} is not safe for a grid's keys", folder.display()))
        .because(why)
        .fix("name a folder of your own with --folder, that only you may write in"))
}

/// Releases are published read-only; their owner must be allowed to write in a folder to empty it.
fn open_up(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(entries) = fs::read_dir(folder) else { return };
    // What fails here fails again in the removal, which says so.
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Problem {
    Problem::new(codes::FILE, format!("cannot use {}", path.display()))
        .because(e)
        .fix("name another folder with --folder")
}

/// Root runs plat, and nothing of the host is to be touched: from here on this process, and all that it starts, is an
/// account without rights. Root never writes in the folder, which that account controls.
fn drop_rights(made: Option<&PathBuf>) -> Result<()> {
    let (uid, gid) = unprivileged()?;
    if let Some(folder) = made {
        std::os::unix::fs::lchown(folder, Some(uid.as_raw()), Some(gid.as_raw())).map_err(|e| failed(folder, &e))?;
    }
    let dropped = setgroups(&[gid]).and_then(|()| setgid(gid)).and_then(|()| setuid(uid));
    dropped.map_err(|e| {
        prerequisite("root's rights cannot be dropped", e, "run plat as an ordinary user, or add --format")
    })
}

/// The user behind sudo, else `nobody`.
fn unprivileged() -> Result<(Uid, Gid)> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok()).filter(|id| *id != 0);
    if let (Some(uid), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID")) {
        return Ok((Uid::from_raw(uid), Gid::from_raw(gid)));
    }
    match User::from_name("nobody") {
        Ok(Some(User { uid, gid, .. })) if !uid.is_root() && gid.as_raw() != 0 => Ok((uid, gid)),
        _ => Err(prerequisite(
            "there is no account to run as",
            "root runs plat, and there is no user `nobody`",
            "run plat as an ordinary user, or add --format",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_folder_is_only_ours_and_never_one_that_was_there() {
        let parent = tempfile::tempdir().unwrap();
        let (one, two) = (fresh(parent.path()).unwrap(), fresh(parent.path()).unwrap());
        assert_ne!(one, two);
        assert_eq!(fs::metadata(&one).unwrap().mode() & 0o777, 0o700);
        trust(&one).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_in_or_that_is_a_link_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let open = fresh(parent.path()).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(trust(&open).unwrap_err().to_string().contains("write in it"));
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(fresh(parent.path()).unwrap(), &link).unwrap();
        assert!(trust(&link).unwrap_err().to_string().contains("a link"));
        if !Uid::effective().is_root() {
            assert!(trust(Path::new("/")).unwrap_err().to_string().contains("another account"));
        }
    }
}
