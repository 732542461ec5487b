//! Whatever fails, at whatever action: the machine is as it was, or the next run goes on from the record.

use node_format::{Epoch, FakeHost, Fault, Host, Killed, Outcome, Record, Wish, apply, propose, roll_back};
use node_format_plan::facts::{
    About, AddressFact, FileFact, LinkFact, LinkKind, Odd, Owner, PathFact, Presence, Route, Subordinate,
};
use node_format_plan::{Action, Claims, Consent, Contents, HostFacts, Layout, Scope, Thing, parse};
use plat_model::problem::{Problem, Problems, codes};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// One that no namespace of this machine has.
fn epoch() -> Epoch {
    Epoch::new("boot", 1, None)
}
const AGREED: Consent = Consent { contents: Contents::Keep, take_uplink: true };

fn layout(amount: u32) -> Layout {
    layout_with(amount, "")
}

/// Everything that goes together: an uplink that carries the machine, tuns, slices, disk limits, storage.
fn full(amount: u32) -> Layout {
    layout_with(
        amount,
        "tuns = true\nuplink = \"eth0\"\nmtu = 1400\n[limits]\ndisk_mib = 9\ndisk_quota = true\nslices = true\n\
         [paths]\nstorage = [\"/data\"]\n",
    )
}

#[test]
fn a_run_that_fails_keeps_in_mind_whose_directories_they_are_though_somebody_removed_the_account() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let mut host = bare();
    run(&layout(2), &mut host, &record).unwrap();
    let whole = host.facts.clone();
    host.facts.users.remove("part1");
    host.facts.groups.remove("part1");
    let (before, was) = (host.facts.clone(), claims(&record));
    for at in 0..actions(&layout(2), &mut host, &record) {
        for fails in [Fault::Fails, Fault::HalfWay] {
            host.fault = Some(fails(host.performed + at));
            assert!(run(&layout(2), &mut host, &record).is_err());
            assert_eq!((&host.facts, claims(&record)), (&before, was.clone()), "action {at}");
        }
    }
    host.fault = None;
    run(&layout(2), &mut host, &record).unwrap();
    assert_eq!(host.facts, whole);
    run(&Layout::default(), &mut host, &record).unwrap();
    assert_eq!(host.facts, bare().facts);
}

#[test]
fn a_run_that_fails_knows_still_what_settings_were_before_that_others_change_along() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let mut host = bare();
    let (link, all) = ("net.ipv4.conf.eth0.forwarding", "net.ipv4.ip_forward");
    host.facts.sysctls.insert(link.into(), "1".into());
    run(&layout(1), &mut host, &record).unwrap();
    // Equal are any two of the same key, whatever is known of it.
    let known = || format!("{:?}", claims(&record));
    let was = known();
    assert!(was.contains(&format!("along: Along({{\"{link}\": \"1\"}})")), "{was}");
    // Somebody set the one since, and the other too.
    for (set, wanted) in [([(link, "0"), (all, "1")], Layout::default()), ([(link, "0"), (all, "2")], layout(1))] {
        host.facts.sysctls.extend(set.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let facts = host.facts.clone();
        for at in 0..actions(&wanted, &mut host, &record) {
            host.fault = Some(Fault::Fails(host.performed + at));
            assert!(run(&wanted, &mut host, &record).is_err());
            assert_eq!(known(), was, "action {at}");
            host.facts.clone_from(&facts);
        }
    }
}

