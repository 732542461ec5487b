use super::*;
use crate::layer;
use plat_model::problem::codes;

const WEB: &str = r#"
version: 1
name: web
title: A web server
parameters:
  type: object
  properties:
    port: {type: integer, minimum: 1024, maximum: 65535, default: 8080}
secrets:
  token: {}
sources:
  nginx: {deb: {packages: [nginx]}}
files:
  etc/web.conf:
    mode: "0600"
    template: |
      listen {{ partition.url_host }}:{{ parameters.port }}
      token {{ secrets.token }}
services:
  web:
    command: ["{{ release.directory }}/usr/sbin/nginx", "-c", "{{ partition.directory }}/etc/web.conf"]
promises:
  answers:
    http: {url: "http://{{ partition.url_host }}:{{ parameters.port }}/"}
publish:
  url: "http://{{ partition.url_host }}:{{ parameters.port }}/"
"#;

fn wrong(text: &str) -> Vec<(String, String, String)> {
    let problems = Release::parse_yaml(text, "w.yaml").expect_err(text);
    problems
        .0
        .into_iter()
        .map(|p| (p.code.to_string(), p.at.clone(), format!("{} | {} | {}", p.what, p.why, p.todo)))
        .collect()
}

#[test]
fn a_document_read_written_and_read_again_is_the_same() {
    let release = Release::parse_yaml(WEB, "web.yaml").unwrap_or_else(|p| panic!("{p}"));
    let json = release.to_canonical_json();
    let again = Release::from_canonical_json(&json).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(release, again);
    assert_eq!(again.to_canonical_json(), json);
    assert_eq!(release.digest(), digest_of(&json));
    assert_eq!(release.services.values().next().unwrap().stop_timeout_seconds, 30);
}

#[test]
fn the_order_of_keys_and_comments_do_not_change_the_digest() {
    let a = "version: 1\nname: a\nfiles:\n  x: {template: a}\nparameters: {type: object, properties: {b: {}, a: {}}}\n";
    let b = "# c\nparameters: {properties: {a: {}, b: {}}, type: object}\nfiles:\n  x: {template: a}\nname: a\nversion: 1\n";
    assert_eq!(Release::parse_yaml(a, "a").unwrap().digest(), Release::parse_yaml(b, "b").unwrap().digest());
}

#[test]
fn a_build_has_no_network_unless_the_document_says_so_and_not_saying_it_is_the_digest_of_before() {
    let digest = |network: &str| {
        let text =
            format!("version: 1\nname: a\nfiles: {{x: {{template: a}}}}\nbuild: {{commands: [[make]]{network}}}\n");
        let release = Release::parse_yaml(&text, "a").unwrap_or_else(|p| panic!("{p}"));
        (release.build.as_ref().unwrap().network, release.to_canonical_json(), release.digest())
    };
    let (plain, off, on) = (digest(""), digest(", network: false"), digest(", network: true"));
    assert!(!plain.0 && plain == off && !plain.1.contains("network"), "{}", plain.1);
    assert!(on.0 && on.1.contains("network") && on.2 != plain.2);
}

#[test]
fn all_problems_are_told_at_once_with_line_and_nearest_key() {
    let told = wrong(
        "version: 1\nname: Web\nservces: {}\nfiles:\n  a:\n    tmplate: x\n    mode: \"0777\"\nservices:\n  s:\n    command: []\n    stop_signal: KILL\n",
    );
    let at = |place: &str| {
        told.iter().filter(|(_, at, _)| at == place).map(|t| (t.0.as_str(), t.2.as_str())).collect::<Vec<_>>()
    };
    assert!(
        at("w.yaml:2:1").iter().any(|(code, what)| *code == "P0102" && what.contains("`name` must be 1 to 63")),
        "{told:#?}"
    );
    assert!(
        at("w.yaml:3:1").iter().any(|(code, what)| *code == "P0111" && what.contains("did you mean `services`?")),
        "{told:#?}"
    );
    assert!(at("w.yaml:6:5").iter().any(|(code, what)| *code == "P0111" && what.contains("`template`")), "{told:#?}");
    assert!(at("w.yaml:7:5").iter().any(|(_, what)| what.contains("at most 0750")), "{told:#?}");
    assert!(at("w.yaml:10:5").iter().any(|(_, what)| what.contains("at least 1 items")), "{told:#?}");
    assert!(at("w.yaml:11:5").iter().any(|(_, what)| what.contains("\"TERM\"")), "{told:#?}");
    assert!(told.iter().any(|(code, ..)| code == "P0113"), "the missing template: {told:#?}");
}

