//! A user's certificate is renewed at half its life by whatever command comes next, so that whoever uses the grid once in
//! two weeks never has to log in again.

use super::CREDENTIALS;
use crate::output;
use crate::profile::Profile;
use plat_link::{Address, Credentials, DialSettings, Key, Trust, dial, tcp};
use plat_model::id::GridName;
use plat_model::problem::codes;
use plat_model::{Problem, Result, Timestamp};
use plat_wire::ends::node_client;
use plat_wire::limits::IDENTITY_DEADLINE;
use plat_wire::v1::RenewRequest;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long before their end credentials that cannot be renewed are spoken of.
const WARNED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The credentials of a profile, renewed first if it is time.
///
/// # Errors
/// `KEY_FILE` if they cannot be used or have ended. That they could not be renewed is none, while they are good.
pub async fn current(folder: &Path, profile: &Profile) -> Result<Arc<Credentials>> {
    let file = folder.join(CREDENTIALS);
    let present = Credentials::load(GridName::parse(&profile.grid)?, &file)?;
    let (now, validity) = (output::now(), present.validity());
    if now >= validity.not_after {
        return Err(ended(profile, &file, validity.not_after));
    }
    if now < validity.renew_at() {
        return Ok(present);
    }
    match renewed(folder, profile, &present).await {
        Ok(next) => Ok(next),
        Err(problem) => {
            if validity.not_after.since(now) < WARNED {
                output::note(&warning(profile, validity.not_after, &problem));
            }
            Ok(present)
        }
    }
}

async fn renewed(folder: &Path, profile: &Profile, present: &Arc<Credentials>) -> Result<Arc<Credentials>> {
    let file = folder.join(CREDENTIALS);
    let lock = File::open(folder).map_err(|e| unusable(&file).because(e))?;
    if lock.try_lock().is_err() {
        // Another command is at it. What it replaces goes on to count.
        return Ok(present.clone());
    }
    let again = Credentials::load(present.grid().clone(), &file)?;
    if again.validity() != present.validity() {
        return Ok(again);
    }
    let key = Key::generate()?;
    let address = Address::parse(&profile.url)?;
    let channel = dial(&address, Trust::Credentials(present.clone()), DialSettings::default(), tcp)?;
    let ask = RenewRequest { csr_der: key.csr_der()?, ..Default::default() };
    let answer = tokio::time::timeout(IDENTITY_DEADLINE, node_client(channel).renew(ask)).await;
    let answer = answer
        .map_err(|_| Problem::new(codes::DEADLINE, "the master did not answer in time"))?
        .map_err(|status| plat_wire::status::to_problem(&status))?
        .into_inner();
    let next = Credentials::new(present.grid().clone(), key, answer.chain_der, vec![answer.root_der])?;
    if next.identity().identity != present.identity().identity {
        return Err(Problem::new(codes::TLS, "the master certified somebody else")
            .because(format!("the certificate is for {}", next.identity().identity)));
    }
    next.save(&file)?;
    Ok(next)
}

fn unusable(file: &Path) -> Problem {
    Problem::new(codes::KEY_FILE, format!("the credentials in {} cannot be used", file.display()))
}

/// How somebody whose credentials end comes back.
fn way_back(user: &str) -> String {
    format!(
        "have an operator run `plat token create --user {user} --out F` with --operator, --billing or --member PROJECT \
         as it was, then run `plat login --again --token-file F`; if no operator is left, make one on the master's \
         machine with `plat-master operator`"
    )
}

fn ended(profile: &Profile, file: &Path, at: Timestamp) -> Problem {
    unusable(file)
        .because(format!("they ended at {at}, unused for too long to be renewed"))
        .fix(way_back(&profile.user))
}

fn warning(profile: &Profile, at: Timestamp, problem: &Problem) -> String {
    format!(
        "warning: the credentials of {} end at {at} and could not be renewed: {}\n  try:     {}",
        profile.user,
        output::clean(&problem.one_line()),
        way_back(&profile.user)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_too_late_is_told_the_way_back() {
        let profile = Profile { version: 1, url: String::new(), grid: "g".into(), user: "ada".into() };
        let told = ended(&profile, Path::new("/p/credentials.pem"), Timestamp::ZERO).to_string();
        for part in ["P0211", "1970", "plat token create --user ada", "plat login --again", "plat-master operator"] {
            assert!(told.contains(part), "{part} is missing: {told}");
        }
    }
}
