//! Properties of the planner, over many layouts and machines.

use super::{Contents, Plan, Problems, plan, scope};
use crate::facts::{GroupFact, HostFacts, LinkFact, LinkKind, Owner, PathFact, Presence, UserFact};
use crate::{Claims, Layout, Settings, config};
use proptest::prelude::*;
use std::path::PathBuf;

fn settings(amount: u32, mode: &str, taps: bool, users: bool, builder: bool) -> Settings {
    configured(amount, mode, users, &format!("taps = {taps}\n"), if builder { "[builder]\n" } else { "" })
}

/// `network`: further lines of [network]; `rest`: further sections.
fn configured(amount: u32, mode: &str, users: bool, network: &str, rest: &str) -> Settings {
    let mut text = format!(
        "version = 1\n[partitions]\namount = {amount}\nusers = {users}\n[network]\nmode = \"{mode}\"\n{network}"
    );
    if mode == "bridge" || mode == "interface" {
        text.push_str("ipv6_prefix = \"fd00:1::/64\"\nipv4_network = \"10.9.0.0/16\"\n");
    }
    text.push_str(rest);
    config::parse("test.toml", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// A machine before it was formatted: root's, with things of its own.
fn bare() -> HostFacts {
    let mut facts = HostFacts::default();
    facts.privileges.root = true;
    facts.privileges.net_admin = true;
    facts.kernel.tun = Presence::Present;
    facts.kernel.nft = Presence::Present;
    facts.kernel.systemd = Presence::Present;
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.ip_nonlocal_bind"] {
        facts.sysctls.insert(key.into(), "0".into());
    }
    facts.machine.cpu_millis = Some(2000);
    facts.users.insert("root".into(), UserFact { uid: 0, gid: 0, home: "/root".into() });
    facts.groups.insert("root".into(), GroupFact { gid: 0, members: Default::default() });
    let kind = LinkKind::Other(String::new());
    let lo = LinkFact { kind, up: true, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false };
    facts.links.insert("lo".into(), lo);
    for path in ["/srv", "/var", "/var/lib"] {
        let fact = PathFact::Directory {
            owner: Owner { uid: 0, gid: 0 },
            mode: 0o755,
            stranger: None,
            inside: Default::default(),
        };
        facts.paths.insert(PathBuf::from(path), fact);
    }
    facts
}

/// The plan for what a look at the machine finds that asks for all that the plan needs.
fn planned(layout: &Layout, facts: &HostFacts, claims: &Claims, contents: Contents) -> Result<Plan, Problems> {
    plan(layout, &facts.seen(&scope(layout, claims)), claims, contents)
}

/// Performs a plan on a machine and notes in the record what it made, as the shell does.
fn perform(plan: &Plan, facts: &mut HostFacts, claims: &mut Claims) {
    plan.forget.iter().for_each(|thing| claims.remove(thing));
    for action in &plan.actions {
        if let Some(thing) = action.makes() {
            claims.add(thing);
        }
        facts.perform(action);
        if let Some(thing) = action.removes() {
            claims.remove(&thing);
        }
    }
}

/// One configuration of every feature that goes with the others.
fn any_settings() -> impl Strategy<Value = Settings> {
    let modes = prop_oneof![Just("bridge"), Just("interface"), Just("loopback"), Just("none")];
    let more = (any::<[bool; 8]>(), 0usize..3, proptest::option::of(1280u32..9000));
    (0u32..30, modes, any::<bool>(), any::<bool>(), more).prop_map(|(amount, mode, users, builder, more)| {
        let ([tuns, isolation, guard, sysctls, routed, slices, disk, storage], inside, mtu) = more;
        let (bridge, links) = (mode == "bridge", matches!(mode, "bridge" | "interface"));
        let (taps, namespaces) = (links && inside == 1, bridge && inside == 2);
        let bridged = bridge && !routed;
        let mut network = format!(
            "taps = {taps}\nnamespaces = {namespaces}\ntuns = {}\nisolation = {}\nguard = {}\nsysctls = {sysctls}\n\
             tap_mode = \"{}\"\n",
            tuns && links,
            isolation && bridge,
            guard && links && (users || namespaces),
            if bridged { "bridged" } else { "routed" },
        );
        if let Some(mtu) = mtu {
            network.push_str(&format!("mtu = {mtu}\n"));
        }
        let mut rest = String::from(if builder { "[builder]\n" } else { "" });
        rest.push_str(&format!(
            "[limits]\ndisk_mib = 64\ndisk_quota = {}\nslices = {}\n",
            disk && users,
            slices && users
        ));
        let storage = if storage { "[paths]\nstorage = [\"/data\"]\n" } else { "" };
        configured(amount, mode, users, &network, &(rest + storage))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_a_plan_is_applied_the_next_one_is_empty(settings in any_settings()) {
        let layout = Layout::new(&settings).unwrap();
        let (mut facts, mut claims) = (bare(), Claims::default());
        let first = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        prop_assert!(!first.is_empty());
        perform(&first, &mut facts, &mut claims);
        let second = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        prop_assert_eq!(second, Plan::default());
    }

    #[test]
    fn reset_returns_the_machine_to_what_it_was(settings in any_settings()) {
        let layout = Layout::new(&settings).unwrap();
        let (before, mut claims) = (bare(), Claims::default());
        let mut facts = before.clone();
        perform(&planned(&layout, &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
        let back = planned(&Layout::default(), &facts, &claims, Contents::Keep).unwrap();
        perform(&back, &mut facts, &mut claims);
        prop_assert_eq!(facts, before);
        prop_assert!(claims.is_empty());
    }

    #[test]
    fn undoing_any_beginning_of_a_plan_returns_the_machine_to_what_it_was(
        from in any_settings(), to in any_settings(), cut in 0usize..400
    ) {
        let (mut facts, mut claims) = (bare(), Claims::default());
        let first = planned(&Layout::new(&from).unwrap(), &facts, &claims, Contents::Keep).unwrap();
        perform(&first, &mut facts, &mut claims);
        let before = facts.clone();
        let Ok(second) = planned(&Layout::new(&to).unwrap(), &facts, &claims, Contents::Keep) else { return Ok(()) };
        let done = &second.actions[..cut.min(second.actions.len())];
        done.iter().for_each(|action| facts.perform(action));
        done.iter().rev().for_each(|action| facts.perform(&action.inverse()));
        prop_assert_eq!(facts, before);
    }

    #[test]
    fn growing_keeps_every_fact_there_was(small in 0u32..20, more in 1u32..20, users in any::<bool>()) {
        let (mut facts, mut claims) = (bare(), Claims::default());
        let layout = |amount| Layout::new(&settings(amount, "bridge", true, users, false)).unwrap();
        perform(&planned(&layout(small), &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
        let before = facts.clone();
        let growth = planned(&layout(small + more), &facts, &claims, Contents::Keep).unwrap();
        prop_assert!(growth.actions.iter().all(|action| action.removes().is_none()));
        perform(&growth, &mut facts, &mut claims);
        prop_assert!(before.users.iter().all(|(name, user)| facts.users.get(name) == Some(user)));
        prop_assert!(before.paths.iter().all(|(path, fact)| facts.paths.get(path) == Some(fact)));
        prop_assert!(before.links.iter().all(|(name, link)| facts.links.get(name) == Some(link)));
        prop_assert!(before.addresses.is_subset(&facts.addresses));
    }

    #[test]
    fn whatever_is_missing_of_a_node_is_made_again_and_nothing_else(settings in any_settings(), lost in any::<u64>()) {
        let layout = Layout::new(&settings).unwrap();
        let (mut facts, mut claims) = (bare(), Claims::default());
        let first = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        perform(&first, &mut facts, &mut claims);
        let whole = facts.clone();
        let mut n = 0u32;
        let mut keep = || { n += 1; lost.rotate_left(n) & 1 == 0 };
        facts.addresses.retain(|_| keep());
        facts.users.retain(|name, _| name == "root" || keep());
        facts.local_routes.retain(|_| keep());
        facts.files.retain(|_, _| keep());
        let repair = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        perform(&repair, &mut facts, &mut claims);
        prop_assert_eq!(facts, whole);
    }
}

#[test]
fn a_plan_does_not_depend_on_the_order_of_what_was_found() {
    // Facts and claims are ordered maps by type: two machines described in another order are the same value.
    let layout = Layout::new(&settings(12, "bridge", true, true, true)).unwrap();
    let (mut facts, mut claims) = (bare(), Claims::default());
    let first = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
    perform(&first, &mut facts, &mut claims);
    let backwards: Claims = claims.iter().cloned().collect::<Vec<_>>().into_iter().rev().collect();
    let mut shuffled = HostFacts { links: Default::default(), paths: Default::default(), ..facts.clone() };
    facts.links.iter().rev().for_each(|(name, link)| drop(shuffled.links.insert(name.clone(), link.clone())));
    facts.paths.iter().rev().for_each(|(path, fact)| drop(shuffled.paths.insert(path.clone(), fact.clone())));
    let gone = Layout::default();
    assert_eq!(planned(&gone, &facts, &claims, Contents::Keep), planned(&gone, &shuffled, &backwards, Contents::Keep));
}

#[test]
fn a_thing_that_is_not_in_the_record_is_never_touched() {
    let layout = Layout::new(&settings(3, "bridge", true, true, false)).unwrap();
    let (mut facts, mut claims) = (bare(), Claims::default());
    perform(&planned(&layout, &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
    // The same machine without its record: all that is there is foreign.
    let problems = planned(&layout, &facts, &Claims::default(), Contents::Keep).unwrap_err();
    assert!(problems.0.iter().any(|problem| problem.what.contains("link plat0")), "{problems}");
    assert!(problems.0.iter().any(|problem| problem.what.contains("user part1")), "{problems}");
    assert!(problems.0.iter().any(|problem| problem.what.contains("/srv/plat/partitions/part2")), "{problems}");
    assert_eq!(planned(&Layout::default(), &facts, &Claims::default(), Contents::Erase), Ok(Plan::default()));
}