#[test]
fn an_undefined_variable_is_told_with_its_line_in_the_file_and_the_nearest_name() {
    let text = WEB.replace("token {{ secrets.token }}", "ok\n      port {{ parameters.prot }}");
    let told = wrong(&text);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!((told[0].0.as_str(), told[0].1.as_str()), ("P0118", "w.yaml:19:1"), "{told:#?}");
    assert!(told[0].2.contains("did you mean `parameters.port`?"));
}

#[test]
fn a_registry_that_is_the_public_one_is_not_written() {
    let of = |rest: &str| {
        let source = format!("{{crate: {{name: x, version: 1.0.0, sha256: {}{rest}}}}}", "a".repeat(64));
        Release::parse_yaml(&WEB.replace("{deb: {packages: [nginx]}}", &source), "w").unwrap_or_else(|p| panic!("{p}"))
    };
    let plain = of("");
    assert!(!plain.to_canonical_json().contains("registry"));
    assert_eq!(plain.digest(), of(", registry: \"https://static.crates.io/crates\"").digest());
    assert_ne!(plain.digest(), of(", registry: \"https://mirror.example.org\"").digest());
}

#[test]
fn a_secret_in_the_arguments_of_a_process_is_refused() {
    let told = wrong(&WEB.replace("\"-c\"", "\"{{ secrets.token }}\""));
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].0 == "P0117" && told[0].2.contains("arguments"), "{told:#?}");
}

fn locked(kind: &str, of: &str, url: &str) -> String {
    let package = format!("{{name: nginx, version: \"1:1.2~x\", url: \"{url}\", sha256: SUM}}");
    format!("{{deb: {{packages: [nginx], locks: {{{kind}: {{of: [{of}], packages: [{package}]}}}}}}}}")
}

#[test]
fn a_lock_is_part_of_what_a_release_is_and_is_not_missed_where_there_is_none() {
    let plain = Release::parse_yaml(WEB, "w").unwrap();
    assert!(!plain.to_canonical_json().contains("locks"));
    let source = locked("x86_64-debian-13", "nginx", "http://h/x").replace("SUM", &"a".repeat(64));
    let locked = Release::parse_yaml(&WEB.replace("{deb: {packages: [nginx]}}", &source), "w").unwrap();
    assert_ne!(locked.digest(), plain.digest());
    assert_eq!(Release::from_canonical_json(&locked.to_canonical_json()).unwrap(), locked);
}

