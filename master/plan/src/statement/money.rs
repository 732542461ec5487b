//! Millionths of a currency, as decimal text.

use plat_model::id::shorten;
use plat_model::problem::{Problem, codes};

/// Writes millionths as a decimal: `1500000` is `1.5`.
pub fn decimal(micros: u128) -> String {
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{part:06}").trim_end_matches('0').to_string()
}

/// Reads a decimal with at most six places into millionths: `0.05` is `50000`.
///
/// # Errors
/// [`codes::BAD_VALUE`] for anything else, a sign or an exponent included.
pub fn parse_price(text: &str) -> Result<u64, Problem> {
    let wrong = || {
        Problem::new(codes::BAD_VALUE, format!("`{}` is not a price", shorten(text)))
            .fix("write digits, and after a point at most six more, such as 0.05")
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 12) || !digits(part, 6) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000).and_then(|micros| micros.checked_add(part)).ok_or_else(wrong)
}
