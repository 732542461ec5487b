//! The files of one commit. git fetches it; what is laid are the commit's own bytes, read from git's store one by one and
//! written here, so no attribute, filter or hook of the repository changes or runs anything, and the limits are those of
//! an archive.
//!
//! A commit's name is the checksum of all that is in it. git computes the name of each object it receives from the
//! object's contents, and what is asked of its store afterwards is asked by name: a server can hold back, not deceive.

use super::tools::{Tool, scratch};
use super::tree::Tree;
use super::unpack::{self, Room, refuse, stripped};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::shim::tree::Exit;
use crate::host::linux::task::Line;
use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

/// All that git is configured with: nothing of the node's, of the builder's or of the repository's is read.
const CONFIG: &str = "[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n[credential]\n\thelper =\n[protocol]\n\tversion = 2\n\
    [safe]\n\tdirectory = *\n[fetch]\n\tunpackLimit = 1\n\trecurseSubmodules = false\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n\
    [init]\n\tdefaultBranch = none\n[http]\n\tlowSpeedLimit = 1000\n\tlowSpeedTime = 300\n";

/// Longest path in a commit and longest line of git's, in bytes.
const LINE_MAX: u64 = 8192;

pub struct Commit<'a> {
    pub url: &'a str,
    /// All digits of its name.
    pub commit: &'a str,
    /// A file of certificates: whose word a server is taken on, instead of whom the machine trusts.
    pub authorities: Option<&'a Path>,
}

impl Commit<'_> {
    pub fn lay(&self, tree: &Tree, staging: &Path, line: &Line) -> Result<Vec<Ingredient>, Problem> {
        let Commit { url, commit, .. } = *self;
        let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or(url);
        let what = || format!("cannot take commit {commit} of {url}");
        scratch(staging, |folder| {
            let store = Store { git: Tool::find("git")?, folder: folder.to_owned() };
            line.progress(format!("> fetching {name}"))?;
            store.fetch(self, line)?;
            let kind = store.kind(commit).map_err(|e| unpack::problem(what(), &e))?;
            if kind != "commit" {
                return Err(Problem::new(codes::SOURCE_CHECKSUM, what())
                    .because(format!("what is called so is a {kind}, not a commit"))
                    .fix("`git rev-parse NAME^{commit}` tells the commit that a tag is about"));
            }
            line.progress(format!("> writing {name}"))?;
            store.lay(commit, tree).map_err(|e| unpack::problem(what(), &e))
        })?;
        unpack::refuse_links_out(what(), tree)?;
        Ok(vec![Ingredient { name: url.to_owned(), version: commit.to_owned(), sha256: String::new() }])
    }
}

/// A store of git's that holds one commit.
struct Store {
    git: Tool,
    /// Empty at first; home of git too.
    folder: PathBuf,
}

