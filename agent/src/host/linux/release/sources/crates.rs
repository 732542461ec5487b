//! One crate as its registry keeps it: an archive, under the address that `dl` in the registry's `config.json` tells.
//!
//! Beside it is written what cargo asks of a crate in a directory of vendored ones, so that `into: vendor/NAME` and cargo's
//! `[source]` replacement build from it without a network.

use super::tree::Tree;
use super::unpack::{Form, Room};
use super::{fetch, unpack};
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::release::cache::pin::Pin;
use crate::host::linux::release::cache::store::Shelf;
use crate::host::linux::task::Line;
use plat_model::Problem;
use std::path::Path;

/// What cargo reads: no file's checksum is asked for, the crate's must be what `Cargo.lock` says.
const CHECKSUM_FILE: &str = ".cargo-checksum.json";

/// One crate.
pub struct Crate<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub sha256: &'a str,
    pub registry: &'a str,
}

impl Crate<'_> {
    pub fn url(&self) -> String {
        // In a version, `+` is the one character that URLs spell otherwise.
        let version = self.version.replace('+', "%2B");
        format!("{}/{}/{version}/download", self.registry.trim_end_matches('/'), self.name)
    }

    pub fn lay(&self, tree: &Tree, shelf: &Shelf, line: &Line) -> Result<Vec<Ingredient>, Problem> {
        let file = fetch::pinned(&self.url(), &Pin::sha256(self.sha256)?, shelf)?;
        line.progress(format!("> unpacking {} {}", self.name, self.version))?;
        let what = || format!("cannot unpack the crate {} {}", self.name, self.version);
        let mut room = Room::of_a_source();
        let checksum = format!("{{\"files\":{{}},\"package\":\"{}\"}}", self.sha256);
        unpack::unpack(file, Form::Archive { strip: 1 }, tree, &mut room)
            .and_then(|()| room.write(tree, Path::new(CHECKSUM_FILE), false, &mut checksum.as_bytes()))
            .map_err(|e| unpack::problem(what(), &e))?;
        unpack::refuse_links_out(what(), tree)?;
        let Self { name, version, sha256, .. } = *self;
        Ok(vec![Ingredient { name: name.into(), version: version.into(), sha256: sha256.into() }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_where_its_registry_says() {
        let of = |registry, version| Crate { name: "zstd-sys", version, sha256: "", registry }.url();
        assert_eq!(of("https://h/crates", "2.0.1"), "https://h/crates/zstd-sys/2.0.1/download");
        assert_eq!(of("/mirror/", "2.0.1+zstd.1.5"), "/mirror/zstd-sys/2.0.1%2Bzstd.1.5/download");
    }
}
