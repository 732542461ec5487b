//! Properties of the planner, over many layouts and machines.

use super::{Consent, Contents, Plan, Problems, plan, rollback, rollback_scope, scope};
use crate::facts::{AddressFact, GroupFact, HostFacts, LinkFact, LinkKind, Owner, PathFact, Presence, Route, UserFact};
use crate::{Action, Claims, Layout, Settings, config};
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
        text.push_str("ipv4_network = \"10.9.0.0/16\"\n");
        if !network.contains("ipv6_prefix") {
            text.push_str("ipv6_prefix = \"fd00:1::/64\"\n");
        }
    }
    text.push_str(rest);
    config::parse("test.toml", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// What is left to the machine, taken from it.
fn layout_on(facts: &HostFacts, settings: &Settings) -> Layout {
    let settings = settings.clone().resolve(facts).unwrap_or_else(|problems| panic!("{problems}"));
    Layout::new(&settings).unwrap()
}

/// An interface that the machine is reached through, and a spare one.
const CARRIER: &str = "nic0";
const SPARE: &str = "nic1";

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
    // What the kernel writes along with forwarding, as its owner had it: no redirects, and links that forward on their own.
    facts.sysctls.insert("net.ipv4.conf.all.accept_redirects".into(), "0".into());
    for (link, family) in [(CARRIER, "ipv4"), (SPARE, "ipv6")] {
        facts.sysctls.insert(format!("net.{family}.conf.{link}.forwarding"), "1".into());
        facts.sysctls.insert(format!("net.{family}.conf.default.forwarding"), "0".into());
    }
    facts.machine.cpu_millis = Some(2000);
    facts.users.insert("root".into(), UserFact { uid: 0, gid: 0, home: "/root".into() });
    facts.groups.insert("root".into(), GroupFact { gid: 0, ..GroupFact::default() });
    let kind = LinkKind::Other(String::new());
    let lo = LinkFact { kind, up: true, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false };
    facts.links.insert("lo".into(), lo);
    for (nic, link) in [(CARRIER, 2), (SPARE, 3)] {
        let kind = LinkKind::Other(String::new());
        let link =
            LinkFact { kind, up: nic == CARRIER, bridge: None, group: 0, mac: [link; 6], mtu: None, isolated: false };
        facts.links.insert(nic.into(), link);
        for (key, value) in [("accept_ra", "1"), ("disable_ipv6", "0")] {
            facts.sysctls.insert(format!("net.ipv6.conf.{nic}.{key}"), value.into());
        }
    }
    for address in ["192.0.2.7/24", "2001:db8:7::7/64"] {
        let address = address.parse().unwrap();
        facts.addresses.insert(AddressFact { link: CARRIER.into(), address, leased: false, bound_only: false });
    }
    for (destination, via) in [("0.0.0.0/0", "192.0.2.1"), ("::/0", "2001:db8:7::1")] {
        let (destination, via) = (destination.parse().unwrap(), Some(via.parse().unwrap()));
        facts.routes.insert(Route { destination, link: CARRIER.into(), via, metric: 0, source: None, onlink: false });
    }
    for path in ["/srv", "/var", "/var/lib"] {
        let fact = PathFact::Directory {
            owner: Owner { uid: 0, gid: 0 },
            mode: 0o755,
            stranger: None,
            inside: Default::default(),
            half_made: false,
        };
        facts.paths.insert(PathBuf::from(path), fact);
    }
    facts
}

/// The plan for what a look at the machine finds that asks for all that the plan needs.
fn planned(layout: &Layout, facts: &HostFacts, claims: &Claims, contents: Contents) -> Result<Plan, Problems> {
    plan(layout, &facts.seen(&scope(layout, claims)), claims, Consent { contents, take_uplink: true })
}

/// Performs a plan on a machine and notes in the record what it made, as the shell does.
fn perform(plan: &Plan, facts: &mut HostFacts, claims: &mut Claims) {
    plan.forget.iter().for_each(|thing| claims.remove(thing));
    for action in &plan.actions {
        if let Some(thing) = action.makes() {
            claims.add(thing);
        }
        facts.perform(action);
        if let Some(thing) = action.settles() {
            claims.add(thing);
        }
        if let Some(thing) = action.removes() {
            claims.remove(&thing);
        }
    }
}

