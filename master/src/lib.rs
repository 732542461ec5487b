//! The master: holds releases and requests, decides what runs where, tells nodes, books usage.
//!
//! Read [`Master`] (how it is put together), then [`grid`] (its verbs), then [`rpc`] (how they are called) and
//! [`rounds`] (what it does by itself). [`store`] keeps the state, [`pki`] signs certificates, and every decision is
//! one of `plat-master-plan`.
//!
//! Invariants: services see the [`grid::Grid`] only, and the grid sees the `Store` trait only; an answer waits until
//! what it tells survives power loss; a call is let in by the access table or not at all; the CA key is read by
//! `pki::ca` alone. The master dials nobody.

pub mod clock;
pub mod config;
pub mod grid;
pub mod init;
pub mod keyfile;
pub mod pki;
pub mod rounds;
pub mod rpc;
pub mod store;

use clock::Clock;
use futures_util::Stream;
use grid::Grid;
use pki::ca::Ca;
use plat_link::{Credentials, ServeSettings};
use plat_model::Problem;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use store::Store;
use tokio::io::{AsyncRead, AsyncWrite};

/// A master over a store, ready to serve. The network is handed in, so that a simulated one fits.
pub struct Master {
    grid: Arc<Grid>,
    credentials: Arc<Credentials>,
    names: Vec<String>,
}

impl Master {
    /// `names` are the host names and addresses in its certificate.
    ///
    /// # Errors
    /// `STORE_FAILED` if the store holds no grid, `BAD_VALUE` for a name that cannot be in a certificate.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ca: Ca, names: Vec<String>) -> Result<Self, Problem> {
        let grid = Grid::open(store, clock, Arc::new(ca))?;
        let credentials = rounds::issue(&grid, &names)?;
        Ok(Self { grid, credentials, names })
    }

    /// The façade behind the services.
    pub fn grid(&self) -> &Arc<Grid> {
        &self.grid
    }

    /// Answers calls, and does the rounds, until `shutdown`; then lets open calls end.
    ///
    /// # Errors
    /// `INTERNAL` if the server cannot go on.
    pub async fn serve<S, IO>(
        self,
        connections: S,
        settings: ServeSettings,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Problem>
    where
        S: Stream<Item = io::Result<(IO, SocketAddr)>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = rpc::routes(self.grid.clone()).await?;
        let grid = self.grid.clone();
        let shutdown = async move {
            shutdown.await;
            grid.close();
        };
        tokio::select! {
            served = plat_link::serve(routes, connections, self.credentials.clone(), settings, shutdown) => served,
            () = rounds::run(self.grid.clone()) => Err(broken()),
            () = rounds::renew(self.grid.clone(), self.credentials.clone(), self.names.clone()) => Err(broken()),
        }
    }
}

/// Only a store that broke ends the rounds.
fn broken() -> Problem {
    Problem::new(plat_model::problem::codes::STORE_FAILED, "the store does not answer any more")
        .fix("look at the messages before this one, then start the master again")
}
