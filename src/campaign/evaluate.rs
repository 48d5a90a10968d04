//! Evaluation of a condition: exact comparison, Kleene logic.
//!
//! What always holds: a missing or null value is UNKNOWN `missing_field`; a value of another type than the comparison
//! needs, and a double without an exact value, is UNKNOWN `wrong_type`; UNKNOWN is never turned into TRUE or FALSE by a
//! comparison (only `exists` and `missing` look at absence). The order in which parts are evaluated never shows in the
//! result.
//!
//! Order and time: `lt`, `lte`, `gt`, `gte` and `between` compare numbers with numbers, durations with durations, and
//! texts with texts. If either of two texts is RFC 3339 both must be, and they compare as instants; otherwise texts
//! compare by code point. An integer against an RFC 3339 text counts as milliseconds since the Unix epoch. `eq`, `ne`
//! and `in` compare texts as texts. The catalog will type timestamps later.

use std::cmp::Ordering;

use jiff::Timestamp;

use super::condition::{Comparison, Condition, Literal, Operand, Operator, Right, Scope, Truth, Unknown};
use super::condition::{Field, HistoryAnswer};
use super::number::Number;
use super::timestamp;
use crate::event::Value;

impl Condition {
    /// Whether the condition holds; the campaign matches only on [`Truth::True`].
    pub fn evaluate(&self, scope: &dyn Scope) -> Truth {
        match self {
            Condition::All(parts) => Truth::all(parts.iter().map(|part| part.evaluate(scope))),
            Condition::Any(parts) => Truth::any(parts.iter().map(|part| part.evaluate(scope))),
            Condition::Not(part) => part.evaluate(scope).not(),
            Condition::Compare(comparison) => comparison.evaluate(scope),
        }
    }
}

impl Comparison {
    /// Whether the comparison holds.
    pub fn evaluate(&self, scope: &dyn Scope) -> Truth {
        match self.operator {
            Operator::Exists => return self.presence(scope),
            Operator::Missing => return self.presence(scope).not(),
            _ => {}
        }
        let left = match &self.left {
            Operand::Field(field) => Datum::of_field(scope, field),
            Operand::History(query) => Datum::of_history(scope.history(query)),
        };
        match left {
            Ok(left) => compare(left, self.operator, &self.right, scope),
            Err(unknown) => Truth::Unknown(unknown),
        }
    }

    /// Whether the field is there and not null.
    fn presence(&self, scope: &dyn Scope) -> Truth {
        match &self.left {
            Operand::Field(field) => scope.field(field).is_some_and(|value| *value != Value::Null).into(),
            Operand::History(_) => Truth::Unknown(Unknown::WrongType),
        }
    }
}

