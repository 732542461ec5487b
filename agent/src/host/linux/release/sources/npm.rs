//! npm packages, each pinned by the integrity that npm itself writes into a lock file. They are fetched from the registry
//! and unpacked to where the lock file has them: a dependency is a folder in a `node_modules`, so nothing more is needed
//! to install one, npm itself included. No script of a package runs.

use super::fetch;
use super::tree::Tree;
use super::unpack::{self, Form, Room, stripped};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::task::Line;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plat_document::release::NpmPackage;
use plat_model::Problem;
use plat_model::problem::codes;
use serde_json::Value;
use sha2::{Digest, Sha512};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

/// Largest `package.json`, in bytes.
const JSON_MAX: u64 = 4 << 20;

pub fn lay(
    packages: &[NpmPackage],
    registry: &str,
    tree: &Tree,
    staging: &Path,
    line: &Line,
) -> Result<Vec<Ingredient>, Problem> {
    let mut room = Room::of_a_source();
    let mut ingredients = Vec::new();
    for (n, package) in packages.iter().enumerate() {
        let NpmPackage { name, version, integrity, .. } = package;
        line.progress(format!("> fetching {name} {version} ({} of {})", n + 1, packages.len()))?;
        let (file, sha256) = pinned(&url(registry, name, version), integrity, staging)?;
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

fn url(registry: &str, name: &str, version: &str) -> String {
    let base = name.rsplit('/').next().unwrap_or(name);
    format!("{}/{name}/-/{base}-{version}.tgz", registry.trim_end_matches('/'))
}

/// A file whose SHA-512 is the expected one, at its beginning, and its SHA-256.
fn pinned(url: &str, integrity: &str, staging: &Path) -> Result<(File, String), Problem> {
    let mut file = fetch::fetch(url, staging)?;
    let cannot = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot read {url}"), &e);
    file.rewind().map_err(cannot)?;
    let (mut hash, mut buffer) = (Sha512::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer).map_err(cannot)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found = format!("sha512-{}", STANDARD.encode(hash.finalize()));
    if found != integrity {
        return Err(fetch::another(url, "integrity", &found, integrity));
    }
    let sha256 = fetch::checksum(&mut file).map_err(cannot)?;
    file.rewind().map_err(cannot)?;
    Ok((file, sha256))
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
