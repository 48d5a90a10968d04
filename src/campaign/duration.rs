//! Durations as people write them: `90s`, `15m`, `12h`, `30d`.
//!
//! `m` is minutes and `d` is 24 hours, always; calendar days are something else and have their own words.

use std::fmt;

/// Longest duration the language takes: 3,660 days, a little over ten years.
pub const MAX_MS: i64 = 3_660 * 86_400_000;

const UNITS: [(&str, i64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a whole number and a unit.
    #[error("a duration is a whole number and a unit, s, m (minutes), h or d (24 hours), such as 30d")]
    Shape,
    /// Zero.
    #[error("a duration of zero means nothing here; use 1s or more")]
    Zero,
    /// Beyond [`MAX_MS`].
    #[error("a duration may be at most 3660d")]
    TooLong,
}

/// Reads a duration into milliseconds.
pub fn parse_ms(text: &str) -> Result<i64, DurationError> {
    let (digits, unit_ms) = UNITS
        .iter()
        .find_map(|(unit, ms)| text.strip_suffix(unit).map(|digits| (digits, *ms)))
        .ok_or(DurationError::Shape)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DurationError::Shape);
    }
    // All digits, so the only way to fail is to be too large.
    let count: i64 = digits.parse().map_err(|_| DurationError::TooLong)?;
    match count.checked_mul(unit_ms) {
        Some(0) => Err(DurationError::Zero),
        Some(ms) if ms <= MAX_MS => Ok(ms),
        _ => Err(DurationError::TooLong),
    }
}

/// Prints milliseconds with the largest unit that divides them; `1500ms` when no unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisplayMs(pub i64);

impl fmt::Display for DisplayMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, ms)| self.0 != 0 && self.0 % ms == 0) {
            Some((unit, ms)) => write!(f, "{}{unit}", self.0 / ms),
            None => write!(f, "{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_four_units() {
        assert_eq!(parse_ms("90s"), Ok(90_000));
        assert_eq!(parse_ms("15m"), Ok(900_000));
        assert_eq!(parse_ms("12h"), Ok(43_200_000));
        assert_eq!(parse_ms("30d"), Ok(2_592_000_000));
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "d", "30", "30 d", "1.5h", "-1d", "+1d", "30days", "1w", "30D"] {
            assert_eq!(parse_ms(text), Err(DurationError::Shape), "{text}");
        }
        assert_eq!(parse_ms("0d"), Err(DurationError::Zero));
        assert_eq!(parse_ms("3661d"), Err(DurationError::TooLong));
        assert_eq!(parse_ms("99999999999999999999s"), Err(DurationError::TooLong));
    }

    proptest! {
        #[test]
        fn printing_round_trips(seconds in 1..=MAX_MS / 1_000) {
            let ms = seconds * 1_000;
            prop_assert_eq!(parse_ms(&DisplayMs(ms).to_string()), Ok(ms));
        }
    }
}
