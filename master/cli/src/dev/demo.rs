//! The demo: deploy real software, use it as a client would, show what it is and what it used.

use super::client;
use super::grid::Grid;
use super::place::Place;
use crate::Result;
use crate::args::Output;
use crate::commands::Context;
use crate::output::{self, Printer};
use crate::view::{InstanceView, NodeView, RateCardView, StatementView, UsageView};
use crate::wait::{self, Progress, Until};
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use plat_wire::v1;
use std::time::Duration;
use tokio::time::Instant;

/// The examples that the demo can deploy, as they are in the source.
const EXAMPLES: &[(&str, &str)] = &[
    ("postgresql", include_str!("../../../../examples/releases/postgresql.yaml")),
    ("redis", include_str!("../../../../examples/releases/redis.yaml")),
    ("nginx", include_str!("../../../../examples/releases/nginx.yaml")),
];
/// How long fetching packages and starting may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Puts the examples where somebody who tries the grid finds them.
pub fn write_examples(place: &Place) -> Result<(), Problem> {
    let folder = place.path("examples");
    place.folder(&folder)?;
    EXAMPLES.iter().try_for_each(|(name, text)| place.write(&folder.join(format!("{name}.yaml")), text))
}

fn step(text: &str) {
    output::note(&format!("\n>> {text}"));
}

pub async fn run(context: &Context, grid: &Grid, release: &str) -> Result<()> {
    let known = EXAMPLES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let Some((_, text)) = EXAMPLES.iter().find(|(name, _)| *name == release) else {
        let unknown = Problem::new(codes::USAGE, "the demo does not know this release");
        return Err(unknown.fix(format!("choose one of {known}")).into());
    };
    let parsed = plat_document::Release::parse_yaml(text, release)?;
    let session = grid.session().await?;
    let printer = Printer { format: Output::Table, ..context.printer };

    step(&format!("plat release add {release}.yaml"));
    let add = v1::AddReleaseRequest { name: String::new(), document: parsed.to_canonical_json() };
    let added = context.ask(session.grid().add_release(add)).await?;

    step(&format!("plat supply {release} --all"));
    let supply = v1::SupplyRequest { release: added.digest.clone(), all_nodes: true, ..Default::default() };
    context.ask(session.grid().supply(supply)).await?;

    step(&format!("plat request demo --release {release} --wait"));
    let began = Instant::now();
    let ask = v1::RequestRequest { name: "demo".into(), release: added.digest.clone(), ..Default::default() };
    context.ask(session.grid().request(ask)).await?;
    let key = v1::InstanceKey { project: String::new(), name: "demo".into() };
    let view = wait::instance(&session, key.clone(), Until::Ready, PATIENCE, printer).await?;
    let view = view.ok_or_else(|| Problem::new(codes::INTERNAL, "the instance is gone"))?;
    output::note(&format!("ready after {:.1} s", began.elapsed().as_secs_f64()));

    step("using it as a client would, by what it publishes");
    let answer = match release {
        "nginx" => client::http(&view.connection).await?,
        "redis" => client::redis(&view.connection).await?,
        _ => {
            let installed = grid.place().path("releases").join(&added.digest);
            client::postgresql(&view.connection, &installed, &grid.place().path("")).await?
        }
    };
    printer.text(&format!("{answer}\n"))?;

    step("plat show demo");
    printer.one(&InstanceView::from(context.ask(session.grid().show_instance(key)).await?))?;
    step("plat node list");
    let nodes = context.ask(session.grid().list_nodes(v1::ListRequest::default())).await?;
    printer.list(&nodes.nodes.into_iter().map(NodeView::from).collect::<Vec<_>>())?;

    step("plat rates set (an example: 0.02 EUR a core-hour, 0.005 EUR a GiB-hour of memory)");
    let rate = |meter: &str, unit: &str, per: u64, price: &str| v1::Rate {
        meter: meter.into(),
        unit: unit.into(),
        per,
        price: price.into(),
    };
    let card = v1::RateCard {
        currency: "EUR".into(),
        from_ms: Timestamp::ZERO.0,
        rates: vec![
            rate("cpu-micros", "core-hour", 3_600_000_000, "0.02"),
            rate("memory-byte-seconds", "GiB-hour", 3600 << 30, "0.005"),
        ],
    };
    printer.one(&RateCardView::from(context.ask(session.usage().set_rate_card(card)).await?))?;

    step("plat usage demo");
    printer.list(&usage(context, &session, printer).await?)?;
    step("plat statement");
    let ask = v1::StatementRequest { project: "default".into(), period: String::new() };
    printer.one(&StatementView::from(context.ask(session.usage().show_statement(ask)).await?))?;
    output::note("\nThat was the demo. `plat dev` keeps such a grid up for you to try.");
    Ok(())
}

/// The first usage that was booked; the node reports every few seconds.
async fn usage(context: &Context, session: &crate::session::Session, printer: Printer) -> Result<Vec<UsageView>> {
    let mut progress = Progress::new(printer);
    progress.say("waiting for the first usage report");
    // Booking usage changes nothing that a watch tells of, so it is asked for.
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let wait = async {
        loop {
            tick.tick().await;
            let ask = v1::QueryUsageRequest { project: "default".into(), ..Default::default() };
            let sums = context.ask(session.usage().query_usage(ask)).await?.sums;
            if sums.iter().any(|sum| sum.meter == "cpu-micros" && sum.amount > 0) {
                return Ok(sums.into_iter().map(UsageView::from).collect());
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    progress.end();
    waited.unwrap_or_else(|_| Err(Problem::new(codes::WAIT_TIMEOUT, "no usage was booked in 60 s").into()))
}
