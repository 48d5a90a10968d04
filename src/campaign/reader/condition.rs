//! Conditions from nodes: the tree form.

use super::{At, Fields, Findings, nearest, shorten};
use crate::campaign::condition::{
    Comparison, Condition, Field, HistoryFunction, HistoryQuery, Literal, Operand, Operator, Right, Window,
};
use crate::campaign::diagnostic::Code;
use crate::campaign::node::NodeValue;
use crate::campaign::number::Number;

/// Deepest nesting of `all`, `any` and `not`.
const MAX_DEPTH: usize = 32;
/// Most parts of one `all` or `any`.
const MAX_PARTS: usize = 1_000;
/// Most literals of one list.
const MAX_LITERALS: usize = 1_000;

const KEYS: &[&str] = &["all", "any", "not", "field", "history", "op", "value", "ref"];
const FORMS: &[&str] = &["all", "any", "not", "field", "history"];

/// The words of the operators.
pub(crate) const OPERATORS: &[(&str, Operator)] = &[
    ("eq", Operator::Eq),
    ("ne", Operator::Ne),
    ("lt", Operator::Lt),
    ("lte", Operator::Lte),
    ("gt", Operator::Gt),
    ("gte", Operator::Gte),
    ("between", Operator::Between),
    ("in", Operator::In),
    ("not_in", Operator::NotIn),
    ("exists", Operator::Exists),
    ("missing", Operator::Missing),
    ("prefix", Operator::Prefix),
    ("suffix", Operator::Suffix),
    ("contains", Operator::Contains),
    ("any_of", Operator::AnyOf),
    ("all_of", Operator::AllOf),
    ("none_of", Operator::NoneOf),
];

/// The words of the history functions.
pub(crate) const FUNCTIONS: &[(&str, HistoryFunction)] = &[
    ("exists", HistoryFunction::Exists),
    ("count", HistoryFunction::Count),
    ("since", HistoryFunction::Since),
];

/// Reads a condition; `None` only after something has been reported.
pub(super) fn read_condition(at: &At<'_>, findings: &mut Findings) -> Option<Condition> {
    read_nested(at, MAX_DEPTH, findings)
}

fn read_nested(at: &At<'_>, depth_left: usize, findings: &mut Findings) -> Option<Condition> {
    if depth_left == 0 {
        at.error(findings, Code::TooLarge, format!("conditions nest deeper than {MAX_DEPTH} levels"));
        return None;
    }
    if let NodeValue::String(_) = &at.node.value {
        let message = "the expression form is not supported yet";
        let suggestion = "write the condition as a tree, such as { field: event.amount, op: gt, value: 50 }";
        at.error_with(findings, Code::NotYetSupported, message, suggestion);
        return None;
    }
    let fields = at.fields(findings, KEYS, &[])?;
    let forms: Vec<&str> = FORMS.iter().copied().filter(|form| fields.has(form)).collect();
    let [form] = forms.as_slice() else {
        if forms.len() > 1 {
            let message = format!("{} cannot stand in one mapping", forms.join(" and "));
            at.error_with(
                findings,
                Code::ConflictingKeys,
                message,
                "put each into a list under `all` or `any`",
            );
        } else {
            let message = format!("a condition has one of the keys {}", FORMS.join(", "));
            at.error(findings, Code::BadCondition, message);
        }
        return None;
    };
    let inner = fields.get(form)?;
    match *form {
        "field" | "history" => read_comparison(&fields, findings).map(Condition::Compare),
        form => {
            for key in ["op", "value", "ref"] {
                if let Some(at) = fields.get(key) {
                    at.error(findings, Code::ConflictingKeys, format!("`{key}` does not go with `{form}`"));
                }
            }
            if form == "not" {
                let part = read_nested(&inner, depth_left - 1, findings)?;
                return Some(Condition::Not(Box::new(part)));
            }
            // Read all before giving up, so that every problem is reported.
            let parts: Vec<Option<Condition>> = inner
                .items(findings, 1, MAX_PARTS)?
                .iter()
                .map(|item| read_nested(item, depth_left - 1, findings))
                .collect();
            let parts: Vec<Condition> = parts.into_iter().collect::<Option<_>>()?;
            Some(if form == "all" { Condition::All(parts) } else { Condition::Any(parts) })
        }
    }
}

/// What the left side is, as far as it decides which operators and right sides go with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Field,
    History(HistoryFunction),
}

