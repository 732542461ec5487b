//! Small files, deep modules.

use plat_tests::source::{files, read, shown};

/// Longest source file, in lines before its tests.
const MOST: usize = 500;

fn sources() -> Vec<std::path::PathBuf> {
    let all = files("", ".rs").into_iter();
    all.filter(|path| {
        let path = shown(path);
        let part = |name: &str| path.split('/').any(|part| part == name);
        (!part("tests") || path.starts_with("tests/harness")) && !part("benches") && !path.ends_with("tests.rs")
    })
    .collect()
}

fn lines(text: &str) -> usize {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text).lines().count()
}

#[test]
fn no_source_file_is_longer_than_five_hundred_lines() {
    let long: Vec<_> =
        sources().iter().map(|path| (lines(&read(path)), shown(path))).filter(|(n, _)| *n > MOST).collect();
    assert!(long.is_empty(), "split these: {long:#?}");
}

#[test]
fn half_of_the_files_are_short_and_nine_in_ten_are_not_long() {
    let mut sizes: Vec<_> = sources().iter().map(|path| lines(&read(path))).collect();
    sizes.sort_unstable();
    let (median, nine) = (sizes[sizes.len() / 2], sizes[sizes.len() * 9 / 10]);
    assert!(median <= 180 && nine <= 400, "median {median} (180 at most), nine in ten within {nine} (400 at most)");
}

#[test]
fn a_lib_says_what_its_crate_is_for() {
    let libs: Vec<_> = sources().into_iter().filter(|path| path.ends_with("src/lib.rs")).collect();
    assert!(libs.len() >= 10, "{libs:?}");
    let silent: Vec<_> = libs.iter().filter(|path| !read(path).starts_with("//!")).map(|path| shown(path)).collect();
    assert!(silent.is_empty(), "{silent:?}");
}