impl Store {
    fn environment(&self) -> BTreeMap<String, String> {
        let config = self.folder.join(".gitconfig").display().to_string();
        let home = self.folder.display().to_string();
        [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("HOME", &home),
            ("GIT_CONFIG_GLOBAL", &config),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "http:https:file"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn arguments(&self, rest: &[&str]) -> Vec<String> {
        let place = format!("--git-dir={}", self.folder.join("store").display());
        std::iter::once(place).chain(rest.iter().map(|word| (*word).to_owned())).collect()
    }

    fn fetch(&self, from: &Commit<'_>, line: &Line) -> Result<(), Problem> {
        let Commit { url, commit, authorities } = *from;
        let wrong = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot fetch {url}"), &e);
        fs::write(self.folder.join(".gitconfig"), CONFIG).map_err(wrong)?;
        let mut environment = self.environment();
        if url.starts_with("https://") {
            // It is led nowhere else.
            environment.insert("GIT_ALLOW_PROTOCOL".into(), "https".into());
        }
        if let Some(authorities) = authorities {
            // Of a folder its TLS takes what has the machine's by default, and one that is empty for a mistake.
            let only = self.folder.join("authorities");
            let link = only.join("authorities.pem");
            fs::create_dir(&only).and_then(|()| symlink(authorities, &link)).map_err(wrong)?;
            environment.insert("GIT_SSL_CAINFO".into(), authorities.display().to_string());
            environment.insert("GIT_SSL_CAPATH".into(), only.display().to_string());
        }
        let make = ["init", "--quiet", "--bare", "--template=", "--object-format=sha1"];
        let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", url, commit];
        for arguments in [&make[..], &fetch[..]] {
            let ran = self.git.run(self.arguments(arguments), environment.clone(), &self.folder, line)?;
            if ran.timed_out || ran.exit != Exit::Code(0) {
                return Err(self.git.failed(format!("cannot fetch commit {commit} of {url}"), &ran).fix(
                    "check the address, that the commit is there, and that this node can reach it without a password",
                ));
            }
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.git.path);
        command.args(self.arguments(arguments)).env_clear().envs(self.environment()).current_dir(&self.folder);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// What an object is: `commit`, `tag`, `tree` or `blob`.
    fn kind(&self, object: &str) -> io::Result<String> {
        let said = self.command(&["cat-file", "-t", object]).output()?;
        if !said.status.success() {
            return Err(io::Error::other("git did not bring it"));
        }
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    fn lay(&self, commit: &str, tree: &Tree) -> io::Result<()> {
        let listing = ["ls-tree", "-r", "-z", "--full-tree", commit];
        let mut list = Ended(self.command(&listing).stdout(Stdio::piped()).spawn()?);
        let reading = ["cat-file", "--batch"];
        let mut read = Ended(self.command(&reading).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let none = || io::Error::other("git cannot be asked");
        let mut names = BufReader::new(list.0.stdout.take().ok_or_else(none)?);
        let mut blobs = Blobs {
            ask: read.0.stdin.take().ok_or_else(none)?,
            told: BufReader::new(read.0.stdout.take().ok_or_else(none)?),
        };
        let mut room = Room::of_a_source();
        let mut entry = Vec::new();
        while (&mut names).take(LINE_MAX).read_until(0, &mut entry)? > 0 {
            lay_one(&entry, &mut blobs, tree, &mut room)?;
            entry.clear();
        }
        if !list.0.wait()?.success() {
            return Err(io::Error::other("git cannot list what is in it"));
        }
        Ok(())
    }
}

/// A process that is ended at the latest when nobody has it any more.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `entry`: MODE KIND OBJECT, a tabulator, PATH, a zero byte.
fn lay_one(entry: &[u8], blobs: &mut Blobs, tree: &Tree, room: &mut Room) -> io::Result<()> {
    let odd = || io::Error::other("git lists what cannot be understood, or a path that is too long");
    let entry = entry.strip_suffix(&[0]).ok_or_else(odd)?;
    let tab = entry.iter().position(|b| *b == b'\t').ok_or_else(odd)?;
    let (head, named) = (String::from_utf8_lossy(&entry[..tab]), Path::new(OsStr::from_bytes(&entry[tab + 1..])));
    let mut words = head.split(' ');
    let (Some(mode), Some(_), Some(object)) = (words.next(), words.next(), words.next()) else { return Err(odd()) };
    room.entry(named)?;
    let path = stripped(named, 0).map_err(|why| refuse(why, named))?.ok_or_else(odd)?;
    if path.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git")) {
        return Err(refuse("is where git keeps settings", named));
    }
    match mode {
        "160000" => Err(refuse(
            "is a submodule, which is not fetched: give it a source of its own with that path as `into`, or take an archive",
            named,
        )),
        "120000" => {
            let mut target = Vec::new();
            blobs.read(object, &mut |contents| contents.take(LINE_MAX).read_to_end(&mut target).map(drop))?;
            let target = Path::new(OsStr::from_bytes(&target));
            if target.is_absolute() {
                return Err(refuse("is a link to an absolute path", named));
            }
            tree.link(&path, target)
        }
        "100644" | "100664" | "100755" => {
            blobs.read(object, &mut |contents| room.write(tree, &path, mode == "100755", contents))
        }
        _ => Err(refuse("is neither file nor link", named)),
    }
}

/// `git cat-file --batch`.
struct Blobs {
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Blobs {
    /// Has `with` read the contents of a file, all of which are there.
    fn read(&mut self, object: &str, with: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>) -> io::Result<()> {
        let lacks = || io::Error::other(format!("git lacks the file {object}"));
        writeln!(self.ask, "{object}")?;
        let mut head = String::new();
        (&mut self.told).take(LINE_MAX).read_line(&mut head)?;
        let size = head.trim_end().strip_prefix(object).and_then(|rest| rest.strip_prefix(" blob "));
        let size: u64 = size.and_then(|size| size.parse().ok()).ok_or_else(lacks)?;
        let mut contents = (&mut self.told).take(size);
        with(&mut contents)?;
        io::copy(&mut contents, &mut io::sink())?;
        let mut end = [0];
        self.told.read_exact(&mut end).map_err(|_| lacks())?;
        if end == *b"\n" { Ok(()) } else { Err(lacks()) }
    }
}
