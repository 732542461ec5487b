//! Release documents and archives, and installing them.

use super::*;

pub fn tar(entries: &[(&str, &str, tar::EntryType)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, contents, kind) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.as_gnu_mut().unwrap().linkname[..contents.len()].copy_from_slice(contents.as_bytes());
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        } else {
            header.set_size(contents.len() as u64);
            header.set_cksum();
            builder.append(&header, contents.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

pub fn document(sources: serde_json::Value, commands: &[&[&str]]) -> String {
    let mut parts = serde_json::json!({"sources": sources});
    if !commands.is_empty() {
        parts["build"] = serde_json::json!({"commands": commands, "timeout_seconds": 60});
    }
    whole(parts)
}

/// A document with these parts, and an instance that is one file.
pub fn whole(mut parts: serde_json::Value) -> String {
    let frame = serde_json::json!({"version": 1, "name": "app", "files": {"etc/app": {"template": "x"}}});
    parts.as_object_mut().unwrap().extend(frame.as_object().unwrap().clone());
    parts.to_string()
}

pub fn archive(node: &Node, bytes: &[u8]) -> serde_json::Value {
    let path = node.folder.path().join("app.tar");
    fs::write(&path, bytes).unwrap();
    serde_json::json!({"app": {"archive": {"url": path, "sha256": hex(bytes), "strip": 1}}})
}

pub async fn install(host: &LinuxHost, document: &str) -> (Digest, Result<(), Problem>) {
    let digest = Digest::parse(&hex(document.as_bytes())).unwrap();
    let done = host.perform(&Action::InstallRelease { digest: digest.clone(), document: document.into() }).await;
    (digest, done)
}

/// Shell commands that end when [`go_on`] says so.
pub const WAIT: &str = "until [ -e go ]; do sleep 0.02; done; rm -f go";

pub fn go_on(node: &Node, digest: &Digest) {
    let begun = format!(".unfinished-{}-", digest.short());
    let mut folders = fs::read_dir(node.folder.path().join("releases")).unwrap().map(|entry| entry.unwrap());
    let folder = folders.find(|entry| entry.file_name().to_string_lossy().starts_with(&begun)).unwrap();
    fs::write(folder.path().join("go"), "").unwrap();
}

pub fn unfinished(node: &Node) -> usize {
    let entries = fs::read_dir(node.folder.path().join("releases")).unwrap();
    entries.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".unfinished")).count()
}
