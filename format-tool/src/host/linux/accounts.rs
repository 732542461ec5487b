//! Users and groups: made by one call of systemd-sysusers (useradd where it is missing), removed by rewriting the user
//! database under its lock. userdel takes 87 ms for each user and scans every process each time; what it checks, the
//! planner has checked.

mod database;

use super::directories::Tree;
use super::{failed, program};
use crate::host::Outcome;
use database::{Accounts, Etc, SHELL, Texts, identity, left, number};
pub use database::{Entries, Moved};
use node_format_plan::action::User;
use node_format_plan::facts::{GroupFact, Left, Subordinate, UserFact};
use node_format_plan::{Action, Thing};
use plat_model::problem::{Problem, Result, codes};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Who there is, as it is in files.
#[derive(Default)]
pub(super) struct Found {
    pub users: BTreeMap<String, UserFact>,
    pub groups: BTreeMap<String, GroupFact>,
    pub other_lists: BTreeMap<String, BTreeSet<String>>,
    pub other_uids: BTreeMap<String, BTreeSet<u32>>,
    pub other_gids: BTreeMap<String, BTreeSet<u32>>,
    pub left_in_shadow: BTreeMap<String, Left>,
    pub left_in_gshadow: BTreeMap<String, Left>,
    pub subordinate_uids: BTreeSet<Subordinate>,
    pub subordinate_gids: BTreeSet<Subordinate>,
}

/// Reads the user database of a root file system.
pub(super) fn observe(root: &Path, tree: &Tree) -> Result<Found> {
    let etc = Etc::open(root, tree)?;
    etc.check()?;
    read(&etc)
}

fn read(etc: &Etc) -> Result<Found> {
    let fields = |line: &str| database::fields(line).map(str::to_owned).collect::<Vec<_>>();
    let mut accounts = Found::default();
    for line in etc.read("passwd")?.lines() {
        // For the C library it may end behind the numbers.
        if let [name, _, uid, gid, rest @ ..] = fields(line).as_slice()
            && let (Some(uid), Some(gid)) = (number(uid), number(gid))
        {
            let home = rest.get(1).map(Into::into).unwrap_or_default();
            let before = accounts.users.insert(name.clone(), UserFact { uid, gid, home });
            if let Some(before) = before {
                accounts.other_uids.entry(name.clone()).or_default().insert(before.uid);
            }
        }
    }
    let groups = etc.read("group")?;
    for line in groups.lines() {
        match fields(line).as_slice() {
            // A long list goes on in a further line of the name.
            [name, _, gid, members] if let Some(gid) = number(gid) => {
                let group = || GroupFact { gid, ..GroupFact::default() };
                accounts.groups.entry(name.clone()).or_insert_with(group).members.extend(listed(members));
            }
            [name, _, _, lists @ ..] => {
                accounts
                    .other_lists
                    .entry(name.clone())
                    .or_default()
                    .extend(lists.iter().flat_map(|list| listed(list)));
            }
            _ => {}
        }
    }
    for (name, gid) in groups.lines().filter_map(identity) {
        accounts.other_gids.entry(name.to_owned()).or_default().insert(gid);
    }
    let (users, groups) = (&accounts.users, &accounts.groups);
    besides(&mut accounts.other_uids, |name| users.get(name).map(|user| user.uid));
    besides(&mut accounts.other_gids, |name| groups.get(name).map(|group| group.gid));
    // Nobody else may read them, and nobody else makes users.
    let secret = |name| if rustix::process::geteuid().is_root() { etc.read(name) } else { Ok(String::new()) };
    let (shadow, gshadow) = (secret("shadow")?, secret("gshadow")?);
    accounts.left_in_shadow = left("shadow", &shadow, |name| accounts.users.contains_key(name));
    accounts.left_in_gshadow = left("gshadow", &gshadow, |name| accounts.groups.contains_key(name));
    for line in gshadow.lines() {
        if let [name, _, lists @ ..] = fields(line).as_slice() {
            let named = lists.iter().flat_map(|list| listed(list));
            match accounts.groups.get_mut(name) {
                Some(group) => group.in_shadow.extend(named),
                None => accounts.other_lists.entry(name.clone()).or_default().extend(named),
            }
        }
    }
    accounts.other_lists.retain(|_, names| !names.is_empty());
    accounts.subordinate_uids = subordinate(&etc.read("subuid")?);
    accounts.subordinate_gids = subordinate(&etc.read("subgid")?);
    Ok(accounts)
}

