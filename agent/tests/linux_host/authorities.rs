//! Servers over https, and whose word they are taken on.

use super::cache::{entry, large, log, open_with, partial, source};
use super::sources::{Repository, builds, laid};
use super::web::{Answer, Web, git_answer};
use super::*;
use plat_agent::config::ReleaseSettings;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::process::Command;
use std::sync::Arc;
use time::OffsetDateTime;

/// Who says of servers who they are, and where its own certificate is.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(node: &Node, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = node.folder.path().join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// What a server of this name needs, from one day to another, as of today.
    fn certifies(&self, name: &str, days: std::ops::Range<i64>) -> Arc<rustls::ServerConfig> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let day = |n| OffsetDateTime::now_utc() + time::Duration::days(n);
        (params.not_before, params.not_after) = (day(days.start), day(days.end));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let chain = vec![certificate.der().clone()];
        Arc::new(tls.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }

    fn loopback(&self) -> Arc<rustls::ServerConfig> {
        self.certifies("127.0.0.1", -1..1)
    }

    /// A node that takes this one's word and no other.
    async fn trusted_by(&self, node: &Node) -> LinuxHost {
        let authorities = Some(self.file.clone());
        open_with(node, &ReleaseSettings { authorities, ..ReleaseSettings::default() }).await
    }
}

fn serve(tls: Arc<rustls::ServerConfig>, bytes: &[u8]) -> Web {
    let bytes = bytes.to_vec();
    Web::serve_tls(tls, move |_| Answer::of(bytes.clone()))
}

