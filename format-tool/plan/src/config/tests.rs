use super::*;

fn codes_and_places(text: &str) -> Vec<String> {
    let problems = parse("f.toml", text).expect_err("this configuration is wrong");
    problems.into_iter().map(|problem| format!("{} {}", problem.code, problem.at)).collect()
}

#[test]
fn the_example_parses_and_says_every_key() {
    let settings = parse("example", EXAMPLE).unwrap();
    assert_eq!(settings.partitions.amount, 10);
    assert_eq!(settings.network.mode, NetworkMode::Bridge);
    assert_eq!(settings.limits.processes, Some(4096));
    assert_eq!(settings.builder.unwrap().user, "plat-builder");
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_line() {
    let text = "version = 1\n[partitions]\namount = \"ten\"\nbase_name = \"much-too-long-a-name\"\nfirst_uid = 12\n\
                [network]\nmode = \"bridge\"\ncolour = 1\nipv4_network = \"10.0.0.1/24\"\n[netwrok]\n";
    assert_eq!(
        codes_and_places(text),
        [
            "P0130 f.toml:3:10",
            "P0111 f.toml:8:1",
            "P0111 f.toml:10:2",
            "P0101 f.toml:4:1",
            "P0130 f.toml (network.tap_base_name)",
            "P0130 f.toml:5:1",
            "P0130 f.toml:9:1",
        ]
    );
}

#[test]
fn a_newer_version_and_a_missing_one_are_refused() {
    assert_eq!(codes_and_places("version = 2\n[what]\n"), ["P0130 "]);
    assert_eq!(codes_and_places("[partitions]\namount = 1\n"), ["P0113 f.toml"]);
    assert_eq!(codes_and_places("version = 1\nversion = 1\n"), ["P0112 f.toml:2:1"]);
}

#[test]
fn ranges_that_overlap_or_are_too_small_are_refused() {
    let text = "version = 1\n[partitions]\namount = 300\nfirst_uid = 20000\n[builder]\nuid = 20299\n\
                [network]\nmode = \"bridge\"\ntap_base_name = \"t\"\nipv4_network = \"10.0.0.0/24\"\n\
                ipv6_prefix = \"fd00::/64\"\nipv6_share = 72\n[paths]\nroot = \"/srv/plat\"\n";
    assert_eq!(
        codes_and_places(text),
        ["P0507 f.toml:14:1", "P0507 f.toml:6:1", "P0507 f.toml:11:1", "P0507 f.toml:10:1"]
    );
}

/// What is wrong with a configuration that has these lines after [network].
fn wrong_network(lines: &str) -> Problems {
    let text = format!("version = 1\n[partitions]\namount = 3\n[network]\n{lines}");
    parse("f.toml", &text).expect_err("this configuration is wrong")
}

#[test]
fn a_tun_is_not_given_addresses_of_the_partitions() {
    let lines = "mode = \"bridge\"\nipv4_network = \"10.112.0.0/16\"\ntun_ipv4_network = \"10.112.128.0/17\"\n";
    let wrong = wrong_network(&format!("{lines}tuns = true\n"));
    assert_eq!((wrong.0.len(), wrong.0[0].code, wrong.0[0].at.as_str()), (1, codes::OVERLAP, "f.toml:7:1"));
    let text = format!("version = 1\n[partitions]\namount = 3\n[network]\n{lines}");
    assert!(parse("f.toml", &text).is_ok(), "there are no tuns");
}

#[test]
fn only_unicast_ranges_are_divided_among_partitions() {
    for range in
        ["224.0.0.0/8", "0.0.0.0/0", "0.0.0.0/16", "255.255.255.0/24", "240.0.0.0/16", "169.254.0.0/16", "126.0.0.0/7"]
    {
        let wrong = wrong_network(&format!("mode = \"bridge\"\nipv4_network = \"{range}\"\n"));
        assert_eq!((wrong.0.len(), wrong.0[0].code, wrong.0[0].at.as_str()), (1, codes::BAD_CONFIG, "f.toml:6:1"));
        let wrong = wrong_network(&format!("mode = \"bridge\"\ntuns = true\ntun_ipv4_network = \"{range}\"\n"));
        assert_eq!((wrong.0.len(), wrong.0[0].code, wrong.0[0].at.as_str()), (1, codes::BAD_CONFIG, "f.toml:7:1"));
    }
    for prefix in ["::/0", "::/96", "::ffff:10.0.0.0/104", "fe80::/64", "ff02::/64"] {
        let wrong = wrong_network(&format!("mode = \"bridge\"\nipv6_prefix = \"{prefix}\"\nipv6_share = 112\n"));
        assert_eq!((wrong.0.len(), wrong.0[0].code, wrong.0[0].at.as_str()), (1, codes::BAD_CONFIG, "f.toml:6:1"));
    }
}

#[test]
fn an_uplink_leads_out_and_is_named_where_its_prefix_is_wanted() {
    let wrong = wrong_network("mode = \"bridge\"\nuplink = \"lo\"\n");
    assert_eq!((wrong.0.len(), wrong.0[0].what.as_str()), (1, "lo cannot be an uplink"));
    let wrong = wrong_network("mode = \"bridge\"\nipv6_prefix = \"uplink\"\n");
    assert_eq!(wrong.0.len(), 1, "{wrong}");
    assert!(wrong.0[0].what.contains("`uplink` is missing"), "{wrong}");
}

#[test]
fn each_mistake_is_called_what_it_is() {
    let wrong = wrong_network("mode = \"bridge\"\nipv4_network = \"10.112.3.4/16\"\n");
    assert_eq!(wrong.0[0].what, "10.112.3.4/16 has bits set behind its length");
    assert_eq!((wrong.0.len(), wrong.0[0].todo.as_str()), (1, "write 10.112.0.0/16"));
    let wrong = wrong_network("mode = \"bridge\"\nlink = \"a-bridge-with-a-long-name\"\n");
    assert_eq!((wrong.0.len(), wrong.0[0].todo.as_str()), (1, "choose another name"));
    let text = "version = 1\n[partitions]\namount = 2000000\nmode = \"0777\"\n";
    let wrong = parse("f.toml", text).expect_err("this configuration is wrong");
    assert_eq!(wrong.0[0].what, "`partitions.amount` must be a number from 0 to 10000");
    assert_eq!((wrong.0.len(), wrong.0[1].at.as_str()), (2, "f.toml:4:1"));
}

#[test]
fn a_network_without_a_known_mode_is_asked_for_its_mode_alone() {
    let ranges = "ipv4_network = \"10.112.0.0/16\"\nuplink = \"eth0\"\ntaps = true\n";
    let wrong = wrong_network(&format!("mode = \"bridged\"\n{ranges}"));
    assert_eq!((wrong.0.len(), wrong.0[0].code, wrong.0[0].at.as_str()), (1, codes::BAD_CONFIG, "f.toml:5:8"));
    let wrong = wrong_network(ranges);
    assert_eq!((wrong.0.len(), wrong.0[0].what.as_str()), (1, "the key `network.mode` is missing"));
}

#[test]
fn what_the_machine_shows_to_be_wrong_is_said_with_its_line() {
    let text = "version = 1\n[partitions]\namount = 1\n[network]\nmode = \"bridge\"\nuplink = \"eth7\"\n";
    let (settings, places) = parse_with_places("f.toml", text).unwrap();
    let wrong = places.locate(settings.resolve(&crate::HostFacts::default()).expect_err("there is no eth7"));
    assert_eq!((wrong.0.len(), wrong.0[0].at.as_str()), (1, "f.toml:6:1"));
    // Of a key that was not written, the file is said; other places are left as they are.
    for (at, place) in [("network.link", "f.toml (network.link)"), ("", ""), ("x.json:3:4", "x.json:3:4")] {
        let wrong = places.locate(Problem::new(codes::BAD_CONFIG, "something").at(at).into());
        assert_eq!(wrong.0[0].at, place);
    }
}

#[test]
fn hostile_paths_and_names_are_refused() {
    for root in ["srv", "/", "/srv/../etc", "/srv//x", "/srv/x/", "/srv/a:b", "/srv/a\\nb"] {
        let text = format!("version = 1\n[partitions]\namount = 1\n[paths]\nroot = \"{root}\"\n");
        assert!(parse("f.toml", &text).is_err(), "{root}");
    }
    for link in ["", "a/b", "..", "a b", "sixteen-bytes-xx"] {
        let text = format!("version = 1\n[partitions]\namount = 1\n[network]\nmode = \"bridge\"\nlink = \"{link}\"\n");
        assert!(parse("f.toml", &text).is_err(), "{link}");
    }
}

#[test]
fn a_place_that_looks_like_something_on_its_way_is_refused() {
    let text = |path: &str| format!("version = 1\n[partitions]\namount = 1\n[paths]\nnode_file = \"{path}\"\n");
    for path in ["/etc/.node-format-shadow", "/var/.node-format-x/node.json"] {
        let wrong = parse("f.toml", &text(path)).unwrap_err();
        assert_eq!((wrong.0.len(), wrong.0[0].code, wrong.0[0].at.as_str()), (1, codes::BAD_CONFIG, "f.toml:5:1"));
        assert!(wrong.0[0].why.contains("`.node-format-`"), "{wrong}");
    }
    assert!(parse("f.toml", &text("/var/lib/.node-formats/node.json")).is_ok());
}
