//! Who runs in a namespace.

use super::Namespaces;
use plat_model::id::shorten;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Namespaces {
    /// In which of these processes run, as far as this process may look at them, and one of those: its number and its name.
    pub fn entered(&self, names: &BTreeSet<String>) -> BTreeMap<String, (u32, String)> {
        let place = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let by_place: BTreeMap<_, _> = names.iter().filter_map(|name| Some((place(&self.path(name))?, name))).collect();
        let mut entered = BTreeMap::new();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in all {
            if entered.len() == by_place.len() {
                break;
            }
            let Some(number) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(name) = place(&process.path().join("ns/net")).and_then(|place| by_place.get(&place)) {
                let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                entered.entry((*name).clone()).or_insert_with(|| (number, shorten(program.trim_end())));
            }
        }
        entered
    }
}
