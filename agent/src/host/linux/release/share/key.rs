//! Keys of who shares: Ed25519.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plat_model::Problem;
use plat_model::problem::codes;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Before the key in its text.
const KIND: &str = "ed25519:";
/// Largest key file, in bytes.
const FILE_MAX: u64 = 4096;

/// What signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// # Errors
    /// BAD_VALUE if it is not `ed25519:` and 32 bytes in base64.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let raw = text.strip_prefix(KIND).and_then(|text| STANDARD.decode(text).ok());
        let raw = raw.and_then(|raw| <[u8; 32]>::try_from(raw).ok());
        raw.map(Self).ok_or_else(|| {
            Problem::new(codes::BAD_VALUE, format!("`{}` is no public key", plat_model::id::shorten(text)))
                .fix("write what `plat-agent cache keygen` printed: `ed25519:` and 44 characters")
        })
    }

    pub fn verifies(&self, text: &[u8], signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, &self.0).verify(text, &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND}{}", STANDARD.encode(self.0))
    }
}

/// What signs. It says nothing of itself.
pub struct SecretKey(Ed25519KeyPair);

impl SecretKey {
    /// Makes a key in a new file that only its owner can read.
    ///
    /// # Errors
    /// KEY_FILE, also if there is a file already.
    pub fn generate(path: &Path) -> Result<Self, Problem> {
        let wrong =
            |why: String| Problem::new(codes::KEY_FILE, format!("cannot make the key {}", path.display())).because(why);
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|e| wrong(e.to_string()))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| wrong(e.to_string()).fix("name a file that does not exist yet"))?;
        let text = format!("{}\n", STANDARD.encode(made.as_ref()));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| wrong(e.to_string()))?;
        Self::read(path)
    }

    /// # Errors
    /// KEY_FILE.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let wrong = |why: String| {
            Problem::new(codes::KEY_FILE, format!("cannot use the key {}", path.display()))
                .because(why)
                .fix("make one with `plat-agent cache keygen`")
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
        file.take(FILE_MAX).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
        // What is wrong with it may quote it.
        let raw = STANDARD.decode(text.trim()).map_err(|_| wrong("it is not in base64".into()))?;
        Ed25519KeyPair::from_pkcs8(&raw).map(Self).map_err(|_| wrong("it is no Ed25519 key".into()))
    }

    pub fn public(&self) -> PublicKey {
        let mut raw = [0; 32];
        raw.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(raw)
    }

    /// A signature in base64.
    pub fn sign(&self, text: &[u8]) -> String {
        STANDARD.encode(self.0.sign(text).as_ref())
    }
}
