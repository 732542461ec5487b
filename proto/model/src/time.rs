//! Points in time and windows of it. Arithmetic only: whoever needs "now" is given it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 in UTC (`2026-11-21T08:15:30.25Z`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const ZERO: Self = Self(0);

    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }

    /// Reads RFC 3339. The error says what was wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|e| format!("`{text}` is not an RFC 3339 time: {e}"))?;
        Ok(Self((at.unix_timestamp_nanos() / 1_000_000) as i64))
    }

    fn to_datetime(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_datetime().and_then(|at| at.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms since 1970", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// A half-open stretch of time `[start, end)`, as used for metering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Window {
    pub fn duration(self) -> Duration {
        self.end.since(self.start)
    }

    /// The aligned window of `length` that holds `at`: windows of 60 s start on whole minutes.
    pub fn aligned(at: Timestamp, length: Duration) -> Self {
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
        let start = at.0.div_euclid(length_ms).saturating_mul(length_ms);
        Self { start: Timestamp(start), end: Timestamp(start.saturating_add(length_ms)) }
    }
}

/// A calendar month in UTC, the period statements are made for. Written `2026-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period {
    year: i32,
    month: u8,
}

impl Period {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a month such as 2026-11");
        let (year, month) = text.split_once('-').ok_or_else(wrong)?;
        let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(wrong());
        }
        let (year, month) = (year.parse().map_err(|_| wrong())?, month.parse().map_err(|_| wrong())?);
        if !(1970..=9998).contains(&year) || !(1..=12).contains(&month) {
            return Err(wrong());
        }
        Ok(Self { year, month })
    }

    /// The month that holds `at`.
    pub fn of(at: Timestamp) -> Self {
        let date = at.to_datetime().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self { year: date.year(), month: u8::from(date.month()) }
    }

    pub fn next(self) -> Self {
        if self.month == 12 { Self { year: self.year + 1, month: 1 } } else { Self { month: self.month + 1, ..self } }
    }

    /// Its first instant up to, and without, the first of the next.
    pub fn window(self) -> Window {
        let start = |p: Self| {
            Timestamp::parse(&format!("{p}-01T00:00:00Z"))
                .expect("a year of four digits and a month of two are RFC 3339")
        };
        Window { start: start(self), end: start(self.next()) }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl TryFrom<String> for Period {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_survives_being_written_and_read() {
        let at = Timestamp(1_795_249_800_250);
        assert_eq!(Timestamp::parse(&at.to_string()), Ok(at));
    }

    #[test]
    fn windows_are_aligned_to_their_length() {
        let window = Window::aligned(Timestamp(125_000), Duration::from_secs(60));
        assert_eq!((window.start, window.end), (Timestamp(120_000), Timestamp(180_000)));
    }

    #[test]
    fn a_period_runs_from_month_to_month() {
        let period = Period::parse("2026-12").unwrap();
        assert_eq!(period.window().start.to_string(), "2026-12-01T00:00:00Z");
        assert_eq!(period.window().end.to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(Period::of(period.window().start), period);
        for wrong in ["2026", "2026-13", "2026-1", "-026-01", "2026-011"] {
            assert!(Period::parse(wrong).is_err(), "{wrong}");
        }
    }
}
