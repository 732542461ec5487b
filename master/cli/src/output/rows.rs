//! How each view is drawn as a line of a table, and in its long form.

use super::{Draw, ago, clean, now, table};
use crate::view::{
    AuditView, ExplanationView, InstanceView, MeView, NewTokenView, NodeView, ProblemView, RateCardView, ReleaseView,
    StatementView, TokenView, UsageView, UserView,
};
use serde_json::Value;
use std::fmt::Write as _;

fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text),
        other => other.to_string(),
    }
}

/// Pairs under each other, the keys aligned.
fn pairs(title: &str, pairs: &[(String, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let lines: String = pairs.iter().map(|(key, value)| format!("  {key:<width$}  {value}\n")).collect();
    if lines.is_empty() { String::new() } else { format!("{title}\n{lines}") }
}

fn problem_lines(problem: &ProblemView) -> String {
    let mut text = format!("problem   {}: {}\n", problem.code, clean(&problem.what));
    for (label, value) in [("because", &problem.why), ("try", &problem.todo)] {
        if !value.is_empty() {
            let _ = writeln!(text, "  {label:<8}{}", clean(value).replace('\n', "\n          "));
        }
    }
    text
}

impl Draw for InstanceView {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["NAME", "RELEASE", "STATE", "NODE", "SINCE", "DETAIL"];
        if wide {
            titles.extend(["PROJECT", "WISH", "PARTITION", "ID"]);
        }
        titles
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let detail = match (&self.problem, self.waiting.first()) {
            (Some(problem), _) => format!("{}: {}", problem.code, problem.what),
            (None, Some(waiting)) => format!("waits for {}", waiting.on),
            (None, None) => self.detail.clone(),
        };
        let detail = detail.lines().next().unwrap_or_default().to_owned();
        let mut cells = vec![
            self.name.clone(),
            self.release.clone(),
            self.state.clone(),
            or_dash(self.node.as_deref()),
            ago(self.since.as_deref().or(self.created.as_deref()), now()),
            detail,
        ];
        if wide {
            cells.extend([
                self.project.clone(),
                self.wish.clone(),
                or_dash(self.partition.as_deref()),
                self.id.clone(),
            ]);
        }
        cells
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> String {
        let mut text = format!("{}/{}\n", self.project, self.name);
        let since = ago(self.since.as_deref(), now());
        let place = match (&self.node, &self.partition) {
            (Some(node), Some(partition)) => format!("{node}, partition {partition}"),
            _ => "nowhere yet".into(),
        };
        let _ = writeln!(text, "state     {} for {since} (wished: {})", self.state, self.wish);
        if !self.detail.is_empty() {
            let _ = writeln!(text, "          {}", clean(&self.detail));
        }
        let _ = writeln!(text, "release   {} ({})", self.release, short(&self.release_digest));
        let _ = writeln!(text, "place     {place}");
        let _ = writeln!(text, "id        {}, generation {}", self.id, self.generation);
        for waiting in &self.waiting {
            let _ =
                writeln!(text, "waits     for {} since {}", clean(&waiting.on), ago(waiting.since.as_deref(), now()));
            if !waiting.todo.is_empty() {
                let _ = writeln!(text, "  try     {}", clean(&waiting.todo));
            }
        }
        if let Some(problem) = &self.problem {
            text += &problem_lines(problem);
        }
        if let Some(problem) = self.installation.as_ref().and_then(|i| i.problem.as_ref()) {
            text += &problem_lines(problem);
        }
        let all =
            |map: &serde_json::Map<String, Value>| map.iter().map(|(k, v)| (clean(k), plain(v))).collect::<Vec<_>>();
        text += &pairs("parameters", &all(&self.parameters));
        text += &pairs("connection", &all(&self.connection));
        let services = self.services.iter().map(|s| {
            let pid = s.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
            let exit =
                if s.last_exit.is_empty() { String::new() } else { format!(", last ended: {}", clean(&s.last_exit)) };
            let since = ago(s.since.as_deref(), now());
            (s.name.clone(), format!("{} for {since}{pid}, {} restarts{exit}", s.state, s.restarts))
        });
        text += &pairs("services", &services.collect::<Vec<_>>());
        let promises = self.promises.iter().map(|p| {
            let holds = if p.holds { "holds" } else { "does not hold" };
            let message = if p.message.is_empty() { String::new() } else { format!(": {}", clean(&p.message)) };
            (p.name.clone(), format!("{holds}, checked {} ago{message}", ago(p.checked.as_deref(), now())))
        });
        text += &pairs("promises", &promises.collect::<Vec<_>>());
        text
    }
}

impl Draw for ExplanationView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["NODE", "CHOSEN", "WHY"]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        vec![or_dash(self.instance.node.as_deref()), self.instance.state.clone(), self.instance.detail.clone()]
    }

    fn name(&self) -> String {
        self.instance.name.clone()
    }

    fn details(&self) -> String {
        let rows = self
            .nodes
            .iter()
            .map(|v| vec![v.node.clone(), if v.chosen { "yes" } else { "no" }.into(), v.reasons.join("; ")]);
        let rows: Vec<_> = rows.collect();
        let nodes = if rows.is_empty() {
            "no node has been enrolled: `plat token create` makes a token for one\n".into()
        } else {
            table(&Self::titles(false), rows)
        };
        format!("{}\n{nodes}", self.instance.details())
    }
}