/// Leaves those that are not a name's own.
fn besides(numbers: &mut BTreeMap<String, BTreeSet<u32>>, own: impl Fn(&str) -> Option<u32>) {
    numbers.retain(|name, of| {
        own(name).map(|own| of.remove(&own));
        !of.is_empty()
    });
}

/// The names in a list of group(5) or gshadow(5).
fn listed(list: &str) -> impl Iterator<Item = String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The ranges of subuid(5) and subgid(5).
fn subordinate(text: &str) -> BTreeSet<Subordinate> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?.to_owned();
        Some(Subordinate { owner, first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? })
    };
    text.lines().filter_map(range).collect()
}

/// The programs it starts keep `held` open. Accounts of which `taken` has lines come back as they were. Of one that cannot be
/// made as it was to be, nothing is left.
pub(super) fn add(root: &Path, tree: &Tree, batch: &[Action], held: Option<&File>, taken: &Entries) -> Outcome {
    let opened = Etc::open(root, tree).and_then(|etc| etc.check().and_then(|()| Ok((etc.texts()?, etc))));
    let (before, etc) = match opened {
        Ok(opened) => opened,
        Err(problem) => return Outcome::first(0, batch.len(), Some(problem)),
    };
    let known = taken.accounts();
    let (back, new): (Vec<&Action>, Vec<&Action>) = batch.iter().partition(|action| match action {
        Action::AddUser(user) => known.users.contains(&(user.name.as_str(), user.uid)),
        Action::AddGroup { name, gid, .. } => known.groups.contains(&(name.as_str(), *gid)),
        _ => false,
    });
    let came_back = if back.is_empty() { Ok(()) } else { etc.put(taken, &accounts_of(&back)) };
    let result = came_back.and_then(|()| if new.is_empty() { Ok(()) } else { make(&etc, root, &new, held) });
    let outcome = settle(&etc, batch, result);
    if outcome.done.len() == batch.len() && outcome.done.iter().all(|done| *done) {
        return outcome;
    }
    unmake(&etc, &before, batch, outcome)
}

/// Where that fails all of them count as made, so that undoing tries again by their names.
fn unmake(etc: &Etc, before: &Texts, batch: &[Action], outcome: Outcome) -> Outcome {
    let Err(left) = etc.unmake(before, batch) else { return outcome };
    let left = format!("what there is of accounts that were not made whole cannot be taken away: {}", left.one_line());
    let problem = match outcome.problem {
        Some(problem) => Problem { why: format!("{}; {left}", problem.why), ..problem },
        None => failed("users cannot be made", left),
    };
    Outcome { done: vec![true; batch.len()], problem: Some(problem) }
}

/// By the system's own programs, which write the files anew: where they would lose or change somebody's lines, or what a file
/// has besides, they are only added to.
fn make(etc: &Etc, root: &Path, new: &[&Action], held: Option<&File>) -> Result<()> {
    match program::command("systemd-sysusers") {
        _ if !etc.is_plain()? => etc.put_new(&Entries::new(new), &accounts_of(new)),
        Ok(command) => {
            sysusers(command, root, new, held).unwrap_or_else(|e| Err(failed("systemd-sysusers cannot be started", e)))
        }
        Err(_) => useradd(root, new, held),
    }
}

fn accounts_of<'a>(actions: &[&'a Action]) -> Accounts<'a> {
    Accounts::of(actions.iter().copied())
}

/// Takes away what a run that was killed left of writing the database, and of accounts that are forgotten.
pub(super) fn clear(root: &Path, tree: &Tree, forgotten: &[Thing]) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(()); // Such a run makes no users.
    }
    let mut accounts = Accounts::default();
    for thing in forgotten {
        match thing {
            Thing::User { name, uid } => drop(accounts.users.insert((name, *uid))),
            Thing::Group { name, gid } => drop(accounts.groups.insert((name, *gid))),
            _ => {}
        }
    }
    match Etc::open(root, tree) {
        // Nor does one that cannot use it.
        Err(_) if accounts.users.is_empty() && accounts.groups.is_empty() => Ok(()),
        etc => etc?.clear(&accounts),
    }
}

