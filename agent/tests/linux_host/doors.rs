//! The socket of an instance, used as a hostile one would.

use super::*;
use plat_agent::inside::{AskMaster, Asked, Inside};
use plat_agent_plan::SOCKET;
use plat_agent_plan::inside::LINE_MAX;
use plat_model::instance::InstanceDesired;
use plat_model::tree::TreeAsk;
use serde_json::{Value, json};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// What the master was asked.
pub type Heard = Arc<Mutex<Vec<TreeAsk>>>;

struct Door {
    node: Node,
    host: Arc<LinuxHost>,
    inside: Arc<Inside>,
    heard: Heard,
}

pub fn listen_on(host: &Arc<LinuxHost>) -> (Arc<Inside>, Heard) {
    let digest = Digest::parse(&"d".repeat(64)).unwrap();
    let known = Arc::new(move |id: &InstanceId| {
        (*id == instance()).then(|| InstanceDesired::bare(instance(), part(), digest.clone()))
    });
    let heard = Heard::default();
    let to = heard.clone();
    let ask: AskMaster = Arc::new(move |_, ask| {
        to.lock().unwrap().push(ask);
        let answer: Asked = Box::pin(async { Ok(Vec::new()) });
        answer
    });
    (Arc::new(Inside::new(host.clone(), known, ask)), heard)
}

impl Door {
    /// An instance in a partition, with a user of its own where that can be.
    async fn of(node: Node) -> Self {
        let host = Arc::new(node.occupied().await);
        let (inside, heard) = listen_on(&host);
        let door = Self { node, host, inside, heard };
        door.keep().await;
        door
    }

    async fn keep(&self) {
        let file = self.host.node().await.unwrap();
        self.inside.keep(&file.partitions[0], Some(&instance())).await;
    }

    fn path(&self) -> PathBuf {
        self.node.home().join(SOCKET)
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path()).await.unwrap()
    }

    async fn ask(&self, ask: Value) -> Value {
        let mut stream = self.connect().await;
        say(&mut stream, &ask).await
    }

    async fn done(self) {
        self.inside.keep(&self.host.node().await.unwrap().partitions[0], None).await;
        let Self { node, host, inside, .. } = self;
        drop(inside);
        until("nobody answers any more", async || Arc::strong_count(&host) == 1).await;
        node.done(Arc::into_inner(host).unwrap()).await;
    }
}

async fn say(stream: &mut UnixStream, ask: &Value) -> Value {
    stream.write_all(format!("{ask}\n").as_bytes()).await.unwrap();
    hear(stream).await
}

async fn hear(stream: &mut UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap_or(Value::Null)
}

fn own_user(uid: u32) -> Node {
    Node::new(is_root().then(|| account(uid)))
}

