//! What a project used in a month, and what it costs. Integers only; prices are in millionths of the currency.
//!
//! A statement uses one rate card: the newest from the month's first instant or before; if there is none, the first
//! that begins within the month. A card that begins later in a month counts from the next month on. Without a card,
//! or a rate for a meter, use costs nothing and the statement says so: a price is never invented.

use crate::change::Change;
use crate::decision::Decision;
use crate::record::{ClosedStatement, Key, MeterSum, Rate, Record, Sum};
use crate::state::State;
use plat_model::id::{InstanceId, InstanceName, ProjectName};
use plat_model::problem::{Problem, codes};
use plat_model::time::{Period, Timestamp};
use plat_model::usage::Meter;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

mod document;
mod money;
mod rates;

pub use money::{decimal, parse_price};
pub use rates::{card_for, set_rate_card};

/// How long after its end a period is closed: late usage comes in until then.
pub const CLOSED_AFTER: Duration = Duration::from_secs(3 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub project: ProjectName,
    pub period: Period,
    /// It does not change any more.
    pub closed: bool,
    /// ISO 4217 code; empty without a rate card.
    pub currency: String,
    pub lines: Vec<Line>,
    /// Decimal, in the currency.
    pub total: String,
    /// What a reader must know, e.g. that a meter has no price.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub instance: InstanceId,
    pub name: InstanceName,
    pub meter: Meter,
    /// In the meter's unit.
    pub amount: u64,
    /// What is priced, e.g. `core-hour`; the meter's name where nothing is.
    pub unit: String,
    /// Decimal, in units.
    pub quantity: String,
    /// Decimal, per unit; empty without a price.
    pub price: String,
    /// Decimal, rounded to a millionth, halves up.
    pub cost: String,
    pub unknown_windows: u64,
    /// Late use of a period that was closed.
    pub adjustment: bool,
}

/// The statement of a project for a period: the closed one, or what it would be now.
///
/// # Errors
/// [`codes::STORE_VERSION`] or [`codes::STORE_FAILED`] if the closed one cannot be read: it is never computed again, for
/// it was told to somebody already.
pub fn statement(state: &State, project: &ProjectName, period: Period) -> Result<Statement, Problem> {
    let key = (project.clone(), period);
    if let Some(closed) = state.statements.get(&key) {
        return document::read(closed);
    }
    let card = card_for(state, period);
    let mut total = 0u128;
    let (mut lines, mut unpriced) = (Vec::new(), BTreeSet::new());
    for sum in state.sums.get(&key).into_iter().flat_map(|sums| sums.values()) {
        for (meter, used) in &sum.meters {
            let rate = card.and_then(|card| card.rates.iter().find(|rate| rate.meter == *meter));
            if rate.is_none() {
                unpriced.insert(meter.name());
            }
            for part in parts(used) {
                let (line, cost) = line(sum, *meter, rate, part);
                total = total.saturating_add(cost);
                lines.push(line);
            }
        }
    }
    let mut notes = Vec::new();
    match card {
        None => notes.push("no rate card is set: nothing has a price".into()),
        Some(_) if !unpriced.is_empty() => {
            let meters: Vec<&str> = unpriced.into_iter().collect();
            notes.push(format!("without a price: {}", meters.join(", ")));
        }
        Some(_) => {}
    }
    if lines.iter().any(|line| line.unknown_windows > 0) {
        notes.push("some windows could not be metered; they are counted, and not in the amounts".into());
    }
    let currency = card.map_or(String::new(), |card| card.currency.clone());
    Ok(Statement { project: project.clone(), period, closed: false, currency, lines, total: decimal(total), notes })
}

/// An amount, how many windows are unknown, and whether it is late use.
type Part = (u64, u64, bool);

/// A meter's use: that of the period itself, and what came late from closed ones.
fn parts(used: &MeterSum) -> impl Iterator<Item = Part> + use<> {
    let own = (used.amount.saturating_sub(used.adjustment), used.unknown_windows, false);
    let late = (used.adjustment > 0).then_some((used.adjustment, 0, true));
    let only_late = late.is_some() && own.0 == 0 && own.1 == 0;
    (!only_late).then_some(own).into_iter().chain(late)
}

/// One line with its cost in millionths.
fn line(sum: &Sum, meter: Meter, rate: Option<&Rate>, (amount, unknown_windows, adjustment): Part) -> (Line, u128) {
    let mut line = Line {
        instance: sum.instance.clone(),
        name: sum.name.clone(),
        meter,
        amount,
        unit: meter.name().into(),
        quantity: amount.to_string(),
        price: String::new(),
        cost: "0".into(),
        unknown_windows,
        adjustment,
    };
    let Some(rate) = rate else { return (line, 0) };
    let per = u128::from(rate.per.max(1));
    let rounded = |all: u128| (all + per / 2) / per;
    let cost = rounded(u128::from(amount) * u128::from(rate.price_micros));
    line.unit = rate.unit.clone();
    line.quantity = decimal(rounded(u128::from(amount) * 1_000_000));
    line.price = decimal(u128::from(rate.price_micros));
    line.cost = decimal(cost);
    (line, cost)
}

/// Closes a period of a project: its statement does not change any more. Use that comes later counts into the present
/// period. A period that is closed already stays as it is.
///
/// # Errors
/// [`codes::BAD_VALUE`] before the period has ended.
pub fn close(
    state: &State,
    project: &ProjectName,
    period: Period,
    now: Timestamp,
) -> Result<Decision<Statement>, Problem> {
    let statement = statement(state, project, period)?;
    if statement.closed {
        return Ok(Decision::nothing(statement));
    }
    if period.window().end > now {
        return Err(Problem::new(codes::BAD_VALUE, format!("{period} cannot be closed yet"))
            .because(format!("it ends at {}", period.window().end)));
    }
    let statement = Statement { closed: true, ..statement };
    let document = document::write(&statement)?;
    let closed = ClosedStatement { project: project.clone(), period, closed: now, document };
    // A booking in between makes this conflict; so does a new rate card.
    let tails = state.nodes.keys().map(|node| Key::Tail(node.clone()));
    let cards = state.rate_cards.keys().map(|from| Key::RateCard(*from));
    let read = tails.chain(cards).collect();
    Ok(Decision::new(vec![Change::put(Record::Statement(closed))], read, statement))
}

/// The periods that are to be closed at `now`.
pub fn due(state: &State, now: Timestamp) -> Vec<(ProjectName, Period)> {
    let over = |period: &Period| period.window().end.plus(CLOSED_AFTER) <= now;
    let open = state.sums.keys().filter(|key| over(&key.1) && !state.statements.contains_key(*key));
    open.cloned().collect()
}
