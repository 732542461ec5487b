//! Running a hook that somebody asked for: begun at most once, and what became of it is known whatever happens.

use super::LinuxHost;
use super::runtime::{Exit, Ran};
use plat_agent_plan::RunBegun;
use plat_agent_plan::action::{Note, Run};
use plat_model::Problem;
use plat_model::id::{HookName, PartitionName};
use plat_model::problem::codes;
use plat_model::run::{RunEnd, RunResult, TAIL_LINE_MAX, TAIL_LINES};

impl LinuxHost {
    /// That it begins is on the disk before it does: what is found to have begun, by whoever comes later, was broken off.
    ///
    /// # Errors
    /// If what becomes of it cannot be written down.
    pub(super) async fn run_asked(&self, partition: &PartitionName, number: u64, run: &Run) -> Result<(), Problem> {
        let (hook, began) = (HookName::parse(&run.name)?, self.clock.moment().wall);
        let begun = Note::RunBegun(RunBegun { number, hook: hook.clone(), at: began });
        self.occupants.note(partition, &begun).await?;
        let (end, how, tail) = match self.run(partition, run).await {
            Ok(Ran { timed_out: true, tail, .. }) => {
                (RunEnd::Killed, format!("it did not end within {} s", run.timeout_seconds), tail)
            }
            Ok(Ran { exit, tail, .. }) => (end_of(exit), exit.to_string(), tail),
            Err(problem) => (end_without(&problem), problem.one_line(), Vec::new()),
        };
        let tail = tail[tail.len().saturating_sub(TAIL_LINES)..].iter().map(|line| short(line)).collect();
        let ended = self.clock.moment().wall;
        let result = RunResult { number, hook, began, ended, end, how, tail };
        self.occupants.note(partition, &Note::RunOver(result)).await
    }
}

fn end_of(exit: Exit) -> RunEnd {
    match exit {
        Exit::Code(code) => u8::try_from(code).map_or(RunEnd::Killed, RunEnd::Exited),
        Exit::Signal(_) => RunEnd::Killed,
    }
}

/// How a run ended of which a runtime says no more than this.
fn end_without(problem: &Problem) -> RunEnd {
    match problem.code {
        codes::SERVICE_START | codes::NO_NAMESPACE => RunEnd::NotRun,
        _ => RunEnd::Interrupted,
    }
}

fn short(line: &str) -> String {
    line[..line.floor_char_boundary(TAIL_LINE_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_not_to_have_begun_was_not_run() {
        let codes = [codes::SERVICE_START, codes::NO_NAMESPACE, codes::UNREACHABLE, codes::STALLED, codes::INTERNAL];
        let ends = codes.map(|code| end_without(&Problem::new(code, "it went wrong")));
        let (not, perhaps) = (RunEnd::NotRun, RunEnd::Interrupted);
        assert_eq!(ends, [not, not, perhaps, perhaps, perhaps]);
    }
}
