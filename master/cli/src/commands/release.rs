//! Releases: add, list, show, check, schema; and their supply.

use super::{Context, done, pages};
use crate::args::{ReleaseCommand, SupplyArgs};
use crate::document;
use crate::output;
use crate::view::ReleaseView;
use crate::wait::Progress;
use plat_model::problem::codes;
use plat_model::{Problem, Result};
use plat_wire::v1;
use std::time::Duration;
use tokio::time::Instant;

pub async fn run(context: &Context, command: ReleaseCommand) -> Result<()> {
    match command {
        ReleaseCommand::Add { file, name } => {
            let release = document::load(&file)?;
            let session = context.session().await?;
            let ask = v1::AddReleaseRequest { name: name.unwrap_or_default(), document: release.to_canonical_json() };
            let view = ReleaseView::from(context.ask(session.grid().add_release(ask)).await?);
            done(&format!("release {} was added; `plat supply {} --all` has it installed", view.name, view.name));
            context.printer.one(&view)
        }
        ReleaseCommand::List => {
            let session = context.session().await?;
            let page = |ask: v1::ListRequest| {
                let mut grid = session.grid();
                async move {
                    let page = context.ask(grid.list_releases(ask)).await?;
                    Ok((page.releases.into_iter().map(ReleaseView::from).collect(), page.next_page_token))
                }
            };
            let releases: Vec<ReleaseView> = pages(page).await?;
            if releases.is_empty() {
                output::note("no releases; `plat release add FILE` adds one");
            }
            context.printer.list(&releases)
        }
        ReleaseCommand::Show { release, document } => {
            let session = context.session().await?;
            let answer = context.ask(session.grid().show_release(v1::ShowReleaseRequest { release })).await?;
            if document {
                return context.printer.text(&(answer.document + "\n"));
            }
            context.printer.one(&ReleaseView::from(answer))
        }
        ReleaseCommand::Check { file, explain: Some(path) } => context.printer.text(&document::explain(&file, &path)?),
        ReleaseCommand::Check { file, explain: None } => {
            let release = document::load(&file)?;
            context.printer.text(&format!(
                "{} is good: release {}, digest {}\n",
                file.display(),
                release.name,
                release.digest()
            ))
        }
        ReleaseCommand::Schema => context.printer.text(&document::schema()),
    }
}

pub async fn supply(context: &Context, args: SupplyArgs) -> Result<()> {
    let session = context.session().await?;
    let ask = v1::SupplyRequest {
        release: args.release.clone(),
        nodes: args.node.clone(),
        all_nodes: args.all,
        remove: args.remove,
    };
    let answer = context.ask(session.grid().supply(ask)).await?;
    let verb = if args.remove { "is being removed from" } else { "is being installed on" };
    let nodes = if answer.nodes.is_empty() { "no node yet".to_owned() } else { answer.nodes.join(", ") };
    done(&format!("release {} {verb} {nodes}{}", args.release, if args.all { ", and nodes to come" } else { "" }));
    let key = v1::ShowReleaseRequest { release: answer.digest };
    if !args.wait.wait {
        return context.printer.one(&ReleaseView::from(context.ask(session.grid().show_release(key)).await?));
    }
    let mut progress = Progress::new(context.printer);
    let deadline = Instant::now() + Duration::from_secs(args.wait.timeout);
    let waited =
        tokio::time::timeout_at(deadline, until_installed(context, &session, key, args.remove, &mut progress)).await;
    progress.end();
    let view = waited.unwrap_or_else(|_| {
        Err(Problem::new(codes::WAIT_TIMEOUT, format!("release {} is not on all nodes yet", args.release))
            .fix(format!("nothing was undone: it goes on; `plat release show {}` tells where it is", args.release)))
    })?;
    context.printer.one(&view)
}

async fn until_installed(
    context: &Context,
    session: &crate::session::Session,
    key: v1::ShowReleaseRequest,
    remove: bool,
    progress: &mut Progress,
) -> Result<ReleaseView> {
    let mut nudges = context.ask(session.grid().watch_grid(v1::WatchGridRequest {})).await?;
    loop {
        let answer = context.ask(session.grid().show_release(key.clone())).await?;
        let view = ReleaseView::from(answer);
        if view.nodes.iter().all(|n| n.state == if remove { "absent" } else { "installed" }) {
            return Ok(view);
        }
        let node = |n: &crate::view::InstallationView| match &n.problem {
            Some(problem) => format!("{}: {} {} (it is tried again)", n.node, problem.code, problem.what),
            None => format!("{}: {} {}", n.node, n.state, n.progress),
        };
        let open = view.nodes.iter().filter(|n| n.state != "installed").map(node).collect::<Vec<_>>();
        progress.say(&format!("{}: {}", view.name, open.join("; ")));
        if context.next(&mut nudges).await?.is_none() {
            return Err(Problem::new(codes::UNREACHABLE, "the master ended the watch").fix("repeat the command"));
        }
    }
}
