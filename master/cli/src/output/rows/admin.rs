//! How what operators and billing see is drawn.

use super::super::{Draw, clean, table};
use super::or_dash;
use crate::view::{AuditView, MeView, NewTokenView, RateCardView, StatementView, TokenView, UsageView, UserView};
use std::fmt::Write as _;

/// An amount of a meter as people read it, to three digits.
fn amount(meter: &str, amount: u64) -> String {
    let exact = amount as f64;
    let steps: &[(f64, &str)] = if meter.ends_with("byte-seconds") {
        &[
            (1024.0 * 1024.0 * 1024.0 * 3600.0, "GiB-hours"),
            (1024.0 * 1024.0 * 3600.0, "MiB-hours"),
            (1.0, "byte-seconds"),
        ]
    } else if meter.ends_with("micros") {
        &[(3.6e9, "hours"), (6e7, "minutes"), (1e6, "seconds"), (1.0, "microseconds")]
    } else if meter.ends_with("millis") {
        &[(3.6e6, "hours"), (6e4, "minutes"), (1e3, "seconds"), (1.0, "milliseconds")]
    } else if meter.contains("bytes") {
        &[(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB"), (1.0, "bytes")]
    } else {
        return amount.to_string();
    };
    let (unit, name) = steps.iter().find(|(unit, _)| exact >= *unit).unwrap_or(&steps[steps.len() - 1]);
    let value = exact / unit;
    let digits = if *unit == 1.0 || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {name}")
}

impl Draw for TokenView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["ID", "FOR", "STATE", "CREATED", "EXPIRES"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        let (created, expires) = (or_dash(self.created.as_deref()), or_dash(self.expires.as_deref()));
        vec![self.id.clone(), clean(&self.purpose), self.state.clone(), created, expires]
    }
    fn name(&self) -> String {
        self.id.clone()
    }
}

impl Draw for NewTokenView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["TOKEN"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        vec![self.token.clone()]
    }
    fn name(&self) -> String {
        self.file.as_ref().unwrap_or(&self.token).clone()
    }
    /// The token alone, so that it can be piped into a file.
    fn details(&self) -> String {
        format!("{}\n", self.token)
    }
}

impl Draw for MeView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["USER", "GRID", "ROLE", "PROJECT", "MASTER", "EXPIRES"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        let project = or_dash(Some(&self.project));
        let (user, grid, role, master) = (&self.user, &self.grid, &self.role, &self.master_version);
        vec![user.clone(), grid.clone(), role.clone(), project, master.clone(), self.expires.to_string()]
    }
    fn name(&self) -> String {
        self.user.clone()
    }
}

impl Draw for UserView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["NAME", "ROLE", "PROJECT", "STATE"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        let state = if self.revoked { "revoked" } else { "good" };
        vec![self.name.clone(), self.role.clone(), or_dash(Some(&self.project)), state.into()]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Draw for UsageView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["PROJECT", "INSTANCE", "METER", "AMOUNT", "UNKNOWN"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        let unknown = match self.unknown_windows {
            0 => "-".into(),
            n => format!("{n} windows: {}", clean(&self.unknown_reason)),
        };
        vec![self.project.clone(), self.instance.clone(), self.meter.clone(), amount(&self.meter, self.amount), unknown]
    }
    fn name(&self) -> String {
        format!("{}/{}", self.instance, self.meter)
    }
}

impl Draw for StatementView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["INSTANCE", "METER", "QUANTITY", "UNIT", "PRICE", "COST", "NOTE"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        let mut cells = vec![String::new(); 7];
        cells[5] = self.total.clone();
        cells
    }
    fn name(&self) -> String {
        format!("{}/{}", self.project, self.period)
    }
    fn details(&self) -> String {
        let closed = if self.closed { "closed" } else { "open: it still changes" };
        let mut text = format!("{}  {}  ({closed})\n", self.project, self.period);
        let rows = self.lines.iter().map(|l| {
            let mut notes = Vec::new();
            if l.adjustment {
                notes.push("late use of a closed month".to_owned());
            }
            if l.unknown_windows > 0 {
                notes.push(format!("{} windows unknown", l.unknown_windows));
            }
            vec![
                l.instance.clone(),
                l.meter.clone(),
                l.quantity.clone(),
                l.unit.clone(),
                l.price.clone(),
                l.cost.clone(),
                notes.join("; "),
            ]
        });
        text += &table(&Self::titles(false), rows.collect());
        let _ = writeln!(text, "total     {} {}", self.total, self.currency);
        for note in &self.notes {
            let _ = writeln!(text, "note      {}", clean(note));
        }
        text
    }
}

impl Draw for RateCardView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["METER", "UNIT", "PER", "PRICE"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        vec![String::new(), String::new(), String::new(), self.currency.clone()]
    }
    fn name(&self) -> String {
        self.from.to_string()
    }
    fn details(&self) -> String {
        let rows = self.rates.iter().map(|r| vec![r.meter.clone(), r.unit.clone(), r.per.to_string(), r.price.clone()]);
        format!("from {}, in {}\n{}", self.from, self.currency, table(&Self::titles(false), rows.collect()))
    }
}

impl Draw for AuditView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["NUMBER", "AT", "WHO", "FROM", "DID", "TO", "OUTCOME"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        let at = or_dash(self.at.as_deref());
        let text = [&self.who, &self.from, &self.verb, &self.subject, &self.outcome].map(|t| clean(t));
        [vec![self.number.to_string(), at], text.to_vec()].concat()
    }
    fn name(&self) -> String {
        self.number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::amount;

    #[test]
    fn amounts_are_told_in_units_that_people_read() {
        assert_eq!(amount("cpu-micros", 5_400_000_000), "1.50 hours");
        assert_eq!(amount("cpu-micros", 900), "900 microseconds");
        assert_eq!(amount("memory-byte-seconds", 2 << 40), "583 MiB-hours");
        assert_eq!(amount("network-bytes", 1536), "1.50 KiB");
        assert_eq!(amount("something-new", 7), "7");
    }
}
