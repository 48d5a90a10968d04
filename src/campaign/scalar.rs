//! What a plain YAML scalar means, when YAML 1.1 and YAML 1.2 agree on it.
//!
//! Null, booleans spelled `true` or `false`, decimal numbers, and texts. Everything that one of the two versions reads
//! as something else than the other is a [`Trap`], and so are spellings of numbers that JSON does not have.

use super::diagnostic::Code;
use super::node::NodeValue;
use super::number::Number;

/// Why a plain scalar is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    /// yes, no, on, off, y, n.
    Boolean,
    /// 22:00, which YAML 1.1 reads to the base 60.
    Sexagesimal,
    /// 010, 0o10, 0x1F, 0b1, 1_000, 1e3, .5, 5.
    NumberSpelling,
    /// 2026-01-01, which YAML 1.1 reads as a date.
    Timestamp,
    /// .inf, .nan.
    NotFinite,
    /// More digits than numbers keep.
    Digits,
}

impl Trap {
    pub(crate) fn code(self) -> Code {
        match self {
            Trap::NotFinite | Trap::Digits => Code::BadNumber,
            _ => Code::AmbiguousScalar,
        }
    }

    pub(crate) fn why(self) -> &'static str {
        match self {
            Trap::Boolean => "is a boolean in YAML 1.1 and a text in YAML 1.2",
            Trap::Sexagesimal => "is a number to the base 60 in YAML 1.1 and a text in YAML 1.2",
            Trap::NumberSpelling => "is spelled in a way that YAML 1.1, YAML 1.2 and JSON read differently",
            Trap::Timestamp => "is a date in YAML 1.1 and a text in YAML 1.2",
            Trap::NotFinite => "is no number that can be compared",
            Trap::Digits => {
                "has too many digits: integers have at most 64 bits, other numbers 15 digits, nine of them fractional"
            }
        }
    }

    pub(crate) fn suggestion(self, text: &str) -> String {
        match self {
            Trap::Boolean => format!("write true or false, or quote it: \"{text}\""),
            Trap::NumberSpelling => format!("write a plain decimal number, or quote it: \"{text}\""),
            Trap::Sexagesimal | Trap::Timestamp => format!("quote it: \"{text}\""),
            Trap::NotFinite | Trap::Digits => "use fewer digits, or quote it if it is a text".to_owned(),
        }
    }
}

/// The meaning of a plain scalar.
pub(crate) fn resolve(text: &str) -> Result<NodeValue, Trap> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(NodeValue::Null),
        "true" | "True" | "TRUE" => return Ok(NodeValue::Boolean(true)),
        "false" | "False" | "FALSE" => return Ok(NodeValue::Boolean(false)),
        _ => {}
    }
    if ["y", "n", "yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Err(Trap::Boolean);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if [".inf", ".nan"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return Err(Trap::NotFinite);
    }
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Ok(NodeValue::String(text.to_owned()));
    }
    if is_decimal(unsigned) {
        let value = Number::parse(text).filter(|value| value.is_portable()).ok_or(Trap::Digits)?;
        return Ok(NodeValue::Number { value, integral: !unsigned.contains('.') });
    }
    if is_sexagesimal(unsigned) {
        return Err(Trap::Sexagesimal);
    }
    if is_number_in_some_version(unsigned) {
        return Err(Trap::NumberSpelling);
    }
    if is_date(text) {
        return Err(Trap::Timestamp);
    }
    Ok(NodeValue::String(text.to_owned()))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `0` or digits without a leading zero, and a fraction if there is a point.
fn is_decimal(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    all_digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(all_digits)
}

/// Digits and colons, such as 22:00 or 10:30:15.5.
fn is_sexagesimal(text: &str) -> bool {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    whole.contains(':') && whole.split(':').all(all_digits)
}

/// Octal, hexadecimal, binary, underscores, exponents, a bare point.
fn is_number_in_some_version(text: &str) -> bool {
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|digit| digit == '_' || digit.is_digit(radix));
        }
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits_or_underscores = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    mantissa.bytes().any(|byte| byte.is_ascii_digit())
        && digits_or_underscores(whole)
        && digits_or_underscores(fraction)
        && exponent.is_none_or(all_digits)
}

/// `dddd-d?d-d?d`, alone or followed by a time.
fn is_date(text: &str) -> bool {
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let mut parts = date.split('-');
    let lengths = [4..=4, 1..=2, 1..=2];
    let fits = lengths
        .into_iter()
        .all(|length| parts.next().is_some_and(|part| length.contains(&part.len()) && all_digits(part)));
    let time = rest.trim_start_matches(['T', 't', ' ']);
    fits && parts.next().is_none()
        && (rest.is_empty() || time.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_that_mean_one_thing() {
        let number =
            |text: &str, integral| Ok(NodeValue::Number { value: Number::parse(text).unwrap(), integral });
        for text in ["", "~", "null"] {
            assert_eq!(resolve(text), Ok(NodeValue::Null), "{text}");
        }
        assert_eq!(resolve("true"), Ok(NodeValue::Boolean(true)));
        assert_eq!(resolve("FALSE"), Ok(NodeValue::Boolean(false)));
        assert_eq!(resolve("0"), number("0", true));
        assert_eq!(resolve("-12"), number("-12", true));
        assert_eq!(resolve("29.99"), number("29.99", false));
        for text in [
            "gold",
            "30d",
            "5%",
            "1.2.3",
            "2026-summer",
            "event.x",
            "nobody",
            "only",
            "10:30am",
            "-",
            "0xyz",
            "12e",
            "1-2-3",
        ] {
            assert_eq!(resolve(text), Ok(NodeValue::String(text.into())), "{text}");
        }
    }

    #[test]
    fn traps_are_refused() {
        for (trap, texts) in [
            (Trap::Boolean, vec!["no", "No", "NO", "off", "yes", "on", "y", "N"]),
            (Trap::Sexagesimal, vec!["22:00", "08:00", "190:20:30", "-1:30", "1:30.5"]),
            (
                Trap::NumberSpelling,
                vec!["010", "08", "0o17", "0x1F", "0b11", "1_000", "1e3", "1.5E-3", ".5", "5.", "00.5"],
            ),
            (Trap::Timestamp, vec!["2026-01-01", "2026-1-1", "2026-01-01T00:00:00Z", "2026-01-01 10:00:00"]),
            (Trap::NotFinite, vec![".inf", "-.INF", ".NaN"]),
            (Trap::Digits, vec!["9223372036854775808", "0.1234567891", "1234567.123456789"]),
        ] {
            for text in texts {
                assert_eq!(resolve(text), Err(trap), "{text}");
            }
        }
    }
}
