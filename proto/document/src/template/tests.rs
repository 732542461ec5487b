use super::*;
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, PartitionName, ProjectName};
use plat_model::parameters::{Parameters, Secret};
use std::collections::BTreeMap;

fn context() -> Context {
    Context {
        parameters: Parameters::parse_json(r#"{"port": 5432, "names": ["a", "b"], "tls": true, "pass": "hunter3"}"#)
            .unwrap(),
        shared: Vec::new(),
        volumes: [("data".to_owned(), "/srv/part0/volumes/data".to_owned())].into(),
        secrets: [("password".to_owned(), Secret::new("hunter2"))].into(),
        instance: InstanceFacts {
            id: InstanceId::parse(&"0".repeat(32)).unwrap(),
            name: InstanceName::parse("db").unwrap(),
            project: ProjectName::parse("shop").unwrap(),
        },
        partition: PartitionFacts {
            name: PartitionName::parse("part0").unwrap(),
            user: "plat-part0".into(),
            address: "fd00::7".parse().unwrap(),
            ipv4: None,
            directory: "/srv/plat/partitions/part0".into(),
            storage: Vec::new(),
            resource_file: None,
        },
        release: ReleaseFacts { directory: "/srv/r".into(), digest: Digest::parse(&"a".repeat(64)).unwrap() },
        node: NodeFacts { name: NodeId::parse("n1").unwrap() },
    }
}

#[test]
fn a_template_is_filled_from_the_context() {
    let rendered = render(
        "{% for name in parameters.names %}\n{{ name }}={{ parameters.port }}\n{% endfor %}\n{% if parameters.tls %}tls{% endif %} {{ partition.url_host }} {{ secrets.password }} {{ parameters.port|times(2) }}\n",
        &context(),
    );
    assert_eq!(rendered.unwrap(), "a=5432\nb=5432\ntls [fd00::7] hunter2 10864\n");
    assert_eq!(render("{\"a\": 1} %} }}", &context()).unwrap(), "{\"a\": 1} %} }}");
}

#[test]
fn every_announced_variable_renders_and_no_other_does() {
    let mut context = context();
    context.partition.ipv4 = Some("10.0.0.1".parse().unwrap());
    context.partition.resource_file = Some("/srv/plat/resources/part0.json".into());
    for variable in crate::release::VARIABLES {
        assert!(!render(&format!("{{{{ {variable} }}}}"), &context).unwrap().is_empty(), "{variable}");
    }
    for unknown in ["partition.ip", "nothing", "parameters.none", "secrets.other", "partition.name.x"] {
        let problem = render(&format!("{{{{ {unknown} }}}}"), &context).unwrap_err();
        assert_eq!(problem.code, codes::UNDEFINED_VARIABLE, "{unknown}");
    }
}

#[test]
fn storage_is_a_list_that_may_be_empty() {
    let mut context = context();
    let each = "{% for directory in partition.storage %}{{ directory }};{% endfor %}";
    assert_eq!(render(each, &context).unwrap(), "");
    assert_eq!(render("{{ partition.storage[0] }}", &context).unwrap_err().code, codes::UNDEFINED_VARIABLE);
    assert_eq!(render("{% if partition.storage %}yes{% endif %}", &context).unwrap(), "");
    context.partition.storage = vec!["/mnt/a/part0".into(), "/mnt/b/part0".into()];
    assert_eq!(render(each, &context).unwrap(), "/mnt/a/part0;/mnt/b/part0;");
    assert_eq!(render("{{ partition.storage[0] }}", &context).unwrap(), "/mnt/a/part0");
}

#[test]
fn a_hostile_template_ends_soon_and_is_refused() {
    let long = "9".repeat(30);
    for hostile in [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 100000000 }}",
        "{% set x = 'aaaa' %}{{ x ~ x }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{%- with x = 'a' %}{{ x }}{% endwith %}",
        "{{ range(99999)|join(range(99999)|join('x')) }}",
        "{{ 'aaaaaaaa'|replace('a', 'aaaaaaaaaaaaaaaaaaaa')|replace('a','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')|replace('a','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')|replace('a','aaaaaaaaaaaaaaaaaa') }}",
        "{% include 'x' %}",
        "{{ '{{' }}{{ 2 ** 100 }}",
        "{{ debug() }}",
        "{% raw %}{{ ok }}{% endraw %}{% set x = 1 %}",
        &format!("{{{{ {long} + }}}}"),
        &format!("{{{{ {}1{} }}}}", "(".repeat(3000), ")".repeat(3000)),
    ] {
        let problem = render(hostile, &context()).expect_err(hostile);
        assert!(matches!(problem.code, codes::BAD_TEMPLATE | codes::UNDEFINED_VARIABLE), "{hostile}: {problem}");
    }
}

