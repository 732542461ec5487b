//! Whose word a server's certificate is taken on: what agent.toml names, or whom the machine trusts, as its own programs do.

use std::fs;
use std::io;
use std::path::Path;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Where machines keep whom they trust: Debian, Fedora, openSUSE, Alpine. The first that is there.
const OF_MACHINES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// For what is asked from this URL. `named`: a file of certificates in PEM, instead of the machine's. A machine that has none
/// trusts Mozilla's authorities, as they were when this program was built.
///
/// # Errors
/// What is wrong with the file, if the URL is one of https. Who asks over http needs it only where that leads to https: there
/// nobody is trusted then.
pub fn tls(url: &str, named: Option<&Path>) -> Result<TlsConfig, String> {
    let roots = match named {
        Some(path) => of_file(path).and_then(|found| found.ok_or_else(|| told(path, "it is not there"))),
        None => of_machine(&OF_MACHINES.map(Path::new)),
    };
    let roots = match roots {
        Err(_) if !url.starts_with("https://") => Vec::new().into(),
        roots => roots?,
    };
    Ok(TlsConfig::builder().root_certs(roots).build())
}

/// The file in which the machine keeps whom it trusts, for programs that would not look there by themselves.
pub fn file_of_machine() -> Option<&'static Path> {
    OF_MACHINES.map(Path::new).into_iter().find(|path| path.exists())
}

fn of_machine(paths: &[&Path]) -> Result<RootCerts, String> {
    for path in paths {
        if let Some(roots) = of_file(path)? {
            return Ok(roots);
        }
    }
    Ok(RootCerts::WebPki)
}

/// `None` if there is no such file.
fn of_file(path: &Path) -> Result<Option<RootCerts>, String> {
    let text = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| told(path, e))?,
    };
    let mut all = Vec::new();
    for item in parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => all.push(certificate),
            Ok(_) => {}
            Err(e) => return Err(told(path, e)),
        }
    }
    if all.is_empty() { Err(told(path, "there is no certificate in it")) } else { Ok(Some(all.into())) }
}

fn told(path: &Path, why: impl std::fmt::Display) -> String {
    format!("the authorities in {} cannot be read: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(roots: &RootCerts) -> Option<usize> {
        if let RootCerts::Specific(all) = roots { Some(all.len()) } else { None }
    }

    #[test]
    fn the_first_file_that_is_there_says_whom_a_machine_trusts_and_one_without_has_what_is_built_in() {
        let folder = tempfile::tempdir().unwrap();
        let [absent, one, two] = ["absent", "one", "two"].map(|name| folder.path().join(name));
        let pem = || rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap().cert.pem();
        fs::write(&one, format!("# whose it is\n{}", pem())).unwrap();
        fs::write(&two, format!("{}{}", pem(), pem())).unwrap();
        assert_eq!(count(&of_machine(&[&absent, &two, &one]).unwrap()), Some(2));
        assert_eq!(count(&of_machine(&[&one, &two]).unwrap()), Some(1));
        assert!(matches!(of_machine(&[&absent]).unwrap(), RootCerts::WebPki));
    }

    #[test]
    fn a_file_that_says_nothing_is_not_taken_for_one_that_trusts_nobody_or_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let [absent, empty, cut] = ["absent", "empty", "cut"].map(|name| folder.path().join(name));
        fs::write(&empty, "# none yet\n").unwrap();
        fs::write(&cut, "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
        let asked = |url: &str, file: &Path| tls(url, Some(file));
        assert!(asked("https://x", &absent).unwrap_err().ends_with("it is not there"));
        assert!(asked("https://x", &empty).unwrap_err().ends_with("there is no certificate in it"));
        assert!(asked("https://x", &cut).is_err());
        assert!(
            [&absent, &empty, &cut].iter().all(|file| asked("http://x", file).is_ok()),
            "nobody is asked for a word"
        );
        assert!(of_machine(&[&empty]).is_err(), "nor the machine's");
    }
}
