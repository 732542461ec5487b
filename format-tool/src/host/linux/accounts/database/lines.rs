//! The four files as lines: which of them go, come back or change. Every other line stays as it is to the byte.

use node_format_plan::Action;
use node_format_plan::action::User;
use node_format_plan::facts::Left;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// A user or group by what it is known by.
pub type Identity<'a> = (&'a str, u32);

/// That of new users: nobody can log in.
pub const SHELL: &str = "/usr/sbin/nologin";

/// The text of each file.
pub type Texts = BTreeMap<&'static str, String>;

/// The users and groups that are meant.
#[derive(Default)]
pub struct Accounts<'a> {
    pub users: BTreeSet<Identity<'a>>,
    pub groups: BTreeSet<Identity<'a>>,
}

impl<'a> Accounts<'a> {
    /// Those that these actions add or remove.
    pub fn of(actions: impl Iterator<Item = &'a Action>) -> Self {
        let mut accounts = Self::default();
        for action in actions {
            match action {
                Action::AddUser(user) | Action::RemoveUser(user) => drop(accounts.users.insert((&user.name, user.uid))),
                Action::AddGroup { name, gid, .. } | Action::RemoveGroup { name, gid, .. } => {
                    accounts.groups.insert((name, *gid));
                }
                _ => {}
            }
        }
        accounts
    }
}

/// Lines of accounts, and in which lists of others they stand. Of accounts that were removed it holds root's secrets: it
/// stays in this process.
#[derive(Default)]
pub struct Entries(Vec<Entry>);

struct Entry {
    file: &'static str,
    /// The user's or group's.
    name: String,
    what: What,
}

enum What {
    Line(String),
    /// In this field of the line of a group, counted from 0.
    Member {
        group: String,
        field: usize,
    },
}

impl Entries {
    /// Those that new accounts get, which nobody can log in to.
    pub fn new(actions: &[&Action]) -> Self {
        let mut entries = Self::default();
        for action in actions {
            match action {
                Action::AddUser(User { name, uid, gid, home, groups }) => {
                    let home = home.display();
                    entries.line("passwd", name, format!("{name}:x:{uid}:{gid}:Plat:{home}:{SHELL}"));
                    entries.line("shadow", name, new_in_shadow(name));
                    let lists = groups.iter().flat_map(|group| [("group", group), ("gshadow", group)]);
                    entries.0.extend(lists.map(|(file, group)| Entry {
                        file,
                        name: name.clone(),
                        what: What::Member { group: group.clone(), field: 3 },
                    }));
                }
                Action::AddGroup { name, gid, .. } => {
                    entries.line("group", name, format!("{name}:x:{gid}:"));
                    entries.line("gshadow", name, new_in_gshadow(name));
                }
                _ => {}
            }
        }
        entries
    }

    fn line(&mut self, file: &'static str, name: &str, line: String) {
        self.0.push(Entry { file, name: name.to_owned(), what: What::Line(line) });
    }

    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Who it has lines of.
    pub fn accounts(&self) -> Accounts<'_> {
        let of = |wanted: &str| {
            let lines = self.0.iter().filter(|entry| entry.file == wanted).filter_map(|entry| match &entry.what {
                What::Line(line) => identity(line),
                What::Member { .. } => None,
            });
            lines.collect()
        };
        Accounts { users: of("passwd"), groups: of("group") }
    }

    /// Puts what it has of these accounts into the files, but for a line whose name there is already. Of one that there is with
    /// another number nothing is put.
    pub(super) fn put_into(&self, texts: &mut Texts, accounts: &Accounts) {
        let named = |all: &BTreeSet<Identity>, file: &str| -> BTreeSet<String> {
            let there: BTreeMap<&str, Identity> =
                texts.get(file).map_or("", String::as_str).lines().filter_map(identity).map(|it| (it.0, it)).collect();
            let free = all.iter().filter(|account| there.get(account.0).is_none_or(|found| found == *account));
            free.map(|(name, _)| (*name).to_owned()).collect()
        };
        let (users, groups) = (named(&accounts.users, "passwd"), named(&accounts.groups, "group"));
        for (file, text) in texts {
            let mut lines = String::new();
            let mut members: BTreeMap<(&str, usize), BTreeSet<&str>> = BTreeMap::new();
            let taken: BTreeSet<&str> = text.lines().map(name_of).collect();
            for entry in self.0.iter().filter(|entry| entry.file == *file) {
                match &entry.what {
                    What::Member { group, field } if users.contains(&entry.name) => {
                        members.entry((group, *field)).or_default().insert(&entry.name);
                    }
                    What::Line(line) => {
                        let of_users = matches!(*file, "passwd" | "shadow");
                        let meant = if of_users { &users } else { &groups };
                        if meant.contains(&entry.name) && !taken.contains(entry.name.as_str()) {
                            lines.push_str(line);
                            lines.push('\n');
                        }
                    }
                    What::Member { .. } => {}
                }
            }
            *text = with_members(&appended(text, &lines), &members);
        }
    }
}