#[test]
fn what_leads_out_of_a_folder_or_runs_nothing_is_refused() {
    let cases = [
        ("etc/web.conf:", "../web.conf:", "`..`"),
        ("etc/web.conf:", "/etc/web.conf:", "begins with `/`"),
        ("packages: [nginx]", "packages: [nginx], into: a/../../b", "`..`"),
        ("packages: [nginx]", "packages: [\"nginx; rm\"]", "Debian package"),
        ("{{ release.directory }}/usr/sbin/nginx", "nginx", "absolute path"),
        ("{deb: {packages: [nginx]}}", &locked("x86_64-debian-13", "apache2", "http://h/x"), "plat release lock"),
        ("{deb: {packages: [nginx]}}", &locked("x86_64-debian-13", "nginx", "/srv/x"), "`url` is not an http(s) URL"),
        ("{deb: {packages: [nginx]}}", &locked("x86_64-debian-13", "nginx", "https://me:pw@h/x"), "says who asks"),
        ("{deb: {packages: [nginx]}}", &locked("debian", "nginx", "http://h/x"), "kind of machine"),
        ("{deb: {packages: [nginx]}}", "{archive: {url: \"ftp://x/y\", sha256: aa}}", "SHA-256"),
        ("{deb: {packages: [nginx]}}", "{git: {url: \"ssh://h/x\", commit: COMMIT}}", "neither an http(s) URL"),
        ("{deb: {packages: [nginx]}}", "{git: {url: \"--upload-pack=x\", commit: COMMIT}}", "neither an http(s) URL"),
        ("{deb: {packages: [nginx]}}", "{git: {url: \"https://me:pw@h/x\", commit: COMMIT}}", "says who asks"),
        ("{deb: {packages: [nginx]}}", "{git: {url: \"https://h/x\", commit: main}}", "must be a commit: 40"),
        ("{deb: {packages: [nginx]}}", "{crate: {name: ../x, version: \"1.0\", sha256: SUM}}", "name of a crate"),
        ("{deb: {packages: [nginx]}}", "{crate: {name: x, version: ^1, sha256: SUM}}", "one whole version"),
        (
            "{deb: {packages: [nginx]}}",
            "{crate: {name: x, version: 1.0.0, sha256: SUM, registry: x}}",
            "`registry` is neither",
        ),
        ("{deb: {packages: [nginx]}}", "{oci: {layout: /i, manifest: latest}}", "must be a digest"),
        ("{deb: {packages: [nginx]}}", "{oci: {layout: \"https://h/i\", manifest: \"sha256:SUM\"}}", "add `sha256`"),
        ("{deb: {packages: [nginx]}}", "{oci: {layout: i, manifest: \"sha256:SUM\"}}", "`layout` is neither"),
        (
            "{deb: {packages: [nginx]}}",
            "{npm: {packages: [{name: a/b, version: \"1\", integrity: x}]}}",
            "name of an npm package",
        ),
        (
            "{deb: {packages: [nginx]}}",
            "{npm: {packages: [{name: a, version: \"1\", integrity: sha1-x}]}}",
            "an integrity as package-lock.json",
        ),
        (
            "{deb: {packages: [nginx]}}",
            "{npm: {packages: [{name: a, version: \"1\", integrity: SRI, path: lib/a}]}}",
            "does not begin with",
        ),
        (
            "{deb: {packages: [nginx]}}",
            "{npm: {packages: [{name: a, version: \"1\", integrity: SRI, path: node_modules/../a}]}}",
            "`..`",
        ),
        (
            "{deb: {packages: [nginx]}}",
            "{npm: {packages: [{name: a, version: \"1\", integrity: SRI}, {name: a, version: \"2\", integrity: SRI}]}}",
            "same folder",
        ),
        (
            "{deb: {packages: [nginx]}}",
            "{pypi: {packages: [{name: -x, version: \"1\", sha256: SUM}]}}",
            "name of a Python package",
        ),
        (
            "{deb: {packages: [nginx]}}",
            "{pypi: {packages: [{name: x, version: \"==1\", sha256: SUM}]}}",
            "one whole version",
        ),
        (
            "{deb: {packages: [nginx]}}",
            "{pypi: {packages: [{name: x, version: \"1\", sha256: SUM}], index: /x}}",
            "not an http(s) URL",
        ),
        (
            "{deb: {packages: [nginx]}}",
            "{pypi: {packages: [{name: X.y, version: \"1\", sha256: SUM}, {name: x_y, version: \"2\", sha256: SUM}]}}",
            "two versions",
        ),
        ("{deb: {packages: [nginx]}}", "{}", "at least 1 keys"),
        ("    http: {", "    tcp: {address: a, port: \"1\"}\n    http: {", "exactly one of exec, http, tcp"),
        ("name: web", "name: web\nname: web", "said twice"),
        ("  token: {}", "  token: {length: 4}", "at least 8"),
        ("version: 1", "version: 2", "must be 1"),
        ("type: object", "type: objekt", "not one of a map"),
        ("type: integer", "type: intger", "not a JSON Schema"),
        ("default: 8080", "default: 80", "default of `port`"),
        ("{type: integer,", "{$ref: \"http://example.org/x\", type: integer,", "another document"),
        ("{{ secrets.token }}", "{{ secrets.token }", "template"),
        ("name: web", "name: web\nextends: base", "no document `base`"),
    ];
    for (from, to, expected) in cases {
        // Paths and the kind of source show in the second stage of checks, so every case is checked by itself.
        let to = to.replace("COMMIT", &"a".repeat(40)).replace("SUM", &"a".repeat(64));
        let to = to.replace("SRI", &format!("sha512-{}==", "a".repeat(86)));
        let text = WEB.replacen(from, &to, 1);
        assert_ne!(text, WEB, "{from}");
        let told = wrong(&text);
        assert!(
            told.iter().any(|(_, at, what)| what.contains(expected) && at.starts_with("w.yaml:")),
            "{to}: {told:#?}"
        );
    }
}

