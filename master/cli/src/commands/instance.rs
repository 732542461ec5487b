//! Instances: request, list, show, start, stop, destroy, logs, explain.

use super::Context;
use crate::Result;
use crate::args::{DestroyArgs, ListArgs, LogsArgs, RequestArgs, ShowArgs, Wait, WishArgs};
use crate::output::{self, clean};
use crate::parameters;
use crate::session::Session;
use crate::view::{ExplanationView, InProject, InstanceView, LogLineView, ResultView};
use crate::wait::{self, Until};
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use plat_wire::v1;
use std::collections::HashMap;

pub async fn request(context: &Context, args: RequestArgs) -> Result<()> {
    let ask = ask(context, &args)?;
    let session = context.session().await?;
    let answer = context.ask(session.grid().request(ask)).await?;
    let created = answer.created;
    let view = InstanceView::from(answer);
    if args.dry_run {
        output::note("dry run: nothing was changed");
        return context.printer.one(&view);
    }
    if args.wait.wait {
        let until = if view.wish == "stopped" { Until::Stopped } else { Until::Ready };
        let key = context.key(&args.name);
        if let Some(view) = wait::instance(&session, key, until, args.wait.timeout, context.printer).await? {
            return context.printer.one(&view);
        }
    }
    output::note(&if created {
        format!("{} was requested; `plat show {}` tells how it is", view.name, view.name)
    } else {
        format!("{} exists already and is as requested now", view.name)
    });
    context.printer.one(&view)
}

fn ask(context: &Context, args: &RequestArgs) -> Result<v1::RequestRequest> {
    let mut problems = Problems::default();
    let parameters = if let Some(file) = &args.params {
        keep(&mut problems, super::read_text(file))
            .and_then(|text| problems.keep(parameters::from_text(&text, &file.display().to_string())))
    } else if args.param.is_empty() {
        None
    } else {
        keep(&mut problems, parameters::from_pairs(&args.param))
    };
    let labels = problems.keep(labels(&args.labels));
    if args.cpu.is_some_and(|cpu| !(0.001..=10_000.0).contains(&cpu)) {
        problems.push(Problem::new(codes::USAGE, "--cpu is out of range").fix("give a number of cores, e.g. 0.5"));
    }
    problems.none_or(())?;
    let placed = args.node.is_some() || !args.labels.is_empty() || !args.enforced.is_empty();
    let limited = args.cpu.is_some() || args.memory.is_some() || args.disk.is_some() || args.processes.is_some();
    Ok(v1::RequestRequest {
        project: context.project(),
        name: args.name.clone(),
        release: args.release.clone().unwrap_or_default(),
        parameters_json: parameters.map(|p| p.to_json()),
        rules: placed.then(|| v1::PlacementRules {
            node: args.node.clone().unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            enforced: args.enforced.clone(),
        }),
        resources: limited.then(|| v1::Resources {
            cpu_millis: args.cpu.map(|cores| (cores * 1000.0).round() as u32),
            memory_mib: args.memory,
            disk_mib: args.disk,
            processes: args.processes,
        }),
        wish: if args.stopped { v1::Wish::Stopped } else { v1::Wish::Unspecified }.into(),
        dry_run: args.dry_run,
        shared: args.shared,
        on: args.on.clone().unwrap_or_default(),
    })
}

/// Notes every problem of a failure and goes on.
fn keep<T>(problems: &mut Problems, result: Result<T>) -> Option<T> {
    result.map_err(|more| problems.extend(more)).ok()
}

/// `KEY=VALUE` pairs as a map.
pub fn labels(pairs: &[String]) -> Result<HashMap<String, String>, Problem> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Problem::new(codes::USAGE, format!("`{}` is not a label", plat_model::id::shorten(text)))
            .fix("write LABEL=VALUE")),
    };
    pairs.iter().map(pair).collect()
}

