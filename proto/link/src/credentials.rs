//! What a process is known by: its key, the chain of its certificate, and the roots it trusts. They are replaced while
//! connections are open: an open one goes on with what it began with, the next one uses the new.

mod file;
mod key;

pub use key::Key;

use crate::peer::{self, PeerIdentity};
use crate::tls;
use arc_swap::ArcSwap;
use plat_model::Result;
use plat_model::id::GridName;
use plat_model::identity::Validity;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use std::path::Path;
use std::sync::Arc;

/// The current ones. Share it as `Arc<Credentials>`.
pub struct Credentials {
    grid: GridName,
    current: ArcSwap<Material>,
}

struct Material {
    key: Key,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    identity: PeerIdentity,
    validity: Validity,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Material {
    fn new(grid: &GridName, key: Key, chain: Vec<Vec<u8>>, roots: Vec<Vec<u8>>) -> Result<Self> {
        let certificates = |ders: Vec<Vec<u8>>| -> Vec<_> { ders.into_iter().map(CertificateDer::from).collect() };
        let (chain, roots) = (certificates(chain), certificates(roots));
        let leaf = chain.first().ok_or_else(|| file::unusable("there is no certificate"))?;
        Ok(Self {
            identity: peer::peer_identity(leaf, grid)?,
            validity: peer::validity(leaf)?,
            server: Arc::new(tls::server(key.private_der(), &chain, &roots)?),
            client: Arc::new(tls::client(grid, key.private_der(), &chain, &roots)?),
            key,
            chain,
            roots,
        })
    }
}

impl Credentials {
    /// `chain` is DER, leaf first, without the root; `roots` is DER.
    ///
    /// # Errors
    /// `KEY_FILE` (P0211) if they do not go together, `TLS` (P0602) if the leaf is no identity of `grid`.
    pub fn new(grid: GridName, key: Key, chain: Vec<Vec<u8>>, roots: Vec<Vec<u8>>) -> Result<Arc<Self>> {
        let current = ArcSwap::from_pointee(Material::new(&grid, key, chain, roots)?);
        Ok(Arc::new(Self { grid, current }))
    }

    /// Takes new ones into use; the old ones stay if the new ones cannot be used.
    ///
    /// # Errors
    /// As for [`Credentials::new`].
    pub fn replace(&self, key: Key, chain: Vec<Vec<u8>>, roots: Vec<Vec<u8>>) -> Result<()> {
        self.current.store(Arc::new(Material::new(&self.grid, key, chain, roots)?));
        Ok(())
    }

    /// A certificate request for the key in use, e.g. to have its certificate made anew with a later end.
    ///
    /// # Errors
    /// `INTERNAL` (P0399) if signing fails.
    pub fn csr_der(&self) -> Result<Vec<u8>> {
        self.current.load().key.csr_der()
    }

    /// The same key with another certificate. Nothing uses it yet.
    ///
    /// # Errors
    /// As for [`Credentials::new`].
    pub fn recertified(&self, chain: Vec<Vec<u8>>, roots: Vec<Vec<u8>>) -> Result<Arc<Self>> {
        Self::new(self.grid.clone(), self.current.load().key.clone(), chain, roots)
    }

    /// Takes those of `next` into use.
    pub fn adopt(&self, next: &Self) {
        self.current.store(next.current.load_full());
    }

    /// Reads what [`Credentials::save`] wrote.
    ///
    /// # Errors
    /// `KEY_FILE` (P0211) if the file cannot be read or used, `TLS` (P0602) if it is of another grid.
    pub fn load(grid: GridName, path: &Path) -> Result<Arc<Self>> {
        let file::Contents { key, chain, roots } = file::read(path)?;
        Self::new(grid, key, chain, roots)
    }

    /// Writes key, chain and roots to one PEM file, readable by its owner only, by write, fsync and rename: a crash
    /// leaves the old file or the new one. Blocks on the disk.
    ///
    /// # Errors
    /// `KEY_FILE` (P0211) if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let current = self.current.load();
        file::write(path, &current.key, current.chain.iter().chain(&current.roots))
    }

    pub fn grid(&self) -> &GridName {
        &self.grid
    }

    /// Who this process is now.
    pub fn identity(&self) -> PeerIdentity {
        self.current.load().identity.clone()
    }

    /// From when until when the certificate is good; says when to renew it.
    pub fn validity(&self) -> Validity {
        self.current.load().validity
    }

    /// The trusted roots, DER.
    pub fn roots_der(&self) -> Vec<Vec<u8>> {
        self.current.load().roots.iter().map(|root| root.to_vec()).collect()
    }

    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    pub(crate) fn client_config(&self) -> Arc<ClientConfig> {
        self.current.load().client.clone()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("grid", &self.grid).field("identity", &self.identity()).finish()
    }
}
