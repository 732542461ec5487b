//! An image in the OCI layout: a folder, or a tar archive of one. Everything is reached from the manifest that the release
//! names by its digest, and each blob is checked against the digest that led to it before it is read.
//!
//! Layers are applied in order to a folder of the image's own, so that what a layer removes is only ever the image's.
//! What removes is applied before what adds: a layer's whiteouts mean the layers below it. Owners, setuid bits and
//! extended attributes are not kept; a link to an absolute path leads into the image.

use super::fetch::{self, checksum};
use super::tools::scratch;
use super::tree::{Links, Tree};
use super::unpack::{self, Form, Room, refuse};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::release::cache::FILE_MAX;
use crate::host::linux::release::cache::pin::Pin;
use crate::host::linux::release::cache::store::Shelf;
use crate::host::linux::task::Line;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::OFlags;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// Largest manifest or configuration, in bytes; most layers.
const JSON_MAX: u64 = 4 << 20;
const LAYERS_MAX: usize = 500;

/// An image as a release names it.
pub struct Image<'a> {
    /// A folder; with `sha256`, a tar archive by URL or path.
    pub layout: &'a str,
    pub sha256: Option<&'a str>,
    /// `sha256:` and 64 hexadecimal digits.
    pub manifest: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// A manifest; an index has `manifests` instead.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Image<'_> {
    pub fn lay(&self, tree: &Tree, staging: &Path, shelf: &Shelf, line: &Line) -> Result<Vec<Ingredient>, Problem> {
        let what = || format!("cannot unpack the image {} of {}", self.manifest, self.layout);
        scratch(staging, |folder| {
            let layout = Layout { folder: self.fetch(folder, shelf, line)?, name: self.layout };
            let manifest = layout.manifest(self.manifest)?;
            let own = Tree::open(folder, "image")?;
            let mut room = Room::of_a_source();
            for (n, layer) in manifest.layers.iter().enumerate() {
                line.progress(format!("> unpacking layer {} of {}", n + 1, manifest.layers.len()))?;
                layout.apply(layer, &own, &mut room).map_err(|e| match e {
                    Wrong::Said(problem) => problem,
                    Wrong::Io(e) => unpack::problem(format!("{}, layer {}", what(), layer.digest), &e),
                })?;
            }
            unpack::refuse_links_out(what(), &own)?;
            tree.adopt(&own).map_err(|e| io_problem(codes::BUILD_FAILED, what(), &e))
        })?;
        let hex = self.manifest.trim_start_matches("sha256:").to_owned();
        Ok(vec![Ingredient { name: self.layout.to_owned(), version: String::new(), sha256: hex }])
    }

    /// The layout's folder, beneath `folder` if it had to be unpacked.
    fn fetch(&self, folder: &Path, shelf: &Shelf, line: &Line) -> Result<PathBuf, Problem> {
        let Some(sha256) = self.sha256 else { return Ok(self.layout.into()) };
        line.progress(format!("> unpacking {}", self.layout.rsplit('/').next().unwrap_or(self.layout)))?;
        let file = fetch::pinned(self.layout, &Pin::sha256(sha256)?, shelf)?;
        let tree = Tree::open(folder, "layout")?;
        unpack::unpack(file, Form::Archive { strip: 0 }, &tree, &mut Room::of_a_source())
            .map_err(|e| unpack::problem(format!("cannot unpack {}", self.layout), &e))?;
        Ok(folder.join("layout"))
    }
}

/// A folder with an image in it.
struct Layout<'a> {
    folder: PathBuf,
    /// How the release calls it.
    name: &'a str,
}

/// What can go wrong with a layer.
enum Wrong {
    Said(Problem),
    Io(io::Error),
}

