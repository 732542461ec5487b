//! What a release is made of. A key that was added after the form's first day is left out of the canonical JSON while it
//! says nothing, so that releases that do not use it keep their digests.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One source, of exactly one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A tar archive (plain, gzip, xz or zstd), by URL or absolute path, pinned by its SHA-256.
    Archive {
        url: String,
        /// 64 hexadecimal digits.
        sha256: String,
        /// How many leading path components are dropped.
        #[serde(default)]
        strip: u32,
        /// Where in the release's folder; empty: its top.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        into: String,
    },
    /// A folder on the node, copied; optionally pinned by the SHA-256 of its contents.
    Directory {
        path: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        into: String,
    },
    /// Debian packages by name, with what they depend on beyond a minimal system, unpacked and not installed.
    Deb {
        packages: Vec<String>,
        /// Kind of machine, as `x86_64-debian-13` → what the packages are there.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        locks: BTreeMap<String, DebLock>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        into: String,
    },
    /// The files of one commit of a git repository, by URL or absolute path.
    Git {
        url: String,
        /// 40 hexadecimal digits.
        commit: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        into: String,
    },
    /// One Rust crate of a registry.
    Crate {
        name: String,
        version: String,
        /// Of the `.crate` file, as `Cargo.lock` and the registry's index have it; 64 hexadecimal digits.
        sha256: String,
        /// What `dl` in the registry's `config.json` says.
        #[serde(default = "crates", skip_serializing_if = "is_crates")]
        registry: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        into: String,
    },
    /// An image in the OCI layout: a folder on the node, or a tar archive of one.
    Oci {
        /// Absolute path; with `sha256`, URL or absolute path of an archive.
        layout: String,
        /// Of the archive; 64 hexadecimal digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// Digest of the image's manifest: `sha256:` and 64 hexadecimal digits.
        manifest: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        into: String,
    },
    /// npm packages, each unpacked to where a lock file has it.
    Npm {
        packages: Vec<NpmPackage>,
        /// Base of the registry's addresses.
        #[serde(default = "npm_registry", skip_serializing_if = "is_npm_registry")]
        registry: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        into: String,
    },
    /// Python packages, installed into a folder from wheels.
    Pypi {
        packages: Vec<PypiPackage>,
        /// Address of a simple index.
        #[serde(default = "pypi_index", skip_serializing_if = "is_pypi_index")]
        index: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        into: String,
    },
}

impl Source {
    /// Whether it is the same bytes on every node, on any day.
    pub fn is_pinned(&self) -> bool {
        match self {
            Self::Directory { sha256, .. } => sha256.is_some(),
            Self::Deb { locks, .. } => !locks.is_empty(),
            // By digests, or by the digest of a commit or of an image's manifest.
            Self::Archive { .. }
            | Self::Git { .. }
            | Self::Crate { .. }
            | Self::Oci { .. }
            | Self::Npm { .. }
            | Self::Pypi { .. } => true,
        }
    }

    /// Whether all of it is in files that are fetched by the digests that are named here: they are unpacked, and neither a
    /// program of the node's nor what else is on the node has a part in it.
    pub fn is_only_unpacked(&self) -> bool {
        let is_fetched = |address: &str| address.starts_with("http://") || address.starts_with("https://");
        match self {
            Self::Archive { url: from, .. } | Self::Oci { layout: from, sha256: Some(_), .. } => is_fetched(from),
            Self::Crate { registry, .. } | Self::Npm { registry, .. } => is_fetched(registry),
            Self::Deb { locks, .. } => !locks.is_empty(),
            Self::Oci { sha256: None, .. } | Self::Directory { .. } | Self::Git { .. } | Self::Pypi { .. } => false,
        }
    }
}

/// What packages of Debian are, with all that they depend on, on one kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebLock {
    /// The `packages` that it was made of.
    pub of: Vec<String>,
    pub packages: Vec<LockedPackage>,
}

/// One file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    pub name: String,
    pub version: String,
    /// http(s).
    pub url: String,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

/// One file of one Python package. Files of one package for different platforms may stand beside each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PypiPackage {
    pub name: String,
    pub version: String,
    /// Of the wheel; 64 hexadecimal digits.
    pub sha256: String,
}

impl PypiPackage {
    /// The one spelling of its name: indexes do not tell `A.b`, `a_b` and `a-b` apart.
    pub fn plain_name(&self) -> String {
        let words = self.name.split(['-', '_', '.']).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
    }
}

fn pypi_index() -> String {
    "https://pypi.org/simple".into()
}

fn is_pypi_index(index: &str) -> bool {
    index == pypi_index()
}

/// One package as `package-lock.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpmPackage {
    pub name: String,
    pub version: String,
    /// `sha512-` and the checksum of the package's archive in base64.
    pub integrity: String,
    /// Where it goes; empty: `node_modules/NAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
}

impl NpmPackage {
    /// Where it goes, within the source's folder.
    pub fn path(&self) -> String {
        if self.path.is_empty() { format!("node_modules/{}", self.name) } else { self.path.clone() }
    }
}

fn npm_registry() -> String {
    "https://registry.npmjs.org".into()
}

fn is_npm_registry(registry: &str) -> bool {
    registry == npm_registry()
}

fn crates() -> String {
    "https://static.crates.io/crates".into()
}

fn is_crates(registry: &str) -> bool {
    registry == crates()
}