fn layout_with(amount: u32, more: &str) -> Layout {
    let text = format!(
        "version = 1\n[partitions]\namount = {amount}\n[builder]\n[network]\nmode = \"bridge\"\n\
         ipv6_prefix = \"fd00:1::/64\"\nipv4_network = \"10.9.0.0/16\"\n{more}"
    );
    let settings = parse("test.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    Layout::new(&settings.resolve(&bare().facts).unwrap()).unwrap()
}

fn bare() -> FakeHost {
    let mut facts = HostFacts::default();
    (facts.privileges.root, facts.privileges.net_admin) = (true, true);
    (facts.kernel.tun, facts.kernel.nft) = (Presence::Present, Presence::Present);
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.ip_nonlocal_bind"] {
        facts.sysctls.insert(key.into(), "0".into());
    }
    for path in ["/srv", "/var", "/var/lib"] {
        let fact = PathFact::Directory {
            owner: Owner { uid: 0, gid: 0 },
            mode: 0o755,
            stranger: None,
            inside: Default::default(),
            half_made: false,
        };
        facts.paths.insert(path.into(), fact);
    }
    facts.kernel.systemd = Presence::Present;
    for key in ["net.ipv6.conf.eth0.accept_ra", "net.ipv6.conf.eth0.disable_ipv6"] {
        facts.sysctls.insert(key.into(), "0".into());
    }
    let kind = LinkKind::Other(String::new());
    let eth0 = LinkFact { kind, up: true, bridge: None, group: 0, mac: [2; 6], mtu: None, isolated: false };
    facts.links.insert("eth0".into(), eth0);
    let address = "192.0.2.7/24".parse().unwrap();
    facts.addresses.insert(AddressFact { link: "eth0".into(), address, leased: false, bound_only: false });
    let (destination, via) = ("0.0.0.0/0".parse().unwrap(), Some("192.0.2.1".parse().unwrap()));
    facts.routes.insert(Route { destination, link: "eth0".into(), via, metric: 0, source: None, onlink: false });
    FakeHost::new(facts)
}

/// One run as the program makes it: the record opened, the plan applied, the record finished.
fn run(layout: &Layout, host: &mut FakeHost, record: &Path) -> Result<(), Problems> {
    run_with(AGREED, layout, host, record)
}

fn run_with(consent: Consent, layout: &Layout, host: &mut FakeHost, record: &Path) -> Result<(), Problems> {
    let mut record = Record::open(record, &epoch())?;
    let result = apply(Wish::new(layout, consent), host, &mut record, &mut |_, _| {});
    record.finish()?;
    result.map(drop)
}

fn claims(record: &Path) -> Claims {
    Record::read(record, &epoch()).unwrap().claims().clone()
}

fn actions(layout: &Layout, host: &mut FakeHost, record: &Path) -> usize {
    let record = Record::read(record, &epoch()).unwrap();
    propose(Wish::new(layout, AGREED), host, &record).unwrap().actions.len()
}

#[test]
fn an_action_that_fails_leaves_the_machine_as_it_was_whichever_it_is() {
    [layout(2), full(1)].iter().for_each(fails_anywhere);
}

fn fails_anywhere(layout: &Layout) {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let all = actions(layout, &mut bare(), &record);
    assert!(all > 25, "{all}");
    for fault in (0..all).flat_map(|at| [Fault::Fails(at), Fault::HalfWay(at)]) {
        let mut host = bare();
        let before = host.facts.clone();
        host.fault = Some(fault);
        let problems = run(layout, &mut host, &record).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert_eq!(problems.0[0].code, codes::APPLY_FAILED);
        assert_eq!(host.facts, before, "after {fault:?}");
        assert!(!record.exists() && !folder.path().join("format").exists(), "the record is gone with all it named");
    }
}

#[test]
fn a_run_killed_at_any_action_is_completed_by_the_next() {
    [layout(2), full(1)].iter().for_each(killed_anywhere);
}

