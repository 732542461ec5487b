//! Where what is to be hidden really is: found before anything covers the way to it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The places of those that there are; links are followed to what they lead to.
///
/// # Errors
/// If it cannot be told where one is: the program could see it.
pub fn places<'a>(paths: impl Iterator<Item = &'a Path>) -> io::Result<Vec<PathBuf>> {
    let is_root = nix::unistd::geteuid().is_root();
    let place = |path: &Path| match fs::canonicalize(path) {
        Ok(place) => Some(Ok(place)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        // A program of the same user does not come there either.
        Err(e) if e.kind() == ErrorKind::PermissionDenied && !is_root => None,
        Err(e) => Some(Err(io::Error::new(e.kind(), format!("{} cannot be looked for: {e}", path.display())))),
    };
    paths.filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_is_where_it_leads_what_is_not_there_is_nowhere_and_what_cannot_be_told_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        fs::create_dir(top.join("real")).unwrap();
        symlink(top.join("real"), top.join("link")).unwrap();
        symlink(top.join("nowhere"), top.join("dangling")).unwrap();
        symlink("round", top.join("round")).unwrap();
        let of = |names: &[&str]| {
            let paths: Vec<PathBuf> = names.iter().map(|name| top.join(name)).collect();
            places(paths.iter().map(PathBuf::as_path))
        };
        assert_eq!(of(&["link", "dangling", "nothing/at/all"]).unwrap(), [top.join("real")]);
        let problem = of(&["real", "round"]).unwrap_err();
        assert!(problem.to_string().contains("round cannot be looked for"), "{problem}");
    }
}
