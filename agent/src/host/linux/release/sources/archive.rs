//! A tar archive: checked whole against its checksum, and only then unpacked.

use super::tree::Tree;
use super::unpack::{Form, Room};
use super::{fetch, unpack};
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::release::cache::pin::Pin;
use crate::host::linux::release::cache::store::Shelf;
use crate::host::linux::task::Line;
use plat_model::Problem;

pub fn lay(
    url: &str,
    sha256: &str,
    strip: u32,
    tree: &Tree,
    shelf: &Shelf,
    line: &Line,
) -> Result<Vec<Ingredient>, Problem> {
    let name = url.rsplit('/').next().unwrap_or(url);
    let file = fetch::pinned(url, &Pin::sha256(sha256)?, shelf)?;
    line.progress(format!("> unpacking {name}"))?;
    let what = || format!("cannot unpack {url}");
    unpack::unpack(file, Form::Archive { strip }, tree, &mut Room::of_a_source())
        .map_err(|e| unpack::problem(what(), &e))?;
    unpack::refuse_links_out(what(), tree)?;
    Ok(vec![Ingredient { name: url.to_owned(), version: String::new(), sha256: sha256.to_owned() }])
}