async fn all(context: &Context, session: &Session, project: &str) -> Result<Vec<InstanceView>> {
    let mut views = Vec::new();
    let mut page_token = String::new();
    loop {
        let ask = v1::ListInstancesRequest { project: project.to_owned(), page_size: 0, page_token };
        let page = context.ask(session.grid().list_instances(ask)).await?;
        views.extend(page.instances.into_iter().map(InstanceView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(views);
        }
    }
}

pub async fn list(context: &Context, args: ListArgs) -> Result<()> {
    let session = context.session().await?;
    let project = if args.all { String::new() } else { context.project_or_own(&session).await? };
    let mut watch = super::Watch::new(context, args.watch);
    loop {
        let views = all(context, &session, &project).await?;
        watch.show(|| {
            if views.is_empty() && !args.watch {
                output::note("no instances; `plat request NAME --release R` makes one");
            }
            if args.all {
                return context.printer.list(&views.iter().map(InProject).collect::<Vec<_>>());
            }
            context.printer.list(&views)
        })?;
        if !watch.next(&session).await? {
            return Ok(());
        }
    }
}

pub async fn show(context: &Context, args: ShowArgs) -> Result<()> {
    let session = context.session().await?;
    if args.promises {
        return promises(context, &session, &args.name).await;
    }
    let mut watch = super::Watch::new(context, args.watch);
    loop {
        let answer = context.ask(session.grid().show_instance(context.key(&args.name))).await?;
        let view = InstanceView::from(answer);
        watch.show(|| context.printer.one(&view))?;
        if !watch.next(&session).await? {
            return Ok(());
        }
    }
}

/// What the promises of an instance have said, as its node remembers it.
async fn promises(context: &Context, session: &Session, name: &str) -> Result<()> {
    let ask = v1::LogsRequest { key: Some(context.key(name)), promises: true, ..Default::default() };
    let mut stream = context.ask(session.grid().logs(ask)).await?;
    let mut silent = true;
    while let Some(chunk) = context.next(&mut stream).await? {
        silent &= chunk.lines.is_empty();
        for line in chunk.lines.into_iter().map(ResultView::from) {
            context.printer.line(&line, |line| format!("{}: {}\n", line.promise, clean(&line.said)))?;
        }
    }
    if silent {
        output::note(&format!("no promise of {name} has been asked yet"));
    }
    Ok(())
}

pub async fn set_wish(context: &Context, args: WishArgs, wish: v1::Wish) -> Result<()> {
    let until = if wish == v1::Wish::Started { Until::Ready } else { Until::Stopped };
    let wishes = args.names.iter().map(|name| wish_of(context, name, wish)).collect();
    each(context, wishes, until, &args.wait).await
}

fn wish_of(context: &Context, name: &str, wish: v1::Wish) -> v1::SetWishRequest {
    v1::SetWishRequest { key: Some(context.key(name)), wish: wish.into(), keep_seconds: 0 }
}

pub async fn destroy(context: &Context, args: DestroyArgs) -> Result<()> {
    let kept = args.keep_for.map_or(0, |kept| kept.as_secs());
    let names = args.names.join(", ");
    if kept == 0 {
        super::confirm(args.yes, &format!("destroy {names} and all data in them?"))?;
    }
    let until = if kept == 0 { Until::Gone } else { Until::Stopped };
    let ask = |name| v1::SetWishRequest { keep_seconds: kept, ..wish_of(context, name, v1::Wish::Destroyed) };
    each(context, args.names.iter().map(|name| ask(name)).collect(), until, &args.wait).await
}

/// Wishes again what was wished of them before.
pub async fn undestroy(context: &Context, args: WishArgs) -> Result<()> {
    let session = context.session().await?;
    let mut problems = Problems::default();
    let mut wishes = Vec::new();
    for name in &args.names {
        let shown = context.ask(session.grid().show_instance(context.key(name))).await;
        let Some(view) = keep(&mut problems, shown) else { continue };
        match v1::Wish::try_from(view.wish_before) {
            Ok(before @ (v1::Wish::Started | v1::Wish::Stopped)) => wishes.push(wish_of(context, name, before)),
            _ => output::note(&format!("{name} is not to be destroyed")),
        }
    }
    let started = wishes.iter().any(|ask| ask.wish() == v1::Wish::Started);
    let until = if started { Until::Ready } else { Until::Stopped };
    let done = each(context, wishes, until, &args.wait).await;
    problems.none_or(())?;
    done
}

/// Wishes something of each of the names; goes on after a failure and reports all of them.
async fn each(context: &Context, wishes: Vec<v1::SetWishRequest>, until: Until, wait: &Wait) -> Result<()> {
    let session = context.session().await?;
    let mut problems = Problems::default();
    let mut wished = Vec::new();
    for ask in wishes {
        if let Some(answer) = keep(&mut problems, context.ask(session.grid().set_wish(ask)).await) {
            wished.push(InstanceView::from(answer));
        }
    }
    if wait.wait {
        for view in &mut wished {
            let waited = wait::instance(&session, context.key(&view.name), until, wait.timeout, context.printer).await;
            if let Some(Some(newer)) = problems.keep(waited) {
                *view = newer;
            } else if until == Until::Gone {
                view.state = "destroyed".into();
            }
        }
    }
    if !wished.is_empty() {
        context.printer.list(&wished)?;
    }
    if until == Until::Gone {
        warn_of_revoked(&session, &wished).await;
    }
    problems.none_or(())
}

/// A revoked node is not told that an instance of it is destroyed. Only an operator sees which nodes are.
async fn warn_of_revoked(session: &Session, destroyed: &[InstanceView]) {
    for (view, node) in destroyed.iter().filter_map(|view| Some((view, view.node.as_ref()?))) {
        let shown = session.grid().show_node(v1::NodeKey { node: node.clone() }).await;
        if shown.is_ok_and(|answer| answer.into_inner().revoked) {
            output::note(&format!(
                "{}: node {node} is revoked and was not told; its processes may still run there until it enrols again \
                 or is switched off",
                view.name
            ));
        }
    }
}

pub async fn logs(context: &Context, args: LogsArgs) -> Result<()> {
    let session = context.session().await?;
    let ask = v1::LogsRequest {
        key: Some(context.key(&args.name)),
        service: args.service.clone().unwrap_or_default(),
        lines: args.lines,
        follow: args.follow,
        promises: false,
        hook: args.hook.clone().unwrap_or_default(),
    };
    let mut stream = context.ask(session.grid().logs(ask)).await?;
    let mut silent = true;
    while let Some(chunk) = context.next(&mut stream).await? {
        silent &= chunk.lines.is_empty();
        for line in chunk.lines.into_iter().map(LogLineView::from) {
            context.printer.line(&line, |line| match args.service.as_ref().or(args.hook.as_ref()) {
                Some(_) => clean(&line.text) + "\n",
                None => format!("{}: {}\n", line.service, clean(&line.text)),
            })?;
        }
    }
    if silent {
        output::note(&match (&args.hook, &args.service) {
            (Some(hook), _) => format!("hook {hook} of {} has written nothing yet", args.name),
            (None, Some(service)) => format!("service {service} of {} has written nothing yet", args.name),
            (None, None) => format!("the services of {} have written nothing yet", args.name),
        });
    }
    Ok(())
}

pub async fn explain(context: &Context, name: &str) -> Result<()> {
    let session = context.session().await?;
    let answer = context.ask(session.grid().explain_instance(context.key(name))).await?;
    context.printer.one(&ExplanationView::from(answer))
}
