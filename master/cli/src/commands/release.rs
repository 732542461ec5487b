//! Releases: add, list, show, rebuild, log, check, schema; and their supply.

mod lock;
mod log;
mod wait;

use super::{Context, done, pages};
use crate::Result;
use crate::args::{ReleaseCommand, SupplyArgs, Wait};
use crate::document;
use crate::output;
use crate::view::{CheckView, InstallationView, ProblemView, RebuildView, ReleaseView};
use plat_document::Release;
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::v1;
use std::ops::ControlFlow;

pub async fn run(context: &Context, command: ReleaseCommand) -> Result<()> {
    match command {
        ReleaseCommand::Add { file, name } => {
            let release = document::load(&file)?;
            say_unpinned(&release);
            let session = context.session().await?;
            let ask = v1::AddReleaseRequest { name: name.unwrap_or_default(), document: release.to_canonical_json() };
            let view = ReleaseView::from(context.ask(session.grid().add_release(ask)).await?);
            done(&format!("release {} was added; `plat supply {} --all` has it installed", view.name, view.name));
            context.printer.one(&view)
        }
        ReleaseCommand::List => {
            let session = context.session().await?;
            let releases = all(context, &session).await?;
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
        ReleaseCommand::Rebuild { release, node, wait } => rebuild(context, release, node, &wait).await,
        ReleaseCommand::Log { release, node, lines, follow } => {
            log::run(context, v1::ReleaseLogRequest { release, node, lines, follow }).await
        }
        ReleaseCommand::Check { file, explain: Some(path) } => context.printer.text(&document::explain(&file, &path)?),
        ReleaseCommand::Check { file, explain: None } => {
            let release = document::load(&file)?;
            say_unpinned(&release);
            let (name, digest) = (release.name.to_string(), release.digest().to_string());
            context.printer.one(&CheckView { file: file.display().to_string(), name, digest })
        }
        ReleaseCommand::Lock { file, update } => lock::run(context, &file, update),
        ReleaseCommand::Schema => context.printer.text(&document::schema()),
    }
}

/// Two nodes may make one release of different bytes of these.
fn say_unpinned(release: &Release) {
    let open: Vec<&str> =
        release.sources.iter().filter(|(_, source)| !source.is_pinned()).map(|(name, _)| name.as_str()).collect();
    if !open.is_empty() {
        output::note(&format!(
            "not pinned, so another node or day may make something else of it: {} (`plat release lock FILE` pins packages of \
             Debian, `sha256` a directory)",
            open.join(", ")
        ));
    }
}

/// All releases.
pub async fn all(context: &Context, session: &crate::session::Session) -> Result<Vec<ReleaseView>> {
    let page = |ask: v1::ListRequest| {
        let mut grid = session.grid();
        async move {
            let page = context.ask(grid.list_releases(ask)).await?;
            Ok((page.releases.into_iter().map(ReleaseView::from).collect(), page.next_page_token))
        }
    };
    pages(page).await
}

async fn rebuild(context: &Context, release: String, nodes: Vec<String>, wait: &Wait) -> Result<()> {
    let session = context.session().await?;
    let ask = v1::RebuildReleaseRequest { release: release.clone(), nodes };
    let answer = context.ask(session.grid().rebuild_release(ask)).await?;
    let mut asked: Vec<RebuildView> = answer.nodes.into_iter().map(RebuildView::from).collect();
    if !wait.wait {
        done(&format!("`plat release show {release}` tells how it goes"));
        return context.printer.list(&asked);
    }
    let key = v1::ShowReleaseRequest { release: answer.digest };
    // One that the node was not told to is not waited for, and one on a node that is gone does not come.
    let came = |view: &ReleaseView, one: &RebuildView| {
        let node = view.nodes.iter().find(|node| node.node == one.node);
        node.is_none_or(|node| node.rebuild >= one.number && ["installed", "failed"].contains(&&*node.state))
    };
    let waited_for = |one: &&RebuildView| one.asked;
    let is_over = |view: ReleaseView| {
        let mut open = asked.iter().filter(waited_for).filter(|one| !came(&view, one)).peekable();
        if open.peek().is_none() {
            return ControlFlow::Break(view);
        }
        let open: Vec<&str> = open.map(|one| one.node.as_str()).collect();
        ControlFlow::Continue(how_it_is(&view, |node| open.contains(&node.node.as_str())))
    };
    let late = format!("release {release} is not built again on all nodes yet");
    let view = wait::until(context, &session, key, wait, &late, is_over).await?;
    let mut failed = Vec::new();
    for one in asked.iter_mut().filter(|one| one.asked) {
        one.why = match view.nodes.iter().find(|node| node.node == one.node) {
            // One that is there as it was, with its problem, was not built again.
            Some(InstallationView { problem: Some(problem), .. }) => said(problem),
            Some(node) if node.state == "installed" => "it is built again".into(),
            _ => "it is not to be there any more".into(),
        };
        if one.why != "it is built again" {
            failed.push(format!("{}: {}", one.node, one.why));
        }
    }
    if failed.is_empty() {
        return context.printer.list(&asked);
    }
    Err(Problem::new(codes::BUILD_FAILED, format!("release {release} was not built again everywhere"))
        .because(failed.join("; "))
        .fix(format!("`plat release show {release}` tells more; what failed is tried again later by itself"))
        .into())
}

/// A problem of a node, in a line.
fn said(problem: &ProblemView) -> String {
    let why = if problem.why.is_empty() { String::new() } else { format!(" ({})", problem.why) };
    format!("{} {}{why}", problem.code, problem.what)
}

/// How it is where `matters`.
fn how_it_is(view: &ReleaseView, matters: impl Fn(&InstallationView) -> bool) -> String {
    let node = |node: &InstallationView| match &node.problem {
        Some(problem) => format!("{}: {} {} (it is tried again)", node.node, problem.code, problem.what),
        None => format!("{}: {} {}", node.node, node.state, node.progress),
    };
    let open = view.nodes.iter().filter(|node| matters(node)).map(node).collect::<Vec<_>>();
    format!("{}: {}", view.name, open.join("; "))
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
    done(&supplied(&args, &answer.nodes));
    let key = v1::ShowReleaseRequest { release: answer.digest };
    if !args.wait.wait {
        return context.printer.one(&ReleaseView::from(context.ask(session.grid().show_release(key)).await?));
    }
    let wanted = if args.remove { "absent" } else { "installed" };
    let is_there = |view: ReleaseView| {
        if view.nodes.iter().all(|node| node.state == wanted) {
            return ControlFlow::Break(view);
        }
        ControlFlow::Continue(how_it_is(&view, |node| node.state != wanted))
    };
    let late = format!("release {} is not on all nodes yet", args.release);
    let view = wait::until(context, &session, key, &args.wait, &late, is_there).await?;
    context.printer.one(&view)
}

/// What a supply does now, and for nodes to come.
fn supplied(args: &SupplyArgs, nodes: &[String]) -> String {
    let (release, named) = (&args.release, nodes.join(", "));
    match (args.all, args.remove, nodes.is_empty()) {
        (true, false, true) => {
            format!("release {release} will be installed on every node that joins; there is none yet")
        }
        (true, false, false) => format!("release {release} is being installed on {named}, and on every node to come"),
        (true, true, true) => format!("release {release} is on no node, and on none to come"),
        (true, true, false) => format!("release {release} is being removed from {named}, and is for no node to come"),
        (false, false, _) => format!("release {release} is being installed on {named}"),
        (false, true, _) => format!("release {release} is being removed from {named}"),
    }
}
