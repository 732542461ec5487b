//! Recognises a master: its chain, and the identity in its certificate.

use super::{RootPin, peer};
use plat_model::Problem;
use plat_model::id::GridName;
use plat_model::identity::Identity;
use plat_model::problem::codes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

#[derive(Debug)]
enum Expect {
    Grid { grid: GridName, roots: Arc<RootCertStore> },
    Pin(RootPin),
}

#[derive(Debug)]
pub(super) struct MasterVerifier {
    provider: Arc<CryptoProvider>,
    expect: Expect,
}

impl MasterVerifier {
    pub(super) fn of_grid(provider: Arc<CryptoProvider>, grid: GridName, roots: Arc<RootCertStore>) -> Self {
        Self { provider, expect: Expect::Grid { grid, roots } }
    }

    pub(super) fn pinned(provider: Arc<CryptoProvider>, pin: RootPin) -> Self {
        Self { provider, expect: Expect::Pin(pin) }
    }
}

fn refuse(problem: Problem) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
}

fn pinned_root(chain: &[CertificateDer<'_>], pin: RootPin) -> Result<RootCertStore, Error> {
    let root = chain.iter().find(|certificate| RootPin::of(certificate) == pin).ok_or_else(|| {
        refuse(
            Problem::new(codes::WRONG_CA, "the master is not of the grid that the token was made for")
                .because("the CA that it shows is not the one that the token names")
                .fix("check the address, and that the token is of this grid"),
        )
    })?;
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned())?;
    Ok(roots)
}

impl ServerCertVerifier for MasterVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chains =
            |roots: &RootCertStore| verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, now, algorithms);
        match &self.expect {
            Expect::Pin(pin) => {
                chains(&pinned_root(chain, *pin)?)?;
                peer::grid_of_master(leaf).map_err(refuse)?;
            }
            Expect::Grid { grid, roots } => {
                chains(roots)?;
                let found = peer::peer_identity(leaf, grid).map_err(refuse)?.identity;
                if found != Identity::Master {
                    return Err(refuse(
                        Problem::new(codes::TLS, "the other side is not the master")
                            .because(format!("its certificate is for {found}"))
                            .fix("check the address; if it is right, somebody poses as the master"),
                    ));
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
