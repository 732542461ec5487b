//! Releases: add, list, show, rebuild, check, schema; and their supply.

mod lock;

use super::{Context, done, pages};
use crate::Result;
use crate::args::{ReleaseCommand, SupplyArgs};
use crate::document;
use crate::output;
use crate::view::{CheckView, RebuildView, ReleaseView};
use crate::wait::Progress;
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::v1;
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
        ReleaseCommand::Rebuild { release, node } => {
            let session = context.session().await?;
            let ask = v1::RebuildReleaseRequest { release: release.clone(), nodes: node };
            let answer = context.ask(session.grid().rebuild_release(ask)).await?;
            done(&format!("`plat release show {release}` tells how it goes"));
            context.printer.list(&answer.nodes.into_iter().map(RebuildView::from).collect::<Vec<_>>())
        }
        ReleaseCommand::Check { file, explain: Some(path) } => context.printer.text(&document::explain(&file, &path)?),
        ReleaseCommand::Check { file, explain: None } => {
            let release = document::load(&file)?;
            let (name, digest) = (release.name.to_string(), release.digest().to_string());
            context.printer.one(&CheckView { file: file.display().to_string(), name, digest })
        }
        ReleaseCommand::Lock { file, update } => lock::run(context, &file, update),
        ReleaseCommand::Schema => context.printer.text(&document::schema()),
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
    let mut progress = Progress::new(context.printer);
    let deadline = Instant::now() + args.wait.timeout;
    let waited =
        tokio::time::timeout_at(deadline, until_installed(context, &session, key, args.remove, &mut progress)).await;
    progress.end();
    let view = waited.unwrap_or_else(|_| {
        Err(Problem::new(codes::WAIT_TIMEOUT, format!("release {} is not on all nodes yet", args.release))
            .fix(format!("nothing was undone: it goes on; `plat release show {}` tells where it is", args.release))
            .into())
    })?;
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
            return Err(Problem::new(codes::UNREACHABLE, "the master ended the watch")
                .fix("repeat the command")
                .into());
        }
    }
}
