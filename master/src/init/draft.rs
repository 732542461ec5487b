//! What is made beside its place, and removed again unless all of it gets there.

use crate::keyfile::{self, unwritable};
use plat_model::Problem;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Folders above what is made, which were missing; removed again unless they are kept.
#[derive(Default)]
pub(super) struct Parents(Vec<PathBuf>);

impl Parents {
    /// Makes the folders above `path` that are missing, for all to pass.
    ///
    /// # Errors
    /// `KEY_FILE` if one cannot be made.
    pub fn above(&mut self, path: &Path) -> Result<(), Problem> {
        let path = std::path::absolute(path).map_err(|e| unwritable(path, e))?;
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        for folder in missing.into_iter().rev() {
            std::fs::create_dir(folder).map_err(|e| unwritable(folder, e))?;
            self.0.push(folder.to_owned());
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(folder, mode).map_err(|e| unwritable(folder, e))?;
            folder.parent().map_or(Ok(()), keyfile::sync_folder)?;
        }
        Ok(())
    }

    pub fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // One that somebody else uses by now is not empty, and stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// A folder beside its place, or in it: removed again unless it is kept.
pub(super) struct Draft {
    pub path: PathBuf,
    place: PathBuf,
    kept: bool,
}

impl Draft {
    /// # Errors
    /// `KEY_FILE` if it cannot be made.
    pub fn new(place: &Path, parents: &mut Parents) -> Result<Self, Problem> {
        let place = std::path::absolute(place).map_err(|e| unwritable(place, e))?;
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(unwritable(&place, "it has no name"));
        };
        parents.above(&place)?;
        let mut draft = OsString::from(".");
        draft.push(name);
        draft.push(format!(".new-{}", std::process::id()));
        let path = parent.join(draft);
        keyfile::make_folder(&path)?;
        Ok(Self { path, place, kept: false })
    }

    /// # Errors
    /// `KEY_FILE` if it cannot be moved there.
    pub fn place(&mut self) -> Result<(), Problem> {
        keyfile::sync_folder(&self.path)?;
        std::fs::rename(&self.path, &self.place).map_err(|e| unwritable(&self.place, e))?;
        self.path.clone_from(&self.place);
        self.place.parent().map_or(Ok(()), keyfile::sync_folder)
    }

    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Gives a folder with all that is in it to a user. The folder itself comes last: while it is still this process's own,
/// nobody else can enter it and exchange what is being given.
///
/// # Errors
/// `KEY_FILE` if the system refuses, as it does to all but root.
pub(super) fn give(path: &Path, owner: (u32, u32)) -> Result<(), Problem> {
    let wrong = |e: std::io::Error| {
        Problem::new(
            plat_model::problem::codes::KEY_FILE,
            format!("`{}` cannot be given to uid {}", path.display(), owner.0),
        )
        .because(e)
        .fix("run it as root")
    };
    if path.symlink_metadata().map_err(wrong)?.is_dir() {
        for entry in std::fs::read_dir(path).map_err(wrong)? {
            give(&entry.map_err(wrong)?.path(), owner)?;
        }
    }
    std::os::unix::fs::lchown(path, Some(owner.0), Some(owner.1)).map_err(wrong)
}
