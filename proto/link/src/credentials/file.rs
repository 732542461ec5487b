//! One PEM file: the key, the chain leaf first, the roots. One file, so that one rename replaces all of it.

use super::Key;
use crate::peer;
use base64::Engine;
use plat_model::problem::codes;
use plat_model::{Problem, Result};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Largest file in bytes.
const FILE_MAX: u64 = 256 * 1024;

pub(super) struct Contents {
    pub key: Key,
    pub chain: Vec<Vec<u8>>,
    pub roots: Vec<Vec<u8>>,
}

pub(super) fn unusable(why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::KEY_FILE, "a key or certificate cannot be used").because(why).fix("enrol or log in again")
}

fn failed(what: &str, path: &Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::KEY_FILE, format!("cannot {what} the credentials"))
        .because(why)
        .fix("check the file and its folder; if it is lost, enrol or log in again")
        .at(path.display().to_string())
}

pub(super) fn read(path: &Path) -> Result<Contents> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text))
        .map_err(|why| failed("read", path, why))?;
    if text.len() as u64 > FILE_MAX {
        return Err(failed("read", path, format!("it is larger than {FILE_MAX} bytes")));
    }
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|why| failed("use", path, why))?;
    let key = Key::from_pkcs8(key.secret_pkcs8_der())?;
    let (mut chain, mut roots) = (Vec::new(), Vec::new());
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let der = certificate.map_err(|why| failed("use", path, why))?.to_vec();
        if peer::is_root(&der)? { &mut roots } else { &mut chain }.push(der);
    }
    Ok(Contents { key, chain, roots })
}

pub(super) fn write<'a>(
    path: &Path,
    key: &Key,
    certificates: impl Iterator<Item = &'a CertificateDer<'static>>,
) -> Result<()> {
    let mut text = pem("PRIVATE KEY", key.private_der().secret_der());
    certificates.for_each(|certificate| text.push_str(&pem("CERTIFICATE", certificate)));
    replace(path, text.as_bytes()).map_err(|why| failed("write", path, why))
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    // A file left by a crash may have other permissions: make it anew.
    match fs::remove_file(&next) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
