//! Waiting with progress: a line that moves on a terminal, one line per change elsewhere.

use crate::output::{self, Printer, clean};
use crate::session::Session;
use crate::view::InstanceView;
use indicatif::{ProgressBar, ProgressStyle};
use plat_model::problem::codes;
use plat_model::{Problem, Result};
use plat_wire::v1;
use std::time::Duration;
use tokio::time::Instant;

/// Something that moves while we wait.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    pub fn new(printer: Printer) -> Self {
        let bar = printer.is_lively().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, last: String::new() }
    }

    /// Says what is going on now. The same text twice is said once.
    pub fn say(&mut self, text: &str) {
        let text = clean(text).replace('\n', " ");
        if text == self.last {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(text.clone()),
            None => output::note(&text),
        }
        self.last = text;
    }

    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What an instance is waited to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Ready,
    Stopped,
    Gone,
    /// The run of this number that was asked of it is over.
    Over(u64),
}

/// One line on where an instance is.
pub fn line(view: &InstanceView) -> String {
    let mut text = format!("{}: {}", view.name, view.state);
    let installing = view.installation.as_ref().filter(|i| i.state == "installing");
    if let Some(waiting) = view.waiting.first() {
        text += &format!(", waits for {}", waiting.on);
    } else if let Some(installation) = installing {
        text += &format!(", installs {}: {}", view.release, installation.progress);
    } else if let Some(problem) = &view.problem {
        text += &format!(", {}: {} (it is tried again)", problem.code, problem.what);
    } else if !view.detail.is_empty() {
        text += &format!(", {}", view.detail);
    }
    text
}

/// Follows an instance until it is as wished, at most `timeout`. Its last view; `None` if it is gone.
///
/// # Errors
/// [`codes::WAIT_TIMEOUT`] with what it waits on; what the master answers otherwise.
pub async fn instance(
    session: &Session,
    key: v1::InstanceKey,
    until: Until,
    timeout: Duration,
    printer: Printer,
) -> Result<Option<InstanceView>> {
    let deadline = Instant::now() + timeout;
    let mut progress = Progress::new(printer);
    let result = follow(session, key, until, deadline, &mut progress).await;
    progress.end();
    result
}

async fn follow(
    session: &Session,
    key: v1::InstanceKey,
    until: Until,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<Option<InstanceView>> {
    let mut last: Option<InstanceView> = None;
    loop {
        let mut stream = match session.grid().watch_instance(key.clone()).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => match plat_wire::status::to_problem(&status) {
                problem if problem.code == codes::NOT_FOUND && until == Until::Gone => return Ok(None),
                problem => return Err(problem),
            },
        };
        loop {
            let message = match tokio::time::timeout_at(deadline, stream.message()).await {
                Err(_) => return Err(timed_out(&key.name, until, last.as_ref())),
                Ok(message) => message,
            };
            match message {
                Ok(Some(view)) => {
                    // What the node said of an older wish says nothing of this one.
                    let current = view.status.as_ref().is_none_or(|status| status.generation == view.generation);
                    let view = InstanceView::from(view);
                    progress.say(&line(&view));
                    let done = match until {
                        Until::Ready => view.state == "ready",
                        Until::Stopped => view.state == "stopped",
                        Until::Gone => view.state == "destroyed",
                        Until::Over(number) => view.ran.last().is_some_and(|run| run.number >= number),
                    };
                    if view.state == "destroyed" && matches!(until, Until::Over(_)) {
                        return Ok(None);
                    }
                    // One that no node holds runs nowhere, and no node will report that it has stopped.
                    let nowhere = until == Until::Stopped && view.wish == "stopped" && view.node.is_none();
                    if nowhere || done && (current || matches!(until, Until::Over(_))) {
                        return Ok(Some(view));
                    }
                    last = Some(view);
                }
                // The stream ends when the instance is gone, or the master shuts down: ask anew.
                Ok(None) => break,
                Err(status) => match plat_wire::status::to_problem(&status) {
                    problem if problem.code == codes::NOT_FOUND && until == Until::Gone => return Ok(None),
                    problem if problem.category().is_retryable() && Instant::now() < deadline => break,
                    problem => return Err(problem),
                },
            }
        }
        session.reconnect_before(deadline).await?;
    }
}

fn timed_out(name: &str, until: Until, last: Option<&InstanceView>) -> Problem {
    let wished = match until {
        Until::Ready => "ready",
        Until::Stopped => "stopped",
        Until::Gone => "gone",
        Until::Over(number) => return run_timed_out(name, number, last),
    };
    Problem::new(codes::WAIT_TIMEOUT, format!("{name} is not {wished} yet"))
        .because(last.map_or_else(|| "nothing was heard of it".to_owned(), line))
        .fix(format!(
            "nothing was undone: it goes on; `plat show {name}` tells how it is, `plat explain instance {name}` why"
        ))
}

fn run_timed_out(name: &str, number: u64, last: Option<&InstanceView>) -> Problem {
    Problem::new(codes::WAIT_TIMEOUT, format!("run {number} of {name} is not over yet"))
        .because(last.map_or_else(|| "nothing was heard of it".to_owned(), line))
        .fix(format!("nothing was broken off: `plat show {name}` tells what becomes of it"))
}
