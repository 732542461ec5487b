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
            "P0507 f.toml:9:1",
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
