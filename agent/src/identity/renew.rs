//! A new certificate at half the old one's life, or after a long absence by the rejoin certificate.

use super::{Identity, certified};
use crate::master::{Dial, Master};
use plat_link::{Backoff, Credentials, Key, Trust};
use plat_model::identity::{Identity as Who, Validity};
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use plat_wire::ends::node_client;
use plat_wire::limits::IDENTITY_DEADLINE;
use plat_wire::status::to_problem;
use plat_wire::v1::RenewRequest;
use std::time::Duration;
use tracing::{info, warn};

/// Longest wait at once: the clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(600);

/// When to renew: at half the life, and up to a tenth of it later, so that nodes that enrolled together do not renew
/// together.
fn due(validity: Validity, seed: u64) -> Timestamp {
    let life = validity.not_after.since(validity.not_before);
    let share = u32::try_from(seed % 1000).unwrap_or(0);
    validity.renew_at().plus(life / 10 * share / 1000)
}

/// How far a clock is from the master's that has just made a certificate, if by this clock that needs no use yet, or none any
/// more: the wait for its successor would be none at all.
fn wrong_clock(made: Validity, seed: u64, now: Timestamp) -> Option<String> {
    // The master dates what it makes back by some minutes, for clocks that are not quite right.
    let (ahead, behind) = (now.since(made.not_before), made.not_before.since(now));
    let told = |by: Duration, how| format!("about {} h {} min {how}", by.as_secs() / 3600, by.as_secs() / 60 % 60);
    if !behind.is_zero() {
        Some(told(behind, "behind"))
    } else if due(made, seed) <= now {
        Some(told(ahead, "ahead"))
    } else {
        None
    }
}

/// Renews for ever.
pub(crate) async fn keep(identity: &Identity, master: &Master, dial: &Dial) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300), master.seed ^ 0x7e7e);
    let mut stale = false;
    let mut clock_told = false;
    loop {
        let now = master.clock.now();
        let validity = identity.own.validity();
        let pause = due(validity, master.seed).since(now);
        if !pause.is_zero() && !stale {
            tokio::select! {
                () = tokio::time::sleep(pause.min(LOOK)) => {}
                () = master.stale.notified() => stale = true,
            }
            continue;
        }
        // A certificate that has ended, or that the master calls replaced, cannot ask for its successor.
        let by = if stale || !validity.holds_at(now) { &identity.rejoin } else { &identity.own };
        match renew(identity, by, dial).await {
            Ok(()) => {
                stale = false;
                info!(until = %identity.own.validity().not_after, "certificate renewed");
                if let Err(problem) = master.reconnect() {
                    warn!(problem = problem.one_line(), "no new channel");
                }
                let Some(off) = wrong_clock(identity.own.validity(), master.seed, master.clock.now()) else {
                    backoff.reset();
                    clock_told = false;
                    continue;
                };
                if !clock_told {
                    warn!(
                        "the master has just made this node's certificate, and by this machine's clock it is due to be \
                         made anew or not good yet: this clock is {off} of the master's; set the one that is wrong \
                         (`timedatectl` tells whether it is kept right); until then it is renewed seldom and in vain"
                    );
                    clock_told = true;
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(problem) => {
                if backoff.failures() == 0 && !validity.holds_at(now) && !identity.rejoin.validity().holds_at(now) {
                    warn!(
                        problem = problem.one_line(),
                        "both certificates of this node have ended by this machine's clock, its services go on; if the \
                         clock is right, have an operator revoke the node and make a token for its name (`plat node revoke \
                         NAME`, `plat token create --node NAME`), run `plat-agent enroll --again` with it and restart the \
                         agent"
                    );
                } else if backoff.failures() == 0 {
                    warn!(problem = problem.one_line(), "certificate could not be renewed, trying again");
                }
                stale |= problem.code == codes::STALE_CERTIFICATE;
                let delay = backoff.next_delay();
                let delay = if problem.code == codes::REVOKED { crate::master::REFUSED + delay } else { delay };
                tokio::time::sleep(delay).await;
            }
        }
    }
}

async fn renew(identity: &Identity, by: &std::sync::Arc<Credentials>, dial: &Dial) -> Result<(), Problem> {
    let key = Key::generate()?;
    let mut client = node_client(dial(Trust::Credentials(by.clone()))?);
    let request = RenewRequest { csr_der: key.csr_der()?, rejoin_csr_der: identity.rejoin.csr_der()? };
    let answer = tokio::time::timeout(IDENTITY_DEADLINE, client.renew(request)).await;
    let answer = answer
        .map_err(|_| Problem::new(codes::DEADLINE, "the master did not answer in time"))?
        .map_err(|status| to_problem(&status))?
        .into_inner();
    let roots = vec![answer.root_der];
    // A master of an older version gives none: the old one stays.
    if !answer.rejoin_chain_der.is_empty() {
        let rejoin = identity.rejoin.recertified(answer.rejoin_chain_der, roots.clone())?;
        certified(&rejoin, &Who::Rejoin(identity.enrolled.node.clone()))?;
        rejoin.save(&identity.paths.rejoin)?;
        identity.rejoin.adopt(&rejoin);
    }
    let next = Credentials::new(identity.enrolled.grid.clone(), key, answer.chain_der, roots)?;
    certified(&next, &Who::Node(identity.enrolled.node.clone()))?;
    // On disk before it is used: the master drops the old one as soon as it sees the new.
    next.save(&identity.paths.own)?;
    identity.own.adopt(&next);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_between_a_half_and_six_tenths_of_a_life() {
        let validity = Validity { not_before: Timestamp(0), not_after: Timestamp::from_seconds(1000) };
        assert_eq!(due(validity, 0), Timestamp::from_seconds(500));
        assert!(due(validity, 999) < Timestamp::from_seconds(600));
        assert!(due(validity, 999) > Timestamp::from_seconds(598));
    }

    #[test]
    fn a_certificate_just_made_tells_by_how_much_a_clock_is_wrong() {
        let day = 24 * 3600;
        let made = Validity { not_before: Timestamp(0), not_after: Timestamp::from_seconds(day) };
        let off = |seconds| wrong_clock(made, 0, Timestamp::from_seconds(seconds));
        assert_eq!([off(0), off(300), off(11 * 3600)], [None, None, None]);
        assert_eq!(off(13 * 3600).unwrap(), "about 13 h 0 min ahead");
        assert_eq!(off(3 * day + 90).unwrap(), "about 72 h 1 min ahead");
        assert_eq!(off(-7200).unwrap(), "about 2 h 0 min behind");
    }
}