fn killed_anywhere(layout: &Layout) {
    let folder = tempfile::tempdir().unwrap();
    let all = actions(layout, &mut bare(), &folder.path().join("format/record"));
    // Hundreds of expected panics would hide an unexpected one.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().is::<Killed>() {
            usual(panic);
        }
    }));
    for at in 0..all {
        for fault in [Fault::KilledBefore(at), Fault::KilledAfter(at)] {
            let folder = tempfile::tempdir().unwrap();
            let record = folder.path().join("format/record");
            let (mut host, before) = (bare(), bare().facts);
            host.fault = Some(fault);
            let killed = catch_unwind(AssertUnwindSafe(|| run(layout, &mut host, &record))).unwrap_err();
            assert!(killed.is::<Killed>());
            host.fault = None;
            let half = host.facts.clone();
            // Forward from there …
            run(layout, &mut host, &record).unwrap();
            assert_eq!(actions(layout, &mut host, &record), 0, "{fault:?}");
            run(&Layout::default(), &mut host, &record).unwrap();
            assert_eq!(host.facts, before, "{fault:?}: reset after going on");
            // … or back, from the record as the kill left it.
            let again = tempfile::tempdir().unwrap();
            let record = again.path().join("format/record");
            let (mut host, mut killed_host) = (FakeHost::new(half), bare());
            killed_host.fault = Some(fault);
            let _ = catch_unwind(AssertUnwindSafe(|| run(layout, &mut killed_host, &record)));
            run(&Layout::default(), &mut host, &record).unwrap();
            assert_eq!(host.facts, before, "{fault:?}: reset at once");
        }
    }
}

#[test]
fn what_cannot_be_undone_is_said_and_stays_in_the_record() {
    let (layout, folder) = (layout(2), tempfile::tempdir().unwrap());
    let record = folder.path().join("format/record");
    let (mut host, before) = (bare(), bare().facts);
    host.fault = Some(Fault::Breaks(12));
    let problems = run(&layout, &mut host, &record).unwrap_err();
    assert!(problems.0.iter().any(|problem| problem.code == codes::UNDO_FAILED), "{problems}");
    assert_ne!(host.facts, before);
    host.fault = None;
    run(&Layout::default(), &mut host, &record).unwrap();
    assert_eq!(host.facts, before);
}

#[test]
fn what_nobody_heard_of_stays_in_the_record_and_the_next_run_goes_on_or_back() {
    for layout in [layout(2), full(1)] {
        let folder = tempfile::tempdir().unwrap();
        let all = actions(&layout, &mut bare(), &folder.path().join("none/record"));
        for at in 0..all {
            let record = folder.path().join(format!("{at}/record"));
            let (mut host, before) = (bare(), bare().facts);
            host.fault = Some(Fault::Unheard(at));
            let problems = run(&layout, &mut host, &record).unwrap_err();
            let unknown = |problem: &Problem| problem.code == codes::UNDO_FAILED && problem.what.contains("not known");
            assert!(problems.0.iter().any(unknown), "{problems}");
            host.fault = None;
            if at % 2 == 0 {
                run(&layout, &mut host, &record).unwrap_or_else(|problems| panic!("{at}: {problems}"));
            }
            run(&Layout::default(), &mut host, &record).unwrap();
            assert_eq!(host.facts, before, "{at}");
        }
    }
}

#[test]
fn a_user_who_runs_something_when_he_is_about_to_go_stays() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let mut host = bare();
    run(&layout(1), &mut host, &record).unwrap();
    let before = host.facts.clone();
    host.fault = Some(Fault::Arrives { after: host.performed + 1, uid: 20_000 });
    let problems = run(&Layout::default(), &mut host, &record).unwrap_err();
    assert!(problems.0[0].why.contains("processes of uid 20000 are running"), "{problems}");
    assert_eq!(host.facts, before, "what was removed before him is back");
    // So may one in a container of his.
    let range = Subordinate { owner: "part0".into(), first: 100_000, count: 65_536 };
    host.facts.subordinate_uids.insert(range);
    host.fault = Some(Fault::Arrives { after: host.performed + 1, uid: 100_007 });
    let problems = run(&Layout::default(), &mut host, &record).unwrap_err();
    assert!(problems.0[0].why.contains("processes of uid 100007 are running"), "{problems}");
    host.fault = None;
    run(&Layout::default(), &mut host, &record).unwrap();
}

#[test]
fn a_signal_between_two_batches_undoes_the_run() {
    let (layout, folder) = (layout(2), tempfile::tempdir().unwrap());
    let record = folder.path().join("format/record");
    let (mut host, before) = (bare(), bare().facts);
    host.fault = Some(Fault::Interrupt(10));
    assert!(run(&layout, &mut host, &record).is_err());
    assert_eq!(host.facts, before);
}

