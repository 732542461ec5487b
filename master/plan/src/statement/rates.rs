//! Rate cards.

use crate::change::Change;
use crate::decision::Decision;
use crate::record::{RateCard, Record};
use crate::state::State;
use plat_model::problem::{Problem, Problems, codes};
use plat_model::time::Period;
use std::collections::BTreeSet;

/// Longest name of a unit, in bytes.
const UNIT_MAX: usize = 63;

/// Sets what use costs from a point in time on. The same card again changes nothing; statements that are closed keep
/// their prices.
///
/// # Errors
/// [`codes::BAD_VALUE`] for each thing that is wrong; [`codes::EXISTS`] if another card begins at the same time.
pub fn set_rate_card(state: &State, card: RateCard) -> Result<Decision<RateCard>, Problems> {
    let mut problems = Problems::default();
    let mut wrong = |what: String| problems.push(Problem::new(codes::BAD_VALUE, what).at("rates"));
    if card.currency.len() != 3 || !card.currency.bytes().all(|b| b.is_ascii_uppercase()) {
        wrong("the currency is not an ISO 4217 code such as EUR".into());
    }
    let mut meters = BTreeSet::new();
    for rate in &card.rates {
        if !meters.insert(rate.meter) {
            wrong(format!("{} has two rates", rate.meter));
        }
        if rate.per == 0 {
            wrong(format!("a unit of {} is nothing of it", rate.meter));
        }
        if rate.unit.is_empty() || rate.unit.len() > UNIT_MAX || rate.unit.chars().any(char::is_control) {
            wrong(format!("the unit of {} has no name of 1 to {UNIT_MAX} bytes", rate.meter));
        }
    }
    match state.rate_cards.get(&card.from) {
        Some(present) if present == &card => return problems.none_or(Decision::nothing(card)),
        Some(_) => problems.push(
            Problem::new(codes::EXISTS, format!("another rate card begins at {}", card.from))
                .fix("let this one begin later"),
        ),
        None => {}
    }
    problems.none_or(Decision::new(vec![Change::put(Record::RateCard(card.clone()))], Vec::new(), card))
}

/// The card that a period's statement uses: the newest from its first instant or before, else the first within it.
pub fn card_for(state: &State, period: Period) -> Option<&RateCard> {
    let window = period.window();
    let before = state.rate_cards.range(..=window.start).next_back();
    before.or_else(|| state.rate_cards.range(window.start..window.end).next()).map(|(_, card)| card)
}
