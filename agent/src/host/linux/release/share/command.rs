//! `plat-agent cache`: what a person does with a store.

use super::key::SecretKey;
use super::pull::find;
use super::push::{Store, push_files, push_release, read_token};
use crate::config::Config;
use crate::host::linux::Network;
use crate::host::linux::disk::{io_problem, private_folder};
use crate::host::linux::release::cache::pin::Pin;
use crate::host::linux::release::cache::{Cache, who_asks};
use crate::host::linux::spawner::Spawner;
use plat_model::Problem;
use plat_model::id::Digest;
use plat_model::node::NodeFile;
use plat_model::problem::codes;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Fewest digits that a release is named by.
const PREFIX_MIN: usize = 8;

/// What to put where.
pub struct Push {
    pub to: String,
    pub key: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
    /// Also the files of the cache.
    pub files: bool,
    /// Digests, or the first digits of them.
    pub releases: Vec<String>,
}

/// Makes a key; what it is trusted by.
///
/// # Errors
/// KEY_FILE.
pub fn keygen(out: &Path) -> Result<String, Problem> {
    SecretKey::generate(out).map(|key| key.public().to_string())
}

/// What was put, a line each.
///
/// # Errors
/// KEY_FILE, FILE, SHARE_FAILED, BAD_VALUE.
pub fn push(config: &Config, push: &Push) -> Result<Vec<String>, Problem> {
    let token = push.token_file.as_deref().map(read_token).transpose()?;
    let store = Store::parse(&push.to, token, config.releases.authorities.as_deref())?;
    let mut done = Vec::new();
    if push.files {
        let count = push_files(&folder(config), &store)?;
        done.push(format!("{count} files of the cache"));
    }
    if push.releases.is_empty() {
        return Ok(done);
    }
    let key = push.key.as_deref().ok_or_else(|| {
        Problem::new(codes::KEY_FILE, "releases are shared with a key").fix("name it with --key FILE")
    })?;
    let (key, node, scratch) = (SecretKey::read(key)?, node(config)?, config.data.join("host"));
    private_folder(&scratch)?;
    for name in &push.releases {
        let digest = named(&node.releases, name)?;
        push_release(&node.releases, &digest, &key, &store, &scratch)?;
        done.push(format!("release {digest}"));
    }
    Ok(done)
}

/// Takes what the store offers of a release into the cache, as the agent does before it would build it. Whether there was
/// something.
///
/// # Errors
/// BAD_CONFIG if `agent.toml` names no store, SHARE_REFUSED, SOURCE_FETCH, SOURCE_CHECKSUM.
pub async fn pull(config: &Config, release: &Digest) -> Result<bool, Problem> {
    let share = config.releases.share.as_ref().ok_or_else(|| {
        Problem::new(codes::BAD_CONFIG, "agent.toml names no store of built releases")
            .fix("put a section `[cache]` with `url` and `keys` into it")
    })?;
    let (node, state) = (node(config)?, config.data.join("host"));
    private_folder(&state)?;
    let spawner = Arc::new(Spawner::new("/proc/self/exe".into(), Network::default()));
    let cache = Arc::new(Cache::new(spawner, folder(config), config.releases.clone(), None));
    let account = who_asks(node.builder.as_ref());
    let found = find(&cache, share, &node.releases, release, &state.join("releases"), account).await?;
    let Some(found) = found else { return Ok(false) };
    let archive = Pin::sha256(&found.offer.sha256)?;
    let url = format!("{}/{}", share.url, archive.path());
    cache.want_one("what another node built".into(), archive, url).fetch(node.builder.as_ref(), &|_| {}).await?;
    found.note()?;
    Ok(true)
}

fn folder(config: &Config) -> PathBuf {
    config.data.join("host/cache")
}

fn node(config: &Config) -> Result<NodeFile, Problem> {
    let text = fs::read_to_string(&config.node_file).map_err(|e| {
        io_problem(codes::NO_NODE_FILE, format!("cannot read {}", config.node_file.display()), &e)
            .fix("run `node-format apply` on this machine first")
    })?;
    NodeFile::parse(&text)
}

/// The release of this node whose digest begins so.
fn named(releases: &Path, name: &str) -> Result<Digest, Problem> {
    let wrong = |why: &str| {
        let shown = plat_model::id::shorten(name);
        Problem::new(codes::SHARE_FAILED, format!("cannot share release {shown}"))
            .because(why)
            .fix("name a release that is installed here by its digest, or 8 and more of its first digits")
    };
    if name.len() < PREFIX_MIN {
        return Err(wrong("it takes 8 digits at least"));
    }
    let entries = fs::read_dir(releases).into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| Digest::parse(entry.file_name().to_str()?).ok());
    let mut fitting = all.filter(|digest| digest.as_str().starts_with(name));
    match (fitting.next(), fitting.next()) {
        (Some(digest), None) => Ok(digest),
        (None, _) => Err(wrong("there is none here")),
        (Some(_), Some(_)) => Err(wrong("several begin so")),
    }
}
