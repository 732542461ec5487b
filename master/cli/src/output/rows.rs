//! How each view is drawn as a line of a table, and in its long form.

use super::{Draw, ago, clean, now, table};
use crate::view::{
    CheckView, ExplanationView, InProject, InstanceView, NodeView, ProblemView, PromiseView, ReleaseView, ServiceView,
};
use plat_model::Timestamp;
use serde_json::Value;
use std::fmt::Write as _;

mod admin;
mod run;

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
        let leaves = self.leaves.as_ref().map(|at| format!("to be destroyed at {at}"));
        let detail = match (&self.problem, self.waiting.first()) {
            (Some(problem), _) => format!("{}: {}", problem.code, problem.what),
            (None, Some(waiting)) => format!("waits for {}", waiting.on),
            (None, None) => leaves.unwrap_or_else(|| self.detail.clone()),
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
            _ if !self.on.is_empty() => format!("shared, in {}", self.on),
            _ => "nowhere yet".into(),
        };
        let _ = writeln!(text, "state     {} for {since} (wished: {})", self.state, self.wish);
        if !self.detail.is_empty() {
            let _ = writeln!(text, "          {}", clean(&self.detail));
        }
        if let Some(leaves) = &self.leaves {
            let _ =
                writeln!(text, "leaves    at {leaves} it is destroyed; `plat undestroy {}` takes that back", self.name);
        }
        let _ = writeln!(text, "release   {} ({})", self.release, short(&self.release_digest));
        let _ = writeln!(text, "place     {place}");
        let _ = writeln!(text, "id        {}, generation {}", self.id, self.generation);
        if let Some(said) = &self.said {
            let how = if said.well { "is well" } else { "is in trouble" };
            let _ = writeln!(text, "says      it {how}: {}", clean(&said.text));
        }
        if !self.parent.is_empty() {
            let _ = writeln!(text, "parent    {}", self.parent);
        }
        for (label, names) in [("children", &self.children), ("shared", &self.shared)] {
            if !names.is_empty() {
                let _ = writeln!(text, "{label:<10}{}", names.join(", "));
            }
        }
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
        let services = self.services.iter().map(|one| (one.name.clone(), service_line(one)));
        text += &pairs("services", &services.collect::<Vec<_>>());
        // Of what does not run nothing is asked.
        let is_asked = !matches!(self.state.as_str(), "stopping" | "stopped" | "destroying");
        let promises = self.promises.iter().map(|p| (p.name.clone(), promise_line(p, now(), is_asked)));
        text += &pairs("promises", &promises.collect::<Vec<_>>());
        text += &pairs("runs", &self.ran.iter().map(run::line).collect::<Vec<_>>());
        text
    }
}

/// How a promise is, in a line; of one that is not asked any more, how it was. When it was checked is not told: checks that
/// say the same as the one before do not travel.
fn promise_line(one: &PromiseView, now: Timestamp, is_asked: bool) -> String {
    let mut line = match (one.holds, is_asked) {
        (true, true) => "holds",
        (false, true) => "does not hold",
        (true, false) => "held when it was asked last",
        (false, false) => "did not hold when it was asked last",
    }
    .to_owned();
    if one.since.is_some() && is_asked {
        let _ = write!(line, " for {}", ago(one.since.as_deref(), now));
    }
    if !one.message.is_empty() {
        let _ = write!(line, ": {}", clean(&one.message));
    }
    line
}

/// How a service is, in a line.
fn service_line(one: &ServiceView) -> String {
    let mut line = format!("{} for {}", one.state, ago(one.since.as_deref(), now()));
    if let Some(pid) = one.pid {
        let _ = write!(line, ", pid {pid}");
    }
    let _ = match (one.kind.as_str(), one.schedule.as_str()) {
        ("oneshot", "") => write!(line, ", one-shot"),
        ("oneshot", schedule) => write!(line, ", runs at {}", clean(schedule)),
        _ => write!(line, ", {} restarts", one.restarts),
    };
    if let Some(next) = &one.next {
        let _ = write!(line, ", next {next}");
    }
    if one.skipped > 0 {
        let _ = write!(line, ", {} times skipped while it ran", one.skipped);
    }
    if !one.last_exit.is_empty() {
        let _ = write!(line, ", last ended: {}", clean(&one.last_exit));
    }
    line
}

impl Draw for InProject<'_> {
    fn titles(wide: bool) -> Vec<&'static str> {
        let titles = InstanceView::titles(wide).into_iter().filter(|title| *title != "PROJECT");
        ["PROJECT"].into_iter().chain(titles).collect()
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let cells = InstanceView::titles(wide).into_iter().zip(self.0.cells(wide));
        let cells = cells.filter(|(title, _)| *title != "PROJECT").map(|(_, cell)| cell);
        [self.0.project.clone()].into_iter().chain(cells).collect()
    }

    fn name(&self) -> String {
        format!("{}/{}", self.0.project, self.0.name)
    }
}

