//! When something recurs: cron's five fields (minute, hour, day of the month, month, day of the week), in UTC.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use time::{Date, OffsetDateTime, Time};

/// After so many days the calendar repeats, weekdays included: what does not occur within them never does.
const CALENDAR_DAYS: usize = 146_097;
/// Longest text of a schedule, in bytes.
const TEXT_MAX: usize = 200;
/// Milliseconds.
const MINUTE: i64 = 60_000;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Times that recur, each a whole minute. It has been checked that there are any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    text: String,
    /// A bit for each value that fits.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is bit 0.
    weekdays: u64,
    /// As in cron: when both kinds of days are restricted, a day has to fit one of them only.
    either_day: bool,
}

/// One of the five fields: what it is called, its values, and names for them from the first one on.
struct Field {
    what: &'static str,
    range: RangeInclusive<u32>,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { what: "minute", range: 0..=59, names: &[] },
    Field { what: "hour", range: 0..=23, names: &[] },
    Field { what: "day of the month", range: 1..=31, names: &[] },
    Field { what: "month", range: 1..=12, names: MONTHS },
    // Sunday is 0, and 7 too.
    Field { what: "day of the week", range: 0..=7, names: WEEKDAYS },
];

impl Schedule {
    /// Reads five fields, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    ///
    /// # Errors
    /// All that is wrong with it, in words; also that it never occurs.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("it is longer than {TEXT_MAX} bytes"));
        }
        let meant = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            at if at.starts_with('@') => {
                return Err("of the short forms there are @hourly, @daily, @weekly, @monthly and @yearly".into());
            }
            fields => fields,
        };
        let fields: Vec<&str> = meant.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("it has {} fields; minute, hour, day, month, day of the week are five", fields.len()));
        };
        let (mut bits, mut wrong) = ([0; 5], Vec::new());
        for ((text, field), bits) in [minute, hour, day, month, weekday].into_iter().zip(&FIELDS).zip(&mut bits) {
            match field.read(text) {
                Ok(read) => *bits = read,
                Err(why) => wrong.push(format!("{} `{text}`: {why}", field.what)),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        let [minutes, hours, days, months, weekdays] = bits;
        let weekdays = (weekdays | (weekdays >> 7)) & 0x7f;
        let either_day = !day.starts_with('*') && !weekday.starts_with('*');
        let schedule = Self { text: text.to_owned(), minutes, hours, days, months, weekdays, either_day };
        match schedule.first_day(OffsetDateTime::UNIX_EPOCH.date()) {
            Some(_) => Ok(schedule),
            None => Err("no day of any year is such a one".into()),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first of its times later than `at`; `None` if that is beyond the year 9999.
    pub fn after(&self, at: Timestamp) -> Option<Timestamp> {
        let first = at.0.div_euclid(MINUTE).checked_add(1)?.checked_mul(MINUTE)?;
        let first = OffsetDateTime::from_unix_timestamp(first / 1000).ok()?;
        let (hour, minute) = (u32::from(first.hour()), u32::from(first.minute()));
        // Later in this hour, in a later hour of this day, on a later day.
        let rest = self.fits(first.date()).then(|| {
            let later = |bits: u64, from: u32| lowest(bits.checked_shr(from)?.checked_shl(from)?);
            let this_hour = || Some((hour, later(self.minutes, minute)?)).filter(|_| self.hours >> hour & 1 == 1);
            this_hour().or_else(|| Some((later(self.hours, hour + 1)?, lowest(self.minutes)?)))
        });
        let (date, (hour, minute)) = match rest.flatten() {
            Some(time) => (first.date(), time),
            None => (self.first_day(first.date().next_day()?)?, (lowest(self.hours)?, lowest(self.minutes)?)),
        };
        let time = Time::from_hms(u8::try_from(hour).ok()?, u8::try_from(minute).ok()?, 0).ok()?;
        Some(Timestamp::from_seconds(date.with_time(time).assume_utc().unix_timestamp()))
    }

    fn first_day(&self, from: Date) -> Option<Date> {
        std::iter::successors(Some(from), |day| day.next_day()).take(CALENDAR_DAYS).find(|day| self.fits(*day))
    }

    fn fits(&self, date: Date) -> bool {
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> date.weekday().number_days_from_sunday() & 1 == 1;
        let fits = if self.either_day { day || weekday } else { day && weekday };
        fits && self.months >> u8::from(date.month()) & 1 == 1
    }
}

fn lowest(bits: u64) -> Option<u32> {
    (bits != 0).then(|| bits.trailing_zeros())
}

impl Field {
    /// The values of a list of values and ranges.
    fn read(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |bits, part| Ok(bits | self.part(part)?))
    }

    fn part(&self, text: &str) -> Result<u64, String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (*self.range.start(), *self.range.end()),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            None if step.is_some() => return Err("a step is one of `*` or of a range".into()),
            None => (self.value(range)?, self.value(range)?),
        };
        if first > last {
            return Err(format!("a range from {first} to {last} is empty"));
        }
        let step = match step.map(digits) {
            None => 1,
            Some(Some(step)) if step > 0 => step,
            Some(_) => return Err("a step is a number from 1 on".into()),
        };
        Ok((first..=last).step_by(step as usize).fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().zip(*self.range.start()..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        let value = named.map(|(_, value)| value).or_else(|| digits(text)).filter(|value| self.range.contains(value));
        value.ok_or_else(|| {
            let (first, last) = (self.range.start(), self.range.end());
            let names = match self.names {
                [] => String::new(),
                names => format!(", or a name such as {}", names[1]),
            };
            format!("its values are {first} to {last}{names}")
        })
    }
}

/// A number of one to three digits.
fn digits(text: &str) -> Option<u32> {
    let fine = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| fine)
}

impl TryFrom<String> for Schedule {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.text
    }
}

#[cfg(test)]
mod tests;
