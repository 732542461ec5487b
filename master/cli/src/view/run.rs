//! What was asked for once: hooks, builds.

use super::{lower, time};
use plat_wire::v1;
use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub struct RunView {
    /// Of the instance's runs; they are numbered from 1.
    pub number: u64,
    pub hook: String,
    /// `asked` before it is over; then `exited`, `killed`, `interrupted` or `notrun`.
    pub state: String,
    /// Of one that exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// How it ended, in a few words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub how: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// The last lines of its output.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
}

impl RunView {
    /// One that nothing is known of but that it is asked for.
    pub fn asked(number: u64, hook: &str) -> Self {
        let (hook, state, how) = (hook.to_owned(), "asked".to_owned(), String::new());
        Self { number, hook, state, exit_code: None, how, began: None, ended: None, tail: Vec::new() }
    }
}

impl From<v1::RunResult> for RunView {
    fn from(run: v1::RunResult) -> Self {
        let exited = run.end() == v1::RunEnd::Exited;
        Self {
            number: run.number,
            state: lower(v1::RunEnd::try_from(run.end)),
            exit_code: exited.then_some(u8::try_from(run.exit_code).unwrap_or(u8::MAX)),
            hook: run.hook,
            how: run.how,
            began: time(run.began_ms),
            ended: time(run.ended_ms),
            tail: run.tail,
        }
    }
}

/// What a node was asked to do about a release.
#[derive(Debug, Clone, Serialize)]
pub struct RebuildView {
    pub node: String,
    /// It was told to.
    pub asked: bool,
    /// What it does, or why it was not told; what came of it, where that was waited for.
    pub why: String,
    /// Of the wish, among those of this release and node.
    #[serde(skip)]
    pub number: u64,
}

impl From<v1::NodeRebuild> for RebuildView {
    fn from(one: v1::NodeRebuild) -> Self {
        Self { node: one.node, asked: one.asked, why: one.why, number: one.number }
    }
}
