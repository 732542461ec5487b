//! npm packages, each pinned by the integrity that npm itself writes into a lock file. They come from the registry
//! and are unpacked to where the lock file has them: a dependency is a folder in a `node_modules`, so nothing more is needed
//! to install one, npm itself included. No script of a package runs.

use super::fetch;
use super::tree::Tree;
use super::unpack::{self, Form, Room, stripped};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::release::cache::pin::Pin;
use crate::host::linux::release::cache::store::Shelf;
use crate::host::linux::task::Line;
use plat_document::release::NpmPackage;
use plat_model::Problem;
use plat_model::problem::codes;
use serde_json::Value;
use std::io::{self, Seek};
use std::path::Path;

/// Largest `package.json`, in bytes.
const JSON_MAX: u64 = 4 << 20;

pub fn lay(
    packages: &[NpmPackage],
    registry: &str,
    tree: &Tree,
    shelf: &Shelf,
    line: &Line,
) -> Result<Vec<Ingredient>, Problem> {
    let mut room = Room::of_a_source();
    let mut ingredients = Vec::new();
    for (n, package) in packages.iter().enumerate() {
        let NpmPackage { name, version, integrity, .. } = package;
        line.progress(format!("> unpacking {name} {version} ({} of {})", n + 1, packages.len()))?;
        let mut file = fetch::pinned(&url(registry, name, version), &Pin::integrity(integrity)?, shelf)?;
        let cannot = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot read {name} {version}"), &e);
        let sha256 = fetch::checksum(&mut file).map_err(cannot)?;
        file.rewind().map_err(cannot)?;
        let path = package.path();
        let laid = tree.below(Path::new(&path)).and_then(|own| {
            unpack::unpack(file, Form::Archive { strip: 1 }, &own, &mut room)?;
            link_programs(name, Path::new(&path), &own, tree)
        });
        laid.map_err(|e| unpack::problem(format!("cannot unpack the npm package {name} {version}"), &e))?;
        ingredients.push(Ingredient { name: name.clone(), version: version.clone(), sha256 });
    }
    unpack::refuse_links_out("cannot unpack npm packages".to_owned(), tree)?;
    Ok(ingredients)
}

pub fn url(registry: &str, name: &str, version: &str) -> String {
    let base = name.rsplit('/').next().unwrap_or(name);
    format!("{}/{name}/-/{base}-{version}.tgz", registry.trim_end_matches('/'))
}

/// Makes a package's programs executable and links them in `.bin` of its `node_modules`, as npm does.
fn link_programs(name: &str, path: &Path, own: &Tree, tree: &Tree) -> io::Result<()> {
    let Some(text) = own.read(Path::new("package.json"), JSON_MAX)? else { return Ok(()) };
    // What is no package.json names no programs.
    let about: Value = serde_json::from_slice(&text).unwrap_or_default();
    let modules = path.ancestors().find(|folder| folder.ends_with("node_modules")).unwrap_or(path);
    let from_bin = Path::new("..").join(path.strip_prefix(modules).unwrap_or(path));
    for (program, file) in programs(name, &about) {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.+@".contains(c);
        let file = stripped(Path::new(file), 0).ok().flatten();
        let Some(file) = file.filter(|_| !program.starts_with('.') && program.chars().all(legal)) else { continue };
        if own.make_executable(&file)? {
            tree.link(&modules.join(".bin").join(program), &from_bin.join(file))?;
        }
    }
    Ok(())
}

/// Program → file, as `bin` of a `package.json` says.
fn programs<'a>(name: &'a str, about: &'a Value) -> Vec<(&'a str, &'a str)> {
    match &about["bin"] {
        Value::String(file) => vec![(name.rsplit('/').next().unwrap_or(name), file.as_str())],
        Value::Object(map) => map.iter().filter_map(|(program, file)| Some((&**program, file.as_str()?))).collect(),
        _ => Vec::new(),
    }
    .into_iter()
    .filter(|(program, _)| !program.is_empty())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_where_registries_have_it() {
        assert_eq!(url("https://h/", "left-pad", "1.3.0"), "https://h/left-pad/-/left-pad-1.3.0.tgz");
        assert_eq!(url("https://h", "@types/node", "20.0.0"), "https://h/@types/node/-/node-20.0.0.tgz");
    }
}
