//! `plat run`: one of an instance's hooks, once.

use super::Context;
use crate::Result;
use crate::args::RunArgs;
use crate::output;
use crate::view::{InstanceView, RunView};
use crate::wait::{self, Until};
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::v1;
use std::process::ExitCode;

/// Asks for the run, and ends as it does.
pub async fn run(context: &Context, args: RunArgs) -> Result<ExitCode> {
    let session = context.session().await?;
    let key = context.key(&args.name);
    let ask = v1::RunHookRequest { key: Some(key.clone()), hook: args.hook.clone() };
    let number = context.ask(session.grid().run_hook(ask)).await?.number;
    if args.no_wait {
        output::note(&format!(
            "run {number} of hook {} is asked for; `plat show {}` tells what becomes of it",
            args.hook, args.name
        ));
        context.printer.one(&RunView::asked(number, &args.hook))?;
        return Ok(ExitCode::SUCCESS);
    }
    let over = wait::instance(&session, key, Until::Over(number), args.timeout, context.printer).await?;
    let run = over.ok_or_else(|| lost(&args, number, "it was destroyed"))?;
    let run = result(run, number).ok_or_else(|| lost(&args, number, "too many others came after it"))?;
    context.printer.one(&run)?;
    match (run.exit_code, run.state.as_str()) {
        (Some(code), _) => {
            output::note(&format!("run {number} of hook {}: exit code {code}", args.hook));
            Ok(ExitCode::from(code))
        }
        (None, state) => {
            Err(Problem::new(codes::HOOK_FAILED, format!("run {number} of hook {}: {}", args.hook, told(state)))
                .because(&run.how)
                .fix(match state {
                    "notrun" => format!("look how the instance is (`plat show {}`), and ask again", args.name),
                    _ => format!(
                        "read what it wrote (`plat logs {} --hook {}`) before it is asked for again",
                        args.name, args.hook
                    ),
                })
                .into())
        }
    }
}

fn told(state: &str) -> &str {
    match state {
        "notrun" => "it was not run",
        "interrupted" => "it was interrupted; it may have done a part of its work",
        "killed" => "it was killed",
        other => other,
    }
}

fn result(view: InstanceView, number: u64) -> Option<RunView> {
    view.ran.into_iter().find(|run| run.number == number)
}

fn lost(args: &RunArgs, number: u64, why: &str) -> Problem {
    let what = format!("what became of run {number} of hook {} is not known", args.hook);
    Problem::new(codes::NOT_FOUND, what).because(why)
}
