//! Nodes: list, show, label, revoke.

use super::{Context, Watch, confirm, pages};
use crate::Result;
use crate::args::NodeCommand;
use crate::output;
use crate::session::Session;
use crate::view::NodeView;
use plat_wire::v1;
use std::collections::HashMap;

pub async fn run(context: &Context, command: NodeCommand) -> Result<()> {
    let session = context.session().await?;
    match command {
        NodeCommand::List { watch } => {
            let mut watch = Watch::new(context, watch);
            loop {
                let nodes = all(context, &session).await?;
                watch.show(|| {
                    if nodes.is_empty() {
                        output::note("no nodes; `plat token create` makes a token that one can join with");
                    }
                    context.printer.list(&nodes)
                })?;
                if !watch.next(&session).await? {
                    return Ok(());
                }
            }
        }
        NodeCommand::Show { node, watch } => {
            let mut watch = Watch::new(context, watch);
            loop {
                let answer = context.ask(session.grid().show_node(v1::NodeKey { node: node.clone() })).await?;
                let mut view = NodeView::from(answer);
                name_releases(context, &session, &mut view).await?;
                watch.show(|| context.printer.one(&view))?;
                if !watch.next(&session).await? {
                    return Ok(());
                }
            }
        }
        NodeCommand::Label { node, labels } => {
            let remove =
                labels.iter().filter(|l| !l.contains('=')).filter_map(|l| l.strip_suffix('-')).map(String::from);
            let remove: Vec<_> = remove.collect();
            let set: Vec<_> = labels.iter().filter(|l| l.contains('=') || !l.ends_with('-')).cloned().collect();
            let ask = v1::LabelNodeRequest { node, set: super::instance::labels(&set)?, remove };
            let answer = context.ask(session.admin().label_node(ask)).await?;
            context.printer.one(&NodeView::from(answer))
        }
        NodeCommand::Revoke { node, yes } => {
            confirm(yes, &format!("shut node {node} out for good?"))?;
            let answer = context.ask(session.admin().revoke_node(v1::NodeKey { node })).await?;
            context.printer.one(&NodeView::from(answer))
        }
    }
}

/// Says the names of a node's releases, which the node knows by their digests.
async fn name_releases(context: &Context, session: &Session, view: &mut NodeView) -> Result<()> {
    if view.releases.is_empty() {
        return Ok(());
    }
    let names: HashMap<String, String> =
        super::release::all(context, session).await?.into_iter().map(|r| (r.digest, r.name)).collect();
    for release in &mut view.releases {
        release.name = names.get(&release.digest).cloned().unwrap_or_default();
    }
    Ok(())
}

async fn all(context: &Context, session: &Session) -> Result<Vec<NodeView>> {
    let page = |ask: v1::ListRequest| {
        let mut grid = session.grid();
        async move {
            let page = context.ask(grid.list_nodes(ask)).await?;
            Ok((page.nodes.into_iter().map(NodeView::from).collect(), page.next_page_token))
        }
    };
    pages(page).await
}
