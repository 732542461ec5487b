//! Hooks that are asked for, and what became of them.

use super::{IntoModel, Place, bounded, owned};
use crate::limits::TEXT_MAX;
use crate::v1;
use plat_model::Problems;
use plat_model::id::{HookName, InstanceName, ProjectName};
use plat_model::run::{RunEnd, RunResult, RunWanted, TAIL_LINE_MAX, TAIL_LINES};

owned! {
    v1::RunWanted, RunWanted;
    v1::RunResult, RunResult;
}

impl From<&RunWanted> for v1::RunWanted {
    fn from(run: &RunWanted) -> Self {
        Self { number: run.number, hook: run.hook.to_string() }
    }
}

impl IntoModel for v1::RunWanted {
    type Model = RunWanted;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<RunWanted> {
        let hook = at.field("hook").parse(&self.hook, HookName::parse, problems)?;
        Some(RunWanted { number: self.number, hook })
    }
}

impl From<&RunResult> for v1::RunResult {
    fn from(run: &RunResult) -> Self {
        let (end, exit_code) = match run.end {
            RunEnd::Exited(code) => (v1::RunEnd::Exited, code.into()),
            RunEnd::Killed => (v1::RunEnd::Killed, 0),
            RunEnd::Interrupted => (v1::RunEnd::Interrupted, 0),
            RunEnd::NotRun => (v1::RunEnd::NotRun, 0),
        };
        Self {
            number: run.number,
            hook: run.hook.to_string(),
            began_ms: run.began.0,
            ended_ms: run.ended.0,
            end: end.into(),
            exit_code,
            how: bounded(&run.how, TEXT_MAX),
            tail: run.tail.iter().rev().take(TAIL_LINES).rev().map(|line| bounded(line, TAIL_LINE_MAX)).collect(),
        }
    }
}

impl IntoModel for v1::RunResult {
    type Model = RunResult;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<RunResult> {
        let hook = at.field("hook").parse(&self.hook, HookName::parse, problems);
        let began = at.field("began_ms").time(self.began_ms, problems);
        let ended = at.field("ended_ms").time(self.ended_ms, problems);
        let end = match (self.end(), u8::try_from(self.exit_code)) {
            (v1::RunEnd::Exited, Ok(code)) => Some(RunEnd::Exited(code)),
            (v1::RunEnd::Killed, _) => Some(RunEnd::Killed),
            (v1::RunEnd::Interrupted, _) => Some(RunEnd::Interrupted),
            (v1::RunEnd::NotRun, _) => Some(RunEnd::NotRun),
            (v1::RunEnd::Exited | v1::RunEnd::Unspecified, _) => {
                problems.push(at.field("end").wrong("it is not said how a run ended"));
                None
            }
        };
        let how = at.field("how").text(self.how, TEXT_MAX, problems);
        let tail = at
            .field("tail")
            .each(self.tail, TAIL_LINES, problems, |line, at, problems| at.text(line, TAIL_LINE_MAX, problems));
        Some(RunResult {
            number: self.number,
            hook: hook?,
            began: began?,
            ended: ended?,
            end: end?,
            how: how?,
            tail: tail?,
        })
    }
}

impl IntoModel for v1::RunHookRequest {
    /// The project, if one is said, the instance's name, and the hook's.
    type Model = (Option<ProjectName>, InstanceName, HookName);
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Self::Model> {
        let key = at.field("key").need(self.key, problems);
        let hook = at.field("hook").parse(&self.hook, HookName::parse, problems);
        let (project, name) = key?;
        Some((project, name, hook?))
    }
}
