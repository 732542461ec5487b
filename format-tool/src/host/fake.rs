//! A machine in memory: facts, changed by actions as the planner says they change. Faults are set by the number of the
//! action (counted from 0 over the whole life of the fake).

use super::{Host, Outcome};
use node_format_plan::{Action, HostFacts, Scope};
use plat_model::problem::{Problem, Result, codes};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The action fails without effect.
    Fails(usize),
    /// The action fails, and has taken effect nevertheless: it counts as done, so that it is undone.
    HalfWay(usize),
    /// The action and every one after it fail: not even undoing works.
    Breaks(usize),
    /// The batch with the action takes effect, and nobody hears of it.
    Unheard(usize),
    /// A process of this uid begins once so many actions were performed.
    Arrives { after: usize, uid: u32 },
    /// The process is killed before the action takes effect (a panic with [`Killed`]).
    KilledBefore(usize),
    /// The process is killed after the action has taken effect.
    KilledAfter(usize),
    /// A person asks to stop once this many actions were performed.
    Interrupt(usize),
}

/// What the fake panics with to end a run as SIGKILL would: nothing after it runs.
#[derive(Debug)]
pub struct Killed;

pub struct FakeHost {
    pub facts: HostFacts,
    pub fault: Option<Fault>,
    /// Actions performed so far.
    pub performed: usize,
}

impl FakeHost {
    pub fn new(facts: HostFacts) -> Self {
        Self { facts, fault: None, performed: 0 }
    }
}

impl Host for FakeHost {
    fn observe(&mut self, scope: &Scope) -> Result<HostFacts> {
        let mut seen = self.facts.seen(scope);
        if let Some(Fault::Arrives { after, uid }) = self.fault
            && !scope.processes.is_empty()
            && self.performed >= after
        {
            seen.busy_uids.insert(uid);
        }
        Ok(seen)
    }

    fn perform(&mut self, batch: &[Action]) -> Outcome {
        let all = self.performed..self.performed + batch.len();
        if matches!(self.fault, Some(Fault::Unheard(at)) if all.contains(&at)) {
            batch.iter().for_each(|action| self.facts.perform(action));
            self.performed += batch.len();
            let problem = Problem::new(codes::APPLY_FAILED, "the answer is lost as it was told to");
            return Outcome { done: Vec::new(), problem: Some(problem) };
        }
        for (n, action) in batch.iter().enumerate() {
            let fails = match self.fault {
                Some(Fault::Fails(at)) => self.performed == at,
                Some(Fault::Breaks(at)) => self.performed >= at,
                Some(Fault::KilledBefore(at)) if self.performed == at => std::panic::panic_any(Killed),
                _ => false,
            };
            self.performed += 1;
            if fails {
                let problem = Problem::new(codes::APPLY_FAILED, format!("{action:?} fails as it was told to"));
                return Outcome::first(n, batch.len(), Some(problem));
            }
            self.facts.perform(action);
            if self.fault == Some(Fault::HalfWay(self.performed - 1)) {
                let problem = Problem::new(codes::APPLY_FAILED, format!("{action:?} fails half-way as it was told to"));
                return Outcome::first(n + 1, batch.len(), Some(problem));
            }
            if self.fault == Some(Fault::KilledAfter(self.performed - 1)) {
                std::panic::panic_any(Killed);
            }
        }
        Outcome::first(batch.len(), batch.len(), None)
    }

    fn interrupted(&mut self) -> bool {
        matches!(self.fault, Some(Fault::Interrupt(at)) if self.performed >= at)
    }
}
