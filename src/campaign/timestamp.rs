//! Timestamps as the language knows them: RFC 3339 with an offset, such as `2026-01-15T10:30:00Z`.
//!
//! The shape is checked here before the text goes to the date library, which accepts more of ISO 8601 than RFC 3339
//! has; a text is a timestamp only if every implementation would call it one.

use jiff::Timestamp;

/// The instant a text names; `None` when it is not RFC 3339.
pub fn parse(text: &str) -> Option<Timestamp> {
    has_shape(text.as_bytes()).then(|| text.parse().ok()).flatten()
}

/// The instant in whole milliseconds since the Unix epoch; `None` when the text is not RFC 3339 or is more precise.
pub fn parse_ms(text: &str) -> Option<i64> {
    let instant = parse(text)?;
    let ms = instant.as_millisecond();
    (Timestamp::from_millisecond(ms).ok()? == instant).then_some(ms)
}

/// Milliseconds since the Unix epoch as RFC 3339 in UTC; the plain number beyond the years -9999 to 9999.
pub fn format_ms(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |instant| instant.to_string())
}

/// `dddd-dd-ddTdd:dd:dd[.d…](Z|±dd:dd)`.
fn has_shape(text: &[u8]) -> bool {
    let matches = |pattern: &[u8], part: &[u8]| {
        pattern.len() == part.len()
            && pattern.iter().zip(part).all(|(want, have)| match want {
                b'd' => have.is_ascii_digit(),
                want => want == have,
            })
    };
    let Some((head, mut rest)) = text.split_at_checked(19) else { return false };
    if !matches(b"dddd-dd-ddTdd:dd:dd", head) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > 9 {
            return false;
        }
        rest = fraction.get(digits..).unwrap_or_default();
    }
    rest == b"Z" || matches(b"+dd:dd", rest) || matches(b"-dd:dd", rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rfc_3339_only() {
        assert_eq!(parse_ms("1970-01-01T00:00:01Z"), Some(1_000));
        assert_eq!(parse_ms("1970-01-01T01:00:01.250+01:00"), Some(1_250));
        for text in [
            "2026-01-15",
            "2026-01-15T10:30:00",
            "2026-01-15 10:30:00Z",
            "20260115T103000Z",
            "2026-13-15T10:30:00Z",
            "2026-01-15T10:30:00.Z",
            "2026-01-15T10:30:00Z[UTC]",
            "gold",
            "",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn finer_than_a_millisecond_is_not_cut() {
        assert!(parse("1970-01-01T00:00:00.0001Z").is_some());
        assert_eq!(parse_ms("1970-01-01T00:00:00.0001Z"), None);
    }

    #[test]
    fn printing_round_trips() {
        for ms in [0, -1, 1_768_473_000_123, 253_370_764_800_000] {
            assert_eq!(parse_ms(&format_ms(ms)), Some(ms));
        }
    }
}