#[test]
fn a_release_that_would_do_nothing_or_is_too_large_is_refused() {
    assert!(wrong("version: 1\nname: a\n")[0].2.contains("do nothing"));
    let large = format!("version: 1\nname: a\nfiles: {{x: {{template: \"{}\"}}}}", "x".repeat(2 << 20));
    assert_eq!(Release::parse_yaml(&large, "l").unwrap_err().0[0].code, codes::TOO_LARGE);
    assert_eq!(Release::from_canonical_json(&large).unwrap_err().0[0].code, codes::TOO_LARGE);
    let many: String = (0..65).map(|n| format!("  s{n}: {{command: [/bin/true]}}\n")).collect();
    assert!(wrong(&format!("version: 1\nname: a\nservices:\n{many}"))[0].2.contains("at most 64"));
}

#[test]
fn hostile_bytes_are_refused_without_a_panic() {
    for text in
        ["", "[]", "x", "\0", "{\"version\": 1e400}", "version: 1\nname: \"../x\"", "name: [", "{{{{", "%YAML 9"]
    {
        assert!(Release::parse_yaml(text, "h").is_err(), "{text}");
        assert!(Release::from_canonical_json(text).is_err(), "{text}");
    }
}

#[test]
fn the_worked_example_of_the_reference_is_a_release() {
    let reference = include_str!("../../../../docs/releases.md");
    let text = reference.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let release = Release::parse_yaml(text, "docs/releases.md").unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(release.name.as_str(), "hello");
    for variable in VARIABLES {
        let last = variable.rsplit('.').next().unwrap();
        assert!(
            reference.contains(&format!("`{variable}`")) || reference.contains(&format!("`.{last}`")),
            "{variable}"
        );
    }
}

#[test]
fn an_unknown_key_does_not_hide_what_else_is_wrong() {
    let text = WEB
        .replace("title: A web server", "colour: red")
        .replace("nginx: {deb: {packages: [nginx]}}", "nginx: {archive: {url: \"ftp://x/y.tar\", sha256: \"0\"}}");
    let text = text.replace("sha256: \"0\"", &format!("sha256: \"{}\"", "0".repeat(64)));
    let text = text.replace("listen {{ partition.url_host }}", "listen {{ partition.url_hots }}");
    let codes: Vec<_> = wrong(&text).into_iter().map(|(code, ..)| code).collect();
    assert_eq!(codes, ["P0111", "P0102", "P0118"], "{:#?}", wrong(&text));
    // What a misspelt `parameters` holds is what templates refer to: nothing is said of those.
    let misspelt = WEB.replace("parameters:\n  type", "parametres:\n  type");
    assert_eq!(wrong(&misspelt).len(), 1, "{:#?}", wrong(&misspelt));
}

/// Releases that were added to grids before there were the keys of later versions.
const OF_BEFORE: [(&str, &str, &str); 3] = [
    (
        "nginx",
        include_str!("tests/nginx-of-before.yaml"),
        "2bdc1cd6d2dfa9fbc5dba9cf8979700744b501e321f74aff9eb201fbd08666ab",
    ),
    (
        "postgresql",
        include_str!("tests/postgresql-of-before.yaml"),
        "0d1797673d6958c411ac25dded7a5b65f97f91a3a34fff26e4605e3251bae393",
    ),
    (
        "redis",
        include_str!("tests/redis-of-before.yaml"),
        "8fddd9992ee36833270d30c577f62bc1d521193186da67d6d9e258c5bcc651fb",
    ),
];

#[test]
fn a_key_that_a_document_does_not_use_leaves_its_digest_as_it_was() {
    for (name, text, digest) in OF_BEFORE {
        assert_eq!(
            Release::parse_yaml(text, name).unwrap_or_else(|p| panic!("{p}")).digest().as_str(),
            digest,
            "{name}"
        );
    }
}

fn with_promise(promise: &str) -> String {
    format!("version: 1\nname: a\nservices: {{s: {{command: [/bin/s]}}}}\npromises:\n  p: {promise}\n")
}

#[test]
fn a_promise_says_when_it_is_asked_first_and_how_many_failures_count() {
    let read = |promise: &str| {
        let release = Release::parse_yaml(&with_promise(promise), "a.yaml").unwrap_or_else(|p| panic!("{p}"));
        let again = Release::from_canonical_json(&release.to_canonical_json()).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(release, again);
        release.promises.into_values().next().unwrap()
    };
    let plain = read("{exec: [/bin/p]}");
    assert_eq!((plain.threshold(), plain.grace_seconds(), plain.delay_seconds), (1, 30, None));
    let alive = read("{role: alive, period_seconds: 5, exec: [/bin/p]}");
    assert_eq!((alive.threshold(), alive.grace_seconds()), (3, 10));
    let said = read("{role: alive, delay_seconds: 0, threshold: 2, exec: [/bin/p]}");
    assert_eq!((said.threshold(), said.grace_seconds(), said.delay_seconds), (2, 0, Some(0)));
    for role in [Role::Built, Role::Test] {
        let name = format!("{role:?}").to_lowercase();
        assert_eq!(read(&format!("{{role: {name}, exec: [/bin/p]}}")).role, role);
    }
}

