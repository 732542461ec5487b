//! Whom a process trusts. TLS 1.3 with ring, and no other.
//!
//! A server lets callers in without a certificate (they may enrol or log in, and nothing else), but a certificate that
//! is shown must chain to the grid's CA and be good now. A client recognises the master by the identity in its
//! certificate, not by its address: no node's or user's certificate is ever taken for the master's.

mod master;

use crate::peer;
use master::MasterVerifier;
use plat_model::id::GridName;
use plat_model::problem::codes;
use plat_model::{Problem, Result};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// SHA-256 of the root certificate of a grid's CA, as a token carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPin(pub [u8; 32]);

impl RootPin {
    /// The pin of a root certificate.
    pub fn of(root_der: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(root_der).into())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::KEY_FILE, "a key, its certificates or the trusted roots cannot be used")
        .because(why)
        .fix("enrol or log in again; on the master, restore them from a backup")
}

fn store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(unusable)?;
    }
    if store.is_empty() { Err(unusable("no root certificate is trusted")) } else { Ok(Arc::new(store)) }
}

/// The server's side. The root is sent behind the chain, so that a caller who pinned it can check it.
///
/// # Errors
/// [`codes::KEY_FILE`] if key, chain and roots do not go together.
pub fn server(
    key: PrivateKeyDer<'static>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Result<ServerConfig> {
    let verifier = WebPkiClientVerifier::builder_with_provider(store(roots)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(unusable)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.iter().chain(roots).cloned().collect(), key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The client's side, with a certificate of its own.
///
/// # Errors
/// [`codes::KEY_FILE`] if key, chain and roots do not go together.
pub fn client(
    grid: &GridName,
    key: PrivateKeyDer<'static>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Result<ClientConfig> {
    let verifier = MasterVerifier::of_grid(provider(), grid.clone(), store(roots)?);
    let config = client_builder(verifier)?.with_client_auth_cert(chain.to_vec(), key).map_err(unusable)?;
    Ok(finish(config))
}

/// For enrolment and login: no certificate yet, and all that is known of the grid is the pin of its root.
///
/// # Errors
/// [`codes::INTERNAL`] if the TLS library cannot be set up.
pub fn pinned_client(pin: RootPin) -> Result<ClientConfig> {
    Ok(finish(client_builder(MasterVerifier::pinned(provider(), pin))?.with_no_client_auth()))
}

type WantsClientCert = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client_builder(verifier: MasterVerifier) -> Result<WantsClientCert> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|why| Problem::new(codes::INTERNAL, "TLS cannot be set up").because(why))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

/// What a failed handshake, or a connection that the other side refused, tells a person.
pub fn explain(error: &std::io::Error, address: &str) -> Problem {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(tls) = tls else {
        return Problem::new(codes::UNREACHABLE, format!("cannot reach {address}"))
            .because(error)
            .fix("check the address, that the master runs, and that no firewall is in between");
    };
    let untrusted = |why: String| Problem::new(codes::TLS, format!("cannot trust {address}")).because(why);
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            match inner.downcast_ref::<Problem>() {
                Some(problem) => problem.clone(),
                None => untrusted(tls.to_string()),
            }
        }
        rustls::Error::AlertReceived(alert) => untrusted(format!("it refused this side's certificate ({alert:?})"))
            .fix("enrol or log in again; if the certificate is new, check the clocks of both machines"),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            untrusted("its certificate is not from this grid's CA".into())
                .fix("check the address; if the grid was made anew, enrol or log in again")
        }
        other => untrusted(other.to_string()).fix("check the address and the clocks of both machines"),
    }
}