/// What it takes out is added to `taken`.
pub(super) fn remove(root: &Path, tree: &Tree, batch: &[Action], taken: &mut Entries) -> Outcome {
    let etc = match Etc::open(root, tree) {
        Ok(etc) => etc,
        Err(problem) => return Outcome::first(0, batch.len(), Some(problem)),
    };
    let result = etc.remove(&Accounts::of(batch.iter())).map(|entries| taken.extend(entries));
    settle(&etc, batch, result)
}

/// What is known of users but their number, which others may have written too.
pub(super) fn set(root: &Path, tree: &Tree, batch: &[Action], moved: &mut Moved) -> Outcome {
    let changes: Vec<(&User, &User)> = batch
        .iter()
        .filter_map(|action| match action {
            Action::SetUser { from, to } => Some((from, to)),
            _ => None,
        })
        .collect();
    match Etc::open(root, tree) {
        Ok(etc) => settle(&etc, batch, etc.set(&changes, moved)),
        Err(problem) => Outcome::first(0, batch.len(), Some(problem)),
    }
}

/// Which actions of the batch took effect: asked of the database, for a program that failed does not say. Where it cannot be
/// asked, nobody knows.
fn settle(etc: &Etc, batch: &[Action], result: Result<()>) -> Outcome {
    let accounts = match read(etc) {
        Ok(accounts) => accounts,
        Err(problem) => return Outcome { done: Vec::new(), problem: Some(problem) },
    };
    let has_user = |name: &str, uid: u32| accounts.users.get(name).is_some_and(|found| found.uid == uid);
    let has_group = |name: &str, gid: u32| accounts.groups.get(name).is_some_and(|found| found.gid == gid);
    // Of whom there is no more a user.
    let lists = accounts.groups.values().flat_map(|group| group.members.iter().chain(&group.in_shadow));
    let listed: BTreeSet<&String> = lists.chain(accounts.other_lists.values().flatten()).collect();
    let lingers = |name: &String| {
        !accounts.users.contains_key(name) && (listed.contains(name) || accounts.left_in_shadow.contains_key(name))
    };
    let done: Vec<bool> = batch
        .iter()
        .map(|action| match action {
            Action::AddUser(user) => {
                has_user(&user.name, user.uid) && accounts.users.get(&user.name).is_some_and(|u| u.gid == user.gid)
            }
            Action::RemoveUser(user) => !has_user(&user.name, user.uid) && !lingers(&user.name),
            Action::SetUser { to, .. } => {
                let found = UserFact { uid: to.uid, gid: to.gid, home: to.home.clone() };
                accounts.users.get(&to.name) == Some(&found)
                    && accounts
                        .groups
                        .iter()
                        .all(|(name, group)| group.members.contains(&to.name) == to.groups.contains(name))
            }
            Action::AddGroup { name, gid, .. } => has_group(name, *gid),
            Action::RemoveGroup { name, gid, .. } => !has_group(name, *gid),
            _ => false,
        })
        .collect();
    let missed = done.iter().position(|done| !done).map(|n| &batch[n]);
    let problem = result.err().or_else(|| {
        let text = node_format_plan::describe(missed?);
        let why = "the user database says otherwise now: somebody else may have changed it at the same moment";
        Some(failed(format!("`{text}` had no effect"), why))
    });
    Outcome { done, problem }
}

/// The sysusers.d file that makes these accounts, every number said.
fn sysusers_file(batch: &[&Action]) -> String {
    let mut text = String::from("# Generated by node-format.\n");
    for action in batch {
        match action {
            Action::AddGroup { name, gid, .. } => text.push_str(&format!("g {name} {gid}\n")),
            Action::AddUser(User { name, uid, gid, home, groups }) => {
                text.push_str(&format!("u {name} {uid}:{gid} \"Plat\" \"{}\" {SHELL}\n", home.display()));
                groups.iter().for_each(|group| text.push_str(&format!("m {name} {group}\n")));
            }
            _ => {}
        }
    }
    text
}

