//! What belongs to the machine as a whole: the kernel's settings, the packet filter, what must be there.

use super::Planner;
use crate::action::Action;
use crate::facts::{Guard, LinkKind, Presence};
use crate::layout::Layout;
use crate::thing::Thing;
use plat_model::problem::{Problem, codes};

impl Planner<'_> {
    /// Those of the machine as a whole, before there are links that each would be told; or those of single links, once
    /// they are there.
    pub(super) fn sysctls(&mut self, part: Part) {
        for thing in self.claims.iter() {
            let Thing::Sysctl { key, was } = thing else { continue };
            if part != Part::of(key) {
                continue;
            }
            match self.facts.sysctls.get(key) {
                _ if self.layout.sysctls.contains_key(key) => {}
                Some(found) if found != was => self.remove.push(setting(key, was, found, was)),
                _ => self.forget.push(thing.clone()),
            }
        }
        for (key, wanted) in self.layout.sysctls.iter().filter(|(key, _)| part == Part::of(key)) {
            let found = self.facts.sysctls.get(key);
            // An interface that was told not to listen to routers stays so.
            if key.starts_with("net.ipv6.") && self.facts.kernel.ipv6 == Presence::Absent {
                continue; // Nothing to set; if addresses need it, that is said.
            }
            let deaf = key.ends_with(".accept_ra") && found.is_some_and(|found| found == "0");
            if found == Some(wanted) || deaf {
                continue;
            }
            let Some(found) = found.cloned().or_else(|| self.of_a_link_to_be(key)) else {
                self.refuse_setting(key);
                continue;
            };
            if found == *wanted {
                continue; // It will be so by itself.
            }
            let was = self.settings_before.get(key.as_str()).copied().unwrap_or(&found);
            self.add.push(setting(key, was, &found, wanted));
        }
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
        let ours = self.claims.has(&Thing::Guard);
        match (found, wanted) {
            (None, None) if ours => self.forget.push(Thing::Guard),
            (Some(found), None) if ours => self.remove.push(Action::SetGuard { from: Some(found.clone()), to: None }),
            (_, None) => {}
            (Some(_), Some(_)) if !ours => {
                let fix =
                    "remove it (`nft delete table inet plat`, or `bridge plat`), or set `guard = false` in [network]";
                self.foreign("the packet filter has a table `plat`".into(), "node-format did not make it", fix);
            }
            (Some(found), Some(wanted)) if Guard::equals(found, wanted) => {}
            (found, Some(wanted)) => {
                self.add.push(Action::SetGuard { from: found.cloned(), to: Some(wanted.clone()) });
            }
        }
        // One that was made is neither seen nor removed without it.
        if (wanted.is_some() || ours) && self.facts.kernel.nft == Presence::Absent {
            self.problems.push(
                Problem::new(codes::PREREQUISITE, "the guard needs the program nft")
                    .because("it is neither on PATH nor in /usr/sbin")
                    .fix("install nftables, or set `guard = false` in [network] (a partition could then use its neighbours' addresses)"),
            );
        }
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
    Machine,
    Link,
}

impl Part {
    fn of(key: &str) -> Self {
        let of_a_link = key.contains(".conf.") && !key.contains(".conf.all.") && !key.contains(".conf.default.");
        if of_a_link { Self::Link } else { Self::Machine }
    }
}

/// Where the kernel takes a setting of a link of ours from when the link is made.
pub(super) fn default_of(layout: &Layout, key: &str) -> Option<String> {
    let (family, rest) = key.split_once(".conf.")?;
    let (link, name) = rest.rsplit_once('.')?;
    layout.links.contains_key(&link.replace('/', ".")).then(|| format!("{family}.conf.default.{name}"))
}

fn setting(key: &str, was: &str, from: &str, to: &str) -> Action {
    Action::SetSysctl { key: key.into(), was: was.into(), from: from.into(), to: to.into() }
}