fn read_comparison(fields: &Fields<'_>, findings: &mut Findings) -> Option<Comparison> {
    let left = match (fields.get("field"), fields.get("history")) {
        (Some(at), _) => read_field(&at, findings).map(Operand::Field),
        (None, Some(at)) => read_history(&at, findings).map(Operand::History),
        (None, None) => None,
    };
    // The kind is known even when the rest of the left side is wrong, so the right side is still looked at.
    let kind = match &left {
        Some(Operand::History(query)) => Left::History(query.function),
        Some(Operand::Field(_)) => Left::Field,
        None => return None,
    };
    let boolean = matches!(kind, Left::Field | Left::History(HistoryFunction::Exists));
    let (operator, right) = if fields.has("op") {
        let operator = fields.get("op").and_then(|at| at.word(findings, OPERATORS))?;
        if !goes_with(kind, operator) {
            let message = format!("`{}` does not go with {}", word(operator), describe(kind));
            fields.at.error(findings, Code::BadComparison, message);
            return None;
        }
        (operator, read_right(fields, kind, operator, findings)?)
    } else if boolean && !fields.has("value") && !fields.has("ref") {
        (Operator::Eq, Right::Literal(Literal::Boolean(true)))
    } else {
        let message = "the key `op` is missing";
        fields.at.error_with(findings, Code::MissingKey, message, "such as `op: eq`");
        return None;
    };
    Some(Comparison { left: left?, operator, right })
}

/// The word of an operator.
pub(crate) fn word(operator: Operator) -> &'static str {
    OPERATORS.iter().find(|(_, known)| *known == operator).map_or("?", |(word, _)| word)
}

fn describe(kind: Left) -> &'static str {
    match kind {
        Left::Field => "a field",
        Left::History(HistoryFunction::Exists) => "the history function exists",
        Left::History(HistoryFunction::Count) => "the history function count",
        Left::History(HistoryFunction::Since) => "the history function since",
    }
}

fn goes_with(kind: Left, operator: Operator) -> bool {
    use Operator::*;
    match kind {
        Left::Field => true,
        Left::History(HistoryFunction::Exists) => matches!(operator, Eq | Ne),
        Left::History(HistoryFunction::Count) => {
            matches!(operator, Eq | Ne | Lt | Lte | Gt | Gte | Between | In | NotIn)
        }
        Left::History(HistoryFunction::Since) => matches!(operator, Lt | Lte | Gt | Gte | Between),
    }
}

fn read_right(fields: &Fields<'_>, kind: Left, operator: Operator, findings: &mut Findings) -> Option<Right> {
    use Operator::*;
    if matches!(operator, Exists | Missing) {
        for key in ["value", "ref"] {
            if let Some(at) = fields.get(key) {
                let message = format!("`{}` takes no `{key}`", word(operator));
                at.error_with(findings, Code::BadComparison, message, "remove it");
            }
        }
        return Some(Right::Nothing);
    }
    match (fields.get("value"), fields.get("ref")) {
        (Some(value), None) => match operator {
            Between => read_literals(&value, kind, operator, 2, 2, findings),
            In | NotIn | AnyOf | AllOf | NoneOf => {
                read_literals(&value, kind, operator, 1, MAX_LITERALS, findings)
            }
            _ => read_literal(&value, kind, operator, findings).map(Right::Literal),
        },
        (None, Some(field)) => {
            if matches!(operator, Between)
                || matches!(kind, Left::History(function) if function != HistoryFunction::Count)
            {
                let message = format!("`{}` of {} takes no `ref`", word(operator), describe(kind));
                field.error_with(findings, Code::BadComparison, message, "use `value`");
                return None;
            }
            read_field(&field, findings).map(Right::Ref)
        }
        (Some(_), Some(field)) => {
            let message = "`value` and `ref` exclude each other";
            field.error_with(findings, Code::ConflictingKeys, message, "keep one of the two");
            None
        }
        (None, None) => {
            let message = format!("`{}` needs a `value` or a `ref`", word(operator));
            fields.at.error(findings, Code::MissingKey, message);
            None
        }
    }
}

fn read_literals(
    at: &At<'_>,
    kind: Left,
    operator: Operator,
    least: usize,
    most: usize,
    findings: &mut Findings,
) -> Option<Right> {
    let items = at.items(findings, least, most)?;
    let literals: Vec<Option<Literal>> =
        items.iter().map(|item| read_literal(item, kind, operator, findings)).collect();
    let literals: Vec<Literal> = literals.into_iter().collect::<Option<_>>()?;
    let first = literals.first().map(std::mem::discriminant);
    if literals.iter().any(|literal| Some(std::mem::discriminant(literal)) != first) {
        at.error(findings, Code::BadComparison, "the list mixes texts, numbers or booleans");
        return None;
    }
    Some(Right::Literals(literals))
}

