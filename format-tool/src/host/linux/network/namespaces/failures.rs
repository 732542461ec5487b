//! What came of namespaces that were to be made what they must be, where that failed.

use crate::host::Outcome;
use crate::host::linux::{failed, told_together};
use indexmap::IndexSet;
use plat_model::problem::{Problem, codes};

/// Most of what one of them has lost that is named.
const NAMED: usize = 20;

/// By name of the namespace.
#[derive(Default)]
pub(super) struct Failures<'a> {
    failed: IndexSet<&'a str>,
    reasons: Vec<Problem>,
    /// Of those that failed, what was in them before the run and does not come back.
    lost: Vec<(&'a str, Vec<String>)>,
    /// Of the others.
    left_out: Vec<(&'a str, Vec<String>)>,
    /// Of these, what somebody in there keeps from being as it must be.
    kept: Vec<(&'a str, Vec<String>)>,
}

impl<'a> Failures<'a> {
    pub fn any(&self) -> bool {
        !self.failed.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.failed.contains(name)
    }

    pub fn add(&mut self, name: &'a str, problem: Problem, lost: Vec<String>) {
        self.failed.insert(name);
        self.reasons.push(problem);
        self.lost.extend((!lost.is_empty()).then_some((name, lost)));
    }

    /// One step of these.
    pub fn of(&mut self, names: &[&'a str], outcome: Outcome) {
        let is_done = |n: usize| outcome.done.get(n).copied().unwrap_or_default();
        self.failed.extend(names.iter().enumerate().filter(|(n, _)| !is_done(*n)).map(|(_, name)| *name));
        self.reasons.extend(outcome.problem);
    }

    /// Of a step that was done, what went wrong all the same.
    pub fn besides(&mut self, problem: Option<Problem>) {
        self.reasons.extend(problem);
    }

    /// The last step of one. `left_out`: what was in it before the run.
    pub fn furnished(&mut self, name: &'a str, refusal: Option<Problem>, left_out: Vec<String>) {
        match refusal {
            Some(problem) => self.add(name, problem, left_out),
            None if left_out.is_empty() => {}
            None if self.has(name) => self.lost.push((name, left_out)),
            None => self.left_out.push((name, left_out)),
        }
    }

    /// Whoever is root in there can bring that about at any moment: it is no failure of the machine's.
    pub fn keep(&mut self, name: &'a str, what: Vec<String>) {
        self.kept.extend((!what.is_empty()).then_some((name, what)));
    }

    /// Why they failed, with the names of all that did; and what others lack.
    pub fn told(self) -> (Option<Problem>, Vec<Problem>) {
        let Self { failed: names, reasons, lost, left_out, kept } = self;
        let problem = told_together(reasons.into_iter()).map(|mut problem| {
            if names.len() > 1 {
                let all = names.into_iter().collect::<Vec<_>>().join(", ");
                problem.why.push_str(&format!("; not what they were to be are the namespaces {all}"));
            }
            for (name, lost) in lost {
                problem.why.push_str(&format!("; {}", in_words(name, &lost)));
            }
            problem
        });
        let without = "the kernel or somebody in there does not let it come back";
        let left_out = left_out.into_iter().map(|(name, what)| failed(in_words(name, &what), without));
        let kept = kept.into_iter().map(|(name, what)| {
            Problem::new(codes::FOREIGN, format!("namespace {name} is not as it must be"))
                .because(format!("somebody in there has set something in the place of {}", some(&what)))
        });
        (problem, left_out.chain(kept).collect())
    }
}

fn in_words(name: &str, what: &[String]) -> String {
    format!("namespace {name} does not get back {}", some(what))
}

fn some(what: &[String]) -> String {
    let named = what.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = what.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{named}{more}")
}
