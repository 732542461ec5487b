//! The one shape of failure that leaves a process: what failed, why, what to do next, under a stable code.
//!
//! A crate may have error types of its own inside; at its edge they become a [`Problem`]. Input is checked whole, and
//! everything wrong with it is returned at once as [`Problems`].

use serde::{Deserialize, Serialize};
use std::fmt;

pub mod codes;

/// Every fallible function at an edge returns this.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// A stable number, written `P0312`, with a page in `docs/errors/`. A code is never given a second meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code(u16);

impl Code {
    /// Reads `P0312`. `None` if it is not of that form; a number that this version does not know is kept as it is.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('P')?;
        (digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok().map(Self))?
    }

    fn entry(self) -> Option<&'static codes::Entry> {
        codes::ALL.iter().flat_map(|range| range.iter()).find(|entry| entry.code == self)
    }

    /// What kind of failure it is; a code from a newer version counts as [`Category::Failed`].
    pub fn category(self) -> Category {
        self.entry().map_or(Category::Failed, |entry| entry.category)
    }

    /// One line that names the failure in general, as its page does.
    pub fn title(self) -> &'static str {
        self.entry().map_or("a code that this version does not know", |entry| entry.title)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{:04}", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Code {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{}` is not a problem code such as P0312", crate::id::shorten(&text)))
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.to_string()
    }
}

/// What kind of failure; decides the gRPC status, the exit code of `plat`, and whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// The input is wrong; the same input will always fail.
    Invalid,
    /// Nobody knows who asks.
    Unauthenticated,
    /// Who asks may not do this.
    Denied,
    /// What was named does not exist (or may not be seen).
    NotFound,
    /// The state of things forbids it at present: it exists already, is in use, or was changed meanwhile.
    Conflict,
    /// A limit was reached: size, quota, capacity, disk.
    Exhausted,
    /// It waited as long as it was told to.
    TimedOut,
    /// The other side cannot be reached or is not ready; the same call may be repeated without harm.
    Unavailable,
    /// The grid failed: a bug, or a broken machine.
    Failed,
}

impl Category {
    /// Whether repeating the same call later can succeed without anybody changing the input.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::TimedOut | Self::Exhausted)
    }
}

/// One failure, for a person to act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: Code,
    /// What failed, naming the thing: ``cannot add release `pg` ``. No full stop.
    pub what: String,
    /// Why, as far as it is known. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What to do next. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub todo: String,
    /// Where in the input, e.g. `postgresql.yaml:12:3` or `services.db.command`. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
}

impl Problem {
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), why: String::new(), todo: String::new(), at: String::new() }
    }

    /// Says why. A second call adds to the first, from the outer cause to the inner.
    pub fn because(mut self, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        if self.why.is_empty() {
            self.why = why;
        } else if !why.is_empty() {
            self.why = format!("{}: {why}", self.why);
        }
        self
    }

    /// Says what to do next.
    pub fn fix(mut self, todo: impl Into<String>) -> Self {
        self.todo = todo.into();
        self
    }

    /// Says where in the input it is.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = place.into();
        self
    }

    pub fn category(&self) -> Category {
        self.code.category()
    }

    /// `P0312: what (why)`, for logs.
    pub fn one_line(&self) -> String {
        let mut line = format!("{}: {}", self.code, self.what);
        if !self.at.is_empty() {
            line.push_str(&format!(" at {}", self.at));
        }
        if !self.why.is_empty() {
            line.push_str(&format!(" ({})", self.why));
        }
        line.replace('\n', " ")
    }
}

/// The form for people:
/// ```text
/// error[P0312]: what
///   at:      where
///   because: why
///   try:     what to do
/// ```
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.what)?;
        for (label, text) in [("at:", &self.at), ("because:", &self.why), ("try:", &self.todo)] {
            if !text.is_empty() {
                write!(f, "\n  {label:<8} {}", text.replace('\n', "\n           "))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong with one input. Never empty when it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the value of a success; notes the problem of a failure and goes on, so that later ones are found too.
    pub fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|problem| self.push(problem)).ok()
    }

    /// `value` if nothing was noted.
    pub fn none_or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// All of them as one: the first one's code, the others counted and told in its reason.
    pub fn into_one(self) -> Problem {
        let mut all = self.0.into_iter();
        let Some(mut first) = all.next() else {
            return Problem::new(codes::INTERNAL, "something failed without saying what");
        };
        for other in all {
            first.why.push_str(&format!("\nalso {}", other.one_line()));
        }
        first
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        self.0.extend(problems);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(problem, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_the_range_of_their_file() {
        let mut seen = std::collections::BTreeSet::new();
        for range in codes::ALL {
            let hundred = range[0].code.0 / 100;
            for entry in *range {
                assert!(seen.insert(entry.code), "{} is used twice", entry.code);
                assert_eq!(entry.code.0 / 100, hundred, "{}", entry.code);
            }
        }
    }

    #[test]
    fn a_problem_reads_as_what_where_why_and_what_to_do() {
        let problem =
            Problem::new(codes::BAD_NAME, "`X` is not a name").because("it holds 'X'").fix("use `x`").at("a.yaml:1");
        assert_eq!(
            problem.to_string(),
            "error[P0101]: `X` is not a name\n  at:      a.yaml:1\n  because: it holds 'X'\n  try:     use `x`"
        );
        assert_eq!(problem.one_line(), "P0101: `X` is not a name at a.yaml:1 (it holds 'X')");
    }

    #[test]
    fn an_unknown_code_is_kept() {
        let code = Code::parse("P9999").unwrap();
        assert_eq!(code.to_string(), "P9999");
        assert_eq!(code.category(), Category::Failed);
        assert_eq!(Code::parse("P99"), None);
    }
}