fn get() -> Value {
    json!({ "v": 1, "ask": "get" })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_speaks_at_a_socket_that_is_its_users_alone() {
    let door = Door::of(own_user(UID + 60)).await;
    let file = fs::symlink_metadata(door.path()).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let owner = door.node.account.as_ref().map_or(nix::unistd::geteuid().as_raw(), |account| account.uid);
    assert_eq!(file.uid(), owner);
    let told = door.ask(get()).await;
    assert_eq!(told["ok"]["instance"]["id"], instance().as_str());
    assert_eq!(door.ask(json!({ "v": 1, "ask": "bang" })).await["ok"], json!([]));
    assert_eq!(*door.heard.lock().unwrap(), [TreeAsk::Bang]);
    door.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_publishes_survives_the_agent_and_goes_with_the_instance() {
    let door = Door::of(own_user(UID + 61)).await;
    let publish = json!({ "v": 1, "ask": "publish", "connection": { "url": "here" } });
    assert_eq!(door.ask(publish).await, json!({ "v": 1, "ok": {} }));
    assert_eq!(door.ask(json!({ "v": 1, "ask": "status", "well": false, "text": "no" })).await["ok"], json!({}));
    let Door { node, host, inside, .. } = door;
    inside.keep(&host.node().await.unwrap().partitions[0], None).await;
    drop(inside);
    until("nobody answers any more", async || Arc::strong_count(&host) == 1).await;
    drop(host);
    let host = node.open().await;
    let occupant = host.observe_partition(&part()).await.unwrap().occupant.unwrap();
    assert_eq!(occupant.spoken.to_json(), r#"{"url":"here"}"#);
    assert_eq!(occupant.said.unwrap().text, "no");
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(host.observe_partition(&part()).await.unwrap().occupant.unwrap().spoken.is_empty());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_heard_even_where_the_socket_is_open_to_all() {
    if !root_is_here() {
        return;
    }
    let door = Door::of(own_user(UID + 62)).await;
    let client = door.node.folder.path().join("plat-instance");
    fs::copy(env!("CARGO_BIN_EXE_plat-instance"), &client).unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    [door.node.home(), door.node.home().join("run"), door.path()].iter().for_each(|path| open(path));
    let socket = door.path();
    let speak = async |uid: u32| {
        let mut command = Command::new(&client);
        command.args(["get", "-o", "json", "--socket"]).arg(&socket).uid(uid).gid(uid).env_clear();
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let own = speak(UID + 62).await;
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
    let other = speak(UID + 63).await;
    assert_eq!((other.status.code(), other.stdout), (Some(1), Vec::new()));
    assert!(speak(0).await.status.success());
    door.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_in_the_way_leads_nowhere() {
    let door = Door::of(own_user(UID + 64)).await;
    let (home, elsewhere) = (door.node.home(), door.node.folder.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(elsewhere.join("plat.sock"), "mine").unwrap();
    let made = async || door.host.door(&part()).await;
    // In place of the socket: a link is replaced itself, a folder stays.
    fs::remove_file(door.path()).unwrap();
    symlink(elsewhere.join("plat.sock"), door.path()).unwrap();
    assert!(made().await.unwrap().is_some());
    assert_eq!(fs::read_to_string(elsewhere.join("plat.sock")).unwrap(), "mine");
    fs::remove_file(door.path()).unwrap();
    fs::create_dir(door.path()).unwrap();
    assert_eq!(made().await.unwrap_err().code, codes::FILES_FAILED);
    // In place of the folder that it is in.
    fs::remove_dir(door.path()).unwrap();
    fs::remove_dir(home.join("run")).unwrap();
    symlink(&elsewhere, home.join("run")).unwrap();
    assert_eq!(made().await.unwrap_err().code, codes::FILES_FAILED);
    assert_eq!(fs::read_to_string(elsewhere.join("plat.sock")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    fs::remove_file(home.join("run")).unwrap();
    door.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_made_with_its_users_rights_and_no_others() {
    if !root_is_here() {
        return;
    }
    let node = own_user(UID + 65);
    let host = node.occupied().await;
    // A folder of root's, moved there by somebody who could: its user could make nothing in it.
    fs::create_dir_all(node.home().join("run")).unwrap();
    chown(node.home().join("run"), Some(0), Some(0)).unwrap();
    fs::set_permissions(node.home().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(host.door(&part()).await.unwrap_err().code, codes::FILES_FAILED);
    assert_eq!(fs::read_dir(node.home().join("run")).unwrap().count(), 0);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_can_be_where_no_name_of_one_reaches() {
    let mut node = Node::new(None);
    node.folder = tempfile::Builder::new().prefix(&"long".repeat(40)).tempdir().unwrap();
    fs::create_dir_all(node.home()).unwrap();
    node.write_node_file();
    let door = Door::of(node).await;
    assert!(door.path().as_os_str().len() > 107);
    let mut command = Command::new(env!("CARGO_BIN_EXE_plat-instance"));
    command.args(["publish", "a=1"]).env("PLAT_SOCKET", door.path());
    let said = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let occupant = door.host.observe_partition(&part()).await.unwrap().occupant.unwrap();
    assert_eq!(occupant.spoken.to_json(), r#"{"a":1}"#);
    door.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_refused_and_half_a_line_is_none() {
    let door = Door::of(own_user(UID + 66)).await;
    let mut long = door.connect().await;
    // The other end may close before all is taken.
    let _ = long.write_all(&vec![b'x'; LINE_MAX + 1]).await;
    assert_eq!(hear(&mut long).await["problem"]["code"], "P0103");
    let mut half = door.connect().await;
    half.write_all(br#"{"v": 1, "ask": "bang"}"#).await.unwrap();
    half.shutdown().await.unwrap();
    let mut rest = Vec::new();
    half.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty() && door.heard.lock().unwrap().is_empty());
    // Nonsense is answered, and the connection goes on.
    let mut stream = door.connect().await;
    stream.write_all(b"\xff{\n").await.unwrap();
    assert_eq!(hear(&mut stream).await["problem"]["code"], "P0603");
    assert!(say(&mut stream, &get()).await["ok"].is_object());
    door.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_silent_connections_keep_only_their_own_instance_waiting() {
    let door = Door::of(own_user(UID + 67)).await;
    let neighbour = Door::of(own_user(UID + 68)).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut one = door.connect().await;
        // Heard once, it is one of those that are listened to.
        say(&mut one, &get()).await;
        silent.push(one);
    }
    let mut late = door.connect().await;
    late.write_all(format!("{}\n", get()).as_bytes()).await.unwrap();
    assert!(neighbour.ask(get()).await["ok"].is_object());
    silent.pop();
    assert!(hear(&mut late).await["ok"].is_object());
    drop(silent);
    door.done().await;
    neighbour.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_says_anew_is_written_down_only_so_often_and_it_is_told_when_to_say_it_again() {
    let door = Door::of(own_user(UID + 69)).await;
    let mut stream = door.connect().await;
    let said = |n: usize| json!({"v": 1, "ask": "publish", "connection": {"a": format!("{n}{}", "x".repeat(200_000))}});
    let mut last = 0;
    let refused = loop {
        let answer = say(&mut stream, &said(last)).await;
        if answer["ok"].is_null() {
            break answer;
        }
        last += 1;
        assert!(last < 50, "nothing is refused");
    };
    assert!(last >= 4, "{last}");
    assert_eq!(refused["problem"]["code"], "P0314", "{refused}");
    assert!(refused["problem"]["todo"].as_str().unwrap().starts_with("say it again in "), "{refused}");
    // What was refused was not written down; the same again costs nothing, and it is heard as before.
    let published = say(&mut stream, &get()).await["ok"]["published"]["a"].as_str().unwrap().to_owned();
    assert!(published.starts_with(&format!("{}x", last - 1)));
    assert!(say(&mut stream, &said(last - 1)).await["ok"].is_object());
    door.done().await;
}