#[test]
fn a_failed_growth_and_a_failed_shrink_leave_the_node_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let mut host = bare();
    run(&layout(3), &mut host, &record).unwrap();
    // Somebody put somebody else into a group of ours.
    host.facts.groups.get_mut("part2").unwrap().members.insert("www".into());
    let (before, was) = (host.facts.clone(), claims(&record));
    for wanted in [layout(5), layout(1)] {
        let all = actions(&wanted, &mut host, &record);
        for at in 0..all {
            host.fault = Some(Fault::Fails(host.performed + at));
            assert!(run(&wanted, &mut host, &record).is_err());
            assert_eq!(host.facts, before, "action {at}");
            assert_eq!(claims(&record), was, "action {at}");
        }
    }
    host.fault = None;
    assert_eq!(actions(&layout(3), &mut host, &record), 0);
}

/// One that sees to it that no link is up which is to hear no router and was not told so.
struct Watching {
    host: FakeHost,
    deaf: Vec<String>,
}

impl Host for Watching {
    fn observe(&mut self, scope: &Scope) -> plat_model::problem::Result<HostFacts> {
        self.host.observe(scope)
    }

    fn perform(&mut self, batch: &[Action]) -> Outcome {
        for action in batch {
            if let Action::AddLink { name, link } | Action::SetLink { name, to: link, .. } = action
                && link.up
                && self.deaf.contains(&format!("net.ipv6.conf.{name}.accept_ra"))
            {
                let told = self.host.facts.sysctls.get(&format!("net.ipv6.conf.{name}.accept_ra"));
                assert_eq!(told.map(String::as_str), Some("0"), "{action:?}");
            }
        }
        self.host.perform(batch)
    }
}

#[test]
fn without_a_guard_no_link_is_raised_before_it_is_told_to_hear_no_router() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let unguarded = |amount| layout_with(amount, "guard = false\ntap_mode = \"routed\"\ntuns = true\n");
    let mut deaf = unguarded(3).sysctls;
    deaf.retain(|key, value| key.ends_with(".accept_ra") && value == "0");
    let deaf: Vec<String> = deaf.into_keys().collect();
    assert!(deaf.len() > 6, "{deaf:?}");
    let mut machine = Watching { host: bare(), deaf };
    machine.host.facts.sysctls.insert("net.ipv6.conf.default.accept_ra".into(), "1".into());
    let run = |layout: &Layout, machine: &mut Watching| {
        let mut record = Record::open(&record, &epoch())?;
        let result = apply(Wish::new(layout, AGREED), machine, &mut record, &mut |_, _| {});
        record.finish()?;
        result.map(drop)
    };
    run(&unguarded(3), &mut machine).unwrap();
    let before = machine.host.facts.clone();
    for wanted in [unguarded(1), Layout::default()] {
        for at in 0..actions(&wanted, &mut machine.host, &record) {
            machine.host.fault = Some(Fault::Fails(machine.host.performed + at));
            let is_done = run(&wanted, &mut machine).is_ok();
            machine.host.fault = None;
            if is_done {
                run(&unguarded(3), &mut machine).unwrap(); // What a tenant can keep from being done keeps nothing else.
            }
            assert_eq!(machine.host.facts, before, "action {at}");
        }
    }
}

/// A node whose bridge was told to hear routers.
fn listening() -> (FakeHost, Layout, &'static str) {
    let mut host = bare();
    // Nobody is reached by the uplink.
    host.facts.addresses.clear();
    host.facts.routes.clear();
    host.facts.sysctls.insert("net.ipv6.conf.default.accept_ra".into(), "1".into());
    (host, layout_with(1, "uplink = \"eth0\"\n"), "net.ipv6.conf.plat0.accept_ra")
}

