//! Sources, with servers on loopback and repositories and images that the test makes.

use super::web::{Answer, Web, git_answer};
use super::*;
use base64::Engine;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// A node whose builder is a user of its own, where that can be.
pub async fn builds(uid: u32) -> (Node, LinuxHost) {
    let mut node = Node::new(None);
    node.builder = is_root().then(|| account(uid));
    node.write_node_file();
    let host = node.open().await;
    (node, host)
}

/// Builds a release of one source, and gives its folder.
pub async fn laid(node: &Node, host: &LinuxHost, source: serde_json::Value) -> Result<PathBuf, Problem> {
    let document = document_of(source);
    let (digest, done) = install(host, &document).await;
    done.map(|()| node.folder.path().join("releases").join(digest.as_str()))
}

fn document_of(source: serde_json::Value) -> String {
    whole(serde_json::json!({"sources": {"app": source}}))
}

pub fn manifest(release: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(release.join(".plat-release.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_no_text_hides_no_link_and_holds_nothing_up() {
    let (node, host) = builds(UID + 40).await;
    let from = node.folder.path().join("from");
    fs::create_dir_all(from.join(OsStr::from_bytes(b"folder\xff"))).unwrap();
    let (_, done) = install(&host, &document_of(serde_json::json!({"directory": {"path": from}}))).await;
    done.unwrap();
    symlink("../../node.json", from.join(OsStr::from_bytes(b"folder\xff/link\xfe"))).unwrap();
    let out = serde_json::json!({"directory": {"path": from, "into": "x"}});
    assert_eq!(laid(&node, &host, out).await.unwrap_err().code, codes::BAD_ARCHIVE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_build_holds_open_is_no_folder_of_the_node() {
    let (node, host) = builds(UID + 115).await;
    let bytes = super::cache::large(53, 1000);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    laid(&node, &host, super::cache::source(&format!("{}/x", web.url), &bytes)).await.unwrap();
    // One of them is the cache.
    for fd in 3..32 {
        for path in [format!("/proc/self/fd/{fd}/sha256"), format!("/proc/self/fd/{fd}")] {
            let source = serde_json::json!({"directory": {"path": path}});
            let problem = laid(&node, &host, source).await.unwrap_err();
            assert_eq!(problem.code, codes::SOURCE_FETCH, "{path}");
            assert!(problem.why.contains("link of /proc") || problem.why.contains("No such file"), "{path}: {problem}");
        }
    }
    let held = format!("/proc/self/fd/0/{}", hex(&bytes));
    let archive = serde_json::json!({"archive": {"url": held, "sha256": hex(&bytes)}});
    let problem = laid(&node, &host, archive).await.unwrap_err();
    assert!(problem.why.contains("link of /proc"), "{problem}");
}

// git.

/// A repository of the test's own.
pub struct Repository(pub PathBuf);

impl Repository {
    pub fn new(node: &Node) -> Self {
        let here = Self(node.folder.path().join("repository"));
        fs::create_dir(&here.0).unwrap();
        here.git(&["init", "--quiet"]);
        here
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgSign=false"]);
        command.args(arguments).current_dir(&self.0).env("GIT_CONFIG_GLOBAL", "/dev/null");
        let said = command.output().unwrap();
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    pub fn write(&self, path: &str, contents: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// The name of a commit of all that is there.
    pub fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "all"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// The name of a commit of entries as `git mktree` takes them.
    fn commit_of(&self, entries: &str) -> String {
        let mut command = Command::new("git");
        command.args(["mktree", "--missing"]).current_dir(&self.0);
        let mut child =
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(entries.as_bytes()).unwrap();
        let tree = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        self.git(&["commit-tree", "-m", "made", tree.trim()])
    }

    fn blob(&self, contents: &str) -> String {
        self.write("blob", contents);
        self.git(&["hash-object", "-w", "blob"])
    }

    fn source(&self, commit: &str) -> serde_json::Value {
        serde_json::json!({"git": {"url": self.0, "commit": commit, "into": "src"}})
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_laid_as_it_is_whatever_came_after_it() {
    let (node, host) = builds(UID + 41).await;
    let repository = Repository::new(&node);
    repository.write("bin/run", "#!/bin/sh\n");
    fs::set_permissions(repository.0.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    repository.write("text", "one\ntwo $Id$\n");
    repository.write(".gitattributes", "text eol=crlf ident filter=evil\nhidden export-ignore\n");
    repository.write("hidden", "x");
    symlink("bin/run", repository.0.join("link")).unwrap();
    let commit = repository.commit();
    repository.write("text", "changed");
    let later = repository.commit();
    let source = repository.source(&commit);
    let folder = laid(&node, &host, source).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(fs::read_to_string(folder.join("src/text")).unwrap(), "one\ntwo $Id$\n");
    assert_eq!(fs::read_to_string(folder.join("src/link")).unwrap(), "#!/bin/sh\n");
    assert_eq!(fs::metadata(folder.join("src/bin/run")).unwrap().mode() & 0o7777, 0o555);
    assert!(folder.join("src/hidden").exists() && !folder.join("src/.git").exists());
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing but the manifest and what was asked for: {names:?}");
    assert_eq!(manifest(&folder)["sources"]["app"][0]["version"], commit);
    let again = laid(&node, &host, repository.source(&later)).await.unwrap();
    assert_eq!(fs::read_to_string(again.join("src/text")).unwrap(), "changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_fetched_over_the_network_without_its_history() {
    let (node, host) = builds(UID + 42).await;
    let repository = Repository::new(&node);
    repository.write("text", "first");
    let first = repository.commit();
    repository.write("text", "second");
    repository.commit();
    let path = repository.0.clone();
    let web = Web::serve(move |asked| git_answer(&path, asked));
    let source = serde_json::json!({"git": {"url": format!("{}/app.git", web.url), "commit": first}});
    let folder = laid(&node, &host, source).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(fs::read_to_string(folder.join("text")).unwrap(), "first");
    assert!(web.asked().iter().any(|path| path == "/app.git/git-upload-pack"), "{:?}", web.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_there_and_what_is_no_commit_are_told() {
    let (node, host) = builds(UID + 43).await;
    let repository = Repository::new(&node);
    repository.write("text", "x");
    repository.commit();
    let problem = laid(&node, &host, repository.source(&"a".repeat(40))).await.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::SOURCE_FETCH, "sources.app"));
    assert!(problem.what.contains(&"a".repeat(40)) && problem.why.contains("not our ref"), "{problem}");
    repository.git(&["tag", "--annotate", "--message", "t", "v1"]);
    let tag = repository.git(&["rev-parse", "v1"]);
    let problem = laid(&node, &host, repository.source(&tag)).await.unwrap_err();
    assert_eq!(problem.code, codes::SOURCE_CHECKSUM);
    assert!(problem.why.contains("is a tag"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_whose_objects_are_not_what_they_are_called_is_refused() {
    let (node, host) = builds(UID + 44).await;
    let repository = Repository::new(&node);
    repository.write("text", "true");
    let commit = repository.commit();
    let (good, evil) = (repository.git(&["rev-parse", "HEAD:text"]), repository.blob("evil"));
    let object = |name: &str| repository.0.join(".git/objects").join(&name[..2]).join(&name[2..]);
    fs::remove_file(object(&good)).unwrap();
    fs::copy(object(&evil), object(&good)).unwrap();
    let problem = laid(&node, &host, repository.source(&commit)).await.unwrap_err();
    assert_eq!(problem.code, codes::SOURCE_FETCH, "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_reaches_out_or_holds_a_submodule_is_refused() {
    let (node, host) = builds(UID + 45).await;
    let repository = Repository::new(&node);
    let (out, absolute, text) = (repository.blob("../../.."), repository.blob("/etc/passwd"), repository.blob("x"));
    let module = "b".repeat(40);
    let hostile = [
        (format!("120000 blob {out}\tlink\n"), "leads out of the release"),
        (format!("120000 blob {absolute}\tlink\n"), "link to an absolute path"),
        (format!("160000 commit {module}\tlib\n"), "is a submodule"),
        (format!("100644 blob {text}\t..\n"), "`..`"),
        (format!("100644 blob {text}\t.GIT\n"), "settings"),
    ];
    for (entries, why) in hostile {
        let commit = repository.commit_of(&entries);
        let problem = laid(&node, &host, repository.source(&commit)).await.unwrap_err();
        assert_eq!(problem.code, codes::BAD_ARCHIVE, "{entries}: {problem}");
        assert!(problem.why.contains(why), "{entries}: {problem}");
    }
    until("what was begun is removed", async || unfinished(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_repository_or_of_its_owners_settings_is_run() {
    let (node, host) = builds(UID + 46).await;
    let repository = Repository::new(&node);
    repository.write("text", "x");
    let commit = repository.commit();
    let mark = node.folder.path().join("ran");
    let script = format!("#!/bin/sh\ntouch {}\nexec \"$@\"\n", mark.display());
    for hook in ["post-checkout", "reference-transaction", "post-index-change"] {
        let path = repository.0.join(".git/hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let hook = repository.0.join(".git/hooks/post-checkout").display().to_string();
    repository.git(&["config", "uploadpack.packObjectsHook", &hook]);
    repository.git(&["config", "core.fsmonitor", &hook]);
    fs::set_permissions(node.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    laid(&node, &host, repository.source(&commit)).await.unwrap();
    assert!(!mark.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_off_or_has_nothing_is_told_with_what_git_said() {
    let (node, host) = builds(UID + 47).await;
    let repository = Repository::new(&node);
    repository.write("text", &"x".repeat(10_000));
    let commit = repository.commit();
    let path = repository.0.clone();
    let cut = Web::serve(move |asked| {
        let mut answer = git_answer(&path, asked);
        if asked.path.ends_with("/git-upload-pack") {
            answer.claimed = Some(answer.body.len());
            answer.body.truncate(answer.body.len() / 2);
        }
        answer
    });
    let source = |web: &Web| serde_json::json!({"git": {"url": format!("{}/app.git", web.url), "commit": commit}});
    assert_eq!(laid(&node, &host, source(&cut)).await.unwrap_err().code, codes::SOURCE_FETCH);
    let empty = Web::serve(|_| Answer::nothing());
    let problem = laid(&node, &host, source(&empty)).await.unwrap_err();
    assert_eq!(problem.code, codes::SOURCE_FETCH);
    assert!(problem.why.contains("not found"), "{problem}");
}

// Registries.

fn packed(entries: &[(&str, &str, tar::EntryType)]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&tar(entries)).unwrap();
    packed.finish().unwrap()
}

fn crate_of(registry: &str, sha256: &str) -> serde_json::Value {
    serde_json::json!({"crate": {"name": "app", "version": "1.0.0+x", "sha256": sha256, "registry": registry, "into": "vendor/app"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crate_is_fetched_checked_and_laid_as_cargo_wants_it() {
    let (node, host) = builds(UID + 50).await;
    let bytes = packed(&[
        ("app-1.0.0/Cargo.toml", "[package]\nname = \"app\"\n", tar::EntryType::Regular),
        ("app-1.0.0/src/main.rs", "fn main() {}\n", tar::EntryType::Regular),
    ]);
    let web = Web::of(BTreeMap::from([("/crates/app/1.0.0%2Bx/download".to_owned(), bytes.clone())]));
    let registry = format!("{}/crates", web.url);
    let folder = laid(&node, &host, crate_of(&registry, &hex(&bytes))).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(fs::read_to_string(folder.join("vendor/app/src/main.rs")).unwrap(), "fn main() {}\n");
    let sums: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("vendor/app/.cargo-checksum.json")).unwrap()).unwrap();
    assert_eq!(sums, serde_json::json!({"files": {}, "package": hex(&bytes)}));
    assert_eq!(manifest(&folder)["sources"]["app"][0]["version"], "1.0.0+x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crate_that_is_another_one_was_cut_off_or_reaches_out_is_refused() {
    let (node, host) = builds(UID + 51).await;
    use tar::EntryType::{Char, Regular, Symlink};
    let bytes = packed(&[("app-1.0.0/a", "x", Regular)]);
    let whole = bytes.clone();
    let web = Web::serve(move |asked| match asked.path.as_str() {
        path if path.starts_with("/cut/") => {
            Answer { claimed: Some(whole.len()), ..Answer::of(&whole[..whole.len() / 2]) }
        }
        path if path.starts_with("/whole/") => Answer::of(whole.clone()),
        _ => Answer::nothing(),
    });
    let from = |folder: &str, sum: &str| crate_of(&format!("{}/{folder}", web.url), sum);
    let wrong = laid(&node, &host, from("whole", &"0".repeat(64))).await.unwrap_err();
    assert_eq!((wrong.code, wrong.at.as_str()), (codes::SOURCE_CHECKSUM, "sources.app"));
    assert!(wrong.why.contains(&hex(&bytes)), "{wrong}");
    for (folder, why) in [("cut", ""), ("none", "404")] {
        let problem = laid(&node, &host, from(folder, &hex(&bytes))).await.unwrap_err();
        assert_eq!(problem.code, codes::SOURCE_FETCH, "{folder}: {problem}");
        assert!(problem.why.contains(why), "{problem}");
    }
    let hostile: [&[(&str, &str, tar::EntryType)]; 3] = [
        &[("app-1.0.0/../../evil", "x", Regular)],
        &[("app-1.0.0/link", "../../..", Symlink)],
        &[("app-1.0.0/null", "", Char)],
    ];
    for entries in hostile {
        let bytes = packed(entries);
        let place = node.folder.path().join("registry/app/1.0.0%2Bx");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("download"), &bytes).unwrap();
        let local = crate_of(&node.folder.path().join("registry").display().to_string(), &hex(&bytes));
        assert_eq!(laid(&node, &host, local).await.unwrap_err().code, codes::BAD_ARCHIVE, "{entries:?}");
    }
}

fn integrity(bytes: &[u8]) -> String {
    format!("sha512-{}", base64::engine::general_purpose::STANDARD.encode(sha2::Sha512::digest(bytes)))
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_packages_are_laid_where_the_lock_file_has_them_and_run_nothing() {
    let (node, host) = builds(UID + 52).await;
    let about = |name: &str, bin: &str| {
        format!("{{\"name\": \"{name}\", \"bin\": {bin}, \"scripts\": {{\"install\": \"touch ran\"}}}}")
    };
    let (cli, odd) = (
        about("@us/cli", "\"bin/cli.js\""),
        about("odd", "{\"../up\": \"x.js\", \"out\": \"../../x\", \"no\": \"none.js\"}"),
    );
    let cli = packed(&[
        ("package/package.json", &cli, tar::EntryType::Regular),
        ("package/bin/cli.js", "#!/usr/bin/env node\n", tar::EntryType::Regular),
    ]);
    let odd =
        packed(&[("odd/package.json", &odd, tar::EntryType::Regular), ("odd/x.js", "x", tar::EntryType::Regular)]);
    let web = Web::of(BTreeMap::from([
        ("/@us/cli/-/cli-1.0.0.tgz".to_owned(), cli.clone()),
        ("/odd/-/odd-2.0.0.tgz".to_owned(), odd.clone()),
    ]));
    let source = serde_json::json!({"npm": {"registry": web.url, "into": "app", "packages": [
        {"name": "@us/cli", "version": "1.0.0", "integrity": integrity(&cli)},
        {"name": "odd", "version": "2.0.0", "integrity": integrity(&odd)},
        {"name": "odd", "version": "2.0.0", "integrity": integrity(&odd), "path": "node_modules/@us/cli/node_modules/odd"},
    ]}});
    let folder = laid(&node, &host, source).await.unwrap_or_else(|p| panic!("{p}"));
    let modules = folder.join("app/node_modules");
    assert_eq!(fs::read_to_string(modules.join(".bin/cli")).unwrap(), "#!/usr/bin/env node\n");
    assert_eq!(fs::metadata(modules.join("@us/cli/bin/cli.js")).unwrap().mode() & 0o111, 0o111);
    assert!(modules.join("odd/x.js").exists() && modules.join("@us/cli/node_modules/odd/x.js").exists());
    assert_eq!(fs::read_dir(modules.join(".bin")).unwrap().count(), 1, "names and files that lead elsewhere are none");
    assert!(!modules.join("@us/cli/ran").exists());
    assert_eq!(manifest(&folder)["sources"]["app"][0]["sha256"], hex(&cli));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_npm_package_that_is_another_one_or_reaches_out_is_refused() {
    let (node, host) = builds(UID + 53).await;
    let of = |bytes: &[u8], integrity: String| {
        let web = Web::of(BTreeMap::from([("/a/-/a-1.0.0.tgz".to_owned(), bytes.to_vec())]));
        serde_json::json!({"npm": {"registry": web.url, "packages": [{"name": "a", "version": "1.0.0", "integrity": integrity}]}})
    };
    use tar::EntryType::{Regular, Symlink};
    let good = packed(&[("package/x", "x", Regular)]);
    let problem = laid(&node, &host, of(&good, integrity(b"other"))).await.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::SOURCE_CHECKSUM, "sources.app"));
    assert!(problem.why.contains(&integrity(&good)), "{problem}");
    let hostile: [&[(&str, &str, tar::EntryType)]; 2] =
        [&[("package/../../../x", "x", Regular)], &[("package/x", "../../../..", Symlink)]];
    for entries in hostile {
        let bytes = packed(entries);
        let problem = laid(&node, &host, of(&bytes, integrity(&bytes))).await.unwrap_err();
        assert_eq!(problem.code, codes::BAD_ARCHIVE, "{problem}");
    }
}

/// A host that is looked up by its name takes a thread; what runs programs afterwards has only one.
#[tokio::test(flavor = "multi_thread")]
async fn sources_of_several_kinds_are_laid_one_after_the_other() {
    let (node, host) = builds(UID + 54).await;
    let bytes = packed(&[("app-1.0.0/Cargo.toml", "x", tar::EntryType::Regular)]);
    let web = Web::of(BTreeMap::from([("/app/1.0.0%2Bx/download".to_owned(), bytes.clone())]));
    let repository = Repository::new(&node);
    repository.write("text", "x");
    let commit = repository.commit();
    let named = web.url.replace("127.0.0.1", "localhost");
    let sources = serde_json::json!({"a": crate_of(&named, &hex(&bytes)), "b": repository.source(&commit)});
    let document = whole(serde_json::json!({"sources": sources}));
    let (digest, done) = install(&host, &document).await;
    done.unwrap_or_else(|p| panic!("{p}"));
    let folder = node.folder.path().join("releases").join(digest.as_str());
    assert!(folder.join("vendor/app/Cargo.toml").exists() && folder.join("src/text").exists());
}
