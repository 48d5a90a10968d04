//! A moment on the command line: a date, a time, or how long ago.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Reads `2026-01-15T10:30:00Z`, `2026-01-15` (its first moment in UTC) or `24h` (before now) as milliseconds since
/// the Unix epoch.
pub fn parse_ms(text: &str) -> Result<i64, String> {
    parse_at(text, Timestamp::now())
}

fn parse_at(text: &str, now: Timestamp) -> Result<i64, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_millisecond());
    }
    if let Ok(date) = text.parse::<Date>() {
        let midnight = date.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
        return Ok(midnight.timestamp().as_millisecond());
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago_ms =
            i64::try_from(ago.as_millis()).map_err(|_| format!("{text} is longer than time itself"))?;
        return Ok(now.as_millisecond().saturating_sub(ago_ms));
    }
    Err("allowed are a time such as 2026-01-15T10:30:00Z, a date such as 2026-01-15, and how long ago such as 24h or 7d"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_read() {
        let now = Timestamp::from_millisecond(1_768_473_000_000).unwrap();
        let at = |text| parse_at(text, now);
        assert_eq!(at("2026-01-15T10:30:00Z"), Ok(1_768_473_000_000));
        assert_eq!(at("2026-01-15T11:30:00.5+01:00"), Ok(1_768_473_000_500));
        assert_eq!(at("2026-01-15"), Ok(1_768_435_200_000));
        assert_eq!(at("24h"), Ok(1_768_386_600_000));
        assert_eq!(at("7d"), Ok(1_767_868_200_000));
        for wrong in ["", "yesterday", "2026-13-01", "12", "-1h"] {
            assert!(at(wrong).unwrap_err().contains("2026-01-15"), "{wrong}");
        }
    }
}
