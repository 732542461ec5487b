//! What belongs to the machine as a whole: the kernel's settings, the packet filter, what must be there.

use super::listening::{accept_ra, forwards};
use super::{Before, Planner, setting_before};
use crate::action::{Action, Change};
use crate::facts::{Guard, LinkFact, LinkKind, Presence};
use crate::forwarding::{IPV6, as_written, is_meant, written_along};
use crate::layout::Layout;
use crate::thing::{Along, Last, Thing};
use ipnet::IpNet;
use plat_model::problem::{Problem, codes};
use std::collections::{BTreeMap, BTreeSet};

impl Planner<'_> {
    /// One part of the kernel's settings: see [`Part`] for when.
    pub(super) fn sysctls(&mut self, part: Part) {
        for thing in self.claims.iter() {
            let Some((key, before)) = setting_before(thing) else { continue };
            if part != self.part_of(key) || self.goes_on_listening(key) {
                continue;
            }
            // What it says is of the one that had the name.
            if link_of(key).is_some_and(|link| self.exchanged.contains(&link)) {
                self.forget.push(thing.clone());
                continue;
            }
            match self.facts.sysctls.get(key) {
                _ if self.layout.sysctls.contains_key(key) && !self.is_of_ours_that_goes(key) => {}
                // Of a run that was killed the one may be as it was, and what goes along with it not yet.
                Some(found) if found != before.was || self.changed_along(before) => {
                    if !self.is_set_back_on_the_way(key) {
                        let along = self.along_once_back(key, found, before);
                        let before = Before { along: &along, ..before };
                        self.remove.push(setting(key, before, found, self.once_its_link_is_gone(key, before.was)));
                    }
                }
                _ => self.forget.push(thing.clone()),
            }
        }
        let layout = self.layout;
        for (key, wanted) in &layout.sysctls {
            if part != self.part_of(key) || self.is_of_ours_that_goes(key) {
                continue;
            }
            // One that is made anew has not what it had.
            let is_anew = link_of(key).is_some_and(|link| self.leaving.contains(&link));
            let found = self.facts.sysctls.get(key).filter(|_| !is_anew);
            if key.starts_with("net.ipv6.") && self.facts.kernel.ipv6 == Presence::Absent {
                continue; // Nothing to set; if addresses need it, that is said.
            }
            // An interface that somebody else told not to listen to routers stays so: before us, or since.
            let deaf = key.ends_with(".accept_ra")
                && found.is_some_and(|found| found == "0")
                && self.is_by_others(key, wanted);
            if deaf {
                self.say_what_goes_with_listening(key);
            }
            let Some(wanted) = self.listening(key, wanted).filter(|_| !deaf) else { continue };
            if found.is_some_and(|found| found == wanted) {
                self.know_last(key, wanted);
                continue;
            }
            let Some(found) = found.cloned().or_else(|| self.of_a_link_to_be(key)) else {
                self.refuse_setting(key);
                continue;
            };
            if found == wanted {
                continue; // It will be so by itself.
            }
            let mut along = self.changes_along(key, &found);
            let is_anothers = link_of(key).is_some_and(|link| self.exchanged.contains(&link));
            let ours = self.settings_before.get(key.as_str()).copied().filter(|_| !is_anothers);
            // Somebody put it back, and may have set those on their own since; or a run that was killed did, and came no further.
            for (other, value) in ours.iter().flat_map(|before| before.along) {
                along.entry(other.clone()).or_insert_with(|| value.clone());
            }
            let before = ours.unwrap_or(Before { was: &found, along: &along, last: None });
            self.add.push(setting(key, Before { along: &along, ..before }, &found, wanted));
        }
    }

    /// A run that was killed may have set it, and not come to say so in the record.
    fn know_last(&mut self, key: &str, wanted: &str) {
        let Some(&Before { was, along, last: Some(last) }) = self.settings_before.get(key) else { return };
        if key.ends_with(".accept_ra") && last != wanted {
            let last = Last(Some(wanted.into()));
            self.known.push(Thing::Sysctl { key: key.into(), was: was.into(), along: Along(along.clone()), last });
        }
    }

    /// Whether it was somebody else who told a link not to listen to routers. To a bridge of ours that may have been us, or it was
    /// made so, unless we last told it to listen; an interface we never tell so.
    fn is_by_others(&self, key: &str, wanted: &str) -> bool {
        let has = |is: &dyn Fn(&Thing) -> bool| self.claims.iter().any(is);
        let is_ours = has(&|thing| matches!(thing, Thing::Bridge { name } if accept_ra(name) == key));
        match self.settings_before.get(key) {
            None => !is_ours || self.of_a_link_to_be(key).is_none_or(|made| made != "0"),
            Some(Before { last: Some(last), .. }) => wanted == "2" && (!is_ours || *last == "2"),
            // Of an older record: a bridge of ours that has had no uplink we told so.
            Some(before) => {
                let is_joined =
                    has(&|thing| matches!(thing, Thing::Uplink(uplink) if accept_ra(&uplink.bridge) == key));
                wanted == "2" && !matches!(before.was, "0" | "") && (!is_ours || is_joined)
            }
        }
    }

    /// A machine that begins to forward drops the ways that were announced to whoever was told not to listen since.
    fn say_what_goes_with_listening(&mut self, key: &str) {
        let on = |value: Option<&String>| value.is_some_and(|value| value == "1");
        let begins = on(self.layout.sysctls.get(IPV6)) && !on(self.facts.sysctls.get(IPV6));
        let Some(link) = link_of(key).filter(|_| begins) else { return };
        let ways = self.facts.announced.get(&link).into_iter().flatten();
        let lost = ways.map(|to| {
            format!("the machine is to forward, and with that goes the way to {to} by {link}, which a router announced before `{key}` was set to 0")
        });
        self.lose(lost.collect());
    }

    /// Whether something that goes along with a setting is not as it was before.
    fn changed_along(&self, before: Before<'_>) -> bool {
        before.along.iter().any(|(key, was)| self.facts.sysctls.get(key).is_some_and(|found| found != was))
    }

    /// What the kernel writes along with a setting, as it is now: of the machine's own links, and where it is not what setting
    /// it back would write.
    fn changes_along(&self, key: &str, found: &str) -> BTreeMap<String, String> {
        let patterns = written_along(key);
        if patterns.is_empty() {
            return BTreeMap::new();
        }
        let ours = |other: &str| link_of(other).is_some_and(|link| self.layout.links.contains_key(&link));
        let all = self.facts.sysctls.iter();
        let others = all.filter(|(other, _)| patterns.iter().any(|pattern| is_meant(other, pattern)) && !ours(other));
        let differ = others.filter(|(other, value)| as_written(other, found).is_some_and(|written| written != *value));
        differ.map(|(other, value)| (other.clone(), value.clone())).collect()
    }

    /// What those are to be that go along with a setting which goes back: as they were before, or as somebody set them since.
    fn along_once_back(&self, key: &str, found: &str, before: Before<'_>) -> BTreeMap<String, String> {
        let mut along = before.along.clone();
        if found == before.was {
            return along; // The kernel has written them already.
        }
        let is_meant = |other: &str| written_along(key).iter().any(|pattern| is_meant(other, pattern));
        let pairs: BTreeSet<&String> = self.claims.iter().filter_map(outer_end).collect();
        let goes = |other: &str| self.is_of_ours(other) || link_of(other).is_some_and(|link| pairs.contains(&link));
        let all = self.facts.sysctls.iter().filter(|(other, _)| is_meant(other));
        for (other, value) in all.filter(|(other, value)| as_written(other, found) != Some(value)) {
            match as_written(other, before.was) == Some(value) || goes(other) {
                true => drop(along.remove(other)), // It will be so by itself.
                false => drop(along.insert(other.clone(), value.clone())),
            }
        }
        along
    }

    fn part_of(&self, key: &str) -> Part {
        let Some(link) = link_of(key) else { return Part::Machine };
        if key.ends_with(".accept_ra") {
            return match self.layout.links.contains_key(&link) {
                true if self.layout.sysctls.get(key).is_some_and(|value| value == "0") => Part::Deaf,
                false if !self.is_of_ours_that_goes(key) => Part::Listening,
                _ => Part::Link,
            };
        }
        Part::Link
    }

    /// Whether it is seen to while its link is on the way from a bridge or to one, or made anew: see `link`.
    fn is_set_back_on_the_way(&self, key: &str) -> bool {
        let is_anew = |link: &String| self.leaving.contains(link) && self.layout.links.contains_key(link);
        key.ends_with(".accept_ra") && link_of(key).is_some_and(|link| self.moving.contains(&link) || is_anew(&link))
    }

    /// What a setting is to be that is not ours any more. Of a link that goes it is never set back: whoever is behind it is
    /// not listened to until then. If that is undone, the link has again what it had.
    fn once_its_link_is_gone<'w>(&self, key: &str, was: &'w str) -> &'w str {
        if link_of(key).is_some_and(|link| self.leaving.contains(&link)) { "" } else { was }
    }

    /// Of a link on its way, or that is made anew.
    pub(super) fn set_back(&mut self, key: &str) {
        let before = self.settings_before.get(key).copied();
        if let Some((found, before)) = self.facts.sysctls.get(key).zip(before).filter(|(found, b)| *found != b.was) {
            self.remove.push(setting(key, before, found, self.once_its_link_is_gone(key, before.was)));
        }
    }

    /// Whether a setting is of a link of ours that is not wanted any more.
    fn is_of_ours_that_goes(&self, key: &str) -> bool {
        link_of(key).is_some_and(|link| !self.layout.links.contains_key(&link)) && self.is_of_ours(key)
    }

    fn is_of_ours(&self, key: &str) -> bool {
        let Some(name) = link_of(key) else { return false };
        let made = [Thing::Bridge { name: name.clone() }, Thing::Tap { name: name.clone() }, Thing::Tun { name }];
        made.iter().any(|thing| self.claims.has(thing))
    }

    /// Whether a link that is not ours must be left listening although nothing is heard on it at the moment: its router
    /// may be away, and while the machine forwards, it would not be heard again.
    fn goes_on_listening(&self, key: &str) -> bool {
        let layout = self.layout;
        let Some(link) = link_of(key).filter(|_| self.part_of(key) == Part::Listening) else { return false };
        let unguarded = layout.needs_link.as_ref().is_some_and(|needed| needed.bridge && needed.name == link)
            && layout.guard.is_none();
        forwards(layout) && self.facts.links.contains_key(&link) && !unguarded
    }

    /// What a setting of a link that is made here will be before it is set; empty where that cannot be known.
    fn of_a_link_to_be(&self, key: &str) -> Option<String> {
        let default = default_of(self.layout, key)?;
        Some(self.facts.sysctls.get(&default).cloned().unwrap_or_default())
    }

    fn refuse_setting(&mut self, key: &str) {
        if key.ends_with(".accept_ra") {
            return; // A link without IPv6.
        }
        self.problems.push(
            Problem::new(codes::KERNEL_LACKS, format!("the kernel has no setting {key}"))
                .because("it is not beneath /proc/sys, or cannot be read")
                .fix("set `sysctls = false` in [network] and see to it yourself"),
        );
    }

    pub(super) fn guard(&mut self) {
        let (found, wanted) = (self.facts.guard.as_ref(), self.layout.guard.as_ref());
        let claims: Vec<&Thing> = self.claims.iter().filter(|thing| matches!(thing, Thing::Guard { .. })).collect();
        let made: BTreeSet<&String> = claims.iter().flat_map(|thing| thing.families()).collect();
        let ours = !claims.is_empty();
        let of_others = |found: &Guard| found.families().iter().find(|family| !made.contains(family)).cloned();
        let before = self.add.len() + self.remove.len();
        match (found, wanted) {
            (Some(found), None) if ours => self.remove.push(Action::SetGuard { from: Some(found.clone()), to: None }),
            (_, None) => {}
            (Some(found), Some(_)) if let Some(family) = of_others(found) => {
                let fix = format!("remove it (`nft delete table {family} plat`), or set `guard = false` in [network]");
                self.foreign(
                    format!("the packet filter has a table `{family} plat`"),
                    "node-format did not make it",
                    &fix,
                );
            }
            (Some(found), Some(wanted)) if Guard::equals(found, wanted) => {}
            (found, Some(wanted)) => {
                self.add.push(Action::SetGuard { from: found.cloned(), to: Some(wanted.clone()) });
            }
        }
        // What is in the record then says no more than there is.
        let acts = self.add.len() + self.remove.len() > before;
        let then = wanted.or(found).map(|guard| Thing::Guard { families: guard.families() });
        let is_said = acts || wanted.is_none() || then.as_ref().is_some_and(|then| self.claims.has(then));
        self.forget.extend(claims.into_iter().filter(|thing| is_said && Some(*thing) != then.as_ref()).cloned());
        // One that was made is neither seen nor removed without it.
        if (wanted.is_some() || ours) && self.facts.kernel.nft == Presence::Absent {
            self.problems.push(
                Problem::new(codes::PREREQUISITE, "the guard needs the program nft")
                    .because("it is neither on PATH nor in /usr/sbin")
                    .fix("install nftables, or set `guard = false` in [network] (a partition could then use its neighbours' addresses)"),
            );
        }
    }

    /// Partitions on a bridge of the machine's own could announce routers there: unguarded, it must not listen to any. One that has
    /// its addresses from a router would lose them where the machine forwards, and else have those of whoever announces most; of
    /// one that nothing was announced on that is said.
    fn refuse_deafness(&mut self) {
        let Some(bridge) = self.layout.needs_link.as_ref().filter(|needed| needed.bridge) else { return };
        let key = accept_ra(&bridge.name);
        let Some(found) = self.facts.sysctls.get(&key).filter(|_| self.layout.guard.is_none()) else { return };
        let hears = !self.is_deaf(&bridge.name);
        let is_ours = self.settings_before.contains_key(key.as_str());
        let loses = forwards(self.layout) && (found == "1" || (found == "2" && is_ours));
        if !hears && !loses {
            return;
        }
        let announced = self.facts.announced_on(&bridge.name);
        let address = announced.addresses.first().map(IpNet::to_string);
        let way = || (!announced.ways.is_empty()).then(|| "a way out".into());
        let Some(announced) = address.or_else(way) else {
            if hears {
                self.notes.push(format!(
                    "the machine listens to routers on {} (`{key}`), and partitions with taps there can announce one: nothing keeps them from it without the guard",
                    bridge.name
                ));
            }
            return;
        };
        let why = match hears {
            true => "partitions with taps there could announce others, which the machine would listen to",
            false => "with taps the bridge does not listen to routers",
        };
        self.problems.push(
            Problem::new(codes::UPLINK, format!("taps cannot be joined to {}", bridge.name))
                .because(format!("a router announced {announced} there, and {why}"))
                .fix("set `guard = true` in [network], which keeps partitions from announcing any, or give it a fixed address")
                .at("network.guard"),
        );
    }

    /// A bridge of the machine's own would get a tap's hardware address, whatever its user makes of it, and with the last port
    /// none at all. Where taps are its ports already, nothing is to be joined.
    fn refuse_wandering_mac(&mut self) {
        let Some(bridge) = self.layout.needs_link.as_ref().filter(|needed| needed.bridge) else { return };
        let is_port = |link: &LinkFact| link.bridge.as_ref() == Some(&bridge.name);
        let joins = |action: &Action| match action {
            Action::AddLink { link, .. } => is_port(link),
            Action::SetLink { from, to, .. } => is_port(to) && !is_port(from),
            _ => false,
        };
        if !self.add.iter().any(joins) {
            if self.facts.without_own_mac.contains(&bridge.name) {
                self.notes.push(format!("nobody gave {0} its hardware address, so it is that of a port: no further taps are joined to it (`ip link set {0} address` gives it one)", bridge.name));
            }
            return;
        }
        if let Some(why) = self.facts.unknown_mac.get(&bridge.name) {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("taps cannot be joined to {}", bridge.name))
                    .because(format!("whether somebody gave it its hardware address could not be read: {why}"))
                    .fix("mount sysfs on /sys (`mount -t sysfs sysfs /sys`) in the network namespace of the bridge, or set `tap_mode = \"routed\"`")
                    .at("network.link"),
            );
        }
        if !self.facts.without_own_mac.contains(&bridge.name) {
            return;
        }
        let own = self.facts.links.get(&bridge.name).map(|found| found.mac).filter(|mac| *mac != [0; 6]);
        let shown = own.map_or_else(|| "MAC".into(), |mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        let fix = format!(
            "give it one (`ip link set {} address {shown}`), and have the system's own network configuration do so",
            bridge.name
        );
        self.problems.push(
            Problem::new(codes::UPLINK, format!("taps cannot be joined to {}", bridge.name))
                .because("nobody gave it its hardware address: it takes the least one of its ports', which partitions' users can change, and has none without ports")
                .fix(fix)
                .at("network.link"),
        );
    }

    /// What must be there and cannot be made.
    pub(super) fn needs(&mut self) {
        if let Some(needed) = &self.layout.needs_link {
            match self.facts.links.get(&needed.name) {
                None => self.problems.push(
                    Problem::new(codes::BAD_CONFIG, format!("there is no interface {}", needed.name))
                        .because("the network mode `interface` puts addresses on one that exists")
                        .fix("name one that `ip link` shows, or use `mode = \"bridge\"`")
                        .at("network.link"),
                ),
                Some(found) if needed.bridge && found.kind != LinkKind::Bridge => self.problems.push(
                    Problem::new(codes::BAD_CONFIG, format!("taps cannot be joined to {}", needed.name))
                        .because("it is not a bridge")
                        .fix("set `tap_mode = \"routed\"`, or name a bridge")
                        .at("network.tap_mode"),
                ),
                Some(_) => {}
            }
        }
        self.refuse_deafness();
        self.refuse_wandering_mac();
        if self.layout.needs_systemd && self.facts.kernel.systemd == Presence::Absent {
            self.problems.push(
                Problem::new(codes::PREREQUISITE, "slices need systemd")
                    .because("this machine was not started by it")
                    .fix("set `slices = false` in [limits]; the agent sets what limits it can"),
            );
        }
    }
}

