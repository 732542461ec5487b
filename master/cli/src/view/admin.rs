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
    /// Empty if it was written to a file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub expires: Option<String>,
}

impl From<v1::CreateTokenResponse> for NewTokenView {
    fn from(t: v1::CreateTokenResponse) -> Self {
        Self { id: t.id, token: t.token, file: None, expires: time(t.expires_ms) }
    }
}

impl NewTokenView {
    /// One whose text is in a file and is not told.
    pub fn in_file(t: v1::CreateTokenResponse, file: &std::path::Path) -> Self {
        Self { token: String::new(), file: Some(file.display().to_string()), ..Self::from(t) }
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
    /// When the credentials end, unless they are used before.
    pub expires: plat_model::Timestamp,
}

impl MeView {
    pub fn new(me: v1::WhoAmIResponse, expires: plat_model::Timestamp) -> Self {
        let (role, project) = (me.role, me.project);
        Self { user: me.user, grid: me.grid, role, project, master_version: me.master_version, expires }
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

/// One reading in the ledger, with the entry that it was booked in.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerLineView {
    pub node: String,
    pub sequence: u64,
    pub booked: Option<String>,
    /// Over the entry's lines and the entry before it.
    pub hash: String,
    pub project: String,
    pub instance_id: String,
    pub partition: String,
    pub start: Option<String>,
    pub end: Option<String>,
    pub meter: String,
    /// Nothing if it could not be read, which `unknown` gives a reason for.
    pub amount: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unknown: String,
}

impl LedgerLineView {
    pub const TITLES: [&'static str; 12] = [
        "node",
        "sequence",
        "booked",
        "hash",
        "project",
        "instance_id",
        "partition",
        "start",
        "end",
        "meter",
        "amount",
        "unknown",
    ];

    /// All readings of an entry.
    pub fn of(entry: v1::LedgerEntry) -> Vec<Self> {
        let mut lines = Vec::new();
        for line in entry.lines {
            let record = line.record.unwrap_or_default();
            for reading in record.amounts {
                let (amount, unknown) = match reading.reading {
                    Some(v1::amount::Reading::Known(amount)) => (Some(amount), String::new()),
                    Some(v1::amount::Reading::Unknown(why)) => (None, why),
                    None => (None, "nothing was said".to_owned()),
                };
                lines.push(Self {
                    node: entry.node.clone(),
                    sequence: entry.sequence,
                    booked: time(entry.booked_ms),
                    hash: entry.hash.clone(),
                    project: line.project.clone(),
                    instance_id: record.instance.clone(),
                    partition: record.partition.clone(),
                    start: time(record.start_ms),
                    end: time(record.end_ms),
                    meter: reading.meter,
                    amount,
                    unknown,
                });
            }
        }
        lines
    }

    /// As many as [`Self::TITLES`].
    pub fn cells(&self) -> [String; 12] {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            self.node.clone(),
            self.sequence.to_string(),
            text(&self.booked),
            self.hash.clone(),
            self.project.clone(),
            self.instance_id.clone(),
            self.partition.clone(),
            text(&self.start),
            text(&self.end),
            self.meter.clone(),
            self.amount.map(|amount| amount.to_string()).unwrap_or_default(),
            self.unknown.clone(),
        ]
    }
}