#[test]
fn what_nothing_would_follow_from_is_refused_in_a_promise() {
    for (role, key) in [("built", "delay_seconds"), ("built", "threshold"), ("test", "threshold")] {
        let told = wrong(&with_promise(&format!("{{role: {role}, {key}: 2, exec: [/bin/p]}}")));
        assert!(told.len() == 1 && told[0].0 == "P0113" || told[0].2.contains(key), "{told:?}");
    }
    assert!(!wrong(&with_promise("{threshold: 0, exec: [/bin/p]}")).is_empty());
}

#[test]
fn a_service_names_files_that_there_are_and_reloads_only_what_it_uses() {
    let with = |service: &str| {
        format!(
            "version: 1\nname: a\nfiles: {{etc/a: {{template: x}}}}\nservices: {{s: {{command: [/bin/s], {service}}}}}\n"
        )
    };
    let read = |service: &str| Release::parse_yaml(&with(service), "a.yaml").unwrap_or_else(|p| panic!("{p}"));
    let service = read("files: [etc/a], reload: {signal: HUP}").services.into_values().next().unwrap();
    assert_eq!((service.files.unwrap().len(), service.reload), (1, Some(Reload::Signal(ReloadSignal::Hup))));
    assert!(wrong(&with("files: [etc/b]"))[0].2.contains("did you mean `etc/a`?"));
    assert!(wrong(&with("files: [], reload: {signal: HUP}"))[0].2.contains("nothing that this service could reload"));
    assert!(!wrong(&with("reload: {command: [reload]}")).is_empty());
    assert!(!wrong(&with("reload: {}")).is_empty());
}

#[test]
fn a_secret_may_have_a_file_of_its_own_and_no_other_files_place() {
    let text = |file: &str| {
        format!(
            "version: 1\nname: shop\nsecrets:\n  one: {{file: {file}}}\n  two: {{file: etc/two}}\nfiles:\n  etc/a: {{template: a}}\n"
        )
    };
    let release = Release::parse_yaml(&text("etc/one"), "shop.yaml").unwrap();
    assert_eq!(release.secrets["one"].file.as_deref(), Some("etc/one"));
    for wrong in ["/etc/one", "../one", "etc/a", "etc/two", "''"] {
        assert!(Release::parse_yaml(&text(wrong), "shop.yaml").is_err(), "{wrong}");
    }
    let plain = Release::parse_yaml("version: 1\nname: a\nsecrets: {b: {}}\nfiles: {c: {template: d}}\n", "f").unwrap();
    assert!(!plain.to_canonical_json().contains("\"file\""), "left out where it is not said");
}

#[test]
fn the_example_with_a_timer_is_the_other_and_a_backup() {
    let text = include_str!("../../../../examples/releases/postgresql-backup.yaml");
    let base = include_str!("../../../../examples/releases/postgresql.yaml");
    let mut load = |name: &str| {
        Ok((name == "postgresql.yaml").then(|| layer::Text { file: name.to_owned(), text: base.to_owned() }))
    };
    let (release, _) = Release::resolve(text, "postgresql-backup.yaml", &mut load).unwrap_or_else(|p| panic!("{p}"));
    let other = Release::parse_yaml(base, "postgresql.yaml").unwrap();
    assert_eq!((release.name.as_str(), release.services.len()), ("postgresql-backup", 2));
    assert_eq!(release.services.values().filter(|service| service.schedule.is_some()).count(), 1);
    assert!(other.files.iter().all(|(path, file)| release.files.get(path) == Some(file)));
}

fn with_service(service: &str) -> String {
    format!("version: 1\nname: a\nfiles: {{f: {{template: x}}}}\nservices:\n  s: {{command: [/bin/s], {service}}}\n")
}