/// What a setting of the kernel is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Whether a link that is there already listens to routers. Before the machine forwards: the kernel then drops at once
    /// what was announced to those that would not listen any more.
    Listening,
    /// The machine as a whole, before there are links that each would be told.
    Machine,
    /// That a link of ours listens to no router, before it is raised.
    Deaf,
    /// Single links, once they are there.
    Link,
}

fn outer_end(thing: &Thing) -> Option<&String> {
    if let Thing::Namespace { veth, .. } = thing { Some(veth) } else { None }
}

/// The link that a setting is of; `None`: of the machine as a whole.
pub(super) fn link_of(key: &str) -> Option<String> {
    let (link, _) = key.split_once(".conf.")?.1.rsplit_once('.')?;
    (!matches!(link, "all" | "default")).then(|| link.replace('/', "."))
}

/// Where the kernel takes a setting of a link of ours from when the link is made.
pub(super) fn default_of(layout: &Layout, key: &str) -> Option<String> {
    let (family, rest) = key.split_once(".conf.")?;
    let (link, name) = rest.rsplit_once('.')?;
    layout.links.contains_key(&link.replace('/', ".")).then(|| format!("{family}.conf.default.{name}"))
}

pub(super) fn setting(key: &str, before: Before, from: &str, to: &str) -> Action {
    let (was, along) = (before.was.into(), before.along.clone());
    let last = Change { from: Last(before.last.map(str::to_owned)), to: Last(Some(to.into())) };
    Action::SetSysctl { key: key.into(), was, from: from.into(), to: to.into(), along, last }
}
