//! What a program has of the machine, as systemd is told of it: the same that [`crate::host::linux::confine`] does itself.

use super::super::names::TMP;
use super::{Around, Bind, Property, Value, text};
use crate::host::linux::confine::{
    Bounds, FAMILIES, FORBIDDEN_SERVICES, PRIVATE, SHARED_MEMORY_BYTES, TEMPORARY, TMP_BYTES,
};
use std::path::{Path, PathBuf};

/// The first versions of systemd that hide processes of other users, and that give System V objects and queues apart.
const WITH_PROCESSES: u32 = 247;
const WITH_OBJECTS: u32 = 248;
/// Where a unit says that it is alive, and where its log goes: beneath what is hidden.
const OF_SYSTEMD: [&str; 2] = ["/run/systemd/notify", "/run/systemd/journal"];

/// What systemd of this version cannot keep from a program, a line each.
pub fn missing(version: u32) -> Vec<String> {
    let since = |first: u32, what: &str| (version < first).then(|| format!("{what} (systemd {version} is too old)"));
    let processes = since(WITH_PROCESSES, "that processes of other users are not seen");
    processes.into_iter().chain(since(WITH_OBJECTS, "System V objects of its own")).collect()
}

pub fn properties(bounds: &Bounds, around: Around<'_>, has_user: bool) -> Vec<Property> {
    let is_hidden = |path: &&PathBuf| {
        let hidden = bounds.hidden.iter().map(PathBuf::as_path).chain(PRIVATE.iter().chain(&TEMPORARY).map(Path::new));
        hidden.into_iter().any(|folder| path.starts_with(folder))
    };
    let (back, there): (Vec<_>, Vec<_>) = bounds.writable.iter().partition(is_hidden);
    let shown = |path: &PathBuf| path.display().to_string();
    let seen = |path: String| Bind { from: path.clone(), to: path, is_needed: false };
    let mut written: Vec<_> = back.into_iter().map(shown).map(seen).collect();
    let readable = bounds.readable.iter().filter(is_hidden).map(shown);
    let read = OF_SYSTEMD.map(str::to_owned).into_iter().chain(readable).map(seen);
    let mut emptied: Vec<_> = bounds.hidden.iter().map(|path| (shown(path), "ro".to_owned())).collect();
    emptied.push(("/run".into(), "ro".into()));
    // Where others' are just mounted; no other user than root comes there.
    emptied.extend(around.tmp.filter(|_| !has_user).map(|_| (TMP.to_owned(), "ro".to_owned())));
    let in_memory = |path: &str, bytes: u64| (path.to_owned(), format!("mode=1777,nosuid,size={bytes}"));
    let [tmp @ .., shared_memory] = TEMPORARY;
    emptied.push(in_memory(shared_memory, SHARED_MEMORY_BYTES));
    match around.tmp {
        Some(from) => {
            let there = |to: &str| Bind { from: from.display().to_string(), to: to.to_owned(), is_needed: true };
            written.extend(tmp.map(there));
        }
        None => emptied.extend(tmp.map(|path| in_memory(path, TMP_BYTES))),
    }
    let mut all = vec![
        ("NoNewPrivileges", Value::Flag(true)),
        ("ProtectSystem", text("strict")),
        ("ProtectHome", text("tmpfs")),
        ("TemporaryFileSystem", Value::Pairs(emptied)),
        ("ReadWritePaths", Value::Texts(there.into_iter().map(shown).collect())),
        ("BindPaths", Value::Binds(written)),
        ("BindReadOnlyPaths", Value::Binds(read.collect())),
        ("RestrictAddressFamilies", Value::Allowed(FAMILIES.iter().map(|(name, _)| *name).collect())),
        ("RestrictNamespaces", Value::Number(0)),
        ("RestrictSUIDSGID", Value::Flag(true)),
        ("SystemCallArchitectures", Value::Texts(vec!["native".into()])),
        ("SystemCallFilter", Value::Allowed(vec!["@system-service"])),
        // Less these.
        ("SystemCallFilter", Value::Denied(FORBIDDEN_SERVICES.to_vec())),
        ("SystemCallErrorNumber", Value::Signal(1)),
    ];
    if around.version >= WITH_PROCESSES {
        all.push(("ProtectProc", text("invisible")));
    }
    if around.version >= WITH_OBJECTS {
        all.push(("PrivateIPC", Value::Flag(true)));
    }
    all
}
