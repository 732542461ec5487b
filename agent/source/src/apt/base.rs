//! The minimal system that a release may count on: what dpkg calls essential or required, and what that needs.

use std::collections::{BTreeMap, BTreeSet};

/// The stanzas of `status` (dpkg's) that make up the base system.
pub fn base_system(status: &str) -> String {
    let stanzas: Vec<&str> =
        status.split("\n\n").filter(|s| field(s, "Status").is_some_and(|v| v.ends_with(" installed"))).collect();
    let mut providers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (n, stanza) in stanzas.iter().enumerate() {
        let own = field(stanza, "Package").into_iter();
        let provided = field(stanza, "Provides").into_iter().flat_map(|list| list.split(',').map(name_of));
        for name in own.chain(provided) {
            providers.entry(name).or_default().push(n);
        }
    }
    let is_base = |s: &str| field(s, "Essential") == Some("yes") || field(s, "Priority") == Some("required");
    let mut queue: Vec<usize> = (0..stanzas.len()).filter(|n| is_base(stanzas[*n])).collect();
    let mut kept = BTreeSet::new();
    while let Some(n) = queue.pop() {
        if !kept.insert(n) {
            continue;
        }
        for list in ["Depends", "Pre-Depends"].iter().filter_map(|f| field(stanzas[n], f)) {
            for wanted in list.split(',') {
                // The first alternative that is there.
                let found = wanted.split('|').find_map(|name| providers.get(name_of(name)));
                queue.extend(found.into_iter().flatten());
            }
        }
    }
    kept.into_iter().map(|n| format!("{}\n\n", stanzas[n].trim_end())).collect()
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// `libc6:any (>= 2.3)` → `libc6`.
fn name_of(text: &str) -> &str {
    let text = text.trim();
    text.split([' ', '(', ':']).next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_base_needs_is_kept_and_what_somebody_installed_is_not() {
        let stanza = |name: &str, rest: &str| format!("Package: {name}\nStatus: install ok installed\n{rest}\n");
        let status = [
            stanza("base-files", "Essential: yes\nPre-Depends: awk\nDepends: nothing | libcrypt1 (>= 1)"),
            stanza("mawk", "Priority: optional\nProvides: awk"),
            stanza("libcrypt1", "Priority: optional\nDepends: libc6:any"),
            stanza("libc6", "Priority: optional"),
            stanza("redis-tools", "Priority: optional"),
            "Package: gone\nStatus: deinstall ok config-files\nPriority: required\n".to_owned(),
        ]
        .join("\n");
        let base = base_system(&status);
        let names: Vec<&str> = base.lines().filter_map(|l| l.strip_prefix("Package: ")).collect();
        assert_eq!(names, ["base-files", "mawk", "libcrypt1", "libc6"]);
    }
}
