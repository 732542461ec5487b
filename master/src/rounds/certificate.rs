//! The master's own certificate: made at the start, with a key that never leaves this process, and again at half of
//! its life. Open connections go on with what they began with.

use crate::grid::Grid;
use crate::pki::csr::RequestedKey;
use plat_link::{Credentials, Key};
use plat_model::Problem;
use std::sync::Arc;
use std::time::Duration;

/// How long it is good. The key is in memory only, so each start of the master makes a new one anyway.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often its age is looked at.
const EVERY: Duration = Duration::from_secs(3600);

/// A key and a certificate for the master, for the names it is reached by.
///
/// # Errors
/// `BAD_VALUE` for a name that cannot be in a certificate; `INTERNAL` if it cannot be made.
pub fn issue(grid: &Grid, names: &[String]) -> Result<Arc<Credentials>, Problem> {
    let (key, chain) = sign(grid, names)?;
    Credentials::new(grid.name().clone(), key, chain, vec![grid.ca().root_der().to_vec()])
}

/// Renews it whenever that is due. Never returns.
pub async fn renew(grid: Arc<Grid>, credentials: Arc<Credentials>, names: Vec<String>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if grid.now() < credentials.validity().renew_at() {
            continue;
        }
        let renewed = sign(&grid, &names)
            .and_then(|(key, chain)| credentials.replace(key, chain, vec![grid.ca().root_der().to_vec()]));
        match renewed {
            Ok(()) => tracing::info!(until = %credentials.validity().not_after, "own certificate renewed"),
            Err(problem) => tracing::error!(problem = problem.one_line(), "own certificate cannot be renewed"),
        }
    }
}

fn sign(grid: &Grid, names: &[String]) -> Result<(Key, Vec<Vec<u8>>), Problem> {
    let key = Key::generate()?;
    let requested = RequestedKey::parse(&key.csr_der()?)?;
    let validity = grid.ca().validity(grid.now(), VALIDITY);
    let chain = grid.ca().sign_master(grid.name(), names, &requested, validity)?;
    Ok((key, chain))
}
