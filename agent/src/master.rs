//! The client of the master: four loops over one channel, each trying again by itself. None of them is needed for
//! instances to run.

mod logs;
mod sync;
mod usage;
mod watch;

use crate::DiskWork;
use crate::clock::Clock;
use crate::desired::Keeper;
use crate::host::Host;
use crate::report::Board;
use crate::usage::Metering;
use plat_link::{Backoff, Credentials, Trust};
use plat_model::id::InstanceId;
use plat_model::problem::{Code, codes};
use plat_model::tree::{Child, TreeAsk};
use plat_model::{Problem, Problems};
use plat_wire::IntoModel;
use plat_wire::convert::for_instance;
use plat_wire::ends::{NodeClient, node_client};
use plat_wire::limits::CALL_DEADLINE;
use plat_wire::status::to_problem;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{info, warn};

/// Makes a channel to the master.
pub(crate) type Dial = Arc<dyn Fn(Trust) -> Result<Channel, Problem> + Send + Sync>;

/// After a refusal that only people can lift, the master is asked again this seldom.
pub(crate) const REFUSED: Duration = Duration::from_secs(15 * 60);

pub(crate) struct Master {
    pub host: Arc<dyn Host>,
    pub clock: Arc<dyn Clock>,
    pub desired: Arc<Keeper>,
    pub board: Arc<Board>,
    pub metering: Arc<Metering>,
    pub seed: u64,
    disk: DiskWork,
    channel: tokio::sync::watch::Sender<Channel>,
    dial: Dial,
    credentials: Arc<Credentials>,
    /// The newest generation that the master has spoken of.
    announced: tokio::sync::watch::Sender<u64>,
    /// The master said that this certificate has been replaced.
    pub stale: Notify,
}

/// What a client needs, besides its channel.
pub(crate) struct Parts {
    pub host: Arc<dyn Host>,
    pub clock: Arc<dyn Clock>,
    pub desired: Arc<Keeper>,
    pub board: Arc<Board>,
    pub metering: Arc<Metering>,
    pub credentials: Arc<Credentials>,
    pub dial: Dial,
    pub seed: u64,
    pub disk: DiskWork,
}

/// How often one loop has tried in vain, and the last reason that it told.
struct Tries {
    backoff: Backoff,
    said: Option<Code>,
}

impl Tries {
    /// Whether this is another reason than the last one since an answer.
    fn is_news(&mut self, code: Code) -> bool {
        self.said.replace(code) != Some(code)
    }
}

impl Master {
    /// # Errors
    /// What `dial` says of the address.
    pub fn new(parts: Parts) -> Result<Self, Problem> {
        let channel = (parts.dial)(Trust::Credentials(parts.credentials.clone()))?;
        Ok(Self {
            host: parts.host,
            clock: parts.clock,
            desired: parts.desired,
            board: parts.board,
            metering: parts.metering,
            seed: parts.seed,
            disk: parts.disk,
            channel: tokio::sync::watch::Sender::new(channel),
            dial: parts.dial,
            credentials: parts.credentials,
            announced: tokio::sync::watch::Sender::new(0),
            stale: Notify::new(),
        })
    }

    /// Runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(watch::run(&self), sync::run(&self), usage::run(&self));
    }

    fn client(&self) -> NodeClient {
        node_client(self.channel.borrow().clone())
    }

    /// New calls go over a new connection, which shows the present certificate; open streams go on until they have
    /// been opened anew there.
    pub fn reconnect(&self) -> Result<(), Problem> {
        self.channel.send_replace((self.dial)(Trust::Credentials(self.credentials.clone()))?);
        Ok(())
    }

    /// A call that ends in time.
    async fn call<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(to_problem(&status)),
            Err(_) => Err(Problem::new(codes::DEADLINE, "the master did not answer in time")
                .because(format!("waited {} s", deadline.as_secs()))),
        }
    }

    /// Says what failed, once for each new reason, and waits before the next try. A revoked node keeps what it runs,
    /// and asks seldom whether it has been taken back.
    async fn wait_after(&self, what: &'static str, problem: &Problem, tries: &mut Tries) {
        let news = tries.is_news(problem.code);
        if news && problem.code == codes::REVOKED {
            warn!(
                what,
                problem = problem.one_line(),
                "this node was revoked, its services go on; to come back, have an operator make a token for its name \
                 (`plat token create --node NAME`), run `plat-agent enroll --again` with it and restart the agent"
            );
        } else if news {
            warn!(what, problem = problem.one_line(), "no answer from the master, going on without it");
        }
        if problem.code == codes::STALE_CERTIFICATE || problem.code == codes::NO_CERTIFICATE {
            self.stale.notify_one();
        }
        let delay = tries.backoff.next_delay();
        let delay = if problem.code == codes::REVOKED { REFUSED + delay } else { delay };
        tokio::time::sleep(delay).await;
    }

    /// What an instance on this node asks of the master.
    ///
    /// # Errors
    /// The master's; UNREACHABLE or DEADLINE while it is away: the instance asks again.
    pub async fn for_instance(&self, instance: &InstanceId, ask: &TreeAsk) -> Result<Vec<Child>, Problem> {
        let mut client = self.client();
        let answer = self.call(CALL_DEADLINE, client.for_instance(for_instance(instance, ask))).await?;
        answer.into_model().map_err(Problems::into_one)
    }

    fn tries(&self, salt: u64) -> Tries {
        let seed = self.seed.wrapping_add(salt);
        Tries { backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(30), seed), said: None }
    }

    fn back(&self, what: &'static str, tries: &mut Tries) {
        if tries.said.take().is_some() {
            info!(what, "the master answers again");
        }
        tries.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_reason_is_told_once_until_there_is_an_answer() {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1), 0);
        let mut tries = Tries { backoff, said: None };
        let reasons = [codes::UNREACHABLE, codes::UNREACHABLE, codes::REVOKED, codes::REVOKED, codes::UNREACHABLE];
        assert_eq!(reasons.map(|code| tries.is_news(code)), [true, false, true, false, true]);
        tries.said = None;
        assert!(tries.is_news(codes::UNREACHABLE));
    }
}
