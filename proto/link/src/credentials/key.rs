//! A private key. It is made here, asks for certificates here, and leaves only to its own file.

use plat_model::problem::codes;
use plat_model::{Problem, Result};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// A P-256 key. A clone is the same key.
#[derive(Clone)]
pub struct Key(Arc<KeyPair>);

impl Key {
    /// # Errors
    /// `INTERNAL` (P0399) if the system has no randomness.
    pub fn generate() -> Result<Self> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|why| Problem::new(codes::INTERNAL, "no key can be made").because(why))?;
        Ok(Self(Arc::new(pair)))
    }

    /// Reads PKCS#8 DER.
    ///
    /// # Errors
    /// `KEY_FILE` (P0211) if it is not a key of a kind that is used here. The reason never shows the key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(der)).map_err(super::file::unusable)?;
        Ok(Self(Arc::new(pair)))
    }

    /// PKCS#8 DER, for a file that only its owner may read: nothing else may ever hold it.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        self.0.serialize_der()
    }

    /// A certificate request for this key (PKCS#10 DER). It names nobody: whoever signs it decides for whom it is.
    ///
    /// # Errors
    /// `INTERNAL` (P0399) if signing fails.
    pub fn csr_der(&self) -> Result<Vec<u8>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&*self.0)
            .map_err(|why| Problem::new(codes::INTERNAL, "no certificate request can be made").because(why))?;
        Ok(request.der().to_vec())
    }

    pub(crate) fn private_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.to_pkcs8()).into()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}
