//! Built releases that one node shares and another takes, with the agent's own commands.

use super::cache::{entry, large, open_with, source};
use super::sources::{builds, manifest};
use super::web::{Answer, Web};
use super::*;
use plat_agent::config::{ReleaseSettings, ShareSettings};
use plat_agent::host::linux::share::key::PublicKey;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// A node that builds, a store, and what tells how often something was built.
struct Sharing {
    node: Node,
    store: PathBuf,
    document: String,
    digest: Digest,
    /// What each build wrote that no other did.
    seen: Mutex<BTreeSet<Vec<u8>>>,
}

impl Sharing {
    /// With the release built here, and pushed with the key `key`.
    async fn new(uid: u32) -> Self {
        let (node, host) = builds(uid).await;
        let store = node.folder.path().join("store");
        let script = "mkdir -p d; echo run > d/run; chmod +x d/run; ln -s d/run link; ln -s /etc/passwd out; \
                      cat /proc/sys/kernel/random/uuid > when";
        let document = document(archive(&node, &large(30, 3000)), &[&["sh", "-c", script]]);
        let (digest, done) = install(&host, &document).await;
        done.unwrap_or_else(|p| panic!("{p}"));
        let here = Self { node, store, document, digest, seen: Mutex::default() };
        here.configure("");
        here.built();
        here
    }

    fn configure(&self, rest: &str) {
        let (data, file) = (self.node.state(), self.node.folder.path().join("node.json"));
        let text = format!("version = 1\ndata = {data:?}\nnode_file = {file:?}\n{rest}");
        fs::write(self.node.folder.path().join("agent.toml"), text).unwrap();
    }

    fn cache(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plat-agent"));
        command.arg("--config").arg(self.node.folder.path().join("agent.toml")).arg("cache").args(arguments);
        command.output().unwrap()
    }

    fn did(&self, arguments: &[&str]) -> String {
        let said = self.cache(arguments);
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    }

    fn key(&self, name: &str) -> (String, PublicKey) {
        let path = self.node.folder.path().join(name).display().to_string();
        let public = self.did(&["keygen", "--out", &path]);
        (path, PublicKey::parse(public.trim()).unwrap())
    }

    fn push(&self, key: &str) {
        self.did(&["push", "--key", key, "--to", &self.store.display().to_string(), &self.digest.as_str()[..12]]);
    }

    /// As another node that has nothing yet, with its releases at the same place.
    async fn another(&self, keys: Vec<PublicKey>) -> LinuxHost {
        let host = self.node.open().await;
        host.perform(&Action::RemoveRelease { digest: self.digest.clone() }).await.unwrap();
        drop(host);
        let share = Some(ShareSettings { url: self.store.display().to_string(), keys });
        open_with(&self.node, &ReleaseSettings { share, ..ReleaseSettings::default() }).await
    }

