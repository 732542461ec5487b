//! Answers somebody who wants to read logs.

use super::Master;
use crate::host::{Follow, LogOf, LogsAsked};
use plat_agent_plan::{PartitionFact, PromiseFact, Stretch};
use plat_model::Problem;
use plat_model::id::{Digest, HookName, InstanceId, PromiseName, ServiceName};
use plat_model::problem::codes;
use plat_wire::limits::{LOG_LINE_MAX, log_lines};
use plat_wire::v1::{LogChunk, LogText, LogsWanted};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

/// A reader who follows for longer asks again.
const FOLLOW_MAX: Duration = Duration::from_secs(3600);
/// Lines in one message.
const LINES: usize = 128;

/// What is answered.
enum Said {
    Lines(mpsc::Receiver<(ServiceName, String)>),
    /// All there is, at once.
    Results(Vec<LogText>),
}

/// Sends lines until they end, the reader goes, or the time is up.
pub(super) async fn push(master: &Master, wanted: LogsWanted) {
    let (send, chunks) = mpsc::channel(4);
    let ticket = wanted.ticket.clone();
    let said = open(master, &wanted).await;
    let feed = async {
        match said {
            Ok(said) => {
                // The reader learns at once that somebody answers, even if nothing was ever written.
                let begun = LogChunk { ticket: ticket.clone(), lines: Vec::new(), problem: None };
                if send.send(begun).await.is_ok() {
                    match said {
                        Said::Lines(lines) => copy(lines, &ticket, &send).await,
                        Said::Results(lines) => {
                            let _gone = send.send(LogChunk { ticket: ticket.clone(), lines, problem: None }).await;
                        }
                    }
                }
            }
            Err(problem) => {
                let chunk = LogChunk { ticket: ticket.clone(), lines: Vec::new(), problem: Some((&problem).into()) };
                let _gone = send.send(chunk).await;
            }
        }
        drop(send);
    };
    let mut client = master.client();
    let pushed = tokio::time::timeout(FOLLOW_MAX, async {
        let call = client.push_logs(ReceiverStream::new(chunks));
        tokio::pin!(call);
        tokio::select! {
            answer = &mut call => answer,
            () = feed => call.await,
        }
    });
    if let Ok(Err(status)) = pushed.await {
        debug!(%status, "logs could not be pushed");
    }
}

async fn open(master: &Master, wanted: &LogsWanted) -> Result<Said, Problem> {
    let follow = if wanted.follow { Follow::Yes } else { Follow::No };
    let asked = |of| LogsAsked { of, lines: log_lines(wanted.lines) as usize, follow };
    if !wanted.release.is_empty() {
        let digest = Digest::parse(&wanted.release)?;
        let lines = master.host.logs(&asked(LogOf::Release(digest.clone()))).await;
        return lines.map(Said::Lines).map_err(|problem| not_begun(master, &digest, problem));
    }
    let instance = InstanceId::parse(&wanted.instance)?;
    let service = if wanted.service.is_empty() { None } else { Some(ServiceName::parse(&wanted.service)?) };
    let hook = if wanted.hook.is_empty() { None } else { Some(HookName::parse(&wanted.hook)?) };
    let desired = master.desired.current();
    let partition = desired.as_ref().and_then(|desired| desired.instances.get(&instance)).map(|one| &one.partition);
    let partition = partition.ok_or_else(|| {
        Problem::new(codes::NOT_FOUND, format!("instance {instance} is not on this node")).fix("ask again in a moment")
    })?;
    // The partition may still hold another's lines.
    let fact = master.host.observe_partition(partition).await?;
    if fact.occupant.as_ref().is_none_or(|occupant| occupant.instance != instance) {
        return Err(Problem::new(codes::NOT_FOUND, format!("instance {instance} has written nothing yet")));
    }
    if wanted.promises {
        return Ok(Said::Results(results(&fact)));
    }
    let partition = partition.clone();
    let of = match hook {
        Some(hook) => LogOf::Hook(partition, hook),
        None => LogOf::Services(partition, service),
    };
    master.host.logs(&asked(of)).await.map(Said::Lines)
}

/// What can be done where a release has no log.
fn not_begun(master: &Master, digest: &Digest, problem: Problem) -> Problem {
    if problem.code != codes::NOT_FOUND {
        return problem;
    }
    let short = digest.short();
    if master.desired.current().is_some_and(|desired| desired.releases.contains_key(digest)) {
        return problem
            .fix(format!("it is to be here: `plat release show {short}` tells what it waits for; ask again then"));
    }
    problem.fix(format!("it is not to be here: `plat supply {short} --node NODE` has this node build it"))
}

/// What the promises of a partition have said, each oldest first.
fn results(fact: &PartitionFact) -> Vec<LogText> {
    let told = |promise: &PromiseName, stretch: &Stretch| {
        let held = if stretch.holds { "held" } else { "failed" };
        let times = if stretch.times == 1 { "once".to_owned() } else { format!("{} times", stretch.times) };
        let text = format!("{} to {}, {held} {times}: {}", stretch.from, stretch.to, stretch.message);
        LogText { service: promise.to_string(), text: bounded(text) }
    };
    let of = |(promise, fact): (&PromiseName, &PromiseFact)| {
        fact.history.iter().map(|stretch| told(promise, stretch)).collect::<Vec<_>>()
    };
    fact.promises.iter().flat_map(of).collect()
}

async fn copy(mut lines: mpsc::Receiver<(ServiceName, String)>, ticket: &str, send: &mpsc::Sender<LogChunk>) {
    let mut batch = Vec::with_capacity(LINES);
    while lines.recv_many(&mut batch, LINES).await > 0 {
        let lines =
            batch.drain(..).map(|(service, text)| LogText { service: service.to_string(), text: bounded(text) });
        let chunk = LogChunk { ticket: ticket.into(), lines: lines.collect(), problem: None };
        if send.send(chunk).await.is_err() {
            return;
        }
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > LOG_LINE_MAX {
        let end = (0..=LOG_LINE_MAX).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
