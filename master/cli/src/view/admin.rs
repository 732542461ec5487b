//! What operators and billing see.

use super::time;
use plat_wire::v1;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize)]
pub struct TokenView {
    pub id: String,
    pub purpose: String,
    pub created: Option<String>,
    pub expires: Option<String>,
    /// `open`, `used`, `expired` or `revoked`.
    pub state: String,
}

impl From<v1::TokenView> for TokenView {
    fn from(t: v1::TokenView) -> Self {
        let state = match (t.revoked, t.used) {
            (true, _) => "revoked",
            (false, true) => "used",
            (false, false) if t.expires_ms <= crate::output::now().0 => "expired",
            (false, false) => "open",
        };
        let (created, expires) = (time(t.created_ms), time(t.expires_ms));
        Self { id: t.id, purpose: t.purpose, created, expires, state: state.into() }
    }
}

/// A token just made; the only time that it is shown.
#[derive(Clone, Serialize)]
pub struct NewTokenView {
    pub id: String,
    pub token: String,
    pub expires: Option<String>,
}

impl From<v1::CreateTokenResponse> for NewTokenView {
    fn from(t: v1::CreateTokenResponse) -> Self {
        Self { id: t.id, token: t.token, expires: time(t.expires_ms) }
    }
}

/// Who a profile is.
#[derive(Debug, Clone, Serialize)]
pub struct MeView {
    pub user: String,
    pub grid: String,
    pub role: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    pub master_version: String,
}

impl From<v1::WhoAmIResponse> for MeView {
    fn from(me: v1::WhoAmIResponse) -> Self {
        let (role, project) = (me.role, me.project);
        Self { user: me.user, grid: me.grid, role, project, master_version: me.master_version }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct UserView {
    pub name: String,
    pub role: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    pub revoked: bool,
}

impl From<v1::UserView> for UserView {
    fn from(u: v1::UserView) -> Self {
        Self { name: u.user, role: u.role, project: u.project, revoked: u.revoked }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct UsageView {
    pub project: String,
    pub instance: String,
    pub instance_id: String,
    pub meter: String,
    pub amount: u64,
    /// Windows in which the meter could not be read: they are not in the amount, and not zero either.
    pub unknown_windows: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unknown_reason: String,
}

impl From<v1::UsageSum> for UsageView {
    fn from(u: v1::UsageSum) -> Self {
        Self {
            project: u.project,
            instance: u.instance_name,
            instance_id: u.instance,
            meter: u.meter,
            amount: u.amount,
            unknown_windows: u.unknown_windows,
            unknown_reason: u.unknown_reason,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct StatementView {
    pub project: String,
    pub period: String,
    pub closed: bool,
    pub currency: String,
    pub lines: Vec<StatementLineView>,
    pub total: String,
    /// What a reader must know, e.g. that a meter has no price.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct StatementLineView {
    pub instance: String,
    pub instance_id: String,
    pub meter: String,
    pub amount: u64,
    pub quantity: String,
    pub unit: String,
    pub price: String,
    pub cost: String,
    pub unknown_windows: u64,
    /// Late use of a period that was closed already.
    pub adjustment: bool,
}

impl From<v1::Statement> for StatementView {
    fn from(s: v1::Statement) -> Self {
        Self {
            project: s.project,
            period: s.period,
            closed: s.closed,
            currency: s.currency,
            lines: s
                .lines
                .into_iter()
                .map(|l| StatementLineView {
                    instance: l.instance_name,
                    instance_id: l.instance,
                    meter: l.meter,
                    amount: l.amount,
                    quantity: l.quantity,
                    unit: l.unit,
                    price: l.price,
                    cost: l.cost,
                    unknown_windows: l.unknown_windows,
                    adjustment: l.adjustment,
                })
                .collect(),
            total: s.total,
            notes: s.notes,
        }
    }
}

/// Prices, as they are printed and as they are read from a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateCardView {
    pub currency: String,
    /// From when on they hold.
    pub from: plat_model::Timestamp,
    pub rates: Vec<RateView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateView {
    pub meter: String,
    pub unit: String,
    pub per: u64,
    pub price: String,
}

impl From<v1::RateCard> for RateCardView {
    fn from(card: v1::RateCard) -> Self {
        Self {
            currency: card.currency,
            from: plat_model::Timestamp(card.from_ms),
            rates: card
                .rates
                .into_iter()
                .map(|r| RateView { meter: r.meter, unit: r.unit, per: r.per, price: r.price })
                .collect(),
        }
    }
}

impl From<RateCardView> for v1::RateCard {
    fn from(card: RateCardView) -> Self {
        Self {
            currency: card.currency,
            from_ms: card.from.0,
            rates: card
                .rates
                .into_iter()
                .map(|r| v1::Rate { meter: r.meter, unit: r.unit, per: r.per, price: r.price })
                .collect(),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct AuditView {
    pub number: u64,
    pub at: Option<String>,
    pub who: String,
    pub from: String,
    pub verb: String,
    pub subject: String,
    pub outcome: String,
}

impl From<v1::AuditEntry> for AuditView {
    fn from(e: v1::AuditEntry) -> Self {
        Self {
            number: e.number,
            at: time(e.at_ms),
            who: e.who,
            from: e.from,
            verb: e.verb,
            subject: e.subject,
            outcome: e.outcome,
        }
    }
}
