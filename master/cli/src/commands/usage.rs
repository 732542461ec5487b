//! Usage, statements, prices.

use super::Context;
use crate::Result;
use crate::args::{LedgerArgs, Output, RatesCommand, StatementArgs, UsageArgs};
use crate::output;
use crate::view::{LedgerLineView, RateCardView, StatementView, UsageView};
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::v1;

pub async fn usage(context: &Context, args: UsageArgs) -> Result<()> {
    only_one_format(context, args.csv)?;
    let session = context.session().await?;
    let project = if args.all { String::new() } else { context.project_or_own(&session).await? };
    let ask = v1::QueryUsageRequest {
        project,
        instance: args.instance.clone().unwrap_or_default(),
        start_ms: args.from.map_or(0, |at| at.0),
        end_ms: args.until.map_or(0, |at| at.0),
    };
    let answer = context.ask(session.usage().query_usage(ask)).await?;
    if answer.sums.is_empty() {
        if let Some(name) = args.instance.as_deref().filter(|_| !args.all) {
            // Nothing was used; or there is no such instance, which this says. Who reads bills may not ask.
            if let Err(problems) = context.ask(session.grid().show_instance(context.key(name))).await
                && problems.0.iter().any(|problem| problem.code == codes::NOT_FOUND)
            {
                return Err(problems);
            }
        }
        output::note("no usage was booked for that time yet; nodes report it once a minute unless told otherwise");
    }
    let sums: Vec<UsageView> = answer.sums.into_iter().map(UsageView::from).collect();
    if !args.csv {
        return context.printer.list(&sums);
    }
    let row = |u: &UsageView| {
        let (amount, unknown) = (u.amount.to_string(), u.unknown_windows.to_string());
        csv(&[&u.project, &u.instance, &u.instance_id, &u.meter, &amount, &unknown, &u.unknown_reason])
    };
    let head = csv(&["project", "instance", "instance_id", "meter", "amount", "unknown_windows", "unknown_reason"]);
    context.printer.text(&(head + &sums.iter().map(row).collect::<String>()))
}

pub async fn statement(context: &Context, args: StatementArgs) -> Result<()> {
    only_one_format(context, args.csv)?;
    let session = context.session().await?;
    let project = context.project_or_own(&session).await?;
    let ask = v1::StatementRequest { project, period: args.period.clone().unwrap_or_default() };
    let view = StatementView::from(context.ask(session.usage().show_statement(ask)).await?);
    if view.currency.is_empty() {
        output::note("no prices are set, so nothing costs anything: an operator sets them with `plat rates set`");
    } else if view.lines.iter().any(|line| line.price.is_empty()) {
        output::note("some of this has no price: an operator sets prices with `plat rates set`");
    }
    if !args.csv {
        return context.printer.one(&view);
    }
    let head = csv(&[
        "project",
        "period",
        "closed",
        "instance",
        "instance_id",
        "meter",
        "amount",
        "quantity",
        "unit",
        "price",
        "cost",
        "currency",
        "unknown_windows",
        "adjustment",
    ]);
    let rows = view.lines.iter().map(|l| {
        let (closed, amount) = (view.closed.to_string(), l.amount.to_string());
        let (unknown, adjustment) = (l.unknown_windows.to_string(), l.adjustment.to_string());
        csv(&[
            &view.project,
            &view.period,
            &closed,
            &l.instance,
            &l.instance_id,
            &l.meter,
            &amount,
            &l.quantity,
            &l.unit,
            &l.price,
            &l.cost,
            &view.currency,
            &unknown,
            &adjustment,
        ])
    });
    context.printer.text(&(head + &rows.collect::<String>()))
}

/// --csv is a format of its own.
fn only_one_format(context: &Context, csv: bool) -> Result<()> {
    if csv && context.printer.format != Output::Table {
        return Err(Problem::new(codes::USAGE, "--csv and --output are two formats")
            .fix("leave one of them out")
            .into());
    }
    Ok(())
}

/// The ledger, entry by entry: as CSV a line for each meter, as JSON a line for each entry.
pub async fn ledger(context: &Context, args: LedgerArgs) -> Result<()> {
    let session = context.session().await?;
    let ask = v1::ExportLedgerRequest { node: args.node.unwrap_or_default(), after_sequence: args.after };
    let mut stream = context.ask(session.usage().export_ledger(ask)).await?;
    if matches!(context.printer.format, Output::Table | Output::Wide) {
        context.printer.text(&csv(&LedgerLineView::TITLES))?;
    }
    while let Some(entry) = context.next(&mut stream).await? {
        for line in LedgerLineView::of(entry) {
            context.printer.line(&line, |line| csv(&line.cells().each_ref().map(String::as_str)))?;
        }
    }
    Ok(())
}

/// One line of comma-separated values after RFC 4180. A cell that a spreadsheet would run as a formula is made text.
fn csv(cells: &[&str]) -> String {
    let cell = |cell: &&str| {
        let text = if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { (*cell).to_owned() };
        if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\r\n"
}

pub async fn rates(context: &Context, command: RatesCommand) -> Result<()> {
    let session = context.session().await?;
    let card = match command {
        RatesCommand::Show => context.ask(session.usage().show_rate_card(v1::ShowRateCardRequest { at_ms: 0 })).await?,
        RatesCommand::Set { file } => {
            let text = super::read_text(&file)?;
            let card: RateCardView = serde_saphyr::from_str(&text).map_err(|e| {
                Problem::new(codes::BAD_SYNTAX, "the rate card cannot be read")
                    .because(e)
                    .at(file.display().to_string())
                    .fix("see `plat rates set --help`")
            })?;
            context.ask(session.usage().set_rate_card(v1::RateCard::from(card))).await?
        }
    };
    context.printer.one(&RateCardView::from(card))
}

#[cfg(test)]
mod tests {
    use super::csv;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_is_never_a_formula() {
        assert_eq!(csv(&["a", "b,c", "d\"e", "=1+1"]), "a,\"b,c\",\"d\"\"e\",'=1+1\r\n");
    }
}
