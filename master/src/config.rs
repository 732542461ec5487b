//! `master.toml`: read whole, checked whole, all problems at once.

use crate::store::EngineKind;
use plat_link::Address;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Largest configuration file in bytes.
const MAX: u64 = 64 * 1024;
/// Most addresses to listen on, and most names.
const MANY: usize = 16;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    /// How agents and people reach this master.
    pub url: Address,
    /// Host names and addresses in the master's certificate: the URL's, and those that were added.
    pub names: Vec<String>,
    /// The folder with `ca` and `store`.
    pub data: PathBuf,
    /// `None`: what the store's folder holds.
    pub store: Option<EngineKind>,
}

/// The file as it is written, version 1.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "checked before the rest is read")]
    version: u32,
    listen: Vec<String>,
    url: String,
    data: PathBuf,
    store: Option<String>,
    #[serde(default)]
    names: Vec<String>,
}

fn wrong(what: impl Into<String>) -> Problem {
    Problem::new(codes::BAD_CONFIG, what)
}

impl Config {
    /// Reads a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`codes::BAD_CONFIG`], every one there is.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let place = path.display().to_string();
        let unreadable = |why: String| wrong("the configuration cannot be read").because(why).at(place.clone());
        let length = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
        if length > MAX {
            return Err(unreadable(format!("it has {length} bytes, {MAX} are allowed")).into());
        }
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder).map_err(|problems| {
            let at = |p: Problem| {
                if p.at.is_empty() {
                    p.at(place.clone())
                } else {
                    let key = p.at.clone();
                    p.at(format!("{place}: {key}"))
                }
            };
            Problems(problems.0.into_iter().map(at).collect())
        })
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`codes::BAD_CONFIG`], every one there is.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Problems> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong("it is not TOML").because(e))?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(1) => {}
            Some(other) => {
                return Err(wrong(format!("it is of version {other}, this master reads version 1"))
                    .at("version")
                    .into());
            }
            None => return Err(wrong("it does not say its version").fix("begin it with `version = 1`").into()),
        }
        let file: File = toml::from_str(text).map_err(|e| wrong(e.message().to_owned()).because(e))?;
        let mut problems = Problems::default();
        if file.listen.is_empty() || file.listen.len() > MANY {
            problems.push(wrong(format!("1 to {MANY} addresses are to be listened on")).at("listen"));
        }
        let listen = file.listen.iter().filter_map(|text| {
            let read = text.parse().map_err(|_| {
                wrong(format!("`{}` is not an address and a port", plat_model::id::shorten(text)))
                    .fix("write it as 192.0.2.1:7443 or [2001:db8::1]:7443")
                    .at("listen")
            });
            problems.keep(read)
        });
        let listen = listen.collect();
        let url = problems.keep(Address::parse(&file.url).map_err(|p| {
            wrong("the URL cannot be used").because(p.one_line()).fix("write it as https://HOST:PORT").at("url")
        }));
        let store = file.store.as_deref().and_then(|name| {
            let names = EngineKind::ALL.map(EngineKind::name).join(", ");
            problems.keep(EngineKind::parse(name).ok_or_else(|| {
                wrong(format!("`{}` is not a store", plat_model::id::shorten(name)))
                    .fix(format!("use one of {names}, or leave it out"))
                    .at("store")
            }))
        });
        if file.names.len() > MANY {
            problems.push(wrong(format!("at most {MANY} names can be in the certificate")).at("names"));
        }
        let Some(url) = url else { return Err(problems) };
        let mut names = vec![url.host().to_owned()];
        names.extend(file.names.into_iter().filter(|name| name != url.host()));
        problems.none_or(Self { listen, names, url, data: folder.join(file.data), store })
    }

    /// A new file.
    pub fn render(url: &Address, listen: &[SocketAddr], data: &Path) -> String {
        let listen: Vec<toml::Value> = listen.iter().map(|address| address.to_string().into()).collect();
        format!(
            "# What the master listens on, and where it keeps its data. Written by `plat-master init`.\n\
             version = 1\n\n\
             # Addresses and ports.\n\
             listen = {}\n\n\
             # How agents and people reach this master.\n\
             url = {}\n\n\
             # The folder with the CA and the store; relative to this file.\n\
             data = {}\n\n\
             # Further host names and addresses for the certificate.\n\
             names = []\n",
            toml::Value::Array(listen),
            toml::Value::from(url.to_string()),
            toml::Value::from(data.display().to_string()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_is_read_back() {
        let url = Address::parse("https://grid.example:7443").unwrap();
        let listen = ["[::]:7443".parse().unwrap()];
        let config = Config::parse(&Config::render(&url, &listen, Path::new(".")), Path::new("/x")).unwrap();
        assert_eq!((config.listen, config.names), (listen.to_vec(), vec!["grid.example".to_owned()]));
        assert_eq!(config.data, Path::new("/x/."));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let text = "version = 1\nlisten = [\"nowhere\"]\nurl = \"ftp://x\"\ndata = \".\"\nstore = \"etcd\"\n";
        let problems = Config::parse(text, Path::new("/")).unwrap_err();
        let places: Vec<_> = problems.0.iter().map(|p| p.at.as_str()).collect();
        assert_eq!(places, ["listen", "url", "store"]);
    }

    #[test]
    fn an_unknown_key_and_a_newer_version_are_refused() {
        let unknown = "version = 1\nlisten = []\nurl = \"\"\ndata = \"\"\nport = 1\n";
        assert!(Config::parse(unknown, Path::new("/")).unwrap_err().to_string().contains("port"));
        let newer = Config::parse("version = 2\nfuture = true\n", Path::new("/")).unwrap_err();
        assert!(newer.to_string().contains("version 2"), "{newer}");
    }
}