#[test]
fn no_error_holds_a_secret_or_a_parameter() {
    for text in [
        "{{ secrets.password|int }}",
        "{{ secrets.password + 1 }}",
        "{{ parameters.pass|times(2) }}",
        "{{ secrets.password.x.y }}",
        "{{ secrets.password() }}",
        "{% for a in parameters.pass|items %}{% endfor %}",
        "{{ secrets[secrets.password] }}",
        "{{ secrets|length + parameters.pass }}",
    ] {
        let problem = render(text, &context()).expect_err(text);
        let told = format!("{problem} {problem:?}");
        assert!(!told.contains("hunter"), "{text}: {told}");
    }
    assert!(!format!("{:?}", context()).contains("hunter"));
}

#[test]
fn arguments_keep_their_number_and_hold_no_nul() {
    let list = ["a b".to_owned(), String::new(), "{{ parameters.port }}".to_owned()];
    assert_eq!(render_list(&list, &context()).unwrap(), ["a b", "", "5432"]);
    let problem = render_list(&["x".into(), "{{ nothing }}".into()], &context()).unwrap_err();
    assert_eq!(problem.at, "[1]");
    assert_eq!(render_list(&["a\0b".into()], &context()).unwrap_err().code, codes::BAD_VALUE);
    assert_eq!(render_build(&["{{ release.directory }}/x".into()], "/r").unwrap(), ["/r/x"]);
    assert!(render_build(&["{{ partition.name }}".into()], "/r").is_err());
}

fn known() -> std::collections::BTreeSet<String> {
    ["password".to_owned(), "other".to_owned()].into()
}

#[test]
fn what_is_prepared_becomes_elsewhere_what_is_rendered_here() {
    let all = context();
    let public = Context { secrets: Default::default(), ..all.clone() };
    for text in [
        "plain",
        "{{ secrets.password }}:{{ parameters.port|times(2) }}{% for n in parameters.names %}{{ n }}{% endfor %}",
        "{% if partition.ipv4 is defined %}4{% else %}6{% endif %} {{ partition.url_host }} {{ node.name }}",
        "{{ parameters|length }} {{ parameters.port }} {{ parameters['port'] }} {{ parameters.names[0] }}",
        "{{ parameters.more|default('none') }} {{ instance.id }} {{ partition.storage }}",
    ] {
        let prepared = Prepared::new(text, &public, &known()).expect(text);
        let sent = serde_json::to_string(&prepared).unwrap();
        assert!(!sent.contains("hunter2"), "{sent}");
        let there: Prepared = serde_json::from_str(&sent).unwrap();
        let secrets = [("other".to_owned(), Secret::new("hunter4")), ("password".to_owned(), Secret::new("hunter2"))];
        assert_eq!(there.fill(&secrets.into()).unwrap(), render(text, &all).unwrap(), "{text}");
    }
    let one = Prepared::new("{{ parameters.port }}", &public, &known()).unwrap();
    assert!(!serde_json::to_string(&one).unwrap().contains("hunter"), "what it does not use stays here");
    assert_eq!(Prepared::verbatim("{{ a }}").fill(&BTreeMap::new()).unwrap(), "{{ a }}");
    assert_eq!(Prepared::verbatim("{{ a }}").constant(), Some("{{ a }}"));
    let same = |text: &str| serde_json::from_str::<Prepared>(text).unwrap().constant().map(str::to_owned);
    assert_eq!(same(r#"{"text": "{{ text }}", "values": {"text": "a"}}"#).as_deref(), Some("a"));
    for other in [
        r#"{"text": "{{ text }}", "values": {"text": "a", "b": "c"}}"#,
        r#"{"text": "{{ text }}", "values": {"text": {"a": 1}}}"#,
        r#"{"text": "{{ text }}", "values": {"text": "a"}, "secrets": ["b"]}"#,
        r#"{"text": "{{ text }}!", "values": {"text": "a"}}"#,
    ] {
        assert_eq!(same(other), None, "{other}");
    }
}

#[test]
fn what_no_secret_could_fill_in_is_told_when_it_is_prepared() {
    for text in ["{{ nothing }}", "{{ partition.ipv4 }}", "{{ secrets.none }}", "{{ partition.name.x }}", "{{ 1 * 2 }}"]
    {
        assert!(Prepared::new(text, &context(), &known()).is_err(), "{text}");
    }
    let needs = Prepared::new("{{ secrets.password }}", &context(), &known()).unwrap();
    assert_eq!(needs.fill(&BTreeMap::new()).unwrap_err().code, codes::BAD_VALUE);
}
