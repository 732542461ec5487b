//! The grid's certificate authority: a root that stays off line, and an issuing certificate below it that signs
//! everything else. This file alone reads the CA's keys.

use super::Serial;
use super::csr::RequestedKey;
use crate::keyfile;
use plat_model::id::GridName;
use plat_model::identity::{Identity, Validity};
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// The root outlives every other certificate of the grid.
const ROOT_VALID: Duration = Duration::from_secs(30 * YEAR.as_secs());
const ISSUING_VALID: Duration = Duration::from_secs(10 * YEAR.as_secs());
/// Certificates start to be good so long before they are made, for machines whose clocks are late.
pub const BACKDATED: Duration = Duration::from_secs(300);

const ROOT_CERTIFICATE: &str = "root.crt";
const ROOT_KEY: &str = "root.key";
const ISSUING_CERTIFICATE: &str = "issuing.crt";
const ISSUING_KEY: &str = "issuing.key";

/// Signs certificates.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    issuing_der: Vec<u8>,
    root_der: Vec<u8>,
    expires: Timestamp,
}

impl Ca {
    /// Makes root and issuing certificate with new keys in `folder`, which must not exist. `root.key` is never read
    /// again by the master: its operator moves it to where it is safe.
    ///
    /// # Errors
    /// [`codes::KEY_FILE`] if the files cannot be written, [`codes::INTERNAL`] if a certificate cannot be made.
    pub fn create(folder: &Path, grid: &GridName, now: Timestamp) -> Result<Self, Problem> {
        let root_key = KeyPair::generate().map_err(failed)?;
        let root = authority(&format!("{grid} root"), 1, now, ROOT_VALID)?;
        let root = CertifiedIssuer::self_signed(root, root_key).map_err(failed)?;
        let issuing_key = KeyPair::generate().map_err(failed)?;
        let issuing = authority(&format!("{grid} issuing"), 0, now, ISSUING_VALID)?;
        let issuing = CertifiedIssuer::signed_by(issuing, issuing_key, &root).map_err(failed)?;
        keyfile::make_folder(folder)?;
        keyfile::write(&folder.join(ROOT_KEY), &root.key().serialize_pem())?;
        keyfile::write(&folder.join(ROOT_CERTIFICATE), &root.pem())?;
        keyfile::write(&folder.join(ISSUING_KEY), &issuing.key().serialize_pem())?;
        keyfile::write(&folder.join(ISSUING_CERTIFICATE), &issuing.pem())?;
        keyfile::sync_folder(folder)?;
        Self::load(folder)
    }

    /// Reads the issuing key, its certificate and the root certificate.
    ///
    /// # Errors
    /// [`codes::KEY_FILE`] if one is missing, cannot be understood, or others can read the key.
    pub fn load(folder: &Path) -> Result<Self, Problem> {
        let path = folder.join(ISSUING_KEY);
        let key = keyfile::read_secret(&path)?;
        // The parser's own error could repeat what it read.
        let key = KeyPair::from_pem(key.reveal()).map_err(|_| unusable(&path, "it is not a private key in PEM"))?;
        let issuing_der = certificate(&folder.join(ISSUING_CERTIFICATE))?;
        let root_der = certificate(&folder.join(ROOT_CERTIFICATE))?;
        let path = folder.join(ISSUING_CERTIFICATE);
        let (_, parsed) = x509_parser::parse_x509_certificate(&issuing_der).map_err(|e| unusable(&path, e))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(unusable(&path, "it is not the certificate of the key beside it"));
        }
        let (_, root) = x509_parser::parse_x509_certificate(&root_der).map_err(|e| unusable(folder, e))?;
        parsed.verify_signature(Some(root.public_key())).map_err(|_| unusable(&path, "it is not of the root"))?;
        let expires = Timestamp::from_seconds(parsed.validity().not_after.timestamp());
        let der = CertificateDer::from(issuing_der.clone());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(failed)?;
        Ok(Self { issuer, issuing_der, root_der, expires })
    }

    /// The root certificate: what everybody in the grid trusts.
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }

    /// From when until when a certificate made now for `length` is good: never longer than the issuing certificate.
    pub fn validity(&self, now: Timestamp, length: Duration) -> Validity {
        Validity { not_before: now.minus(BACKDATED), not_after: now.plus(length).min(self.expires) }
    }

    /// Signs a client certificate for a key that its holder asked for.
    ///
    /// # Errors
    /// [`codes::INTERNAL`] if it cannot be made.
    pub fn sign_client(
        &self,
        grid: &GridName,
        identity: &Identity,
        key: &RequestedKey,
        serial: &Serial,
        validity: Validity,
    ) -> Result<Vec<Vec<u8>>, Problem> {
        self.sign(leaf(grid, identity, serial, validity, ExtendedKeyUsagePurpose::ClientAuth)?, &key.0)
    }

    /// Signs the master's own certificate, for the names and addresses it is reached by.
    ///
    /// # Errors
    /// [`codes::INTERNAL`] if it cannot be made, [`codes::BAD_VALUE`] if a name cannot be in a certificate.
    pub fn sign_master(
        &self,
        grid: &GridName,
        names: &[String],
        key: &RequestedKey,
        validity: Validity,
    ) -> Result<Vec<Vec<u8>>, Problem> {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let mut params = leaf(grid, &Identity::Master, &Serial::random()?, validity, usage)?;
        let names = CertificateParams::new(names).map_err(|e| {
            Problem::new(codes::BAD_VALUE, "a name of the master cannot be in a certificate").because(e)
        })?;
        params.subject_alt_names.extend(names.subject_alt_names);
        self.sign(params, &key.0)
    }

    fn sign(&self, params: CertificateParams, key: &impl PublicKeyData) -> Result<Vec<Vec<u8>>, Problem> {
        let leaf = params.signed_by(key, &self.issuer).map_err(failed)?;
        Ok(vec![leaf.der().to_vec(), self.issuing_der.clone()])
    }
}

fn authority(name: &str, below: u8, now: Timestamp, length: Duration) -> Result<CertificateParams, Problem> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(Serial::random()?.as_bytes()));
    bound(&mut params, Validity { not_before: now.minus(BACKDATED), not_after: now.plus(length) })?;
    Ok(params)
}

fn leaf(
    grid: &GridName,
    identity: &Identity,
    serial: &Serial,
    validity: Validity,
    usage: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, Problem> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // The subject is for people who look at a certificate. Nothing reads it: the identity is the URI.
    let kind = identity.to_string();
    params.distinguished_name.push(DnType::CommonName, kind.split('/').next().unwrap_or_default());
    params.subject_alt_names = vec![SanType::URI(identity.uri(grid).try_into().map_err(failed)?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    bound(&mut params, validity)?;
    Ok(params)
}

fn bound(params: &mut CertificateParams, validity: Validity) -> Result<(), Problem> {
    let at = |time: Timestamp| OffsetDateTime::from_unix_timestamp(time.seconds()).map_err(failed);
    params.not_before = at(validity.not_before)?;
    params.not_after = at(validity.not_after)?;
    Ok(())
}

fn certificate(path: &Path) -> Result<Vec<u8>, Problem> {
    let text = keyfile::read_public(path)?;
    let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| unusable(path, "it is not PEM"))?;
    Ok(der.to_vec())
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::KEY_FILE, format!("`{}` cannot be used", path.display()))
        .because(why)
        .fix("restore the folder `ca` of the master's data from a copy")
}

fn failed(cause: impl std::fmt::Display) -> Problem {
    Problem::new(codes::INTERNAL, "a certificate cannot be made").because(cause)
}

#[cfg(test)]
mod tests;