#[test]
fn a_run_that_fails_leaves_it_known_that_somebody_told_the_bridge_to_hear_no_router() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let (mut host, layout, key) = listening();
    run(&layout, &mut host, &record).unwrap();
    assert_eq!(host.facts.sysctls[key], "2");
    // Of one that is set in vain, too.
    host.facts.sysctls.insert(key.into(), "1".into());
    host.fault = Some(Fault::Fails(host.performed));
    run(&layout, &mut host, &record).unwrap_err();
    host.fault = None;
    host.facts.sysctls.insert(key.into(), "0".into());
    let before = host.facts.clone();
    for at in 0..actions(&Layout::default(), &mut host, &record) {
        assert_eq!(actions(&layout, &mut host, &record), 0, "action {at}");
        host.fault = Some(Fault::Fails(host.performed + at));
        let failed = run(&Layout::default(), &mut host, &record).is_err();
        host.fault = None;
        if !failed {
            break; // What a partition's user can keep from being done keeps nothing else.
        }
        assert_eq!(host.facts, before, "action {at}");
    }
}

#[test]
fn what_a_killed_run_set_and_did_not_come_to_say_the_next_one_says() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let (mut host, layout, key) = listening();
    let plan = propose(Wish::new(&layout, AGREED), &mut host, &Record::read(&record, &epoch()).unwrap()).unwrap();
    let sets = |action: &Action| matches!(action, Action::SetSysctl { key: of, .. } if of == key);
    host.fault = Some(Fault::KilledAfter(plan.actions.iter().position(sets).unwrap()));
    let killed = catch_unwind(AssertUnwindSafe(|| run(&layout, &mut host, &record))).unwrap_err();
    assert!(killed.is::<Killed>());
    host.fault = None;
    run(&layout, &mut host, &record).unwrap();
    assert_eq!(actions(&layout, &mut host, &record), 0);
    host.facts.sysctls.insert(key.into(), "0".into());
    assert_eq!(actions(&layout, &mut host, &record), 0, "somebody told it so since");
}

#[test]
fn what_went_with_a_pair_that_was_made_anew_is_named_by_a_run_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let layout = |amount| layout_with(amount, "namespaces = true\n");
    let mut host = bare();
    run(&layout(1), &mut host, &record).unwrap();
    // Its inner end is called otherwise.
    host.facts.namespaces.get_mut("part0").unwrap().link = None;
    host.facts.addresses.insert(AddressFact::ours("part-v0", "172.31.0.1/24".parse().unwrap()));
    let last = actions(&layout(2), &mut host, &record) - 1;
    host.fault = Some(Fault::Fails(host.performed + last));
    let problems = run(&layout(2), &mut host, &record).unwrap_err();
    let lost = "but for what may have gone along: part-v0 goes, and with it the address 172.31.0.1/24";
    assert!(problems.to_string().contains(lost), "{problems}");
}

#[test]
fn what_goes_with_the_first_address_in_a_namespace_again_is_named_by_a_run_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let layout = |amount| layout_with(amount, "namespaces = true\n");
    let mut host = bare();
    run(&layout(1), &mut host, &record).unwrap();
    host.facts.namespaces.get_mut("part0").unwrap().addresses.retain(|address| address.addr().is_ipv6());
    let what = "the route 10.98.0.0/16 of table 77".into();
    let odd = [Odd { what, ipv6: false, source: None, about: About::Other }].into();
    host.facts.others_inside.entry("part0".into()).or_default().odd.insert("eth0".into(), odd);
    let last = actions(&layout(2), &mut host, &record) - 1;
    host.fault = Some(Fault::Fails(host.performed + last));
    let problems = run(&layout(2), &mut host, &record).unwrap_err();
    let lost = "but for what may have gone along: the last IPv4 address goes from eth0 in namespace part0 again, and with it the \
                route 10.98.0.0/16 of table 77, which";
    assert!(problems.to_string().contains(lost), "{problems}");
}

