//! Landlock: what a program may do with files, by where they are; and whom it may signal.

use super::{Bounds, Company, TEMPORARY};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// What is asked of the kernel; an older one enforces less of it.
const NEWEST: ABI = ABI::V6;

/// Restricts this process for good: nothing is read in what is `hidden`, but all beneath `reads`, which is open. What of it this
/// kernel does not enforce, if it does not all.
pub fn restrict(bounds: &Bounds, hidden: &[PathBuf], reads: Option<BorrowedFd<'_>>) -> io::Result<Option<String>> {
    let done = build(bounds, hidden, reads).map_err(io::Error::other)?;
    Ok(match done {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => Some("this kernel knows a part of it".into()),
        RulesetStatus::NotEnforced => Some("this kernel does not have it, or it is not switched on".into()),
    })
}

fn build(bounds: &Bounds, hidden: &[PathBuf], reads: Option<BorrowedFd<'_>>) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?;
    let rules = match bounds.company {
        Company::None => rules.scope(Scope::Signal | Scope::AbstractUnixSocket)?,
        Company::OfItsUser => rules,
    };
    let rules = rules.create()?;
    let mut rules = allow(rules, Path::new("/"), AccessFs::ReadDir.into())?;
    for path in beside(Path::new("/"), hidden).iter().chain(&bounds.readable) {
        rules = allow(rules, path, read)?;
    }
    if let Some(folder) = reads {
        rules = rules.add_rule(PathBeneath::new(folder, read))?;
    }
    rules = allow(rules, Path::new("/dev"), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)?;
    let temporary = TEMPORARY.map(PathBuf::from);
    for path in temporary.iter().chain(&bounds.writable) {
        rules = allow(rules, path, all)?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// What is not there is not allowed either.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    let Ok(place) = PathFd::new(path) else { return Ok(rules) };
    let is_folder = fs::metadata(path).is_ok_and(|about| about.is_dir());
    let access = if is_folder { access } else { access & AccessFs::from_file(NEWEST) };
    rules.add_rule(PathBeneath::new(place, access))
}

/// The fewest paths that are all of what is beneath `top` but what is hidden. A link is none: what it leads to has a place of
/// its own, which may be hidden.
fn beside(top: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    if hidden.iter().any(|path| path == top) {
        return Vec::new();
    }
    if !hidden.iter().any(|path| path.starts_with(top)) {
        return vec![top.to_owned()];
    }
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    entries.flat_map(|entry| beside(&entry.path(), hidden)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_what_is_hidden_is_as_few_paths_as_that_takes() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        for path in ["a/x", "a/secret/y", "b/z"] {
            fs::create_dir_all(top.join(path)).unwrap();
        }
        std::os::unix::fs::symlink(top.join("a/secret"), top.join("link")).unwrap();
        let mut found = beside(top, &[top.join("a/secret")]);
        found.sort();
        assert_eq!(found, [top.join("a/x"), top.join("b")]);
        assert_eq!(beside(top, &[]), [top]);
        assert!(beside(top, &[top.to_owned()]).is_empty());
    }
}