fn sysusers(mut command: Command, root: &Path, batch: &[&Action], held: Option<&File>) -> std::io::Result<Result<()>> {
    let mut root_option = std::ffi::OsString::from("--root=");
    root_option.push(root);
    command.arg(root_option).arg("-").stdout(Stdio::null());
    Ok(program::run(&mut command, &sysusers_file(batch), held)?.map(drop))
}

/// One call for each; only where systemd-sysusers is missing.
fn useradd(root: &Path, batch: &[&Action], held: Option<&File>) -> Result<()> {
    let lacking = |e: std::io::Error| {
        Problem::new(codes::APPLY_FAILED, "users cannot be made")
            .because(format!("neither systemd-sysusers nor useradd can be started: {e}"))
            .fix("install systemd-sysusers (package systemd) or passwd")
    };
    for action in batch {
        let mut command = match action {
            Action::AddGroup { name, gid, .. } => {
                let mut command = program::command("groupadd").map_err(lacking)?;
                command.arg("--prefix").arg(root).arg("--gid").arg(gid.to_string()).arg(name);
                command
            }
            Action::AddUser(user) => {
                let mut command = program::command("useradd").map_err(lacking)?;
                command.arg("--prefix").arg(root).args(["--system", "--no-create-home", "--no-user-group"]);
                // The log of logins is the running machine's, whatever the prefix.
                command.args(["--no-log-init", "--shell", SHELL]).arg("--uid").arg(user.uid.to_string()).arg("--gid");
                command.arg(user.gid.to_string()).arg("--home-dir").arg(&user.home);
                if !user.groups.is_empty() {
                    command.arg("--groups").arg(user.groups.iter().cloned().collect::<Vec<_>>().join(","));
                }
                command.arg(&user.name);
                command
            }
            _ => continue,
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = program::spawn(&mut command, held).and_then(Child::wait_with_output).map_err(lacking)?;
        program::said(&command.get_program().to_string_lossy(), &output)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_for_user_namespaces_are_read() {
        let text = "bob:100000:65536\n# nobody\n1000:1:2\nann:x:1\n";
        let range = |owner: &str, first, count| Subordinate { owner: owner.into(), first, count };
        assert_eq!(subordinate(text), BTreeSet::from([range("bob", 100_000, 65_536), range("1000", 1, 2)]));
    }

    fn read_of(passwd: &str, group: &str) -> Found {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), group).unwrap();
        observe(root.path(), &Tree::open(root.path()).unwrap()).unwrap()
    }

    #[test]
    fn lines_are_read_as_the_c_library_reads_them() {
        let found = read_of(
            "bob:x: 63000:\t+7::/home/bob:\n \tann:x:+063001:1\neve:x:63002 :1::/:\nmax:x:4294967296:1::/:\nleast:x:-2:1::/:\nno:x::1::/:\n",
            " www:x:\t63003:bob\nodd:x:6x:\n",
        );
        let user = |uid, gid, home: &str| UserFact { uid, gid, home: home.into() };
        let users = [("bob", user(63_000, 7, "/home/bob")), ("ann", user(63_001, 1, ""))];
        assert_eq!(found.users, users.map(|(name, fact)| (name.to_owned(), fact)).into());
        let www = GroupFact { gid: 63_003, members: ["bob".to_owned()].into(), ..GroupFact::default() };
        assert_eq!(found.groups, [("www".to_owned(), www)].into());
        assert_eq!((found.other_uids, found.other_gids), Default::default());
    }

    #[test]
    fn the_numbers_of_all_lines_are_known() {
        let found = read_of(
            "bob:x:63000:1::/:\nbob:x:63001:1::/:\nbob:x:63001:2::/:\n",
            "www:x:33:ann\nwww:x:63002:bob\nwww:x:33:eve\nodd:x:63003::\nshort:x:63004\nnone:x::ann:bob\n",
        );
        assert_eq!(found.users["bob"].uid, 63_001);
        assert_eq!(found.other_uids, [("bob".to_owned(), [63_000].into())].into());
        let gids = [(63_002, "www"), (63_003, "odd"), (63_004, "short")];
        assert_eq!(found.other_gids, gids.map(|(gid, name)| (name.to_owned(), [gid].into())).into());
    }
}