#[test]
fn a_run_that_fails_takes_back_neither_roots_word_nor_the_claim_to_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let mut host = bare();
    // Without links of partitions' users: those may keep some things from being done.
    run(&layout_with(2, "taps = false\nuplink = \"eth0\"\n"), &mut host, &record).unwrap();
    let mut open = Record::open(&record, &epoch()).unwrap();
    open.add([Thing::UplinkConfirmed { link: "eth0".into() }]).unwrap();
    open.finish().unwrap();
    // Somebody put something beside the partitions: their directory stays, and those above it.
    let theirs = FileFact { owner: Owner { uid: 0, gid: 0 }, mode: 0o644, text: "theirs".into() };
    host.facts.files.insert("/srv/plat/partitions/theirs".into(), theirs.clone());
    let (before, was) = (host.facts.clone(), claims(&record));
    for wanted in [layout_with(2, "taps = false\n"), Layout::default()] {
        for at in 0..actions(&wanted, &mut host, &record) {
            for fails in [Fault::Fails, Fault::HalfWay] {
                host.fault = Some(fails(host.performed + at));
                assert!(run(&wanted, &mut host, &record).is_err());
                host.fault = None;
                assert_eq!(host.facts, before, "action {at}");
                assert_eq!(claims(&record), was, "action {at}");
            }
        }
    }
    run(&Layout::default(), &mut host, &record).unwrap();
    assert!(!record.exists(), "nothing is ours any more");
    assert_eq!(host.facts.files.values().collect::<Vec<_>>(), [&theirs]);
}

#[test]
fn partitions_whose_erasing_is_undone_are_half_made_until_the_next_apply_makes_them_whole() {
    let (layout, folder) = (layout(2), tempfile::tempdir().unwrap());
    let record = folder.path().join("format/record");
    let mut host = bare();
    run(&layout, &mut host, &record).unwrap();
    let (whole, was) = (host.facts.clone(), claims(&record));
    let erase = Consent { contents: Contents::Erase, ..AGREED };
    let mut half_made = 0;
    for at in 0..actions(&Layout::default(), &mut host, &record) {
        for fails in [Fault::Fails, Fault::HalfWay] {
            // What fails once more goes back to the same.
            for _ in 0..2 {
                host.fault = Some(fails(host.performed + at));
                let why = run_with(erase, &Layout::default(), &mut host, &record).unwrap_err().to_string();
                let is_half_made = |fact: &PathFact| matches!(fact, PathFact::Directory { half_made: true, .. });
                let found = host.facts.paths.iter().filter(|(_, fact)| is_half_made(fact));
                let found: Vec<_> = found.map(|(path, _)| path.display().to_string()).collect();
                assert_eq!(found.is_empty(), actions(&layout, &mut host, &record) == 0, "{at}: {why}");
                assert_eq!(!found.is_empty(), why.contains("makes them whole these are root's: "), "{at}: {why}");
                assert!(found.iter().all(|path| why.contains(path)), "{at}: {why}");
                half_made += found.len();
            }
            host.fault = None;
            run(&layout, &mut host, &record).unwrap();
            assert_eq!(host.facts, whole, "{at}");
            assert_eq!(claims(&record), was, "{at}");
        }
    }
    assert!(half_made > 20, "{half_made}");
}

#[test]
fn a_half_made_partition_is_made_whole_also_by_runs_that_fail() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("format/record");
    let mut host = bare();
    run(&layout(2), &mut host, &record).unwrap();
    let (whole, path) = (host.facts.clone(), Path::new("/srv/plat/partitions/part1"));
    if let Some(PathFact::Directory { owner, mode, inside, half_made, .. }) = host.facts.paths.get_mut(path) {
        (*owner, *mode, *half_made) = (Owner::default(), 0o1700, true);
        inside.clear();
    }
    let before = host.facts.clone();
    let mut stays = 0;
    for at in 0..actions(&layout(3), &mut host, &record) {
        for fails in [Fault::Fails, Fault::HalfWay, Fault::Interrupt] {
            host.facts = before.clone();
            host.fault = Some(fails(host.performed + at));
            let why = run(&layout(3), &mut host, &record).err().map(|why| why.to_string());
            host.fault = None;
            let is_whole = host.facts == whole;
            assert!(is_whole || why.is_none() || host.facts == before, "{at}");
            assert!(!is_whole || why.is_none_or(|why| why.contains("which stays: /srv/plat/partitions/part1")), "{at}");
            stays += usize::from(is_whole);
            run(&layout(2), &mut host, &record).unwrap();
            assert_eq!(host.facts, whole, "{at}");
        }
    }
    assert!(stays > 20, "{stays}");
}