/// Those of new accounts whose number nobody has by now.
pub(super) fn still_free<'a>(texts: &Texts, accounts: &Accounts<'a>) -> Accounts<'a> {
    let free = |all: &BTreeSet<Identity<'a>>, file: &str| {
        let lines = texts.get(file).map_or("", String::as_str).lines().filter_map(identity);
        let taken: BTreeSet<u32> = lines.map(|(_, number)| number).collect();
        all.iter().copied().filter(|(_, number)| !taken.contains(number)).collect()
    };
    Accounts { users: free(&accounts.users, "passwd"), groups: free(&accounts.groups, "group") }
}

/// What stands for another database begins with one of these, and what comes after it is not looked at by all.
const ELSEWHERE: [char; 2] = ['+', '-'];

fn appended(text: &str, lines: &str) -> String {
    let mut end = 0;
    for line in text.split_inclusive('\n').take_while(|line| !line.starts_with(ELSEWHERE)) {
        end += line.len();
    }
    let (before, behind) = text.split_at(end);
    let parted = if before.is_empty() || before.ends_with('\n') || lines.is_empty() { "" } else { "\n" };
    format!("{before}{parted}{lines}{behind}")
}

fn with_members(text: &str, members: &BTreeMap<(&str, usize), BTreeSet<&str>>) -> String {
    each_line(text, |line| {
        let group = name_of(line);
        Some(each_field(line, |n, field| match members.get(&(group, n)) {
            None => field.into(),
            Some(more) => listed(field, |_| true, more.iter().copied()).into(),
        }))
    })
}

/// By group and user, in the lists of which files the name was put, or from which it was taken.
pub type Moved = BTreeMap<(String, String), BTreeSet<&'static str>>;

/// Gives users other groups, their first group and their home, those of the uid that each had. What was `moved` before is taken
/// back: in the files that it was moved in, for the others may have said something else all along. Then it says what was now.
pub(super) fn set(texts: &mut Texts, changes: &[(&User, &User)], moved: &mut Moved) {
    let before = std::mem::take(moved);
    for (from, to) in changes {
        let groups = from.groups.symmetric_difference(&to.groups);
        moved.extend(groups.map(|group| ((group.clone(), to.name.clone()), BTreeSet::new())));
    }
    let users: BTreeMap<Identity, &User> = changes.iter().map(|(_, to)| ((to.name.as_str(), to.uid), *to)).collect();
    for (file, text) in texts {
        *text = each_line(text, |line| match *file {
            "passwd" => Some(identity(line).and_then(|found| users.get(&found)).map_or_else(
                || line.to_owned(),
                |to| {
                    each_field(line, |n, field| match n {
                        3 => to.gid.to_string().into(),
                        5 => to.home.display().to_string().into(),
                        _ => field.into(),
                    })
                },
            )),
            "group" | "gshadow" => {
                let group = name_of(line);
                let is_meant = |user: &User| {
                    let there = before.get(&(group.to_owned(), user.name.clone()));
                    there.is_none_or(|files| files.contains(file))
                };
                let joins = |(from, to): &&(&User, &User)| {
                    to.groups.contains(group) && !from.groups.contains(group) && is_meant(to)
                };
                let leaves = |member: &str| {
                    changes.iter().any(|(from, to)| {
                        from.name == member && from.groups.contains(group) && !to.groups.contains(group) && is_meant(to)
                    })
                };
                let joined: Vec<&str> = changes.iter().filter(joins).map(|(_, to)| to.name.as_str()).collect();
                Some(each_field(line, |n, field| {
                    let is_there = |name: &&str| field.split(',').any(|member| member == *name);
                    let gone = field.split(',').filter(|member| leaves(member));
                    let came = joined.iter().copied().filter(|name| !is_there(name));
                    let names: Vec<&str> = if n == 3 { gone.chain(came).collect() } else { Vec::new() };
                    if names.is_empty() {
                        return field.into();
                    }
                    for name in names {
                        moved.entry((group.to_owned(), name.to_owned())).or_default().insert(*file);
                    }
                    listed(field, |member| !leaves(member), joined.iter().copied()).into()
                }))
            }
            _ => Some(line.to_owned()),
        });
    }
}

