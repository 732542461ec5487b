//! How a unit is told to end, and is given its time for it.

use super::{Bus, INTERFACES, NO_SUCH_UNIT, PROPERTIES, Wrong};
use crate::host::linux::runtime::systemd::names::path_of;
use crate::host::linux::turns::Turns;
use std::time::Duration;
use tokio::time::timeout;
use zbus::OwnedVariant;

/// How long a turn is waited for: those who have them all may have been given hours.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long systemd may take to end what has not ended in its time. A service that is listened to can have it wait for longer
/// than it was told to.
const SLACK: Duration = Duration::from_secs(10);
/// What is said of a unit whose first process is gone.
const NO_SUCH_PROCESS: &str = "org.freedesktop.systemd1.NoSuchProcess";

impl Bus {
    /// Tells a unit to end, and gives it so much time from then on. Whether nothing of it is left; else it is to be killed.
    pub async fn stop_within(&self, unit: &str, time: Duration) -> Result<bool, Wrong> {
        let by_job = async {
            match timeout(time + SLACK, self.stopped(unit)).await {
                Ok(stopped) => stopped.map(|()| true),
                Err(_) => Ok(false),
            }
        };
        let by_signal = async {
            tracing::info!(unit, "others take all turns to stop: it gets its stop signal without one");
            self.signal(unit).await?;
            // Its other processes are killed when the first has ended, as by a job.
            match timeout(time, self.until_over(unit)).await {
                Ok(over) => over.map(|_| false),
                Err(_) => Ok(false),
            }
        };
        in_turn_or(&self.stops, &self.whose(unit), by_job, by_signal).await
    }

    /// Sends the unit's first process the signal that its stop would.
    async fn signal(&self, unit: &str) -> Result<(), Wrong> {
        let answer = self.ask(&path_of(unit), PROPERTIES, "Get", &(INTERFACES[0], "KillSignal")).await?;
        let signal: OwnedVariant = answer.body().deserialize()?;
        let signal = i32::try_from(signal)?;
        match self.call("KillUnit", &(unit, "main", signal)).await {
            Err(wrong) if !wrong.is(NO_SUCH_UNIT) && !wrong.is(NO_SUCH_PROCESS) => Err(wrong),
            _ => Ok(()),
        }
    }
}

/// The first in a turn of this one's; where none comes, the second without.
async fn in_turn_or<T>(
    turns: &Turns,
    who: &str,
    first: impl Future<Output = Result<T, Wrong>>,
    second: impl Future<Output = Result<T, Wrong>>,
) -> Result<T, Wrong> {
    let Ok(turn) = timeout(PATIENCE, super::turn(turns, who)).await else { return second.await };
    let _turn = turn?;
    first.await
}

#[cfg(test)]
mod tests {
    use super::super::{JOBS, STOPS_SHARE};
    use super::*;
    use std::future::pending;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn whoever_has_all_turns_to_stop_and_keeps_them_holds_up_nobodys_end_for_long() {
        let turns = Turns::new(JOBS, STOPS_SHARE);
        let stop = |who: &'static str| in_turn_or(&turns, who, async { Ok("a job") }, async { Ok("a signal") });
        assert_eq!(stop("e").await.ok(), Some("a job"));
        let hang = |who: &'static str| in_turn_or(&turns, who, pending::<Result<(), Wrong>>(), async { Ok(()) });
        let mut greedy: Vec<_> =
            ["a", "b", "c", "d"].iter().flat_map(|who| (0..32).map(|_| Box::pin(hang(who)))).collect();
        let begun = Instant::now();
        let ended = tokio::select! {
            biased;
            _ = futures_util::future::select_all(greedy.iter_mut()) => panic!("they have turns, and hang"),
            ended = stop("e") => ended,
        };
        assert_eq!((ended.ok(), begun.elapsed()), (Some("a signal"), PATIENCE));
        drop(greedy);
        assert_eq!(stop("e").await.ok(), Some("a job"));
    }
}
