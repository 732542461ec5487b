//! Printing: one list or one thing, in the format that was asked for. Results go to standard output, all else to
//! standard error. The only place of this crate that prints results.

use crate::Result;
use crate::args::Output;
use comfy_table::{ContentArrangement, Table, presets};
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

mod rows;

/// How a view is drawn.
pub trait Draw: Serialize {
    /// Column titles; more of them when `wide`.
    fn titles(wide: bool) -> Vec<&'static str>;
    /// One line of the table, as many cells as titles.
    fn cells(&self, wide: bool) -> Vec<String>;
    /// What `-o name` prints.
    fn name(&self) -> String;
    /// The long form that `show` prints: lines of text. By default, titles and cells under each other.
    fn details(&self) -> String {
        let titles = Self::titles(true);
        let width = titles.iter().map(|title| title.len()).max().unwrap_or(0);
        let cells = self.cells(true);
        let lines = titles.iter().zip(cells).map(|(title, cell)| format!("{:<width$}  {cell}\n", title.to_lowercase()));
        lines.collect()
    }
}

/// Where and how results are printed.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    pub format: Output,
    pub plain: bool,
}

impl Printer {
    /// Whether moving progress may be drawn on standard error.
    pub fn is_lively(&self) -> bool {
        !self.plain && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
    }

    /// Prints a list.
    pub fn list<T: Draw>(&self, items: &[T]) -> Result<()> {
        match self.format {
            Output::Json => self.json(&items),
            Output::Yaml => self.yaml(&items),
            Output::Name => self.text(&items.iter().map(|item| item.name() + "\n").collect::<String>()),
            Output::Table | Output::Wide => {
                let wide = self.format == Output::Wide;
                let rows = items.iter().map(|item| item.cells(wide)).collect();
                self.text(&table(&T::titles(wide), rows))
            }
        }
    }

    /// Prints one thing.
    pub fn one<T: Draw>(&self, item: &T) -> Result<()> {
        match self.format {
            Output::Json => self.json(item),
            Output::Yaml => self.yaml(item),
            Output::Name => self.text(&(item.name() + "\n")),
            Output::Table | Output::Wide => self.text(&item.details()),
        }
    }

    /// Prints one of many things that come one after the other: a line of JSON each, or text.
    pub fn line<T: Serialize>(&self, item: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        match self.format {
            Output::Json | Output::Yaml => {
                let line = serde_json::to_string(item).map_err(|e| unprintable(&e))?;
                self.text(&(line + "\n"))
            }
            Output::Table | Output::Wide | Output::Name => self.text(&text(item)),
        }
    }

    fn json<T: Serialize>(&self, value: &T) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value).map_err(|e| unprintable(&e))?;
        text.push('\n');
        self.text(&text)
    }

    fn yaml<T: Serialize>(&self, value: &T) -> Result<()> {
        let text = serde_saphyr::to_string(value).map_err(|e| unprintable(&e))?;
        self.text(&text)
    }

    /// Prints text as it is.
    pub fn text(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Whoever reads has read enough: `plat list | head -1` is no failure.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(e) => Err(Problem::new(codes::FILE, "cannot write to standard output").because(e).into()),
            Ok(()) => Ok(()),
        }
    }
}

fn unprintable(error: &dyn std::error::Error) -> Problem {
    Problem::new(codes::INTERNAL, "cannot print the result").because(error)
}

/// A message for the person at the terminal; not a result.
pub fn note(text: &str) {
    let mut err = io::stderr().lock();
    // Nothing is left to tell anybody if standard error is gone.
    let _ = writeln!(err, "{text}");
}

/// Says what went wrong: every problem whole, for people or for programs.
pub fn problems(problems: &Problems, format: Output) {
    let told = ToldProblems { problems: problems.0.iter().map(ToldProblem::from).collect() };
    let text = match format {
        Output::Json => serde_json::to_string_pretty(&told).unwrap_or_default(),
        Output::Yaml => serde_saphyr::to_string(&told).unwrap_or_default().trim_end().to_owned(),
        Output::Table | Output::Wide | Output::Name => clean(&problems.to_string()),
    };
    note(&text);
}

#[derive(Serialize)]
struct ToldProblems {
    problems: Vec<ToldProblem>,
}

#[derive(Serialize)]
struct ToldProblem {
    code: String,
    what: String,
    because: String,
    fix: String,
    at: String,
}

impl From<&Problem> for ToldProblem {
    fn from(problem: &Problem) -> Self {
        let Problem { code, what, why, todo, at } = problem.clone();
        Self { code: code.to_string(), what, because: why, fix: todo, at }
    }
}

/// A table without frames, its columns as wide as what is in them.
pub fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(titles.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// Text from the grid for a terminal: no control characters, so that no name or message can drive it.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// How long ago a time was, in one unit: `12s`, `5m`, `3h`, `9d`.
pub fn ago(at: Option<&str>, now: plat_model::Timestamp) -> String {
    let Some(at) = at.and_then(|at| plat_model::Timestamp::parse(at).ok()) else { return "-".into() };
    let seconds = now.since(at).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The time now; the one clock of this crate.
pub fn now() -> plat_model::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    plat_model::Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_frames_and_no_trailing_blanks() {
        let text =
            table(&["NAME", "STATE"], vec![vec!["db".into(), "ready".into()], vec!["longer".into(), "x".into()]]);
        assert_eq!(text, "NAME    STATE\ndb      ready\nlonger  x\n");
    }

    #[test]
    fn what_the_grid_says_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }

    #[test]
    fn a_statement_says_what_its_reader_must_know() {
        let note = "no rate card is set: nothing has a price";
        let statement = plat_wire::v1::Statement { notes: vec![note.into()], ..Default::default() };
        let view = crate::view::StatementView::from(statement);
        assert!(view.details().ends_with(&format!("note      {note}\n")), "{}", view.details());
        assert_eq!(serde_json::to_value(&view).unwrap()["notes"][0], note);
    }

    #[test]
    fn ages_have_one_unit() {
        let now = plat_model::Timestamp::from_seconds(1_000_000);
        let at = |back: u64| ago(Some(&now.minus(std::time::Duration::from_secs(back)).to_string()), now);
        assert_eq!([at(5), at(300), at(7200), at(200_000)], ["5s", "5m", "2h", "2d"]);
    }
}
