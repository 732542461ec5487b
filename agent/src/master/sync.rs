//! Reports what changed, and learns what is desired.

use super::{Failed, Master};
use crate::desired::Accepted;
use crate::report::Trouble;
use plat_agent_plan::Clocks;
use plat_model::node::NodeReport;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use plat_wire::IntoModel;
use plat_wire::convert::{DesiredIndex, sync_request};
use plat_wire::limits::{LIST_BYTES, SYNC_DEADLINE};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// News that come within this time of each other travel together. A newer word of the master waits no longer than the
/// last sync took, so that syncs never take more than half of the time.
const GATHER: Duration = Duration::from_millis(20);
/// Most news in one report.
const NEWS_MAX: usize = 1000;

pub(super) async fn run(master: &Master) {
    let mut tries = master.tries(2);
    let mut announced = master.announced.subscribe();
    // After an answer that could not be put together everything is asked for anew.
    let mut ask_for_all = false;
    let mut behind = false;
    // The last answer had no room for all that is missing, or could not be kept.
    let mut more = false;
    // What had been announced when the last answer was asked for: the same word is not asked about twice.
    let mut answered = 0;
    let (mut clocks, mut look) = (Clocks::default(), false);
    loop {
        let news = master.board.news(NEWS_MAX, LIST_BYTES);
        let held = master.desired.current().map_or(0, |desired| desired.generation.0);
        let newest = *announced.borrow_and_update();
        if news.is_none() && (newest <= held || newest <= answered) && !ask_for_all && !more && !look {
            tokio::select! {
                () = master.board.changed() => {}
                () = tokio::time::sleep(clocks.looked_at_in()) => look = true,
                changed = announced.changed() => if changed.is_err() { return },
            }
            continue;
        }
        look = false;
        let (report, mark) = news.unwrap_or_default();
        let began = Instant::now();
        match once(master, report, ask_for_all).await {
            Ok(answer) => {
                let off = answer.now.and_then(|now| clocks.differ(now, began.elapsed(), master.clock.now()));
                master.board.trouble(Trouble::Clock, off);
                for problem in &answer.refused.0 {
                    warn!(problem = problem.one_line(), "the master refused a part of the report");
                }
                let older = master.desired.behind(answer.generation);
                if let Some(problem) = older.as_ref().filter(|_| !behind) {
                    warn!(problem = problem.one_line(), "nothing is taken from the master");
                }
                behind = older.is_some();
                let accepted = accept(master, answer).await;
                let desired = master.desired.current();
                let listed = |id: &_| desired.as_ref().is_some_and(|desired| desired.instances.contains_key(id));
                master.board.taken(mark, listed);
                master.board.trouble(Trouble::Word, accepted.as_ref().err().cloned());
                match accepted {
                    Ok(Accepted::Part) => {
                        master.back("sync", &mut tries);
                        more = true;
                    }
                    Ok(Accepted::New | Accepted::Old) => {
                        master.back("sync", &mut tries);
                        (ask_for_all, more, answered) = (false, false, newest);
                    }
                    Err(problem) => {
                        // What came whole and only found no room on the disk need not come again.
                        (ask_for_all, more) = (problem.code == codes::BAD_MESSAGE, true);
                        let pause = master.wait_after("sync", Failed::Keep, &problem, &mut tries);
                        // What is told does not depend on what is kept.
                        tokio::select! {
                            () = pause => {}
                            () = master.board.changed(), if !ask_for_all => {}
                        }
                    }
                }
                let (ended, took) = (Instant::now(), began.elapsed().min(GATHER));
                // A pace, and no wait for something: syncs take at most half of the time.
                tokio::time::sleep(took).await;
                // Whether there is a newer word, or the channel is closed, is looked at above.
                let word = announced.wait_for(|announced| *announced > newest);
                let _newer = tokio::time::timeout_at(ended + GATHER, word).await;
            }
            Err(problem) => master.wait_after("sync", Failed::Call, &problem, &mut tries).await,
        }
    }
}

async fn once(master: &Master, report: NodeReport, ask_for_all: bool) -> Result<DesiredIndex, Problem> {
    let held = if ask_for_all { master.desired.came() } else { master.desired.held() };
    let generation = if ask_for_all { 0 } else { master.desired.current().map_or(0, |desired| desired.generation.0) };
    let mut request = sync_request(&report, &held);
    request.generation = generation;
    let mut client = master.client();
    let answer = master.call(SYNC_DEADLINE, client.sync(request)).await?;
    answer.into_model().map_err(Problems::into_one)
}

async fn accept(master: &Master, answer: DesiredIndex) -> Result<Accepted, Problem> {
    let desired = master.desired.clone();
    // The disk may be slow; the loops that watch and push must not wait for it.
    master.disk.run(move || desired.accept(answer)).await
}