#[test]
fn a_service_says_of_which_kind_it_is_and_what_follows_from_its_end() {
    let read = |service: &str| {
        let text = with_service(service);
        let release = Release::parse_yaml(&text, "a.yaml").unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(release, Release::from_canonical_json(&release.to_canonical_json()).unwrap());
        release.services.into_values().next().unwrap()
    };
    assert_eq!((read("kind: service").kind, read("kind: service").restart()), (ServiceKind::Service, Restart::Always));
    assert_eq!(read("restart: on-failure, watchdog_seconds: 20").restart(), Restart::OnFailure);
    assert_eq!(read("kind: oneshot").restart(), Restart::OnFailure);
    assert_eq!(read("kind: oneshot, restart: never").restart(), Restart::Never);
    let timer = read("kind: oneshot, schedule: 30 2 * * mon");
    assert_eq!((timer.restart(), timer.schedule.as_deref()), (Restart::Never, Some("30 2 * * mon")));
    let digest = |service: &str| Release::parse_yaml(&with_service(service), "a.yaml").unwrap().digest();
    assert_eq!(digest("kind: service"), digest("stop_signal: TERM"), "a default is left out");
}

#[test]
fn what_does_not_go_with_a_kind_of_service_is_told_all_at_once() {
    let told = |service: &str| wrong(&with_service(service)).into_iter().map(|told| told.2).collect::<Vec<_>>();
    let one = |service: &str, what: &str| {
        let told = told(service);
        assert!(told.len() == 1 && told[0].contains(what), "{service}: {told:#?}");
    };
    one("schedule: '@daily'", "a service runs all the time");
    one("kind: oneshot, restart: always", "is a service");
    one("kind: oneshot, schedule: '@daily', restart: on-failure", "next time of its schedule");
    one("kind: oneshot, watchdog_seconds: 5", "hangs");
    one("kind: oneshot, reload: {signal: HUP}", "reads its files when it runs");
    one("kind: oneshot, schedule: '0 0 30 2 *'", "no day of any year");
    let all = told("kind: oneshot, restart: always, watchdog_seconds: 5, schedule: '61 * * * *'");
    assert_eq!(all.len(), 3, "{all:#?}");
    assert!(!told("kind: task").is_empty() && !told("restart: sometimes").is_empty());
}

#[test]
fn a_volume_is_named_in_templates_and_a_document_without_volumes_is_the_same_as_before_there_were_any() {
    let text = "version: 1\nname: a\nvolumes: {data: {kind: kept}, tmp: {kind: scratch}}\nservices:\n  s: {command: [/bin/s, \"{{ volumes.data }}\"]}\n";
    let release = Release::parse_yaml(text, "f").unwrap();
    assert_eq!(release.volumes["tmp"].kind, VolumeKind::Scratch);
    assert_eq!(Release::from_canonical_json(&release.to_canonical_json()).unwrap(), release);
    let told = format!("{:?}", wrong(&text.replace("volumes.data", "volumes.date")));
    assert!(told.contains("volumes.date") && told.contains("did you mean `volumes.data`?"), "{told}");
    let told = format!("{:?}", wrong(&text.replace("volumes.data", "volumes.data.x")));
    assert!(told.contains("volumes.data.x"), "{told}");
    let told = format!("{:?}", wrong(&text.replace("data: {kind", "../data: {kind")));
    assert!(told.contains("P0101"), "{told}");
    let plain = Release::parse_yaml("version: 1\nname: a\nfiles: {c: {template: d}}\n", "f").unwrap();
    assert!(!plain.to_canonical_json().contains("volumes"));
}

#[test]
fn what_is_only_unpacked_has_no_commands_and_all_its_sources_are_fetched_by_digests() {
    let is = |sources: &str, build: &str| {
        let text =
            format!("version: 1\nname: a\nsources: {{s: {{{sources}}}}}\n{build}files: {{c: {{template: d}}}}\n");
        Release::parse_yaml(&text, "f").unwrap().is_only_unpacked()
    };
    let pin = "a".repeat(64);
    let fetched = format!("archive: {{url: \"https://h/a.tar\", sha256: {pin}}}");
    assert!(is(&fetched, ""));
    assert!(is(&format!("crate: {{name: a, version: 1.0.0, sha256: {pin}}}"), ""));
    assert!(!is(&fetched, "build: {commands: [[make]]}\n"));
    assert!(
        !is(&format!("archive: {{url: /srv/a.tar, sha256: {pin}}}"), ""),
        "the node's user must be able to read it"
    );
    assert!(!is("directory: {path: /srv/a}", ""));
    assert!(!is("deb: {packages: [redis-server]}", ""), "apt finds out what it needs");
}