/// Takes accounts out, the lines of the name that have the number, and users as members (group, gshadow) or administrators
/// (gshadow); returns what that was.
pub(super) fn take_out(texts: &mut Texts, accounts: &Accounts) -> Entries {
    let text = |file| texts.get(file).map_or("", String::as_str);
    let users = names_gone(text("passwd"), &accounts.users);
    let groups = names_gone(text("group"), &accounts.groups);
    let mut entries = Entries::default();
    for (file, text) in texts {
        let first = match *file {
            "group" => 3,
            "gshadow" => 2,
            _ => usize::MAX,
        };
        let numbered = |line: &str, gone: &BTreeSet<Identity>| identity(line).is_some_and(|line| gone.contains(&line));
        *text = each_line(text, |line| {
            let name = name_of(line);
            let goes = match *file {
                "passwd" => numbered(line, &accounts.users),
                "group" => numbered(line, &accounts.groups),
                "shadow" => users.contains(name),
                _ => groups.contains(name),
            };
            if goes {
                entries.line(file, name, line.to_owned());
                return None;
            }
            Some(each_field(line, |n, field| {
                if n < first || !field.split(',').any(|member| users.contains(member)) {
                    return field.into();
                }
                let out = field.split(',').filter(|member| users.contains(*member));
                entries.0.extend(out.map(|member| Entry {
                    file,
                    name: member.to_owned(),
                    what: What::Member { group: name.to_owned(), field: n },
                }));
                listed(field, |member| !users.contains(member), std::iter::empty()).into()
            }))
        });
    }
    entries
}

/// Those of these names that are nobody's any more once the lines of the name and number are gone.
fn names_gone(text: &str, gone: &BTreeSet<Identity>) -> BTreeSet<String> {
    let lines = text.lines().filter_map(identity);
    let stay: BTreeSet<&str> = lines.filter(|line| !gone.contains(line)).map(|(name, _)| name).collect();
    gone.iter().map(|(name, _)| *name).filter(|name| !stay.contains(name)).map(str::to_owned).collect()
}

/// Those that a run which was killed, or a program of it, has half made: in the files that are written first they have the lines
/// of new accounts, or without a line there are members of groups, and in passwd and group they have none.
pub(super) fn half_made<'a>(accounts: &Accounts<'a>, texts: &Texts) -> Accounts<'a> {
    let text = |file: &str| texts.get(file).map_or("", String::as_str);
    let lists = text("group").lines().flat_map(|line| line.split(':').skip(3));
    let lists = lists.chain(text("gshadow").lines().flat_map(|line| line.split(':').skip(2)));
    let members: BTreeSet<&str> = lists.flat_map(|list| list.split(',')).collect();
    let kept = |all: &BTreeSet<Identity<'a>>, last: &str, is_begun: &dyn Fn(&str) -> bool| {
        let taken: BTreeSet<&str> = text(last).lines().map(name_of).collect();
        all.iter().copied().filter(|(name, _)| !taken.contains(name) && is_begun(name)).collect()
    };
    let begun = |first: &str| -> BTreeSet<&str> { text(first).lines().collect() };
    let (users, groups) = (begun("shadow"), begun("gshadow"));
    let with_secrets: BTreeSet<&str> = text("shadow").lines().map(name_of).collect();
    let is_listed = |name: &str| !with_secrets.contains(name) && members.contains(name);
    Accounts {
        users: kept(&accounts.users, "passwd", &|name| users.contains(new_in_shadow(name).as_str()) || is_listed(name)),
        groups: kept(&accounts.groups, "group", &|name| groups.contains(new_in_gshadow(name).as_str())),
    }
}

