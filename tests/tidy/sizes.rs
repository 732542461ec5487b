//! Small files, deep modules.

use plat_tests::source::{files, read, shown};

/// Longest source file, in lines before its tests.
const MOST: usize = 500;
/// Most names that a `lib.rs` hands on with `pub use`.
const NAMES: usize = 14;

fn sources() -> Vec<std::path::PathBuf> {
    let all = files("", ".rs").into_iter();
    all.filter(|path| {
        let path = shown(path);
        let part = |name: &str| path.split('/').any(|part| part == name);
        !(part("tests") && !path.starts_with("tests/harness")) && !part("benches") && !path.ends_with("tests.rs")
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
fn a_lib_is_a_table_of_contents() {
    let mut wrong = Vec::new();
    for path in sources().iter().filter(|path| path.ends_with("src/lib.rs")) {
        let text = read(path);
        let names: usize = text
            .split(';')
            .filter(|statement| statement.trim_start().starts_with("pub use"))
            .map(|statement| statement.matches(',').count() + 1)
            .sum();
        if names > NAMES {
            wrong.push(format!("{} hands on {names} names", shown(path)));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not say what the crate is for", shown(path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
