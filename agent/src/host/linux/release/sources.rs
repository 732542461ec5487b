//! Where the contents of a release come from.

pub mod archive;
pub mod crates;
pub mod deb;
pub mod directory;
mod fetch;
pub mod git;
pub mod npm;
pub mod oci;
pub mod pypi;
pub mod tools;
pub mod tree;
pub mod unpack;

pub use fetch::unlike;

use super::cache::pin::{Content, Pin};
use plat_document::release::Source;
use plat_model::Problem;

/// All that a source names by a digest and has fetched; nothing of those whose programs fetch for themselves.
///
/// # Errors
/// If a digest is none.
pub fn contents(source_name: &str, source: &Source) -> Result<Vec<Content>, Problem> {
    let one = |name: &str, url: String, pin: Result<Pin, Problem>| {
        let pin = pin.map_err(|p| p.at(format!("sources.{source_name}")))?;
        Ok(Content { source: source_name.to_owned(), name: name.to_owned(), url, pin })
    };
    let last = |url: &str| url.rsplit('/').next().unwrap_or(url).to_owned();
    let all: Result<Vec<Content>, Problem> = match source {
        Source::Archive { url, sha256, .. } => {
            [url].into_iter().map(|url| one(&last(url), url.clone(), Pin::sha256(sha256))).collect()
        }
        Source::Oci { layout, sha256: Some(sha256), .. } => {
            [layout].into_iter().map(|url| one(&last(url), url.clone(), Pin::sha256(sha256))).collect()
        }
        Source::Crate { name, version, sha256, registry, .. } => {
            let url = crates::Crate { name, version, sha256, registry }.url();
            [url].into_iter().map(|url| one(&format!("{name} {version}"), url, Pin::sha256(sha256))).collect()
        }
        Source::Npm { packages, registry, .. } => {
            let each = packages.iter().map(|package| {
                let url = npm::url(registry, &package.name, &package.version);
                one(&format!("{} {}", package.name, package.version), url, Pin::integrity(&package.integrity))
            });
            each.collect()
        }
        Source::Deb { locks, .. } => {
            let locked = deb::lock_of(locks).map_err(|p| p.at(format!("sources.{source_name}")))?;
            let each = locked.unwrap_or_default().iter().map(|package| {
                let name = format!("{} {}", package.name, package.version);
                one(&name, package.url.clone(), Pin::sha256(&package.sha256))
            });
            each.collect()
        }
        Source::Oci { sha256: None, .. } | Source::Directory { .. } | Source::Git { .. } | Source::Pypi { .. } => {
            Ok(Vec::new())
        }
    };
    Ok(all?.into_iter().filter(|content| fetch::is_url(&content.url)).collect())
}
