//! Pushes usage reports until the master has booked them.

use super::{Failed, Master};
use plat_model::Problem;
use plat_wire::limits::{SYNC_DEADLINE, fitting};
use plat_wire::v1::PushUsageRequest;
use tracing::error;

/// Most reports in one call.
const REPORTS: usize = 32;

pub(super) async fn run(master: &Master) {
    let mut tries = master.tries(3);
    loop {
        let Some(reports) = master.metering.to_send(REPORTS).await else {
            master.metering.waiting.notified().await;
            continue;
        };
        let mut request = PushUsageRequest { reports: reports.iter().map(Into::into).collect() };
        request.reports.truncate(fitting(&request.reports));
        let last = request.reports.last().map_or(0, |report| report.sequence);
        let mut client = master.client();
        let answer = master.call(SYNC_DEADLINE, client.push_usage(request)).await;
        let result = match answer {
            Ok(answer) => match master.metering.booked(answer.booked).await {
                Ok(()) => progressed(answer.booked, &reports).map_err(|problem| (Failed::Call, problem)),
                Err(problem) => Err((Failed::Keep, problem)),
            },
            Err(problem) => Err((Failed::Call, problem)),
        };
        match result {
            Ok(()) => master.back("usage", &mut tries),
            Err((failed, problem)) => {
                if problem.code == plat_model::problem::codes::LEDGER_GAP {
                    error!(last, problem = problem.one_line(), "the ledger lacks reports of this node");
                }
                master.wait_after("usage", failed, &problem, &mut tries).await;
            }
        }
    }
}

/// An answer that books none of what was sent must not be repeated at once.
fn progressed(booked: u64, reports: &[plat_model::usage::UsageReport]) -> Result<(), Problem> {
    if reports.first().is_none_or(|first| booked >= first.sequence) {
        return Ok(());
    }
    Err(Problem::new(plat_model::problem::codes::LEDGER_GAP, "the master booked nothing of what was sent")
        .because(format!("it has booked up to {booked}")))
}