#[test]
fn a_way_back_that_fails_is_not_undone_and_the_next_one_ends_it() {
    let carried = |host: &FakeHost| {
        let addresses: Vec<_> = host.facts.addresses.iter().filter(|found| found.link == "eth0").cloned().collect();
        (addresses, host.facts.routes.iter().filter(|found| found.link == "eth0").count())
    };
    let back = |host: &mut FakeHost, record: &Path| {
        let mut record = Record::open(record, &epoch()).unwrap();
        let rolled = roll_back(host, &mut record);
        record.finish().unwrap();
        rolled.map(|applied| applied.plan.actions.len())
    };
    for fails in [Fault::Fails, Fault::HalfWay] {
        for at in 0..2 {
            let folder = tempfile::tempdir().unwrap();
            let record = folder.path().join("format/record");
            let mut host = bare();
            run(&full(1), &mut host, &record).unwrap();
            assert_eq!(carried(&host).0, []);
            let taken = host.facts.clone();
            host.fault = Some(fails(host.performed + at));
            assert_eq!(back(&mut host, &record).unwrap_err().0.len(), 1);
            assert_ne!(host.facts, taken, "what could be done stays done");
            host.fault = None;
            back(&mut host, &record).unwrap();
            assert_eq!(carried(&host), carried(&bare()));
            run(&Layout::default(), &mut host, &record).unwrap();
            assert_eq!(host.facts, bare().facts);
        }
    }
}

#[test]
fn links_of_another_boot_are_not_ours_and_users_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("format/record");
    let mut host = bare();
    run(&layout(1), &mut host, &path).unwrap();
    // After a reboot somebody else has made a link of our bridge's name.
    let record = Record::read(&path, &Epoch::new("another boot", 1, None)).unwrap();
    let wish = layout(1);
    let problems = propose(Wish::new(&wish, AGREED), &mut host, &record).unwrap_err();
    assert!(problems.0.iter().all(|problem| !problem.what.contains("user")), "{problems}");
    assert!(problems.0.iter().any(|problem| problem.what.contains("link plat0")), "{problems}");
}

#[test]
fn links_of_a_namespace_whose_number_another_one_has_now_are_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("format/record");
    let mut record = Record::open(&path, &Epoch::new("boot", 1, Some(30))).unwrap();
    let mut host = bare();
    apply(Wish::new(&layout(1), AGREED), &mut host, &mut record, &mut |_, _| {}).unwrap();
    record.finish().unwrap();
    let next = Epoch::new("boot", 1, Some(31));
    let record = Record::read(&path, &next).unwrap();
    assert!(record.claims().iter().all(|thing| !thing.is_volatile()));
    assert!(!record.claims().is_empty());
    let problems = propose(Wish::new(&layout(1), AGREED), &mut host, &record).unwrap_err();
    assert!(problems.0.iter().any(|problem| problem.what.contains("link plat0")), "{problems}");
    let back = propose(Wish::new(&Layout::default(), AGREED), &mut host, &record).unwrap();
    assert!(back.actions.iter().all(|action| action.kind() != node_format_plan::Kind::RemoveBridges));
}

#[test]
fn a_torn_last_line_is_dropped_and_a_broken_one_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("format/record");
    let mut host = bare();
    run(&layout(1), &mut host, &path).unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{{\"add\":{{\"thing\":\"gr")).unwrap();
    assert_eq!(Record::read(&path, &epoch()).unwrap().claims().len(), whole.lines().count() - 2);
    std::fs::write(&path, format!("nonsense\n{whole}")).unwrap();
    assert_eq!(Record::read(&path, &epoch()).unwrap_err().code, codes::RECORD);
}

#[test]
fn two_runs_at_once_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("format/record");
    let _first = Record::open(&path, &epoch()).unwrap();
    assert_eq!(Record::open(&path, &epoch()).unwrap_err().code, codes::RECORD);
}
