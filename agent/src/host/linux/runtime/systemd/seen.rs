//! A unit as systemd tells of it, and what that means. Pure.

use crate::host::linux::shim::tree::{Exit, Phase};
use crate::host::linux::shim::{BySystemd, RunState};
use plat_agent_plan::{Moment, Steady};
use plat_model::Timestamp;

/// What is known of a unit: the last of what systemd said of each property.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its `SubState`; empty: not loaded.
    pub state: String,
    /// Another one for each start, 32 hexadecimal digits; empty: never started.
    pub invocation: String,
    /// The last process that was the unit's first, running or not; 0: none yet.
    pub main: u32,
    /// As in `siginfo_t`: 1 exited, 2 killed, 3 dumped its core.
    pub code: i32,
    /// The exit code or the signal.
    pub status: i32,
    pub result: String,
    pub slice: String,
    /// How often systemd itself started it again.
    pub restarts: u32,
    pub started: When,
    pub ended: When,
}

/// A point in time in microseconds; zero: not yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct When {
    pub wall: u64,
    /// Since the machine was started, without the time that it slept.
    pub monotonic: u64,
}

/// A value that tells something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Text(String),
    Number(u64),
    Signed(i32),
    Bytes(Vec<u8>),
}

impl Seen {
    /// Takes in a property that changed.
    pub fn take(&mut self, name: &str, said: &Said) {
        let number = |to: &mut u64| {
            if let Said::Number(number) = said {
                *to = *number;
            }
        };
        match (name, said) {
            ("SubState", Said::Text(state)) => self.state.clone_from(state),
            ("Slice", Said::Text(slice)) => self.slice.clone_from(slice),
            ("Result", Said::Text(result)) => self.result.clone_from(result),
            ("InvocationID", Said::Bytes(id)) => self.invocation = id.iter().map(|b| format!("{b:02x}")).collect(),
            ("ExecMainPID", Said::Number(pid)) => self.main = u32::try_from(*pid).unwrap_or(0),
            ("NRestarts", Said::Number(times)) => self.restarts = u32::try_from(*times).unwrap_or(u32::MAX),
            ("ExecMainCode", Said::Signed(code)) => self.code = *code,
            ("ExecMainStatus", Said::Signed(status)) => self.status = *status,
            ("ExecMainStartTimestamp", _) => number(&mut self.started.wall),
            ("ExecMainStartTimestampMonotonic", _) => number(&mut self.started.monotonic),
            ("ExecMainExitTimestamp", _) => number(&mut self.ended.wall),
            ("ExecMainExitTimestampMonotonic", _) => number(&mut self.ended.monotonic),
            _ => {}
        }
    }

    /// Whether its program has ended by itself, or could not be started: nothing of it happens any more, except that systemd
    /// would start it again.
    pub fn is_over(&self) -> bool {
        matches!(&*self.state, "" | "exited" | "failed" | "dead" | "auto-restart" | "auto-restart-queued")
    }

    /// Whether its program is not executed yet.
    pub fn is_starting(&self) -> bool {
        self.state.starts_with("start") || self.state == "condition"
    }

    pub fn exit(&self) -> Option<Exit> {
        match self.code {
            1 => Some(Exit::Code(self.status)),
            2 | 3 => Some(Exit::Signal(self.status)),
            _ => None,
        }
    }

    /// Whether it took longer than it may, and was killed for that.
    pub fn was_killed_in_time(&self) -> bool {
        self.result == "timeout" && self.exit() == Some(Exit::Signal(9))
    }

    /// Whether systemd could not make it a program, and at which step.
    pub fn failed_step(&self) -> Option<i32> {
        (self.code == 1 && (200..=245).contains(&self.status) && self.result == "exit-code").then_some(self.status)
    }
}

/// The record of a run brought up to what is seen of its unit; whether that is another record now.
pub fn bring_up(state: &mut RunState, seen: &Seen, now: Moment, monotonic: u64, boot: &str) -> bool {
    if state.phase == Phase::Ended {
        return false;
    }
    let before = state.run.clone();
    if state.run.is_empty() && !seen.invocation.is_empty() {
        state.run.clone_from(&seen.invocation);
        counted(state, seen.restarts);
    }
    if state.boot != boot || seen.state.is_empty() || (seen.is_over() && seen.main == 0) {
        state.error = if state.boot == boot { "how is not known".into() } else { "the machine was restarted".into() };
        state.lost = true;
        state.ends(now, boot);
        return true;
    }
    if seen.invocation != state.run {
        // systemd has started it again: the run of before has ended, and nobody has seen how.
        let before = state.systemd.map_or(0, |by| by.restarts);
        let again = seen.restarts.saturating_sub(before).max(1);
        state.restarts = state.restarts.saturating_add(again);
        state.short_runs = state.short_runs.saturating_add(again);
        state.last_exit = "it ended while the agent was away".into();
        state.run.clone_from(&seen.invocation);
        counted(state, seen.restarts);
        state.main = None;
    }
    let is_another = before != state.run;
    if let Some(at) = moment(seen.started, now, monotonic).filter(|_| is_another) {
        (state.started, state.began) = (at.wall, Some(at.steady));
    }
    if seen.is_over() {
        state.exit = seen.exit();
        if seen.result == "watchdog" {
            // It was not told to end before it was silent.
            (state.unheard, state.told) = (state.systemd.and_then(|by| by.watchdog_seconds), false);
        }
        state.ends(moment(seen.ended, now, monotonic).unwrap_or(now), boot);
        return true;
    }
    is_another
}

fn counted(state: &mut RunState, restarts: u32) {
    state.systemd = Some(BySystemd { restarts, ..state.systemd.unwrap_or_default() });
}

/// On the agent's clocks, whose time now is known on systemd's too.
fn moment(when: When, now: Moment, monotonic: u64) -> Option<Moment> {
    let ago = monotonic.saturating_sub(when.monotonic) / 1000;
    (when.wall > 0).then(|| Moment {
        wall: Timestamp(i64::try_from(when.wall / 1000).unwrap_or(i64::MAX)),
        steady: Steady(now.steady.0.saturating_sub(ago)),
    })
}

#[cfg(test)]
mod tests;
