//! Reading the services' logs, and following them.

use super::runtime::Records;
use super::shim::line_log::last_lines;
use crate::host::{Follow, LogsAsked};
use plat_model::id::{PartitionName, ServiceName};
use std::time::Duration;
use tokio::sync::mpsc;

/// Most lines at once.
const LINES_MAX: usize = 10_000;
/// How often followed logs are looked at.
const LOOK: Duration = Duration::from_millis(250);

pub fn read(records: Records, partition: PartitionName, asked: LogsAsked) -> mpsc::Receiver<(ServiceName, String)> {
    let (send, receive) = mpsc::channel(256);
    tokio::spawn(async move {
        let mut after: Option<(i64, usize)> = None;
        loop {
            let services = match &asked.service {
                Some(service) => vec![service.clone()],
                None => records.services(&partition),
            };
            let mut lines: Vec<(i64, ServiceName, String)> = Vec::new();
            for service in services {
                let path = records.log(&partition, &service);
                lines.extend(last_lines(&path, LINES_MAX).into_iter().map(|(at, text)| (at, service.clone(), text)));
            }
            lines.sort_by_key(|line| line.0);
            // Of the last instant that was sent, how many lines there were: later ones of it are still to come.
            let fresh: Vec<_> = match after {
                None => lines.split_off(lines.len().saturating_sub(asked.lines.min(LINES_MAX))),
                Some((instant, sent)) => {
                    let same = lines.iter().filter(|l| l.0 == instant).count();
                    let mut skip = sent.min(same);
                    lines
                        .into_iter()
                        .filter(|l| l.0 >= instant)
                        .filter(|l| {
                            l.0 > instant || {
                                let keep = skip == 0;
                                skip = skip.saturating_sub(1);
                                keep
                            }
                        })
                        .collect()
                }
            };
            if let Some(last) = fresh.last().map(|l| l.0) {
                let count = fresh.iter().filter(|l| l.0 == last).count();
                let before = after.filter(|(instant, _)| *instant == last).map_or(0, |(_, sent)| sent);
                after = Some((last, before + count));
            } else if after.is_none() {
                after = Some((i64::MIN, 0));
            }
            for (_, service, text) in fresh {
                if send.send((service, text)).await.is_err() {
                    return;
                }
            }
            if asked.follow == Follow::No {
                return;
            }
            tokio::select! {
                () = send.closed() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    });
    receive
}
