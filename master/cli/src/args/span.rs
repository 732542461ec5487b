//! Times as people type them: `90`, `30m`, `24h`, `7d`, and points in time as a date or RFC 3339.

use plat_model::Timestamp;
use std::time::Duration;

/// Reads a stretch of time: a number of seconds, or one with a unit of s, m, h or d. Never zero.
///
/// # Errors
/// What was wrong with the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "write seconds, or a number and a unit: 90, 30m, 24h, 7d".to_owned();
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        None => (text, 1),
        Some(end) => match &text[end..] {
            "s" => (&text[..end], 1),
            "m" => (&text[..end], 60),
            "h" => (&text[..end], 3600),
            "d" => (&text[..end], 86_400),
            _ => return Err(wrong()),
        },
    };
    let seconds = digits.parse::<u32>().ok().map(u64::from).and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
    if seconds == 0 { Err("it is no time at all; give more than 0".into()) } else { Ok(Duration::from_secs(seconds)) }
}

/// Reads a point in time: RFC 3339, or a date, which is its beginning in UTC.
///
/// # Errors
/// What was wrong with the text.
pub fn point(text: &str) -> Result<Timestamp, String> {
    let date = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let whole = if date { format!("{text}T00:00:00Z") } else { text.to_owned() };
    Timestamp::parse(&whole).map_err(|_| "write a date or a time: 2026-11-21, 2026-11-21T08:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_time_is_seconds_or_has_a_unit_and_is_never_zero() {
        let seconds = |text| parse(text).map(|span| span.as_secs());
        assert_eq!(
            ["90", "90s", "30m", "24h", "7d"].map(|text| seconds(text).unwrap()),
            [90, 90, 1800, 86_400, 604_800]
        );
        for wrong in ["", "0", "0h", "m", "1w", "1h30m", "-1", "1.5h", "99999999999"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_point_in_time_is_a_date_or_a_time() {
        assert_eq!(point("2026-11-21").unwrap(), point("2026-11-21T00:00:00Z").unwrap());
        for wrong in ["", "yesterday", "2026-13-01", "21.11.2026"] {
            assert!(point(wrong).is_err(), "{wrong}");
        }
    }
}