/// A value ready to be compared.
#[derive(Clone, Copy, Debug)]
enum Datum<'a> {
    Boolean(bool),
    Number(Number),
    Text(&'a str),
    Texts(&'a [String]),
    DurationMs(i64),
}

impl<'a> Datum<'a> {
    fn of_field(scope: &'a dyn Scope, field: &Field) -> Result<Datum<'a>, Unknown> {
        match scope.field(field) {
            None | Some(Value::Null) => Err(Unknown::MissingField),
            Some(Value::Boolean(value)) => Ok(Datum::Boolean(*value)),
            Some(Value::Long(value)) => Ok(Datum::Number(Number::from_i64(*value))),
            Some(Value::Double(value)) => {
                Number::from_f64(*value).map(Datum::Number).ok_or(Unknown::WrongType)
            }
            Some(Value::String(value)) => Ok(Datum::Text(value)),
            Some(Value::Strings(values)) => Ok(Datum::Texts(values)),
        }
    }

    fn of_history(answer: HistoryAnswer) -> Result<Datum<'a>, Unknown> {
        match answer {
            HistoryAnswer::Exists(value) => Ok(Datum::Boolean(value)),
            HistoryAnswer::Count(value) => Ok(Datum::Number(Number::from_u64(value))),
            HistoryAnswer::SinceMs(value) => Ok(Datum::DurationMs(value)),
            HistoryAnswer::Unknown(unknown) => Err(unknown),
        }
    }

    fn of_literal(literal: &'a Literal) -> Datum<'a> {
        match literal {
            Literal::Boolean(value) => Datum::Boolean(*value),
            Literal::Number(value) => Datum::Number(*value),
            Literal::String(value) => Datum::Text(value),
            Literal::DurationMs(value) => Datum::DurationMs(*value),
        }
    }

    /// The right side as one value.
    fn of_right(right: &'a Right, scope: &'a dyn Scope) -> Result<Datum<'a>, Unknown> {
        match right {
            Right::Literal(literal) => Ok(Datum::of_literal(literal)),
            Right::Ref(field) => Datum::of_field(scope, field),
            Right::Nothing | Right::Literals(_) => Err(Unknown::WrongType),
        }
    }

    fn equals(self, other: Datum<'_>) -> Truth {
        match (self, other) {
            (Datum::Boolean(a), Datum::Boolean(b)) => (a == b).into(),
            (Datum::Number(a), Datum::Number(b)) => (a == b).into(),
            (Datum::Text(a), Datum::Text(b)) => (a == b).into(),
            (Datum::DurationMs(a), Datum::DurationMs(b)) => (a == b).into(),
            _ => Truth::Unknown(Unknown::WrongType),
        }
    }

    fn order(self, other: Datum<'_>) -> Result<Ordering, Unknown> {
        match (self, other) {
            (Datum::Number(a), Datum::Number(b)) => Ok(a.cmp(&b)),
            (Datum::DurationMs(a), Datum::DurationMs(b)) => Ok(a.cmp(&b)),
            (Datum::Text(a), Datum::Text(b)) => match (timestamp::parse(a), timestamp::parse(b)) {
                (Some(a), Some(b)) => Ok(a.cmp(&b)),
                (None, None) => Ok(a.cmp(b)),
                _ => Err(Unknown::WrongType),
            },
            (Datum::Number(a), Datum::Text(b)) => Ok(epoch_ms(a)?.cmp(&instant(b)?)),
            (Datum::Text(a), Datum::Number(b)) => Ok(instant(a)?.cmp(&epoch_ms(b)?)),
            _ => Err(Unknown::WrongType),
        }
    }

    fn ordered(self, other: Datum<'_>, accepts: impl FnOnce(Ordering) -> bool) -> Truth {
        match self.order(other) {
            Ok(ordering) => accepts(ordering).into(),
            Err(unknown) => Truth::Unknown(unknown),
        }
    }
}

fn epoch_ms(number: Number) -> Result<Timestamp, Unknown> {
    let ms = number.as_i64().ok_or(Unknown::WrongType)?;
    Timestamp::from_millisecond(ms).map_err(|_| Unknown::WrongType)
}

fn instant(text: &str) -> Result<Timestamp, Unknown> {
    timestamp::parse(text).ok_or(Unknown::WrongType)
}

fn compare(left: Datum<'_>, operator: Operator, right: &Right, scope: &dyn Scope) -> Truth {
    match operator {
        Operator::In => return is_in(left, right, scope),
        Operator::NotIn => return is_in(left, right, scope).not(),
        Operator::AnyOf => return any_of(left, right, scope),
        Operator::NoneOf => return any_of(left, right, scope).not(),
        Operator::AllOf => return all_of(left, right, scope),
        Operator::Between => return between(left, right),
        _ => {}
    }
    let right = match Datum::of_right(right, scope) {
        Ok(right) => right,
        Err(unknown) => return Truth::Unknown(unknown),
    };
    match operator {
        Operator::Eq => left.equals(right),
        Operator::Ne => left.equals(right).not(),
        Operator::Lt => left.ordered(right, Ordering::is_lt),
        Operator::Lte => left.ordered(right, Ordering::is_le),
        Operator::Gt => left.ordered(right, Ordering::is_gt),
        Operator::Gte => left.ordered(right, Ordering::is_ge),
        Operator::Prefix | Operator::Suffix | Operator::Contains => text_test(left, operator, right),
        // All others have returned above; a new operator is UNKNOWN until it is written.
        _ => Truth::Unknown(Unknown::WrongType),
    }
}

fn text_test(left: Datum<'_>, operator: Operator, right: Datum<'_>) -> Truth {
    match (left, operator, right) {
        (Datum::Text(text), Operator::Prefix, Datum::Text(part)) => text.starts_with(part).into(),
        (Datum::Text(text), Operator::Suffix, Datum::Text(part)) => text.ends_with(part).into(),
        (Datum::Text(text), Operator::Contains, Datum::Text(part)) => text.contains(part).into(),
        (Datum::Texts(texts), Operator::Contains, Datum::Text(part)) => {
            texts.iter().any(|text| text == part).into()
        }
        _ => Truth::Unknown(Unknown::WrongType),
    }
}

/// Both bounds included.
fn between(left: Datum<'_>, right: &Right) -> Truth {
    let Right::Literals(bounds) = right else { return Truth::Unknown(Unknown::WrongType) };
    let [low, high] = bounds.as_slice() else { return Truth::Unknown(Unknown::WrongType) };
    Truth::all([
        left.ordered(Datum::of_literal(low), Ordering::is_ge),
        left.ordered(Datum::of_literal(high), Ordering::is_le),
    ])
}

fn is_in(left: Datum<'_>, right: &Right, scope: &dyn Scope) -> Truth {
    match right {
        Right::Literals(literals) => {
            Truth::any(literals.iter().map(|literal| left.equals(Datum::of_literal(literal))))
        }
        Right::Ref(field) => match (left, Datum::of_field(scope, field)) {
            (_, Err(unknown)) => Truth::Unknown(unknown),
            (Datum::Text(text), Ok(Datum::Texts(texts))) => texts.iter().any(|other| other == text).into(),
            _ => Truth::Unknown(Unknown::WrongType),
        },
        Right::Nothing | Right::Literal(_) => Truth::Unknown(Unknown::WrongType),
    }
}

fn any_of(left: Datum<'_>, right: &Right, scope: &dyn Scope) -> Truth {
    for_each_text(left, right, scope, |texts, wanted| Truth::any(wanted.map(|want| holds(texts, want))))
}

fn all_of(left: Datum<'_>, right: &Right, scope: &dyn Scope) -> Truth {
    for_each_text(left, right, scope, |texts, wanted| Truth::all(wanted.map(|want| holds(texts, want))))
}

fn holds(texts: &[String], want: Result<&str, Unknown>) -> Truth {
    match want {
        Ok(want) => texts.iter().any(|text| text == want).into(),
        Err(unknown) => Truth::Unknown(unknown),
    }
}

/// Hands the list on the left and the texts on the right to `judge`.
fn for_each_text(
    left: Datum<'_>,
    right: &Right,
    scope: &dyn Scope,
    judge: impl FnOnce(&[String], &mut dyn Iterator<Item = Result<&str, Unknown>>) -> Truth,
) -> Truth {
    let Datum::Texts(texts) = left else { return Truth::Unknown(Unknown::WrongType) };
    match right {
        Right::Literals(literals) => judge(
            texts,
            &mut literals.iter().map(|literal| match literal {
                Literal::String(want) => Ok(want.as_str()),
                _ => Err(Unknown::WrongType),
            }),
        ),
        Right::Ref(field) => match Datum::of_field(scope, field) {
            Ok(Datum::Texts(wanted)) => judge(texts, &mut wanted.iter().map(|want| Ok(want.as_str()))),
            Ok(_) => Truth::Unknown(Unknown::WrongType),
            Err(unknown) => Truth::Unknown(unknown),
        },
        Right::Nothing | Right::Literal(_) => Truth::Unknown(Unknown::WrongType),
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