/// A literal of a type that the left side and the operator can meet.
fn read_literal(at: &At<'_>, kind: Left, operator: Operator, findings: &mut Findings) -> Option<Literal> {
    use Operator::*;
    let wanted = match (kind, operator) {
        (Left::History(HistoryFunction::Exists), _) => "true or false",
        (Left::History(HistoryFunction::Count), _) => "a number",
        (Left::History(HistoryFunction::Since), _) => {
            return at.duration_ms(findings).map(Literal::DurationMs);
        }
        (Left::Field, Prefix | Suffix | Contains | AnyOf | AllOf | NoneOf) => "a text",
        (Left::Field, Lt | Lte | Gt | Gte | Between) => "a number or a text",
        (Left::Field, _) => "a boolean, a number or a text",
    };
    let literal = match &at.node.value {
        NodeValue::Boolean(value) => Literal::Boolean(*value),
        NodeValue::Number { value, .. } => {
            if !value.is_portable() {
                let message = format!(
                    "{value} has too many digits: integers have at most 64 bits, other numbers 15 digits"
                );
                at.error(findings, Code::BadNumber, message);
                return None;
            }
            Literal::Number(*value)
        }
        NodeValue::String(value) => Literal::String(value.clone()),
        NodeValue::Null if wanted.contains("text") => {
            let message = format!("{wanted} is wanted here, not nothing");
            at.error_with(
                findings,
                Code::WrongType,
                message,
                "`op: missing` asks whether a field is absent or null",
            );
            return None;
        }
        _ => {
            at.wrong_type(findings, wanted);
            return None;
        }
    };
    let fits = match &literal {
        Literal::Boolean(_) => wanted.contains("boolean") || wanted.contains("true"),
        Literal::Number(_) => wanted.contains("number"),
        Literal::String(_) => wanted.contains("text"),
        Literal::DurationMs(_) => false,
    };
    if !fits {
        at.wrong_type(findings, wanted);
        return None;
    }
    if kind == Left::History(HistoryFunction::Count)
        && !matches!(&literal, Literal::Number(number) if *number >= Number::ZERO && number.as_i64().is_some())
    {
        at.error(findings, Code::BadNumber, "a count is a whole number, not negative");
        return None;
    }
    Some(literal)
}

fn read_field(at: &At<'_>, findings: &mut Findings) -> Option<Field> {
    let text = at.string(findings)?;
    let (scope, name) = text.split_once('.').unwrap_or((text, ""));
    if matches!((scope, name), ("subscription" | "local" | "past", _) | ("user", "segments")) {
        at.error(findings, Code::NotYetSupported, format!("`{}` is not supported yet", shorten(text)));
        return None;
    }
    let field: fn(String) -> Field = match scope {
        "event" => Field::Event,
        "user" => Field::User,
        _ => {
            let message =
                format!("`{}` is no field: `event.` and a property, or `user.` and a trait", shorten(text));
            match nearest(scope, &["event", "user"]) {
                Some(word) => {
                    let suggestion = format!("did you mean `{word}.{}`?", shorten(name));
                    at.error_with(findings, Code::BadField, message, suggestion);
                }
                None => at.error(findings, Code::BadField, message),
            }
            return None;
        }
    };
    if let Some(problem) = super::name_problem(name) {
        at.error(findings, Code::BadField, format!("after `{scope}.`: {problem}"));
        return None;
    }
    Some(field(name.to_owned()))
}

fn read_history(at: &At<'_>, findings: &mut Findings) -> Option<HistoryQuery> {
    let fields = at.fields(
        findings,
        &["event", "fn", "last", "lifetime"],
        &["of", "where", "between", "calendar", "zone"],
    )?;
    let event_type = fields.require("event", findings).and_then(|at| at.name(findings));
    let function = fields.require("fn", findings).and_then(|at| read_function(&at, findings));
    let window = match (fields.get("last"), fields.get("lifetime")) {
        (Some(last), None) => last.duration_ms(findings).map(Window::LastMs),
        (None, None) => Some(Window::Lifetime),
        (None, Some(lifetime)) => match lifetime.boolean(findings) {
            Some(true) => Some(Window::Lifetime),
            Some(false) => {
                let message = "`lifetime: false` says nothing";
                lifetime.error_with(findings, Code::BadCondition, message, "remove it, or write `last: 30d`");
                None
            }
            None => None,
        },
        (Some(_), Some(lifetime)) => {
            let message = "`last` and `lifetime` exclude each other";
            lifetime.error_with(findings, Code::ConflictingKeys, message, "keep one of the two");
            None
        }
    };
    Some(HistoryQuery { event_type: event_type?.to_owned(), function: function?, window: window? })
}

fn read_function(at: &At<'_>, findings: &mut Findings) -> Option<HistoryFunction> {
    if let NodeValue::String(text) = &at.node.value
        && ["sum", "min", "max", "avg", "distinct", "first", "last"].contains(&text.as_str())
    {
        at.error(
            findings,
            Code::NotYetSupported,
            format!("the history function `{text}` is not supported yet"),
        );
        return None;
    }
    at.word(findings, FUNCTIONS)
}
