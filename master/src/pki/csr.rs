//! Certificate requests. Only the public key of one is taken: names, usages and extensions in it are not looked at, so
//! that nobody can ask to be somebody else.

use plat_model::Problem;
use plat_model::id::Digest;
use plat_model::problem::codes;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use sha2::{Digest as _, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Largest certificate request in bytes; one for a P-256 key has about 300.
pub const CSR_MAX: usize = 4096;

/// The public key of somebody who has shown that he holds the private one.
pub struct RequestedKey(pub(super) SubjectPublicKeyInfo);

impl RequestedKey {
    /// By which the same keys are known again: the SHA-256 of their points, which all have one length.
    ///
    /// # Errors
    /// [`codes::INTERNAL`], never.
    pub fn hash(keys: &[&Self]) -> Result<Digest, Problem> {
        let hash = keys.iter().fold(Sha256::new(), |hash, key| hash.chain_update(key.0.der_bytes()));
        Digest::parse(&super::hex(&hash.finalize()))
    }

    /// Reads a DER certificate request and checks its signature with the key in it.
    ///
    /// # Errors
    /// [`codes::BAD_CSR`] if it is too large, malformed, not signed by its own key, or its key is not a P-256 one.
    pub fn parse(der: &[u8]) -> Result<Self, Problem> {
        let wrong = |why: String| {
            Problem::new(codes::BAD_CSR, "the certificate request is not acceptable")
                .because(why)
                .fix("send a PKCS#10 request in DER for a P-256 key, signed with that key")
        };
        if der.len() > CSR_MAX {
            return Err(wrong(format!("it has {} bytes, {CSR_MAX} are allowed", der.len())));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|e| wrong(e.to_string()))?;
        if !rest.is_empty() {
            return Err(wrong(format!("{} bytes follow it", rest.len())));
        }
        request.verify_signature().map_err(|_| wrong("it is not signed with its own key".into()))?;
        let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(|e| wrong(e.to_string()))?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(wrong("its key is not a P-256 one".into()));
        }
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::new(vec!["evil.example".into()]).unwrap().serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_request_is_taken_only_with_a_p256_key_that_signed_it() {
        let good = request(&KeyPair::generate().unwrap());
        assert!(RequestedKey::parse(&good).is_ok());
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let other_curve = request(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
        let trailing = [good.as_slice(), b"x"].concat();
        for wrong in [forged, other_curve, trailing, Vec::new(), vec![0x30; CSR_MAX + 1], good[..40].to_vec()] {
            assert_eq!(RequestedKey::parse(&wrong).err().map(|p| p.code), Some(codes::BAD_CSR));
        }
    }
}
