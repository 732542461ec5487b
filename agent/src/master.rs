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

/// What a loop could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// The master gave no answer, or a refusal.
    Call,
    /// It answered, and this machine could not take in what it said.
    Keep,
}

impl Failed {
    fn sentence(self) -> &'static str {
        match self {
            Self::Call => "no answer from the master, going on without it",
            Self::Keep => "what the master said cannot be kept here, going on with what was kept before",
        }
    }

    fn over(self) -> &'static str {
        match self {
            Self::Call => "the master answers again",
            Self::Keep => "what the master says is kept again",
        }
    }
}

/// How often one loop has tried in vain, and the last reason that it told.
struct Tries {
    backoff: Backoff,
    said: Option<(Failed, Code)>,
}

impl Tries {
    /// Whether this is another reason than the last one since a try that went well.
    fn is_news(&mut self, failed: Failed, code: Code) -> bool {
        self.said.replace((failed, code)) != Some((failed, code))
    }

    /// A try went well: what is over by that, if it was told.
    fn went_well(&mut self) -> Option<&'static str> {
        self.backoff.reset();
        self.said.take().map(|(failed, _)| failed.over())
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
    async fn wait_after(&self, what: &'static str, failed: Failed, problem: &Problem, tries: &mut Tries) {
        let news = tries.is_news(failed, problem.code);
        if news && problem.code == codes::REVOKED {
            warn!(
                what,
                problem = problem.one_line(),
                "this node was revoked, its services go on; to come back, have an operator make a token for its name \
                 (`plat token create --node NAME`), run `plat-agent enroll --again` with it and restart the agent"
            );
        } else if news {
            warn!(what, problem = problem.one_line(), "{}", failed.sentence());
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

    /// To be called once the master has answered and what it said is kept.
    fn back(&self, what: &'static str, tries: &mut Tries) {
        if let Some(over) = tries.went_well() {
            info!(what, "{over}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_reason_is_told_once_until_there_is_an_answer() {
        let mut tries = tries();
        let reasons = [codes::UNREACHABLE, codes::UNREACHABLE, codes::REVOKED, codes::REVOKED, codes::UNREACHABLE];
        assert_eq!(reasons.map(|code| tries.is_news(Failed::Call, code)), [true, false, true, false, true]);
        assert_eq!(tries.went_well(), Some("the master answers again"));
        assert!(tries.is_news(Failed::Call, codes::UNREACHABLE));
    }

    #[test]
    fn an_answer_that_cannot_be_kept_is_not_told_as_none() {
        let mut tries = tries();
        assert!(tries.is_news(Failed::Keep, codes::DISK_FULL));
        assert!(tries.is_news(Failed::Call, codes::DISK_FULL), "the master's disk is another");
        assert!(tries.is_news(Failed::Keep, codes::DISK_FULL));
        assert_eq!(tries.went_well(), Some("what the master says is kept again"));
        assert_eq!(tries.went_well(), None);
    }

    fn tries() -> Tries {
        Tries { backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(1), 0), said: None }
    }
}
