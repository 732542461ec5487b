//! UsageService: wire → model → one verb of the grid → wire.

use super::{Answers, answers, caller, said, status};
use crate::grid::{Grid, Query, UsageSum};
use plat_master_plan::record::{Rate, RateCard};
use plat_master_plan::statement::{Line, decimal, parse_price};
use plat_model::id::{InstanceName, NodeId, ProjectName};
use plat_model::problem::codes;
use plat_model::time::Period;
use plat_model::usage::{LedgerEntry, Meter};
use plat_model::{Problem, Problems, Timestamp};
use plat_wire::v1;
use plat_wire::v1::usage_service_server::UsageService;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) struct Service(pub Arc<Grid>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl UsageService for Service {
    async fn query_usage(&self, request: Request<v1::QueryUsageRequest>) -> Answer<v1::QueryUsageResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let query = Query {
            project: said(&ask.project, ProjectName::parse).map_err(status)?,
            instance: said(&ask.instance, InstanceName::parse).map_err(status)?,
            start: at(ask.start_ms),
            end: at(ask.end_ms),
        };
        let sums = self.0.usage(&caller, &query).await.map_err(status)?;
        Ok(Response::new(v1::QueryUsageResponse {
            sums: sums.into_iter().map(usage_sum).collect(),
            start_ms: ask.start_ms,
            end_ms: if ask.end_ms == 0 { self.0.now().0 } else { ask.end_ms },
        }))
    }

    async fn show_statement(&self, request: Request<v1::StatementRequest>) -> Answer<v1::Statement> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let project = said(&ask.project, ProjectName::parse).map_err(status)?;
        let period = match ask.period.as_str() {
            "" => None,
            text => Some(Period::parse(text).map_err(|why| {
                status(
                    Problem::new(codes::BAD_VALUE, "the period is not a month").because(plat_model::id::shorten(&why)),
                )
            })?),
        };
        let statement = self.0.statement(&caller, project.as_ref(), period).await.map_err(status)?;
        Ok(Response::new(v1::Statement {
            project: statement.project.to_string(),
            period: statement.period.to_string(),
            closed: statement.closed,
            currency: statement.currency,
            lines: statement.lines.into_iter().map(line).collect(),
            total: statement.total,
            notes: statement.notes,
        }))
    }

    async fn set_rate_card(&self, request: Request<v1::RateCard>) -> Answer<v1::RateCard> {
        let caller = caller(&request)?;
        let card = read_card(request.into_inner(), self.0.now()).map_err(status)?;
        Ok(Response::new(card_out(&self.0.set_rate_card(&caller, &card).await.map_err(status)?)))
    }

    async fn show_rate_card(&self, request: Request<v1::ShowRateCardRequest>) -> Answer<v1::RateCard> {
        let caller = caller(&request)?;
        let card = self.0.rate_card(&caller, at(request.into_inner().at_ms)).await.map_err(status)?;
        Ok(Response::new(card_out(&card)))
    }

    type ExportLedgerStream = Answers<v1::LedgerEntry>;
    async fn export_ledger(&self, request: Request<v1::ExportLedgerRequest>) -> Answer<Self::ExportLedgerStream> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let node = said(&ask.node, NodeId::parse).map_err(status)?;
        let stream = self.0.export_ledger(&caller, node, ask.after_sequence).await.map_err(status)?;
        Ok(Response::new(answers(stream, |entry: LedgerEntry| (&entry).into())))
    }
}

fn at(ms: i64) -> Option<Timestamp> {
    (ms > 0).then_some(Timestamp(ms))
}

fn usage_sum(sum: UsageSum) -> v1::UsageSum {
    v1::UsageSum {
        project: sum.project.to_string(),
        instance: sum.instance.to_string(),
        instance_name: sum.name,
        meter: sum.meter.to_string(),
        amount: sum.sum.amount,
        unknown_windows: sum.sum.unknown_windows,
        unknown_reason: sum.sum.unknown_reason,
    }
}

fn line(line: Line) -> v1::StatementLine {
    v1::StatementLine {
        instance: line.instance.to_string(),
        instance_name: line.name.to_string(),
        meter: line.meter.to_string(),
        amount: line.amount,
        unit: line.unit,
        quantity: line.quantity,
        price: line.price,
        cost: line.cost,
        unknown_windows: line.unknown_windows,
        adjustment: line.adjustment,
    }
}

fn read_card(wire: v1::RateCard, now: Timestamp) -> Result<RateCard, Problems> {
    let mut problems = Problems::default();
    let mut rates = Vec::new();
    if wire.rates.len() > Meter::ALL.len() {
        return Err(Problem::new(codes::TOO_LARGE, "a rate card has more rates than there are meters").into());
    }
    for (n, rate) in wire.rates.into_iter().enumerate() {
        let place = format!("rates[{n}]");
        let meter = Meter::parse(&rate.meter).ok_or_else(|| {
            let names = Meter::ALL.map(Meter::name).join(", ");
            Problem::new(codes::BAD_VALUE, format!("`{}` is not a meter", plat_model::id::shorten(&rate.meter)))
                .fix(format!("use one of {names}"))
                .at(format!("{place}.meter"))
        });
        let price = parse_price(&rate.price).map_err(|problem| problem.at(format!("{place}.price")));
        if let (Some(meter), Some(price_micros)) = (problems.keep(meter), problems.keep(price)) {
            rates.push(Rate { meter, unit: rate.unit, per: rate.per, price_micros });
        }
    }
    let from = at(wire.from_ms).unwrap_or(now);
    problems.none_or(RateCard { currency: wire.currency, from, rates })
}

fn card_out(card: &RateCard) -> v1::RateCard {
    let rates = card.rates.iter().map(|rate| v1::Rate {
        meter: rate.meter.to_string(),
        unit: rate.unit.clone(),
        per: rate.per,
        price: decimal(rate.price_micros.into()),
    });
    v1::RateCard { currency: card.currency.clone(), from_ms: card.from.0, rates: rates.collect() }
}