impl Layout<'_> {
    fn broken(&self, why: impl std::fmt::Display) -> Problem {
        Problem::new(codes::BAD_ARCHIVE, format!("{} is not a whole image in the OCI layout", self.name)).because(why)
    }

    /// A blob, at its beginning, that is what it is called.
    fn blob(&self, digest: &str, size: Option<u64>) -> Result<File, Problem> {
        let hex = hex_of(digest)
            .ok_or_else(|| self.broken(format!("`{}` is not a SHA-256", plat_model::id::shorten(digest))))?;
        let path = self.folder.join("blobs/sha256").join(hex);
        let lacks = |e: io::Error| self.broken(format!("the blob {digest}: {e}"));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(fetch::open(&path, flags).map_err(lacks)?);
        let found = file.metadata().map_err(lacks)?;
        if !found.is_file() || found.len() > FILE_MAX {
            return Err(self.broken(format!("the blob {digest} is not a file of at most {} bytes", FILE_MAX)));
        }
        let sum = checksum(&mut file).map_err(lacks)?;
        if sum != hex || size.is_some_and(|size| size != found.len()) {
            return Err(fetch::unlike(
                &format!("the blob {digest} of {}", self.name),
                "SHA-256",
                &format!("{sum} and its size {}", found.len()),
                &size.map_or_else(|| hex.to_owned(), |size| format!("{hex} and {size}")),
            ));
        }
        file.rewind().map_err(lacks)?;
        Ok(file)
    }

    fn json<T: DeserializeOwned>(&self, digest: &str, size: Option<u64>) -> Result<T, Problem> {
        let mut text = Vec::new();
        let read = self.blob(digest, size)?.take(JSON_MAX + 1).read_to_end(&mut text);
        read.map_err(|e| self.broken(format!("the blob {digest}: {e}")))?;
        if text.len() as u64 > JSON_MAX {
            return Err(self.broken(format!("{digest} has more than {JSON_MAX} bytes")));
        }
        serde_json::from_slice(&text).map_err(|e| self.broken(format!("{digest} cannot be read: {e}")))
    }

    fn manifest(&self, digest: &str) -> Result<Manifest, Problem> {
        let manifest: Manifest = self.json(digest, None)?;
        if !manifest.manifests.is_empty() {
            let named = manifest.manifests.iter().filter(|one| hex_of(&one.digest).is_some());
            let choices = named.take(32).map(|one| {
                let platform = one.platform.as_ref();
                let of = platform
                    .map_or_else(String::new, |p| plat_model::id::shorten(&format!(" ({}/{})", p.os, p.architecture)));
                format!("{}{of}", one.digest)
            });
            return Err(self
                .broken(format!("{digest} is not a manifest but an index of several"))
                .fix(format!("name one of {}", choices.collect::<Vec<_>>().join(", "))));
        }
        let Some(config) = manifest.config.as_ref().filter(|_| !manifest.layers.is_empty()) else {
            return Err(self.broken(format!("{digest} is not the manifest of an image: it has no layers or no config")));
        };
        if manifest.layers.len() > LAYERS_MAX {
            return Err(self.broken(format!("it has more than {LAYERS_MAX} layers")));
        }
        // Its contents say how a container is run, which a release says itself.
        self.json::<serde::de::IgnoredAny>(&config.digest, Some(config.size))?;
        Ok(manifest)
    }

    fn apply(&self, layer: &Descriptor, own: &Tree, room: &mut Room) -> Result<(), Wrong> {
        let kind = layer.media_type.as_str();
        let is_tar = kind.starts_with("application/vnd.oci.image.layer.") && kind.contains(".tar")
            || kind.starts_with("application/vnd.docker.image.rootfs.diff.tar");
        if !is_tar || kind.ends_with("+encrypted") {
            let kind = plat_model::id::shorten(kind);
            return Err(Wrong::Said(
                self.broken(format!("the layer {} is `{kind}`, not an archive of files", layer.digest)),
            ));
        }
        let mut file = self.blob(&layer.digest, Some(layer.size)).map_err(Wrong::Said)?;
        let again = file.try_clone().map_err(Wrong::Io)?;
        remove_hidden(again, own, room).map_err(Wrong::Io)?;
        file.rewind().map_err(Wrong::Io)?;
        unpack::unpack(file, Form::Layer, own, room).map_err(Wrong::Io)?;
        own.root_links(Links::All).map_err(Wrong::Io)
    }
}

/// The digits of a digest.
fn hex_of(digest: &str) -> Option<&str> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(is_digit))
}

/// Removes what a layer hides of those below it.
fn remove_hidden(file: File, own: &Tree, room: &mut Room) -> io::Result<()> {
    let mut archive = tar::Archive::new(unpack::stream(file, room)?);
    for entry in archive.entries()? {
        let entry = entry?;
        let named = entry.path()?.into_owned();
        let Some(hidden) = unpack::whiteout(&named) else { continue };
        room.entry(&named)?;
        let folder = named.parent().unwrap_or(Path::new(""));
        let within = |path: &Path| unpack::stripped(path, 0).map_err(|why| refuse(why, path));
        match hidden {
            unpack::Hidden::All => own.clear(&within(folder)?.unwrap_or_default())?,
            unpack::Hidden::One(name) if name == "." || name.is_empty() => {
                return Err(refuse("hides nothing that has a name", &named));
            }
            unpack::Hidden::One(name) => own.remove(&within(&folder.join(name))?.unwrap_or_default())?,
            unpack::Hidden::Nothing => {}
        }
    }
    Ok(())
}
