//! What a release asks for by a digest of its contents.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plat_model::Problem;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::fmt;
use std::io::{self, Read};

/// The digest of a file's contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pin {
    kind: Kind,
    /// Lower-case hexadecimal digits, as many as the kind has.
    hex: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Kind {
    Sha256,
    /// As npm pins: `sha512-` and base64.
    Sha512,
}

/// A file that a source of a release consists of.
#[derive(Debug, Clone)]
pub struct Content {
    /// The name of the source in the release.
    pub source: String,
    /// What a person calls the file.
    pub name: String,
    /// http or https.
    pub url: String,
    pub pin: Pin,
}

impl Pin {
    /// # Errors
    /// BAD_VALUE if it is not 64 hexadecimal digits.
    pub fn sha256(hex: &str) -> Result<Self, Problem> {
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self { kind: Kind::Sha256, hex: hex.to_ascii_lowercase() });
        }
        Err(illegal(hex))
    }

    /// # Errors
    /// BAD_VALUE if it is not `sha512-` and a SHA-512 in base64.
    pub fn integrity(text: &str) -> Result<Self, Problem> {
        let raw = text.strip_prefix("sha512-").and_then(|text| STANDARD.decode(text).ok());
        let raw = raw.filter(|raw| raw.len() == 64).ok_or_else(|| illegal(text))?;
        Ok(Self { kind: Kind::Sha512, hex: hex_of(&raw) })
    }

    /// Where it is in a cache, and in a mirror.
    pub fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.hex)
    }

    /// The name of a file that is about it, in a folder for all kinds.
    pub fn file_name(&self) -> String {
        format!("{}-{}", self.folder(), self.hex)
    }

    pub fn folder(&self) -> &'static str {
        match self.kind {
            Kind::Sha256 => "sha256",
            Kind::Sha512 => "sha512",
        }
    }

    /// The pin of a file in the folder of a kind.
    pub fn parse(folder: &str, name: &str) -> Option<Self> {
        let (kind, length) = match folder {
            "sha256" => (Kind::Sha256, 64),
            "sha512" => (Kind::Sha512, 128),
            _ => return None,
        };
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (name.len() == length && name.bytes().all(is_digit)).then(|| Self { kind, hex: name.to_owned() })
    }

    /// The pin, of the same kind, of what a reader gives.
    pub fn measure(&self, from: &mut impl Read) -> io::Result<Self> {
        let hex = match self.kind {
            Kind::Sha256 => sum::<Sha256>(from)?,
            Kind::Sha512 => sum::<Sha512>(from)?,
        };
        Ok(Self { kind: self.kind, hex })
    }

    /// The SHA-256 of what a reader gives.
    pub fn measure_sha256(from: &mut impl Read) -> io::Result<Self> {
        Ok(Self { kind: Kind::Sha256, hex: sum::<Sha256>(from)? })
    }

    /// How people call the digest.
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Sha256 => "SHA-256",
            Kind::Sha512 => "integrity",
        }
    }
}

/// As release documents have it.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Sha256 => f.write_str(&self.hex),
            Kind::Sha512 => {
                let digits = self.hex.as_bytes().chunks(2);
                let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                let raw: Vec<u8> = digits.filter_map(byte).collect();
                write!(f, "sha512-{}", STANDARD.encode(raw))
            }
        }
    }
}

fn illegal(text: &str) -> Problem {
    Problem::new(codes::BAD_VALUE, format!("`{}` is not the digest of a file", plat_model::id::shorten(text)))
}

fn hex_of(raw: &[u8]) -> String {
    raw.iter().map(|b| format!("{b:02x}")).collect()
}

fn sum<D: Digest>(from: &mut impl Read) -> io::Result<String> {
    let (mut hash, mut buffer) = (D::new(), vec![0; 128 * 1024]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex_of(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_told_as_documents_write_it_and_kept_by_its_digits() {
        let plain = Pin::sha256(&"AB".repeat(32)).unwrap();
        assert_eq!((plain.to_string(), plain.path()), ("ab".repeat(32), format!("sha256/{}", "ab".repeat(32))));
        assert_eq!(plain.measure(&mut &b""[..]).unwrap().to_string()[..8], *"e3b0c442");
        let text = format!("sha512-{}", STANDARD.encode([7; 64]));
        let npm = Pin::integrity(&text).unwrap();
        assert_eq!((npm.to_string(), npm.path()), (text, format!("sha512/{}", "07".repeat(64))));
        assert_eq!(Pin::parse("sha512", &"07".repeat(64)), Some(npm));
        for (folder, name) in [("sha256", "../x"), ("sha256", &"AB".repeat(32)), ("partial", &"ab".repeat(32))] {
            assert_eq!(Pin::parse(folder, name), None);
        }
        assert!(Pin::sha256("x").is_err() && Pin::integrity("sha1-x").is_err());
    }
}
