//! Exact numbers: fixed point with nine fraction digits.
//!
//! Comparisons and sums of the language are exact because every number becomes one of these first. A double counts as
//! the shortest decimal that round-trips; one with more than nine fraction digits, NaN and the infinities have no exact
//! value, and the language calls them UNKNOWN. It is not an arithmetic type: nothing here rounds.

use std::fmt;

/// Units in one: 10^9.
const SCALE: i128 = 1_000_000_000;
/// Fraction digits that are kept.
const FRACTION_DIGITS: usize = 9;
/// Longest text [`Number::parse`] looks at: sign, 29 integer digits, point, 9 fraction digits fit well within.
const MAX_TEXT_BYTES: usize = 64;

/// An exact number, in units of 10^-9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub i128);

impl Number {
    /// Zero.
    pub const ZERO: Number = Number(0);

    /// An integer; always exact.
    pub const fn from_i64(value: i64) -> Number {
        Number(value as i128 * SCALE)
    }

    /// A count; always exact.
    pub const fn from_u64(value: u64) -> Number {
        Number(value as i128 * SCALE)
    }

    /// The shortest decimal that round-trips to `value`; `None` for NaN, the infinities, more than nine fraction digits
    /// and numbers beyond the range.
    pub fn from_f64(value: f64) -> Option<Number> {
        if !value.is_finite() {
            return None;
        }
        if value.abs() < 1e6 {
            // Below 10^6 a decimal with nine fraction digits has at most 15 significant ones, and such decimals and the
            // doubles nearest to them correspond one to one. So the only candidate is the nearest multiple of 10^-9, and
            // it is the shortest decimal exactly when it divides back to the same double. This saves printing the number.
            let units = (value * SCALE as f64).round();
            return (units / SCALE as f64 == value).then_some(Number(units as i128));
        }
        Number::from_f64_by_text(value)
    }

    /// The definition of [`Number::from_f64`], slow: `Display` of a double is its shortest round-trip decimal.
    fn from_f64_by_text(value: f64) -> Option<Number> {
        if value.abs() >= 1e29 {
            return None;
        }
        Number::parse(&value.to_string())
    }

    /// Reads `[+-]digits[.digits]`; `None` for anything else, for more than nine fraction digits (trailing zeros aside)
    /// and for numbers beyond the range.
    pub fn parse(text: &str) -> Option<Number> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, text.get(1..)?),
            b'+' => (false, text.get(1..)?),
            _ => (false, text),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (digits, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > FRACTION_DIGITS {
            return None;
        }
        let mut units: i128 = 0;
        let padding = std::iter::repeat_n(b'0', FRACTION_DIGITS - fraction.len());
        for digit in whole.bytes().chain(fraction.bytes()).chain(padding) {
            units = units.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        Some(Number(if negative { -units } else { units }))
    }

    /// The value when it is an integer that fits.
    pub fn as_i64(self) -> Option<i64> {
        (self.0 % SCALE == 0).then(|| i64::try_from(self.0 / SCALE).ok()).flatten()
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        // The standard library parses correctly rounded; dividing twice-rounded integers would not be.
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// Whether the number survives JSON readers that know only 64-bit integers and doubles: a 64-bit integer, or at most
    /// 15 significant digits, which every double keeps.
    pub fn is_portable(self) -> bool {
        if self.0 % SCALE == 0 {
            return self.as_i64().is_some();
        }
        let mut significand = self.0.unsigned_abs();
        while significand.is_multiple_of(10) {
            significand /= 10;
        }
        significand < 1_000_000_000_000_000
    }
}

impl fmt::Display for Number {
    /// The shortest decimal: no exponent, no trailing zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let (whole, fraction) = (units / SCALE.unsigned_abs(), units % SCALE.unsigned_abs());
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:09}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn reads_and_prints_decimals() {
        for text in ["0", "1", "-1", "29.99", "-0.5", "0.000000001", "9223372036854775807"] {
            assert_eq!(number(text).to_string(), text);
        }
        assert_eq!(number("1.50"), number("1.5"));
        assert_eq!(number("+7"), Number::from_i64(7));
        assert_eq!(number("1.0000000000000"), Number::from_i64(1));
        assert_eq!(number("-0"), Number::ZERO);
    }

    #[test]
    fn refuses_what_is_no_exact_decimal() {
        for text in ["", "-", ".5", "5.", "1e3", "0x10", "1_000", "1.0000000001", "NaN", "1.2.3", "1 ", "--1"]
        {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        assert_eq!(Number::parse(&"9".repeat(40)), None);
        assert_eq!(Number::parse(&"0".repeat(65)), None);
    }

    #[test]
    fn a_double_is_its_shortest_decimal() {
        assert_eq!(Number::from_f64(0.1), Some(number("0.1")));
        assert_eq!(Number::from_f64(29.99), Some(number("29.99")));
        assert_eq!(Number::from_f64(-0.0), Some(Number::ZERO));
        assert_eq!(Number::from_f64(1e15), Some(number("1000000000000000")));
        assert_eq!(Number::from_f64(9007199254740993.0), Some(number("9007199254740992")));
        assert_eq!(Number::from_f64(123456789.123), Some(number("123456789.123")));
    }

    #[test]
    fn a_double_without_an_exact_value_is_none() {
        // 0.1 + 0.2 is 0.30000000000000004: seventeen fraction digits.
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2, 1e-10, 1.0 / 3.0, 1e300, 1e29] {
            assert_eq!(Number::from_f64(value), None, "{value}");
        }
    }

    #[test]
    fn portable_numbers_are_those_json_readers_keep() {
        assert!(Number::from_i64(i64::MAX).is_portable());
        assert!(number("0.000000001").is_portable());
        assert!(number("123456.123456789").is_portable());
        assert!(!number("1234567.123456789").is_portable());
        assert!(!number("9223372036854775808").is_portable());
    }

    proptest! {
        #[test]
        fn the_fast_path_agrees_with_the_definition(value in -1e6..1e6f64) {
            prop_assert_eq!(Number::from_f64(value), Number::from_f64_by_text(value));
        }

        #[test]
        fn every_decimal_of_nine_digits_survives_a_double(units in -999_999_999_999_999i64..=999_999_999_999_999) {
            let exact = Number(i128::from(units));
            prop_assert_eq!(Number::from_f64(exact.to_f64()), Some(exact));
            prop_assert_eq!(Number::from_f64_by_text(exact.to_f64()), Some(exact));
        }

        #[test]
        fn printing_round_trips(units in any::<i64>(), factor in 1i128..1_000_000_000_000) {
            let exact = Number(i128::from(units) * factor);
            prop_assert_eq!(Number::parse(&exact.to_string()), Some(exact));
        }

        #[test]
        fn integers_keep_their_order(a in any::<i64>(), b in any::<i64>()) {
            prop_assert_eq!(a.cmp(&b), Number::from_i64(a).cmp(&Number::from_i64(b)));
            prop_assert_eq!(Number::from_i64(a).as_i64(), Some(a));
        }
    }
}