/// One configuration of every feature that goes with the others.
fn any_settings() -> impl Strategy<Value = Settings> {
    any_settings_of(prop_oneof![Just("bridge"), Just("interface"), Just("loopback"), Just("none")])
}

fn any_settings_of(modes: impl Strategy<Value = &'static str>) -> impl Strategy<Value = Settings> {
    let more = (any::<[bool; 9]>(), 0usize..3, proptest::option::of(1280u32..9000), 0usize..3);
    (0u32..30, modes, any::<bool>(), any::<bool>(), more).prop_map(|(amount, mode, users, builder, more)| {
        let ([tuns, isolation, guard, sysctls, routed, slices, disk, storage, its_prefix], inside, mtu, uplink) = more;
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
        if let Some(uplink) = [None, Some(CARRIER), Some(SPARE)][uplink].filter(|_| bridge) {
            network.push_str(&format!("uplink = \"{uplink}\"\n"));
            if namespaces {
                network.push_str("gateway = true\n");
            } else if its_prefix && uplink == CARRIER {
                network.push_str("ipv6_prefix = \"uplink\"\n");
            }
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

const AGREED: Consent = Consent { contents: Contents::Keep, take_uplink: true };

/// A configuration with much in every section, by its lines.
const EVERYTHING: [(&str, &[&str]); 6] = [
    ("version = 1", &[]),
    (
        "[partitions]",
        &[
            "amount = 12",
            "groups = [\"video\", \"kvm\", \"audio\"]",
            "directories = { srv = \"0750\", etc = \"0755\", run = \"0700\" }",
            "first_uid = 30000",
            "mode = \"0700\"",
        ],
    ),
    ("[paths]", &["storage = [\"/data\", \"/fast\"]", "root = \"/srv/plat/p\"", "resources = \"/srv/plat/r\""]),
    (
        "[network]",
        &[
            "mode = \"bridge\"",
            "uplink = \"nic0\"",
            "ipv6_prefix = \"uplink\"",
            "ipv4_network = \"10.9.0.0/16\"",
            "tuns = true",
            "tun_ipv4_network = \"172.16.0.0/12\"",
            "guard = true",
            "mtu = 1400",
        ],
    ),
    ("[builder]", &["uid = 19000", "user = \"maker\"", "gid = 18000"]),
    ("[limits]", &["disk_mib = 64", "slices = true", "disk_quota = true", "processes = 7"]),
];

/// Where something stands in another order.
fn place(what: impl std::hash::Hash, order: u64) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    order.hash(&mut hasher);
    hasher.finish()
}

/// The same machine, whose directories and files were found in another order.
fn in_another_order(facts: &HostFacts, order: u64) -> HostFacts {
    let mut facts = facts.clone();
    facts.paths.sort_by_cached_key(|path, _| place(path, order));
    facts.files.sort_by_cached_key(|path, _| place(path, order));
    facts.disk_limits.sort_by_cached_key(|path, _| place(path, order));
    facts.unlimitable.sort_by_cached_key(|path, _| place(path, order));
    facts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_a_plan_is_applied_the_next_one_is_empty(settings in any_settings()) {
        let layout = layout_on(&bare(), &settings);
        let (mut facts, mut claims) = (bare(), Claims::default());
        let first = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        prop_assert!(!first.is_empty());
        perform(&first, &mut facts, &mut claims);
        let second = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        prop_assert_eq!((second.actions, second.forget), (Vec::new(), Vec::new()));
    }

    #[test]
    fn reset_returns_the_machine_to_what_it_was(settings in any_settings()) {
        let layout = layout_on(&bare(), &settings);
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
        let first = planned(&layout_on(&bare(), &from), &facts, &claims, Contents::Keep).unwrap();
        perform(&first, &mut facts, &mut claims);
        let before = facts.clone();
        let Ok(second) = planned(&layout_on(&facts, &to), &facts, &claims, Contents::Keep) else { return Ok(()) };
        let done = &second.actions[..cut.min(second.actions.len())];
        done.iter().for_each(|action| facts.perform(action));
        crate::undoing(&done.iter().collect::<Vec<_>>()).iter().for_each(|action| facts.perform(action));
        prop_assert_eq!(facts, before);
    }

    #[test]
    fn a_node_that_is_changed_is_as_one_that_was_made_so(
        from in any_settings_of(Just("bridge")), to in prop_oneof![any_settings(), any_settings_of(Just("bridge"))]
    ) {
        let made = |facts: &mut HostFacts, claims: &mut Claims, settings: &Settings| {
            let plan = planned(&layout_on(facts, settings), facts, claims, Contents::Keep);
            plan.map(|plan| perform(&plan, facts, claims))
        };
        let (mut changed, mut claims) = (bare(), Claims::default());
        made(&mut changed, &mut claims, &from).unwrap();
        if made(&mut changed, &mut claims, &to).is_err() {
            return Ok(());
        }
        let (mut anew, mut of_it) = (bare(), Claims::default());
        made(&mut anew, &mut of_it, &to).unwrap();
        // What the kernel gives a link that is made; a bridge with an uplink is left as it was found.
        let told = |link: &mut LinkFact| {
            link.mtu = link.mtu.filter(|mtu| *mtu != crate::facts::MTU && link.kind != LinkKind::Bridge);
        };
        for facts in [&mut changed, &mut anew] {
            facts.links.values_mut().for_each(told);
            facts.namespaces.values_mut().flat_map(|inside| &mut inside.link).for_each(told);
        }
        prop_assert_eq!(changed, anew);
        prop_assert_eq!(claims, of_it);
    }

    #[test]
    fn growing_keeps_every_fact_there_was(small in 0u32..20, more in 1u32..20, users in any::<bool>()) {
        let (mut facts, mut claims) = (bare(), Claims::default());
        let layout = |amount| layout_on(&bare(), &settings(amount, "bridge", true, users, false));
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
        let layout = layout_on(&bare(), &settings);
        let (mut facts, mut claims) = (bare(), Claims::default());
        let first = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        perform(&first, &mut facts, &mut claims);
        let whole = facts.clone();
        let mut n = 0u32;
        let mut keep = || { n += 1; lost.rotate_left(n) & 1 == 0 };
        facts.addresses.retain(|address| address.link == CARRIER || keep());
        facts.users.retain(|name, _| name == "root" || keep());
        facts.local_routes.retain(|_| keep());
        facts.files.retain(|_, _| keep());
        let repair = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        perform(&repair, &mut facts, &mut claims);
        prop_assert_eq!(facts, whole);
    }

    #[test]
    fn settings_leave_the_same_to_a_formatted_machine_as_to_a_bare_one(settings in any_settings()) {
        let (mut facts, mut claims) = (bare(), Claims::default());
        let layout = layout_on(&facts, &settings);
        perform(&planned(&layout, &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
        prop_assert_eq!(settings.clone().resolve(&facts), settings.resolve(&bare()));
    }

    #[test]
    fn a_rollback_gives_the_machine_its_own_network_back_and_a_reset_all_the_rest(settings in any_settings()) {
        let (before, mut claims) = (bare(), Claims::default());
        let mut facts = before.clone();
        let layout = layout_on(&facts, &settings);
        perform(&planned(&layout, &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
        perform(&rollback(&facts.seen(&rollback_scope(&claims)), &claims).unwrap(), &mut facts, &mut claims);
        let carried = |facts: &HostFacts| {
            let addresses: Vec<_> = facts.addresses.iter().filter(|found| found.link == CARRIER).cloned().collect();
            let routes: Vec<_> = facts.routes.iter().filter(|found| found.link == CARRIER).cloned().collect();
            (facts.links[CARRIER].clone(), addresses, routes)
        };
        prop_assert_eq!(carried(&facts), carried(&before));
        prop_assert_eq!(rollback(&facts, &claims).unwrap().actions, Vec::new());
        perform(&planned(&Layout::default(), &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
        prop_assert_eq!(facts, before);
    }

    #[test]
    fn an_uplink_that_carries_the_machine_is_never_taken_without_consent(settings in any_settings()) {
        let facts = bare();
        let layout = layout_on(&facts, &settings);
        let taken = layout.uplink.as_ref().is_some_and(|uplink| uplink.link == CARRIER);
        let planned = plan(&layout, &facts, &Claims::default(), Contents::Keep);
        prop_assert_eq!(planned.is_err(), taken);
    }

    #[test]
    fn a_plan_does_not_depend_on_the_order_of_what_was_found(
        from in any_settings(), to in any_settings(), order in any::<u64>()
    ) {
        let (mut facts, mut claims) = (bare(), Claims::default());
        let shuffled = in_another_order(&facts, order);
        let first = layout_on(&facts, &from);
        prop_assert_eq!(
            plan(&first, &facts, &claims, AGREED), plan(&first, &shuffled, &claims, AGREED), "from nothing"
        );
        perform(&planned(&first, &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
        let shuffled = in_another_order(&facts, order);
        for layout in [layout_on(&facts, &to), Layout::default()] {
            prop_assert_eq!(plan(&layout, &facts, &claims, AGREED), plan(&layout, &shuffled, &claims, AGREED));
        }
    }

    #[test]
    fn a_plan_does_not_depend_on_the_order_of_what_was_asked_for(order in any::<u64>()) {
        let written = EVERYTHING.map(|(section, lines)| (section, lines.to_vec()));
        let mut other = written.clone();
        // What is outside of sections comes before them.
        other[1..].sort_by_cached_key(|(section, _)| place(section, order));
        other.iter_mut().for_each(|(_, lines)| lines.sort_by_cached_key(|line| place(line, order)));
        let text = |sections: &[(&str, Vec<&str>)]| {
            let lines = sections.iter().flat_map(|(section, lines)| [*section].into_iter().chain(lines.iter().copied()));
            lines.collect::<Vec<_>>().join("\n")
        };
        let mut facts = bare();
        for group in ["kvm", "video", "audio"] {
            facts.groups.insert(group.into(), GroupFact { gid: 0, ..GroupFact::default() });
        }
        let planned = |sections: &[(&str, Vec<&str>)]| {
            let settings = config::parse("test.toml", &text(sections)).unwrap_or_else(|problems| panic!("{problems}"));
            plan(&layout_on(&facts, &settings), &facts, &Claims::default(), AGREED).unwrap()
        };
        prop_assert_eq!(planned(&other), planned(&written));
    }
}

#[test]
fn a_thing_that_is_not_in_the_record_is_never_touched() {
    let layout = layout_on(&bare(), &settings(3, "bridge", true, true, false));
    let (mut facts, mut claims) = (bare(), Claims::default());
    perform(&planned(&layout, &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
    // The same machine without its record: all that is there is foreign.
    let problems = planned(&layout, &facts, &Claims::default(), Contents::Keep).unwrap_err();
    assert!(problems.0.iter().any(|problem| problem.what.contains("link plat0")), "{problems}");
    assert!(problems.0.iter().any(|problem| problem.what.contains("user part1")), "{problems}");
    assert!(problems.0.iter().any(|problem| problem.what.contains("/srv/plat/partitions/part2")), "{problems}");
    assert_eq!(planned(&Layout::default(), &facts, &Claims::default(), Contents::Erase), Ok(Plan::default()));
}

#[test]
fn a_bridge_that_a_killed_run_had_not_told_to_listen_yet_is_told_by_the_next() {
    const LISTENS: &str = "net.ipv6.conf.plat0.accept_ra";
    let tells = |action: &Action| matches!(action, Action::SetSysctl { key, to, .. } if key == LISTENS && to == "2");
    let with_uplink = configured(1, "bridge", true, &format!("uplink = \"{CARRIER}\"\n"), "");
    for (default, without_first) in [("0", false), ("0", true), ("1", true)] {
        let (mut facts, mut claims) = (bare(), Claims::default());
        facts.sysctls.insert("net.ipv6.conf.default.accept_ra".into(), default.into());
        if without_first {
            let layout = layout_on(&facts, &configured(1, "bridge", true, "", ""));
            perform(&planned(&layout, &facts, &claims, Contents::Keep).unwrap(), &mut facts, &mut claims);
        }
        let layout = layout_on(&facts, &with_uplink);
        let mut killed = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
        let at = killed.actions.iter().position(tells).expect("it is to be told");
        let next = killed.actions.drain(at..).next().unwrap();
        perform(&killed, &mut facts, &mut claims);
        facts.sysctls.insert(LISTENS.into(), "0".into());
        for in_the_record in [false, true] {
            next.makes().filter(|_| in_the_record).into_iter().for_each(|thing| claims.add(thing));
            let plan = planned(&layout, &facts, &claims, Contents::Keep).unwrap();
            assert!(plan.actions.iter().any(tells), "{default}, {without_first}, {in_the_record}");
        }
    }
}
