//! Putting what this node has into a store: what is big first, the offer of it last.

use super::key::SecretKey;
use super::shelf::Folder;
use super::{CONTEXT, Envelope, Offer, offer_path};
use crate::host::linux::disk::{now, random_hex};
use crate::host::linux::release::build::{MANIFEST, Manifest};
use crate::host::linux::release::cache::pin::Pin;
use crate::host::linux::release::cache::{FETCH_MAX, trust};
use plat_model::Problem;
use plat_model::id::Digest;
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// A folder, or a server that takes files with PUT.
pub enum Store {
    Folder(Folder),
    Server { url: String, token: Option<Secret>, agent: ureq::Agent },
}

impl Store {
    /// `place`: http(s)://HOST/PATH or an absolute path. `authorities`: as [`trust::tls`] has it.
    ///
    /// # Errors
    /// BAD_VALUE, SHARE_FAILED if a folder cannot be used.
    pub fn parse(place: &str, token: Option<Secret>, authorities: Option<&Path>) -> Result<Self, Problem> {
        match place {
            path if path.starts_with('/') => Folder::open(Path::new(path)).map(Self::Folder).map_err(|e| {
                Problem::new(codes::SHARE_FAILED, format!("cannot use the folder {path}"))
                    .because(e)
                    .fix("check the path, and that it may be written to")
            }),
            url if crate::config::is_base(url) => {
                let url = url.trim_end_matches('/').to_owned();
                let agent = agent(&url, authorities).map_err(|why| {
                    Problem::new(codes::SHARE_FAILED, format!("cannot ask {url}")).because(why).fix("correct that file")
                })?;
                Ok(Self::Server { url, token, agent })
            }
            other => Err(Problem::new(
                codes::BAD_VALUE,
                format!("`{}` is no store", plat_model::id::shorten(other.split('@').next_back().unwrap_or_default())),
            )
            .fix("name http://HOST/PATH, https://HOST/PATH without a user, or an absolute path")),
        }
    }

    /// Whether the content, of so many bytes, need not be put there.
    fn has(&self, pin: &Pin, size: u64) -> bool {
        match self {
            Self::Folder(folder) => folder.has(pin),
            // What it has of this size only who fetches it can tell.
            Self::Server { url, agent, .. } => agent.head(format!("{url}/{}", pin.path())).call().is_ok_and(|answer| {
                let length = answer.headers().get("content-length").and_then(|text| text.to_str().ok()?.parse().ok());
                answer.status() == 200 && length == Some(size)
            }),
        }
    }

    fn put(&self, path: &str, file: &mut File) -> Result<(), Problem> {
        let wrong = |why: String| {
            Problem::new(codes::SHARE_FAILED, format!("cannot put {path} into the store"))
                .because(why)
                .fix("check the address, and that it may be written to")
        };
        let disk = |e: io::Error| wrong(e.to_string());
        file.rewind().map_err(disk)?;
        match self {
            Self::Folder(folder) => folder.put(path, file).map_err(disk),
            Self::Server { url, token, agent } => {
                let mut request = agent.put(format!("{url}/{path}"));
                if let Some(token) = token {
                    request = request.header("Authorization", format!("Bearer {}", token.reveal()));
                }
                let answer = request.send(&*file).map_err(|e| wrong(e.to_string()))?;
                match answer.status() {
                    status if status.is_success() => Ok(()),
                    status => Err(wrong(format!("the server answers {status}"))),
                }
            }
        }
    }
}

fn agent(url: &str, authorities: Option<&Path>) -> Result<ureq::Agent, String> {
    Ok(ureq::Agent::config_builder()
        .tls_config(trust::tls(url, authorities)?)
        .timeout_global(Some(FETCH_MAX))
        .timeout_connect(Some(Duration::from_secs(30)))
        .max_redirects(0)
        .http_status_as_error(false)
        .build()
        .into())
}

