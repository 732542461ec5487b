//! Puts the pages of `docs/errors` into the binary, so that `plat explain P0305` works offline.

use std::path::Path;
use std::{env, fs};

fn main() {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..");
    let folder = root.join("docs/errors").canonicalize().expect("docs/errors is part of the source");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut pages: Vec<_> = fs::read_dir(&folder)
        .expect("docs/errors can be read")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    let line = |path: &std::path::PathBuf| {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        format!("({stem:?}, include_str!({:?})),\n", path.display().to_string())
    };
    let text: String = pages.iter().map(line).collect();
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("error_pages.rs");
    fs::write(out, format!("static ERROR_PAGES: &[(&str, &str)] = &[\n{text}];\n")).expect("OUT_DIR can be written");
}