/// Of shadow or gshadow, the names that are nobody's.
pub fn left(file: &str, text: &str, is_there: impl Fn(&str) -> bool) -> BTreeMap<String, Left> {
    let new = if file == "shadow" { new_in_shadow } else { new_in_gshadow };
    let mut left = BTreeMap::new();
    for line in text.lines() {
        let name = name_of(line);
        if !is_there(name) {
            let found = if line == new(name) { Left::New } else { Left::Old };
            // There may be several.
            let all = left.entry(name.to_owned()).or_insert(found);
            *all = found.max(*all);
        }
    }
    left
}

/// The line of an account that nobody can log in to.
fn new_in_shadow(name: &str) -> String {
    format!("{name}:!*:::::::")
}

pub(super) fn new_in_gshadow(name: &str) -> String {
    format!("{name}:!*::")
}

/// Whether a program that reads accounts and writes the file anew writes each line as it was.
pub(super) fn is_plain(file: &str, text: &str) -> bool {
    let is_whole = |line: &str| {
        // Those that are numbers, and whether they may be left out.
        let (length, numbers, may_lack) = match file {
            "passwd" => (7, 2..4, false),
            "shadow" => (9, 2..9, true),
            "group" => (4, 2..3, false),
            _ => (4, 0..0, false),
        };
        let fields: Vec<&str> = line.split(':').collect();
        let is_number = |field: &&str| {
            (may_lack && field.is_empty()) || field.parse::<u32>().is_ok_and(|number| number.to_string() == **field)
        };
        fields.len() == length && !fields[0].is_empty() && fields[numbers].iter().all(is_number)
    };
    let odd = |line: &str| line.starts_with(['#', '+', '-', ' ', '\t']) || line.ends_with([' ', '\t', '\r']);
    (text.is_empty() || text.ends_with('\n')) && text.split_terminator('\n').all(|line| !odd(line) && is_whole(line))
}

pub(super) fn name_of(line: &str) -> &str {
    fields(line).next().unwrap_or_default()
}

/// What the C library leaves out before a line, and before a number in it.
const BLANKS: [char; 5] = [' ', '\t', '\x0b', '\x0c', '\r'];

/// Of a line as the C library reads it.
pub fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.trim_start_matches(BLANKS).split(':')
}

/// As the C library reads it. (A line with one that is too great, or negative, it leaves out.)
pub fn number(field: &str) -> Option<u32> {
    field.trim_start_matches(BLANKS).parse().ok()
}

/// Of a line of passwd or group.
pub fn identity(line: &str) -> Option<Identity<'_>> {
    let mut fields = fields(line);
    Some((fields.next()?, number(fields.nth(1)?)?))
}

/// Of a list of names those that stay, and further ones.
pub(super) fn listed<'a>(list: &'a str, stays: impl Fn(&str) -> bool, more: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = list.split(',').filter(|name| !name.is_empty() && stays(name)).collect();
    for name in more {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(",")
}

pub(super) fn each_line(text: &str, mut edit: impl FnMut(&str) -> Option<String>) -> String {
    let mut new = String::with_capacity(text.len());
    for whole in text.split_inclusive('\n') {
        let line = whole.strip_suffix('\n').unwrap_or(whole);
        if let Some(line_now) = edit(line) {
            new.push_str(&line_now);
            new.push_str(&whole[line.len()..]);
        }
    }
    new
}

pub(super) fn each_field<'a>(line: &'a str, mut edit: impl FnMut(usize, &'a str) -> Cow<'a, str>) -> String {
    let mut new = String::with_capacity(line.len());
    for (n, field) in line.split(':').enumerate() {
        if n > 0 {
            new.push(':');
        }
        new.push_str(&edit(n, field));
    }
    new
}