/// Packs a release of this node, and offers it with the key. `scratch`: a folder with room for the archive.
///
/// # Errors
/// SHARE_FAILED, also if the release is not here.
pub fn push_release(
    releases: &Path,
    digest: &Digest,
    key: &SecretKey,
    store: &Store,
    scratch: &Path,
) -> Result<(), Problem> {
    let directory = releases.join(digest.as_str());
    let wrong = |why: String| {
        Problem::new(codes::SHARE_FAILED, format!("cannot share release {}", digest.short())).because(why)
    };
    let disk = |e: io::Error| wrong(e.to_string());
    let text = fs::read(directory.join(MANIFEST))
        .map_err(|e| disk(e).fix("share a release that `plat node show` says is installed here"))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|_| wrong("its manifest cannot be read".into()))?;
    let mut archive = unnamed(scratch).map_err(disk)?;
    pack(&directory, &archive).map_err(disk)?;
    archive.rewind().map_err(disk)?;
    let pin = Pin::measure_sha256(&mut archive).map_err(disk)?;
    store.put(&pin.path(), &mut archive)?;
    let offer = Offer {
        version: 1,
        release: digest.clone(),
        platform: plat_source::here()?.to_string(),
        directory,
        sha256: pin.to_string(),
        signed: now(),
        sources: manifest.sources,
    };
    let path = offer_path(digest, &offer.platform);
    let offer = serde_json::to_string(&offer).map_err(|e| wrong(e.to_string()))?;
    let signature = key.sign(&[CONTEXT, offer.as_bytes()].concat());
    let envelope = Envelope { offer, key: key.public().to_string(), signature };
    let mut text = unnamed(scratch).map_err(disk)?;
    serde_json::to_writer(&text, &envelope).map_err(|e| wrong(e.to_string()))?;
    store.put(&path, &mut text)
}

/// Puts the files of this node's cache into a store, which becomes a mirror by that. They need no signature: who takes one
/// knows its digest. How many were put.
///
/// # Errors
/// SHARE_FAILED.
pub fn push_files(cache: &Path, store: &Store) -> Result<usize, Problem> {
    let mut count = 0;
    for folder in ["sha256", "sha512"] {
        for file in fs::read_dir(cache.join(folder)).into_iter().flatten().flatten() {
            let name = file.file_name();
            let Some(pin) = name.to_str().and_then(|name| Pin::parse(folder, name)) else { continue };
            let wrong = |e: io::Error| {
                Problem::new(codes::SHARE_FAILED, format!("cannot read {}", file.path().display())).because(e)
            };
            let mut contents = File::open(file.path()).map_err(wrong)?;
            if pin.measure(&mut contents).map_err(wrong)? != pin
                || store.has(&pin, contents.metadata().map_err(wrong)?.len())
            {
                continue;
            }
            store.put(&pin.path(), &mut contents)?;
            count += 1;
        }
    }
    Ok(count)
}

/// A file that goes with this process.
fn unnamed(folder: &Path) -> io::Result<File> {
    let name = random_hex(8).map_err(|e| io::Error::other(e.one_line()))?;
    let path = folder.join(format!(".share-{name}"));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// All of a folder but what is the agent's own, as a tar archive that zstd has compressed.
fn pack(directory: &Path, to: &File) -> io::Result<()> {
    let mut packed = zstd::stream::write::Encoder::new(to, 3)?;
    {
        let mut archive = tar::Builder::new(&mut packed);
        archive.mode(tar::HeaderMode::Deterministic);
        archive.follow_symlinks(false);
        let mut names: Vec<_> = fs::read_dir(directory)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        for name in names.into_iter().filter(|name| name != MANIFEST) {
            let path = directory.join(&name);
            if fs::symlink_metadata(&path)?.is_dir() {
                archive.append_dir_all(&name, &path)?;
            } else {
                archive.append_path_with_name(&path, &name)?;
            }
        }
        archive.finish()?;
    }
    packed.finish()?.flush()
}

/// A token is one line of a file.
///
/// # Errors
/// FILE.
pub fn read_token(path: &Path) -> Result<Secret, Problem> {
    let wrong = |e: io::Error| {
        Problem::new(codes::FILE, format!("the token file `{}` cannot be read", path.display())).because(e)
    };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text)).map_err(wrong)?;
    Ok(Secret::new(text.trim()))
}
