//! What is taken out again of accounts that were to be made and were not, or not as they were to be: a program that fails
//! has written some of the files, and one that finds a number taken gives another.

use super::lines::{Texts, each_field, each_line, listed, name_of, new_in_gshadow, number};
use node_format_plan::Action;
use node_format_plan::action::User;
use std::collections::{BTreeMap, BTreeSet};

/// Takes out what the files `before` did not have of the accounts that these actions were to make. One that is as it was to be
/// stays; so does one of the name that somebody else made meanwhile, who gave the user another home or shell, or the group another
/// mark for a password that nobody has, as programs do, or none.
pub(super) fn take_out(texts: &mut Texts, before: &Texts, actions: &[Action]) {
    let new = New { now: &texts.clone(), before };
    let (mut users, mut groups, mut members) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for action in actions {
        match action {
            Action::AddUser(user) if !new.is_whole("passwd", &user.name, &[(2, user.uid), (3, user.gid)]) => {
                if new.line("passwd", &user.name).is_none_or(|line| is_ours(line, user)) {
                    users.insert(user.name.as_str());
                }
                members.insert(user.name.as_str(), user);
            }
            Action::AddGroup { name, gid, .. }
                if !new.is_whole("group", name, &[(2, *gid)])
                    && new.line("gshadow", name) == Some(new_in_gshadow(name).as_str()) =>
            {
                groups.insert(name.as_str());
            }
            _ => {}
        }
    }
    for (file, text) in texts {
        let meant = if matches!(*file, "passwd" | "shadow") { &users } else { &groups };
        *text = each_line(text, |line| {
            let name = name_of(line);
            if meant.contains(name) && new.came(file, name) {
                return None;
            }
            let joined = |member: &str| {
                let asked = members.get(member).is_some_and(|user| user.groups.contains(name));
                asked && !new.was_member(file, name, member)
            };
            Some(each_field(line, |n, field| match *file {
                "group" | "gshadow" if n == 3 && field.split(',').any(joined) => {
                    listed(field, |member| !joined(member), std::iter::empty()).into()
                }
                _ => field.into(),
            }))
        });
    }
}

/// The files as they are, and as they were.
struct New<'a> {
    now: &'a Texts,
    before: &'a Texts,
}

impl<'a> New<'a> {
    fn line(&self, file: &str, name: &str) -> Option<&'a str> {
        line(self.now, file, name)
    }

    /// Whether a file has a line of this name that it did not have.
    fn came(&self, file: &str, name: &str) -> bool {
        line(self.before, file, name).is_none()
    }

    /// Whether the account is there with these numbers, each in its field.
    fn is_whole(&self, file: &str, name: &str, numbers: &[(usize, u32)]) -> bool {
        let is = |line: &str, n: usize, number: u32| self::number(field(line, n)) == Some(number);
        self.line(file, name).is_some_and(|line| numbers.iter().all(|(n, number)| is(line, *n, *number)))
    }

    fn was_member(&self, file: &str, group: &str, member: &str) -> bool {
        let lines = self.before.get(file).into_iter().flat_map(|text| text.lines());
        let mut lists = lines.filter(|line| name_of(line) == group).map(|line| field(line, 3));
        lists.any(|list| list.split(',').any(|found| found == member))
    }
}

fn line<'a>(texts: &'a Texts, file: &str, name: &str) -> Option<&'a str> {
    texts.get(file)?.lines().find(|line| name_of(line) == name)
}

fn field(line: &str, n: usize) -> &str {
    line.split(':').nth(n).unwrap_or_default()
}

fn is_ours(line: &str, user: &User) -> bool {
    field(line, 5) == user.home.to_string_lossy() && field(line, 6) == super::lines::SHELL
}
