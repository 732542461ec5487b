//! Settings of the kernel, in the network namespace of the thread.

use super::failed;
use super::network::{meant, name_of};
use node_format_plan::{Action, written_along};
use plat_model::problem::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Those that matter in a partition's namespace, of what value it is said that they have it, and what they are otherwise. With
/// IPv6 switched off the kernel takes none of its addresses and ranges.
pub(super) const OF_A_NAMESPACE: [(&str, &str, &str); 4] = [
    ("net.ipv6.ip_nonlocal_bind", "1", "0"),
    ("net.ipv6.conf.eth0.accept_ra", "0", "1"),
    ("net.ipv6.conf.eth0.disable_ipv6", "1", "0"),
    ("net.ipv6.conf.lo.disable_ipv6", "1", "0"),
];

/// Those of these that the kernel has.
pub(super) fn observe(keys: &BTreeSet<String>) -> BTreeMap<String, String> {
    let each = keys.iter().flat_map(|key| of_each_link(key));
    each.filter_map(|key| Some((key.clone(), read(&key)?))).collect()
}

/// A key with `*` in the place of a link, for each link there is and for `default`; any other as it is.
fn of_each_link(key: &str) -> Vec<String> {
    let Some((before, after)) = key.split_once(".*.") else { return vec![key.to_owned()] };
    let found = std::fs::read_dir(path(before)).into_iter().flatten().flatten();
    let links = found.filter_map(|entry| name_of(entry.file_name())).filter(|name| name != "all");
    links.map(|link| format!("{before}.{}.{after}", link.replace('.', "/"))).collect()
}

/// Key and value, if it has this value.
pub(super) fn set_to(key: &str, value: &str) -> Option<(String, String)> {
    read(key).filter(|found| found == value).map(|found| (key.to_owned(), found))
}

pub(super) fn read(key: &str) -> Option<String> {
    std::fs::read_to_string(path(key)).ok().map(|text| text.trim().to_owned())
}

pub(super) fn write(key: &str, value: &str) -> io::Result<()> {
    std::fs::write(path(key), value)
}

/// What a run has begun: undoing it comes upon that again.
#[derive(Default)]
pub(super) struct Begun {
    /// Links that it made. What they were to be was a guess, and others may set them as soon as they are there.
    links: BTreeSet<String>,
    /// Those that it set, and what the kernel wrote along with each (of links that were there) as it was until then: others may
    /// have set that since the record was written.
    keys: BTreeMap<String, BTreeMap<String, String>>,
}

impl Begun {
    pub fn make_links(&mut self, batch: &[Action]) {
        self.links.extend(batch.iter().filter_map(Action::link));
    }

    /// Whether nobody else's value would be lost.
    fn is_as_seen(&self, action: &Action, found: &String) -> bool {
        let Action::SetSysctl { key, from, to, was, .. } = action else { return true };
        let is_made = action.link().is_some_and(|link| self.links.contains(&link));
        // Who has put it back already takes nothing away.
        let is_done = found == to && (to == was || self.keys.contains_key(key));
        found == from || from.is_empty() || is_made || is_done
    }
}

pub(super) fn perform(action: &Action, begun: &mut Begun) -> Result<()> {
    let Action::SetSysctl { key, from, to, was, along, .. } = action else { return Ok(()) };
    if to.is_empty() {
        return Ok(()); // Of a link that was not there: it goes with it.
    }
    // What it was before is in the record: another value is somebody's since, and would be lost.
    if let Some(found) = read(key).filter(|found| !begun.is_as_seen(action, found)) {
        let problem = failed(
            format!("cannot set {key} to {to}"),
            format!("it was {from} when it was looked at, and is {found} by now"),
        );
        return Err(problem.fix("see what else changes it, then run it again"));
    }
    // A run comes upon one again where it is undone.
    let before = begun.keys.insert(key.clone(), written_along_now(key));
    if to == was {
        put_back(key, to)?
    } else {
        must_write(key, to)?
    }
    let along = before.as_ref().or((to == was).then_some(along));
    // One that cannot be put back keeps no other from it.
    let all = along.into_iter().flatten().map(|(key, value)| put_back(key, value)).fold(Ok(()), Result::and);
    if all.is_err() && before.is_none() {
        // What is not done is not undone: nothing of it may stay.
        let noted = begun.keys.remove(key).unwrap_or_default();
        let back = std::iter::once((key, from)).chain(&noted);
        back.for_each(|(key, value)| drop(put_back(key, value)));
    }
    all
}

/// What the kernel will write along with this one, as it is.
fn written_along_now(key: &str) -> BTreeMap<String, String> {
    observe(&written_along(key).iter().map(|pattern| (*pattern).to_owned()).collect())
}

fn must_write(key: &str, value: &str) -> Result<()> {
    write(key, value).map_err(|e| failed(format!("cannot set {key} to {value}"), e))
}

fn put_back(key: &str, value: &str) -> Result<()> {
    if read(key).is_some_and(|found| found == value) {
        return Ok(()); // The kernel writes others along even where nothing changes.
    }
    write_if_there(key, value).map_err(|e| failed(format!("cannot set {key} to {value}"), e))
}

/// Of a link that is gone there is nothing to put back.
pub(super) fn write_if_there(key: &str, value: &str) -> io::Result<()> {
    match write(key, value) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// As sysctl(8) has it: dots part the key, and a dot in the name of a link is written `/`.
fn path(key: &str) -> PathBuf {
    let swapped: String = key
        .chars()
        .map(|c| {
            if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            }
        })
        .collect();
    let parts = swapped.split('/').map(|part| meant(part).unwrap_or_else(|| part.into()));
    Path::new("/proc/sys").join(parts.collect::<PathBuf>())
}

#[cfg(test)]
mod tests {
    use super::{Action, Begun};
    use node_format_plan::action::Change;
    use node_format_plan::facts::{LinkFact, LinkKind};
    use std::collections::BTreeMap;

    fn set(key: &str, was: &str, from: &str, to: &str) -> Action {
        let [key, was, from, to] = [key, was, from, to].map(String::from);
        Action::SetSysctl { key, was, from, to, along: BTreeMap::new(), last: Change::default() }
    }

    #[test]
    fn a_value_of_somebody_elses_is_kept_but_on_a_link_that_the_run_made() {
        let mut begun = Begun::default();
        let forwards = set("net.ipv4.ip_forward", "0", "0", "1");
        assert!(!begun.is_as_seen(&forwards, &"1".into()), "a reset would take it away");
        begun.keys.insert("net.ipv4.ip_forward".into(), BTreeMap::new());
        assert!(begun.is_as_seen(&forwards, &"1".into()), "of a run that is undone it is what there was");
        assert!(begun.is_as_seen(&forwards.inverse().unwrap(), &"0".into()), "it is put back already");

        let deaf = set("net.ipv6.conf.part0.accept_ra", "1", "1", "0");
        assert!(!begun.is_as_seen(&deaf, &"2".into()));
        let (kind, mac) = (LinkKind::Tap(None), [0; 6]);
        let link = LinkFact { kind, up: true, bridge: None, group: 0, mac, mtu: None, isolated: false };
        begun.make_links(&[Action::AddLink { name: "part0".into(), link }]);
        assert!(begun.is_as_seen(&deaf, &"2".into()));
    }

    #[test]
    fn a_dot_in_the_name_of_a_link_is_kept() {
        let path = super::path("net.ipv6.conf.eth0/100.accept_ra");
        assert_eq!(path.to_str(), Some("/proc/sys/net/ipv6/conf/eth0.100/accept_ra"));
    }
}
