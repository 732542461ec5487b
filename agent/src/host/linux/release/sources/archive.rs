//! A tar archive: fetched or opened, checked whole against its checksum, and only then unpacked.

use super::tree::Tree;
use super::unpack::{Form, Room};
use super::{fetch, unpack};
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::task::Line;
use plat_model::Problem;
use std::path::Path;

pub fn lay(
    url: &str,
    sha256: &str,
    strip: u32,
    tree: &Tree,
    staging: &Path,
    line: &Line,
) -> Result<Vec<Ingredient>, Problem> {
    let name = url.rsplit('/').next().unwrap_or(url);
    line.progress(format!("> fetching {name}"))?;
    let file = fetch::pinned(url, sha256, staging)?;
    line.progress(format!("> unpacking {name}"))?;
    let what = || format!("cannot unpack {url}");
    unpack::unpack(file, Form::Archive { strip }, tree, &mut Room::of_a_source())
        .map_err(|e| unpack::problem(what(), &e))?;
    unpack::refuse_links_out(what(), tree)?;
    Ok(vec![Ingredient { name: url.to_owned(), version: String::new(), sha256: sha256.to_owned() }])
}