impl Draw for CheckView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["FILE", "RELEASE", "DIGEST"]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        vec![self.file.clone(), self.name.clone(), self.digest.clone()]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> String {
        format!("{} is good: release {}, digest {}\n", self.file, self.name, self.digest)
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
            format!("{installed} of {}{}", self.nodes.len(), if self.all_nodes { ", all to come" } else { "" }),
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
        if self.all_nodes {
            text += "supplied  to every node, those to come included\n";
        } else if rows.is_empty() {
            let _ = writeln!(text, "supplied  to no node: `plat supply {} --all` has it installed", self.name);
        }
        if !rows.is_empty() {
            text += &table(&["NODE", "STATE", "DETAIL"], rows);
        }
        let parameters = self.parameters();
        if !parameters.is_empty() {
            text += "\n";
            text += &table(&["PARAMETER", "TYPE", "DEFAULT", "MEANING"], parameters);
        }
        text
    }
}

impl ReleaseView {
    /// What a request may say, a line for each parameter, those within others by their path.
    fn parameters(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        if let Some(schema) = self.document.as_ref().and_then(|document| document.get("parameters")) {
            parameter_rows(schema, "", &mut rows);
        }
        rows
    }
}

fn parameter_rows(schema: &Value, path: &str, rows: &mut Vec<Vec<String>>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let required = schema.get("required").and_then(Value::as_array);
    for (key, property) in properties {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let is_required = required.is_some_and(|keys| keys.iter().any(|required| required == key));
        let default = match property.get("default") {
            Some(default) => plain(default),
            None if is_required => "required".into(),
            None => "-".into(),
        };
        let meaning = property.get("description").or(property.get("title")).map(plain).unwrap_or_default();
        rows.push(vec![name.clone(), kind(property), default, meaning]);
        parameter_rows(property, &name, rows);
    }
}

/// A property's type with its bounds: `integer 1..100`, `a | b`.
fn kind(property: &Value) -> String {
    if let Some(values) = property.get("enum").and_then(Value::as_array) {
        return values.iter().map(plain).collect::<Vec<_>>().join(" | ");
    }
    let name = match property.get("type") {
        Some(Value::Array(names)) => names.iter().map(plain).collect::<Vec<_>>().join(" | "),
        Some(name) => plain(name),
        None => "any".into(),
    };
    let bound = |key: &str| property.get(key).map(plain);
    match (bound("minimum"), bound("maximum")) {
        (None, None) => name,
        (least, most) => format!("{name} {}..{}", least.unwrap_or_default(), most.unwrap_or_default()),
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
        if let Some(runtime) = &self.runtime {
            let _ = writeln!(text, "runtime   {runtime}");
        }
        let labels = self.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>();
        text += &pairs("labels", &labels);
        let enforced = if self.enforced.is_empty() { "no limits".into() } else { self.enforced.join(" ") };
        let _ = writeln!(text, "enforces  {enforced}");
        self.troubles.iter().for_each(|trouble| text += &problem_lines(trouble));
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
                let name = if r.name.is_empty() { "-".into() } else { r.name.clone() };
                vec![name, short(&r.digest), r.installation.state.clone(), said]
            });
            text += "\n";
            text += &table(&["RELEASE", "DIGEST", "STATE", "DETAIL"], rows.collect());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_releases_parameters_are_told_with_type_default_and_meaning() {
        let schema = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "description": "who it is for"},
            "port": {"type": "integer", "minimum": 1, "maximum": 9, "default": 5},
            "tls": {"type": "object", "properties": {"mode": {"enum": ["on", "off"], "default": "on"}}},
        }});
        let mut rows = Vec::new();
        parameter_rows(&schema, "", &mut rows);
        let lines: Vec<String> = rows.iter().map(|row| row.join("; ")).collect();
        assert_eq!(
            lines,
            [
                "name; string; required; who it is for",
                "port; integer 1..9; 5; ",
                "tls; object; -; ",
                "tls.mode; on | off; on; "
            ]
        );
    }

    #[test]
    fn a_promise_is_told_with_since_when_it_is_so_and_not_with_a_check_that_was_not_the_last() {
        let at = |text: &str| Some(text.to_owned());
        let mut one = PromiseView {
            name: "answers".into(),
            holds: true,
            message: "HTTP 200".into(),
            checked: at("2026-01-01T00:59:00Z"),
            since: at("2026-01-01T00:00:00Z"),
        };
        let now = Timestamp::parse("2026-01-01T03:00:00Z").unwrap();
        assert_eq!(promise_line(&one, now, true), "holds for 3h: HTTP 200");
        assert_eq!(promise_line(&one, now, false), "held when it was asked last: HTTP 200");
        (one.holds, one.since) = (false, None);
        assert_eq!(promise_line(&one, now, true), "does not hold: HTTP 200");
        assert_eq!(promise_line(&one, now, false), "did not hold when it was asked last: HTTP 200");
    }
}