fn redirect(to: String) -> Answer {
    Answer { status: 302, headers: vec![("location", to)], ..Answer::of("there") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_over_https_is_fetched_where_the_node_trusts_its_authority_and_nowhere_else() {
    let (node, host) = builds(UID + 150).await;
    let authority = Authority::new(&node, "own");
    let bytes = large(70, 100_000);
    let web = serve(authority.loopback(), &bytes);
    let source = source(&format!("{}/x.tar", web.url), &bytes);
    // Whom this machine trusts has not signed it.
    let problem = laid(&node, &host, source.clone()).await.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::SOURCE_FETCH, "sources.app"));
    assert!(problem.why.contains("UnknownIssuer"), "{problem}");
    assert!(problem.todo.contains("`authorities` in agent.toml"), "{problem}");
    assert!(!partial(&node, &bytes).exists() || fs::metadata(partial(&node, &bytes)).unwrap().len() == 0);
    assert_eq!(web.asked().len(), 0, "a server that is not known is told what is wanted");
    drop(host);
    let host = authority.trusted_by(&node).await;
    let folder = laid(&node, &host, source).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(fs::read(folder.join("x")).unwrap().len(), 100_000);
    assert!(entry(&node, &bytes).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_name_day_or_authority_is_refused_with_what_is_wrong() {
    let (node, host) = builds(UID + 151).await;
    drop(host);
    let (authority, other) = (Authority::new(&node, "own"), Authority::new(&node, "other"));
    let host = authority.trusted_by(&node).await;
    let bytes = large(71, 1000);
    for (tls, why) in [
        (authority.certifies("elsewhere.example", -1..1), "certificate not valid for name \"127.0.0.1\""),
        (authority.certifies("127.0.0.1", -3..-1), "certificate expired"),
        (authority.certifies("127.0.0.1", 1..3), "certificate not valid yet"),
        (other.loopback(), "UnknownIssuer"),
    ] {
        let web = serve(tls, &bytes);
        let problem = laid(&node, &host, source(&format!("{}/x.tar", web.url), &bytes)).await.unwrap_err();
        assert_eq!(problem.code, codes::SOURCE_FETCH, "{problem}");
        assert!(problem.why.contains(why), "{why}: {problem}");
        assert!(problem.todo.contains("this node's clock"), "{problem}");
        assert_eq!(web.asked().len(), 0, "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_led_from_https_to_http() {
    let (node, host) = builds(UID + 152).await;
    drop(host);
    let authority = Authority::new(&node, "own");
    let host = authority.trusted_by(&node).await;
    let bytes = large(72, 1000);
    let plain = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let to = format!("{}/x", plain.url);
    let web = Web::serve_tls(authority.loopback(), move |_| redirect(to.clone()));
    let problem = laid(&node, &host, source(&format!("{}/x", web.url), &bytes)).await.unwrap_err();
    assert_eq!(problem.code, codes::SOURCE_FETCH);
    assert!(problem.why.contains("it leads away from https, to http://127.0.0.1"), "{problem}");
    assert_eq!((web.asked().len(), plain.asked().len()), (1, 0));
    // To https, from either, is where one may be led.
    let there = serve(authority.loopback(), &bytes);
    let to = format!("{}/x", there.url);
    let (first, second) = (to.clone(), to);
    let plain = Web::serve(move |_| redirect(first.clone()));
    let web = Web::serve_tls(authority.loopback(), move |_| redirect(second.clone()));
    laid(&node, &host, source(&format!("{}/x", plain.url), &bytes)).await.unwrap_or_else(|p| panic!("{p}"));
    fs::remove_file(entry(&node, &bytes)).unwrap();
    let mut source = source(&format!("{}/x", web.url), &bytes);
    source["archive"]["into"] = "again".into();
    laid(&node, &host, source).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(there.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_cannot_prove_who_it_is_is_passed_over_and_told() {
    let (node, host) = builds(UID + 153).await;
    drop(host);
    let (authority, other) = (Authority::new(&node, "own"), Authority::new(&node, "other"));
    let bytes = large(73, 1000);
    let (false_one, true_one) = (serve(other.loopback(), &bytes), serve(authority.loopback(), &bytes));
    let (mirrors, authorities) = (vec![false_one.url.clone(), true_one.url.clone()], Some(authority.file.clone()));
    let host = open_with(&node, &ReleaseSettings { mirrors, authorities, ..ReleaseSettings::default() }).await;
    let text = document(serde_json::json!({"app": source("http://127.0.0.1:9/x", &bytes)}), &[]);
    let (digest, done) = install(&host, &text).await;
    done.unwrap_or_else(|p| panic!("{p}"));
    assert!(log(&node, &digest).contains(&true_one.url), "{}", log(&node, &digest));
    assert_eq!((false_one.asked().len(), true_one.asked().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_authorities_that_is_not_there_is_told_and_no_server_is_asked() {
    let (node, host) = builds(UID + 154).await;
    drop(host);
    let authority = Authority::new(&node, "own");
    let host = authority.trusted_by(&node).await;
    fs::remove_file(&authority.file).unwrap();
    let bytes = large(74, 1000);
    let web = serve(authority.loopback(), &bytes);
    let problem = laid(&node, &host, source(&format!("{}/x", web.url), &bytes)).await.unwrap_err();
    assert_eq!(problem.code, codes::SOURCE_FETCH);
    let why = format!("the authorities in {} cannot be read: it is not there", authority.file.display());
    assert!(problem.why.contains(&why), "{problem}");
    assert_eq!(web.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn git_and_pip_take_the_same_word() {
    let (node, host) = builds(UID + 155).await;
    let authority = Authority::new(&node, "own");
    let repository = Repository::new(&node);
    repository.write("text", "over https");
    let commit = repository.commit();
    let path = repository.0.clone();
    let web = Web::serve_tls(authority.loopback(), move |asked| git_answer(&path, asked));
    let git = serde_json::json!({"git": {"url": format!("{}/app.git", web.url), "commit": commit, "into": "git"}});
    let bytes = super::wheels::wheel(&node, "greeting", "{'greeting.py': 'x'}", "");
    let index =
        super::wheels::index_as("greeting", "greeting-1.0-py3-none-any.whl", &bytes, Some(authority.loopback()));
    let pypi = super::wheels::source(&index, "greeting", &hex(&bytes));
    for source in [&git, &pypi] {
        let problem = laid(&node, &host, source.clone()).await.unwrap_err();
        assert_eq!(problem.code, codes::SOURCE_FETCH, "{problem}");
        assert!(problem.why.to_lowercase().contains("certificate"), "{problem}");
    }
    assert_eq!((web.asked().len(), index.asked().len()), (0, 0));
    drop(host);
    let host = authority.trusted_by(&node).await;
    let folder = laid(&node, &host, git).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(fs::read_to_string(folder.join("git/text")).unwrap(), "over https");
    let folder = laid(&node, &host, pypi).await.unwrap_or_else(|p| panic!("{p}"));
    assert!(folder.join("python/greeting.py").exists());
    // git is led to http by nobody, either.
    let path = repository.0.clone();
    let plain = Web::serve(move |asked| git_answer(&path, asked));
    let to = plain.url.clone();
    let web = Web::serve_tls(authority.loopback(), move |asked| redirect(format!("{to}{}", asked.path)));
    let source = serde_json::json!({"git": {"url": format!("{}/app.git", web.url), "commit": commit, "into": "b"}});
    assert_eq!(laid(&node, &host, source).await.unwrap_err().code, codes::SOURCE_FETCH);
    assert_eq!(plain.asked().len(), 0);
    // Nor is pip, by the index or by a page of it.
    let plain = super::wheels::index_as("greeting", "greeting-1.0-py3-none-any.whl", &bytes, None);
    let to = plain.url.clone();
    let leads = Web::serve_tls(authority.loopback(), move |asked| redirect(format!("{to}{}", asked.path)));
    let link =
        format!("<a href=\"{}/files/greeting-1.0-py3-none-any.whl\">greeting-1.0-py3-none-any.whl</a>", plain.url);
    let names = Web::serve_tls(authority.loopback(), move |_| Answer { kind: "text/html", ..Answer::of(link.clone()) });
    for index in [&leads, &names] {
        let mut source = super::wheels::source(index, "greeting", &hex(&bytes));
        source["pypi"]["into"] = "elsewhere".into();
        assert_eq!(laid(&node, &host, source).await.unwrap_err().code, codes::SOURCE_FETCH);
        assert!(!index.asked().is_empty());
    }
    assert_eq!(plain.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_over_http_needs_nobodys_word() {
    let (node, host) = builds(UID + 157).await;
    let authority = Authority::new(&node, "own");
    drop(host);
    let host = authority.trusted_by(&node).await;
    fs::remove_file(&authority.file).unwrap();
    let bytes = large(76, 1000);
    let plain = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    laid(&node, &host, source(&format!("{}/x", plain.url), &bytes)).await.unwrap_or_else(|p| panic!("{p}"));
    // Where that leads to https, somebody's is.
    let web = serve(authority.loopback(), &bytes);
    let to = format!("{}/x", web.url);
    let leads = Web::serve(move |_| redirect(to.clone()));
    let other = large(77, 1000);
    let problem = laid(&node, &host, source(&format!("{}/x", leads.url), &other)).await.unwrap_err();
    assert!(problem.code == codes::SOURCE_FETCH && problem.todo.contains("`authorities`"), "{problem}");
    assert_eq!(web.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_over_https_is_written_to_where_its_authority_is_trusted() {
    let (node, host) = builds(UID + 156).await;
    let authority = Authority::new(&node, "own");
    let bytes = large(75, 1000);
    let upstream = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    laid(&node, &host, source(&format!("{}/x", upstream.url), &bytes)).await.unwrap_or_else(|p| panic!("{p}"));
    let stored = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
    let files = stored.clone();
    let web = Web::serve_tls(authority.loopback(), move |asked| {
        let mut files = files.lock().unwrap();
        match asked.method.as_str() {
            "PUT" => Answer {
                status: files.insert(asked.path.clone(), asked.body.clone()).map_or(201, |_| 204),
                ..Answer::of("")
            },
            _ => files.get(&asked.path).map_or_else(Answer::nothing, |body| Answer::of(body.clone())),
        }
    });
    let push = |authorities: &str| {
        let (data, file, path) =
            (node.state(), node.folder.path().join("node.json"), node.folder.path().join("agent.toml"));
        let text = format!("version = 1\ndata = {data:?}\nnode_file = {file:?}\n[releases]\n{authorities}");
        fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_plat-agent"));
        command.arg("--config").arg(path).args(["cache", "push", "--files", "--to", &web.url]).output().unwrap()
    };
    let said = push("");
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && text.contains("P0419") && text.contains("UnknownIssuer"), "{text}");
    assert_eq!(web.asked().len(), 0);
    let said = push(&format!("authorities = {:?}\n", authority.file));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(stored.lock().unwrap().get(&format!("/sha256/{}", hex(&bytes))), Some(&bytes));
}
