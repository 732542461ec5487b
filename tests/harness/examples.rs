//! The example releases as their users have them: each is given something to keep, and asked for it.

use crate::grid::{Grid, PATIENCE};
use crate::source::root;
use serde_json::Value;

/// Fetching and unpacking packages takes this long at most, in seconds.
pub const INSTALL: &str = "400";

pub struct Example {
    /// Of the document, without its ending.
    pub name: &'static str,
    /// What the request says beside the release.
    arguments: &'static [&'static str],
    /// Bash, run on the node: what it must be given, and asked for. `$RELEASE` is its folder; `$HOST`, `$PORT`, `$URL` and
    /// `$PASSWORD` are as it has published them.
    give: &'static str,
    ask: &'static str,
}

/// What each of them keeps.
pub const KEPT: &str = "forty-two";

pub const EXAMPLES: [Example; 3] = [
    Example {
        name: "postgresql",
        arguments: &[],
        give: "sql() { LD_LIBRARY_PATH=$LIBRARIES PGCONNECT_TIMEOUT=5 \
               $RELEASE/usr/lib/postgresql/15/bin/psql -XqtA -v ON_ERROR_STOP=1 -c \"$1\" $URL; }
               sql \"create table kept (text text); insert into kept values ('forty-two')\"",
        ask: "LD_LIBRARY_PATH=$LIBRARIES PGCONNECT_TIMEOUT=5 \
              $RELEASE/usr/lib/postgresql/15/bin/psql -XqtA -v ON_ERROR_STOP=1 -c 'select text from kept' $URL",
    },
    Example {
        name: "redis",
        arguments: &[],
        give: "LD_LIBRARY_PATH=$LIBRARIES REDISCLI_AUTH=$PASSWORD \
               $RELEASE/usr/bin/redis-cli -e -h $HOST -p $PORT set kept forty-two",
        ask: "LD_LIBRARY_PATH=$LIBRARIES REDISCLI_AUTH=$PASSWORD \
              $RELEASE/usr/bin/redis-cli -e -h $HOST -p $PORT get kept",
    },
    Example {
        name: "nginx",
        arguments: &["--param", "text=forty-two"],
        give: "true",
        ask: "at=${URL#http://}; at=${at%/}; host=${at%:*}; host=${host#[}; host=${host%]}
              exec 3<>/dev/tcp/$host/${at##*:}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3
              grep -o forty-two <&3",
    },
];

impl Example {
    pub fn supply(&self, grid: &Grid) {
        let document = root().join(format!("examples/releases/{}.yaml", self.name)).display().to_string();
        grid.plat.json(&["release", "add", &document]);
        grid.plat.json(&["supply", self.name, "--all", "--wait", "--timeout", INSTALL]);
    }

    /// An instance of the release's name, ready; what it is.
    pub fn request(&self, grid: &Grid) -> Value {
        grid.plat.json(&[&["request", self.name, "--release", self.name], self.arguments].concat());
        grid.until(self.name, "ready", 2 * PATIENCE)
    }

    /// A script for the node's own bash, which gives it [`KEPT`].
    pub fn give(&self, instance: &Value) -> String {
        script(instance, self.give)
    }

    /// A script for the node's own bash, which prints [`KEPT`].
    pub fn ask(&self, instance: &Value) -> String {
        script(instance, self.ask)
    }
}

fn script(instance: &Value, body: &str) -> String {
    let said = |key: &str| instance["connection"][key].as_str().unwrap_or_default().to_owned();
    let release = instance["release_digest"].as_str().unwrap_or_default();
    format!(
        "RELEASE=/srv/plat/releases/{release}\nHOST={} PORT={} URL={} PASSWORD={}\n\
         LIBRARIES=$RELEASE/usr/lib/x86_64-linux-gnu:$RELEASE/lib/x86_64-linux-gnu\n{body}",
        said("host"),
        said("port"),
        said("url"),
        said("password")
    )
}