impl Draw for ReleaseView {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["NAME", "DIGEST", "ADDED", "INSTANCES", "INSTALLED ON", "TITLE"];
        if wide {
            titles.push("FULL DIGEST");
        }
        titles
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let installed = self.nodes.iter().filter(|n| n.state == "installed").count();
        let mut cells = vec![
            self.name.clone(),
            short(&self.digest),
            ago(self.added.as_deref(), now()),
            self.instances.to_string(),
            format!("{installed} of {}", self.nodes.len()),
            clean(&self.title),
        ];
        if wide {
            cells.push(self.digest.clone());
        }
        cells
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> String {
        let mut text = format!("{}  {}\ndigest    {}\n", self.name, clean(&self.title), self.digest);
        let _ = writeln!(text, "instances {}", self.instances);
        let rows = self.nodes.iter().map(|n| {
            let said = n.problem.as_ref().map_or(n.progress.clone(), |p| format!("{}: {} ({})", p.code, p.what, p.why));
            vec![n.node.clone(), n.state.clone(), said]
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            let _ = writeln!(text, "supplied to no node: `plat supply {} --all` has it installed", self.name);
        } else {
            text += &table(&["NODE", "STATE", "DETAIL"], rows);
        }
        text
    }
}

impl Draw for NodeView {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["NAME", "STATE", "SEEN", "PARTITIONS", "FREE", "LABELS"];
        if wide {
            titles.extend(["ENROLLED", "GENERATION"]);
        }
        titles
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let free = self.partitions.iter().filter(|p| p.instance.is_none()).count();
        let labels = self.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
        let mut cells = vec![
            self.name.clone(),
            self.state.clone(),
            ago(self.last_seen.as_deref(), now()),
            self.partitions.len().to_string(),
            free.to_string(),
            labels,
        ];
        if wide {
            cells.push(ago(self.enrolled.as_deref(), now()));
            cells.push(format!("{} of {}", self.generation_reported, self.generation_desired));
        }
        cells
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> String {
        let mut text = format!("{}  {}\n", self.name, self.state);
        let _ = writeln!(text, "seen      {} ago", ago(self.last_seen.as_deref(), now()));
        let labels = self.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>();
        text += &pairs("labels", &labels);
        let rows = self.partitions.iter();
        let rows = rows.map(|p| vec![p.name.clone(), or_dash(p.instance.as_deref()), p.addresses.join(" ")]).collect();
        text += &table(&["PARTITION", "INSTANCE", "ADDRESSES"], rows);
        if !self.releases.is_empty() {
            let rows = self.releases.iter().map(|r| {
                let said = r
                    .installation
                    .problem
                    .as_ref()
                    .map_or(r.installation.progress.clone(), |p| format!("{}: {}", p.code, p.what));
                vec![short(&r.digest), r.installation.state.clone(), said]
            });
            text += "\n";
            text += &table(&["RELEASE", "STATE", "DETAIL"], rows.collect());
        }
        text
    }
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
        self.token.clone()
    }
    /// The token alone, so that it can be piped into a file.
    fn details(&self) -> String {
        format!("{}\n", self.token)
    }
}

impl Draw for MeView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["USER", "GRID", "ROLE", "PROJECT", "MASTER"]
    }
    fn cells(&self, _: bool) -> Vec<String> {
        let project = or_dash(Some(&self.project));
        vec![self.user.clone(), self.grid.clone(), self.role.clone(), project, self.master_version.clone()]
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
        vec![self.project.clone(), self.instance.clone(), self.meter.clone(), self.amount.to_string(), unknown]
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