    /// How often the release was built, of those times after which this was asked.
    fn built(&self) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.extend(fs::read(self.folder().join("when")));
        seen.len()
    }

    fn folder(&self) -> PathBuf {
        self.node.folder.path().join("releases").join(self.digest.as_str())
    }

    fn offer(&self) -> PathBuf {
        let folder = self.store.join("releases").join(self.digest.as_str());
        fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
    }

    fn blob(&self) -> PathBuf {
        fs::read_dir(self.store.join("sha256")).unwrap().next().unwrap().unwrap().path()
    }

    fn log(&self) -> String {
        let path = self.node.state().join(format!("host/releases/{}.log", self.digest));
        fs::read_to_string(path).unwrap()
    }

    /// It is not taken, for this reason, and built here instead.
    async fn builds_instead(&self, keys: Vec<PublicKey>, why: &str) {
        let (host, before) = (self.another(keys).await, self.built());
        install(&host, &self.document).await.1.unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(self.built(), before + 1);
        assert!(self.log().contains(why), "{}", self.log());
    }

    fn forget_cache(&self) {
        fs::remove_dir_all(self.node.state().join("host/cache")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_built_another_takes_as_it_is() {
    let here = Sharing::new(UID + 90).await;
    let (path, key) = here.key("key");
    here.push(&path);
    let (when, before) = (fs::read(here.folder().join("when")).unwrap(), manifest(&here.folder()));
    let host = here.another(vec![key]).await;
    install(&host, &here.document).await.1.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!((here.built(), fs::read(here.folder().join("when")).unwrap()), (1, when), "{}", here.log());
    let folder = here.folder();
    assert_eq!(fs::metadata(folder.join("d/run")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(folder.join("x")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(folder.join("x")).unwrap().uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(fs::read_link(folder.join("link")).unwrap(), Path::new("d/run"));
    assert_eq!(fs::read_link(folder.join("out")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(manifest(&folder)["sources"], before["sources"]);
    // What nobody has shared is built.
    let other = here.document.replace("echo run", "echo walk");
    let (digest, done) = install(&host, &other).await;
    done.unwrap();
    let place = here.folder().with_file_name(digest.as_str());
    assert_eq!(fs::read_to_string(place.join("d/run")).unwrap(), "walk\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_believed_is_built_instead_and_the_log_says_why() {
    let here = Sharing::new(UID + 91).await;
    let ((path, key), (_, other)) = (here.key("key"), here.key("other"));
    here.push(&path);
    here.builds_instead(vec![other], "which this node does not trust").await;
    let good = fs::read_to_string(here.offer()).unwrap();
    fs::write(here.offer(), good.replace("debian", "debjan")).unwrap();
    here.builds_instead(vec![key.clone()], "its signature does not fit").await;
    fs::write(here.offer(), "{}").unwrap();
    here.builds_instead(vec![key.clone()], "it cannot be read").await;
    fs::write(here.offer(), &good).unwrap();
    let (blob, whole) = (here.blob(), fs::read(here.blob()).unwrap());
    fs::write(&blob, large(31, 5000)).unwrap();
    here.builds_instead(vec![key.clone()], "is not what the release says").await;
    fs::write(&blob, &whole[..whole.len() / 2]).unwrap();
    here.builds_instead(vec![key.clone()], "is not what the release says").await;
    fs::remove_file(&blob).unwrap();
    here.builds_instead(vec![key.clone()], "No such file").await;
    // Whole again, it is taken.
    fs::write(&blob, &whole).unwrap();
    let (host, before) = (here.another(vec![key]).await, here.built());
    install(&host, &here.document).await.1.unwrap();
    assert_eq!(here.built(), before, "{}", here.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_believed_and_not_be_laid_out_is_built_instead() {
    let here = Sharing::new(UID + 99).await;
    let (path, key) = here.key("key");
    nix::unistd::mkfifo(&here.folder().join("d/a-pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    here.push(&path);
    here.builds_instead(vec![key], "a-pipe").await;
    assert!(!here.folder().join("d/a-pipe").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_offer_that_is_put_back_is_refused() {
    let here = Sharing::new(UID + 92).await;
    let (path, key) = here.key("key");
    here.push(&path);
    let old = fs::read_to_string(here.offer()).unwrap();
    until("the clock goes on", async || {
        here.push(&path);
        fs::read_to_string(here.offer()).unwrap() != old
    })
    .await;
    let host = here.another(vec![key.clone()]).await;
    install(&host, &here.document).await.1.unwrap();
    assert_eq!(here.built(), 1);
    fs::write(here.offer(), old).unwrap();
    here.builds_instead(vec![key], "has been seen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_what_cannot_be_had_does_not_stand_in_the_way_of_another() {
    let here = Sharing::new(UID + 116).await;
    let (path, key) = here.key("key");
    here.push(&path);
    let old = fs::read_to_string(here.offer()).unwrap();
    until("the clock goes on", async || {
        here.push(&path);
        fs::read_to_string(here.offer()).unwrap() != old
    })
    .await;
    let (blob, whole) = (here.blob(), fs::read(here.blob()).unwrap());
    fs::remove_file(&blob).unwrap();
    here.builds_instead(vec![key.clone()], "No such file").await;
    fs::write(&blob, whole).unwrap();
    fs::write(here.offer(), old).unwrap();
    let (host, before) = (here.another(vec![key]).await, here.built());
    install(&host, &here.document).await.1.unwrap();
    assert_eq!(here.built(), before, "{}", here.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_a_store_leads_nowhere_and_what_only_has_a_name_is_put_anew() {
    let here = Sharing::new(UID + 117).await;
    let (path, _) = here.key("key");
    let elsewhere = here.node.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir(&here.store).unwrap();
    symlink(&elsewhere, here.store.join("sha256")).unwrap();
    let store = here.store.display().to_string();
    let refused = here.cache(&["push", "--key", &path, "--to", &store, here.digest.as_str()]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("P0419") && said.contains("`sha256` in it is a link"), "{said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    fs::remove_file(here.store.join("sha256")).unwrap();
    // A file of the cache that the store has by its name, but not by its contents; then by these.
    let bytes = large(34, 2000);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let text = document(serde_json::json!({"app": source(&format!("{}/x", web.url), &bytes)}), &[]);
    install(&here.node.open().await, &text).await.1.unwrap();
    let kept = here.store.join("sha256").join(hex(&bytes));
    fs::create_dir(here.store.join("sha256")).unwrap();
    fs::write(&kept, "something else").unwrap();
    assert_eq!(here.did(&["push", "--to", &store, "--files"]), "1 files of the cache\n");
    assert_eq!(fs::read(&kept).unwrap(), bytes);
    assert_eq!(here.did(&["push", "--to", &store, "--files"]), "0 files of the cache\n");
    fs::remove_file(&kept).unwrap();
    symlink(entry(&here.node, &bytes), &kept).unwrap();
    assert_eq!(here.did(&["push", "--to", &store, "--files"]), "1 files of the cache\n");
    assert!(fs::symlink_metadata(&kept).unwrap().is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_releases_and_files_and_whoever_pulls_checks_them() {
    let here = Sharing::new(UID + 93).await;
    let bytes = large(32, 4000);
    let upstream = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let host = here.node.open().await;
    let with_file = document(serde_json::json!({"app": source(&format!("{}/x", upstream.url), &bytes)}), &[]);
    install(&host, &with_file).await.1.unwrap();
    let kept: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    let files = kept.clone();
    let server = Web::serve(move |asked| {
        let mut files = files.lock().unwrap();
        match asked.method.as_str() {
            "PUT" if asked.headers.get("authorization").is_none_or(|sent| sent != "Bearer secret") => {
                Answer { status: 403, ..Answer::nothing() }
            }
            "PUT" => {
                files.insert(asked.path.clone(), asked.body.clone());
                Answer { status: 201, ..Answer::of("") }
            }
            _ => files.get(&asked.path).map_or_else(Answer::nothing, |body| Answer::of(body.clone())),
        }
    });
    let (path, key) = here.key("key");
    let token = here.node.folder.path().join("token").display().to_string();
    fs::write(&token, "wrong\n").unwrap();
    let push = ["push", "--key", &path, "--to", &server.url, "--token-file", &token, "--files", here.digest.as_str()];
    let refused = here.cache(&push);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("P0419") && said.contains("403"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
    fs::write(&token, "secret\n").unwrap();
    assert_eq!(here.did(&push), format!("1 files of the cache\nrelease {}\n", here.digest));
    assert_eq!(kept.lock().unwrap()[&format!("/sha256/{}", hex(&bytes))], bytes);
    here.forget_cache();
    here.configure(&format!("[cache]\nurl = {:?}\nkeys = [\"{key}\"]\n", server.url));
    let pulled = here.did(&["pull", here.digest.as_str()]);
    assert_eq!(pulled, format!("release {} is in the cache, checked\n", here.digest));
    let nothing = here.did(&["pull", &"0".repeat(64)]);
    assert!(nothing.contains("is not in the store"), "{nothing}");
    let (_, other) = here.key("other");
    here.configure(&format!("[cache]\nurl = {:?}\nkeys = [\"{other}\"]\n", server.url));
    let refused = here.cache(&["pull", here.digest.as_str()]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("P0418") && said.contains("does not trust"), "{said}");
}
