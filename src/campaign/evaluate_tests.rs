use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::campaign::condition::{HistoryFunction, HistoryQuery, Window};

const MISSING: Truth = Truth::Unknown(Unknown::MissingField);
const WRONG: Truth = Truth::Unknown(Unknown::WrongType);

/// Fields by their dotted name, and one answer for every history question.
struct Given {
    fields: BTreeMap<String, Value>,
    history: HistoryAnswer,
}

impl Given {
    fn field(name: &str, value: Value) -> Given {
        Given {
            fields: BTreeMap::from([(name.to_owned(), value)]),
            history: HistoryAnswer::Unknown(Unknown::HistoryTruncated),
        }
    }

    fn and(mut self, name: &str, value: Value) -> Given {
        self.fields.insert(name.to_owned(), value);
        self
    }
}

impl Scope for Given {
    fn field(&self, field: &Field) -> Option<&Value> {
        self.fields.get(&field.to_string())
    }

    fn history(&self, _: &HistoryQuery) -> HistoryAnswer {
        self.history
    }
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn texts(values: &[&str]) -> Value {
    Value::Strings(values.iter().map(|value| (*value).to_owned()).collect())
}

fn lit(value: &str) -> Literal {
    Literal::String(value.to_owned())
}

fn num(value: &str) -> Literal {
    Literal::Number(Number::parse(value).unwrap())
}

fn judge(value: Value, operator: Operator, right: Right) -> Truth {
    judge_in(&Given::field("event.x", value), operator, right)
}

fn judge_in(given: &Given, operator: Operator, right: Right) -> Truth {
    let left = Operand::Field(Field::Event("x".into()));
    Condition::Compare(Comparison { left, operator, right }).evaluate(given)
}

fn judge_history(answer: HistoryAnswer, operator: Operator, right: Right) -> Truth {
    let query = HistoryQuery {
        event_type: "purchase".into(),
        function: HistoryFunction::Count,
        window: Window::Lifetime,
    };
    let given = Given { fields: BTreeMap::new(), history: answer };
    Condition::Compare(Comparison { left: Operand::History(query), operator, right }).evaluate(&given)
}

fn one(literal: Literal) -> Right {
    Right::Literal(literal)
}

#[test]
fn numbers_compare_exactly_across_long_and_double() {
    assert_eq!(judge(Value::Double(0.1), Operator::Eq, one(num("0.1"))), Truth::True);
    assert_eq!(judge(Value::Double(50.0), Operator::Gt, one(num("50"))), Truth::False);
    assert_eq!(judge(Value::Double(50.01), Operator::Gt, one(num("50"))), Truth::True);
    // One more than 2^53: a comparison through doubles would call these equal.
    assert_eq!(
        judge(Value::Long(9007199254740993), Operator::Eq, one(num("9007199254740992"))),
        Truth::False
    );
    assert_eq!(
        judge(Value::Long(3), Operator::Between, Right::Literals(vec![num("3"), num("3")])),
        Truth::True
    );
    assert_eq!(
        judge(Value::Long(4), Operator::Between, Right::Literals(vec![num("1"), num("3")])),
        Truth::False
    );
}

#[test]
fn doubles_without_an_exact_value_are_unknown() {
    for value in [f64::NAN, f64::INFINITY, 0.1 + 0.2] {
        for operator in [Operator::Eq, Operator::Ne, Operator::Lt, Operator::Gte] {
            assert_eq!(judge(Value::Double(value), operator, one(num("1"))), WRONG);
        }
        assert_eq!(judge(Value::Double(value), Operator::Exists, Right::Nothing), Truth::True);
    }
}

#[test]
fn missing_and_null_are_unknown_except_to_exists_and_missing() {
    let nothing = Given::field("event.other", Value::Long(1));
    for operator in [Operator::Eq, Operator::Ne, Operator::Lt, Operator::Prefix] {
        assert_eq!(judge_in(&nothing, operator, one(lit("a"))), MISSING);
        assert_eq!(judge(Value::Null, operator, one(lit("a"))), MISSING);
    }
    for operator in [Operator::In, Operator::NotIn, Operator::AnyOf, Operator::NoneOf, Operator::AllOf] {
        assert_eq!(judge_in(&nothing, operator, Right::Literals(vec![lit("a")])), MISSING);
    }
    assert_eq!(judge_in(&nothing, Operator::Exists, Right::Nothing), Truth::False);
    assert_eq!(judge_in(&nothing, Operator::Missing, Right::Nothing), Truth::True);
    assert_eq!(judge(Value::Null, Operator::Exists, Right::Nothing), Truth::False);
    assert_eq!(judge(Value::Null, Operator::Missing, Right::Nothing), Truth::True);
    assert_eq!(judge(Value::Boolean(false), Operator::Exists, Right::Nothing), Truth::True);
}

#[test]
fn another_type_is_unknown_not_unequal() {
    assert_eq!(judge(text("50"), Operator::Eq, one(num("50"))), WRONG);
    assert_eq!(judge(text("50"), Operator::Ne, one(num("50"))), WRONG);
    assert_eq!(judge(Value::Boolean(true), Operator::Eq, one(lit("true"))), WRONG);
    assert_eq!(judge(Value::Boolean(true), Operator::Lt, one(Literal::Boolean(false))), WRONG);
    assert_eq!(judge(Value::Long(1), Operator::Prefix, one(lit("1"))), WRONG);
    assert_eq!(judge(text("a"), Operator::AnyOf, Right::Literals(vec![lit("a")])), WRONG);
    assert_eq!(judge(Value::Long(1), Operator::In, Right::Literals(vec![lit("1")])), WRONG);
}

#[test]
fn membership_and_text_tests() {
    let list = || Right::Literals(vec![lit("gold"), lit("silver")]);
    assert_eq!(judge(text("gold"), Operator::In, list()), Truth::True);
    assert_eq!(judge(text("tin"), Operator::In, list()), Truth::False);
    assert_eq!(judge(text("tin"), Operator::NotIn, list()), Truth::True);
    assert_eq!(judge(text("gold"), Operator::NotIn, list()), Truth::False);
    assert_eq!(judge(text("gold-plus"), Operator::Prefix, one(lit("gold"))), Truth::True);
    assert_eq!(judge(text("gold-plus"), Operator::Suffix, one(lit("gold"))), Truth::False);
    assert_eq!(judge(text("gold-plus"), Operator::Suffix, one(lit("plus"))), Truth::True);
    assert_eq!(judge(text("gold-plus"), Operator::Contains, one(lit("d-p"))), Truth::True);
    assert_eq!(judge(texts(&["a", "bc"]), Operator::Contains, one(lit("bc"))), Truth::True);
    assert_eq!(judge(texts(&["a", "bc"]), Operator::Contains, one(lit("b"))), Truth::False);
}

#[test]
fn list_operators() {
    let wanted = || Right::Literals(vec![lit("a"), lit("b")]);
    for (have, any, all) in [
        (texts(&["a", "b", "c"]), Truth::True, Truth::True),
        (texts(&["a"]), Truth::True, Truth::False),
        (texts(&["c"]), Truth::False, Truth::False),
        (texts(&[]), Truth::False, Truth::False),
    ] {
        assert_eq!(judge(have.clone(), Operator::AnyOf, wanted()), any);
        assert_eq!(judge(have.clone(), Operator::AllOf, wanted()), all);
        assert_eq!(judge(have, Operator::NoneOf, wanted()), any.not());
    }
}

#[test]
fn a_reference_compares_two_fields() {
    let to = |name: &str| Right::Ref(Field::User(name.to_owned()));
    let given = Given::field("event.x", Value::Long(5)).and("user.five", Value::Double(5.0));
    assert_eq!(judge_in(&given, Operator::Eq, to("five")), Truth::True);
    assert_eq!(judge_in(&given, Operator::Lt, to("five")), Truth::False);
    assert_eq!(judge_in(&given, Operator::Eq, to("absent")), MISSING);
    let given = Given::field("event.x", text("a")).and("user.list", texts(&["a", "b"]));
    assert_eq!(judge_in(&given, Operator::In, to("list")), Truth::True);
    let given = Given::field("event.x", texts(&["c"])).and("user.list", texts(&["a", "b"]));
    assert_eq!(judge_in(&given, Operator::AnyOf, to("list")), Truth::False);
    assert_eq!(judge_in(&given, Operator::NoneOf, to("list")), Truth::True);
}

#[test]
fn timestamps_compare_as_instants() {
    let ten_utc = || one(lit("2026-01-15T10:00:00Z"));
    // 10:30 at +01:00 is 09:30 UTC; by code point it would be later.
    assert_eq!(judge(text("2026-01-15T10:30:00+01:00"), Operator::Lt, ten_utc()), Truth::True);
    assert_eq!(judge(text("2026-01-15T10:00:00.000000001Z"), Operator::Gt, ten_utc()), Truth::True);
    assert_eq!(judge(Value::Long(1_768_471_200_000), Operator::Gte, ten_utc()), Truth::True);
    assert_eq!(judge(Value::Long(1_768_471_199_999), Operator::Gte, ten_utc()), Truth::False);
    assert_eq!(judge(Value::Double(0.5), Operator::Lt, ten_utc()), WRONG);
    assert_eq!(judge(text("yesterday"), Operator::Lt, ten_utc()), WRONG);
    assert_eq!(judge(text("apple"), Operator::Lt, one(lit("pear"))), Truth::True);
    let january = || Right::Literals(vec![lit("2026-01-01T00:00:00Z"), lit("2026-01-31T23:59:59Z")]);
    assert_eq!(judge(text("2026-02-01T00:30:00+01:00"), Operator::Between, january()), Truth::True);
    assert_eq!(judge(text("2026-02-01T00:30:00Z"), Operator::Between, january()), Truth::False);
}

#[test]
fn history_answers_compare_by_their_kind() {
    let day = 86_400_000;
    let since = |ms| HistoryAnswer::SinceMs(ms);
    let within = |days: i64| one(Literal::DurationMs(days * day));
    assert_eq!(
        judge_history(HistoryAnswer::Exists(true), Operator::Eq, one(Literal::Boolean(true))),
        Truth::True
    );
    assert_eq!(judge_history(HistoryAnswer::Count(3), Operator::Gte, one(num("3"))), Truth::True);
    assert_eq!(judge_history(HistoryAnswer::Count(0), Operator::Eq, one(num("0"))), Truth::True);
    assert_eq!(judge_history(since(30 * day), Operator::Lte, within(30)), Truth::True);
    assert_eq!(judge_history(since(30 * day + 1), Operator::Lte, within(30)), Truth::False);
    assert_eq!(judge_history(since(5), Operator::Lte, one(num("5"))), WRONG);
    let truncated = HistoryAnswer::Unknown(Unknown::HistoryTruncated);
    assert_eq!(
        judge_history(truncated, Operator::Gte, one(num("1"))),
        Truth::Unknown(Unknown::HistoryTruncated)
    );
    assert_eq!(judge_history(HistoryAnswer::Count(1), Operator::Exists, Right::Nothing), WRONG);
}

#[test]
fn malformed_right_sides_are_unknown_never_a_panic() {
    assert_eq!(judge(Value::Long(1), Operator::Between, Right::Literals(vec![num("1")])), WRONG);
    assert_eq!(judge(Value::Long(1), Operator::Between, Right::Nothing), WRONG);
    assert_eq!(judge(Value::Long(1), Operator::Eq, Right::Literals(vec![num("1")])), WRONG);
    assert_eq!(judge(Value::Long(1), Operator::In, one(num("1"))), WRONG);
}

#[test]
fn empty_conjunction_holds_and_empty_disjunction_does_not() {
    let given = Given::field("event.x", Value::Null);
    assert_eq!(Condition::All(vec![]).evaluate(&given), Truth::True);
    assert_eq!(Condition::Any(vec![]).evaluate(&given), Truth::False);
}

fn truth() -> impl Strategy<Value = Truth> {
    prop_oneof![
        Just(Truth::True),
        Just(Truth::False),
        Just(Truth::Unknown(Unknown::MissingField)),
        Just(Truth::Unknown(Unknown::WrongType)),
        Just(Truth::Unknown(Unknown::HistoryTruncated)),
    ]
}

/// Kleene's order: FALSE < UNKNOWN < TRUE; conjunction is the minimum, disjunction the maximum.
fn rank(truth: Truth) -> u8 {
    match truth {
        Truth::False => 0,
        Truth::Unknown(_) => 1,
        Truth::True => 2,
    }
}

proptest! {
    #[test]
    fn kleene_conjunction_is_minimum_and_disjunction_maximum(parts in prop::collection::vec(truth(), 0..6)) {
        prop_assert_eq!(rank(Truth::all(parts.clone())), parts.iter().map(|part| rank(*part)).min().unwrap_or(2));
        prop_assert_eq!(rank(Truth::any(parts.clone())), parts.iter().map(|part| rank(*part)).max().unwrap_or(0));
    }

    #[test]
    fn kleene_laws(a in truth(), b in truth(), c in truth()) {
        let (all, any) = (|parts: Vec<Truth>| Truth::all(parts), |parts: Vec<Truth>| Truth::any(parts));
        prop_assert_eq!(a.not().not(), a);
        prop_assert_eq!(all(vec![a, b]), all(vec![b, a]));
        prop_assert_eq!(any(vec![a, b]), any(vec![b, a]));
        prop_assert_eq!(all(vec![a, all(vec![b, c])]), all(vec![all(vec![a, b]), c]));
        prop_assert_eq!(any(vec![a, any(vec![b, c])]), any(vec![any(vec![a, b]), c]));
        prop_assert_eq!(all(vec![a, b]).not(), any(vec![a.not(), b.not()]));
        prop_assert_eq!(any(vec![a, b]).not(), all(vec![a.not(), b.not()]));
        prop_assert_eq!(all(vec![a, a]), a);
    }

    #[test]
    fn comparison_operators_agree_with_each_other(x in any::<i64>(), units in any::<i64>()) {
        let literal = || one(Literal::Number(Number(i128::from(units) * 7)));
        let is = |operator| judge(Value::Long(x), operator, literal());
        prop_assert_eq!(is(Operator::Ne), is(Operator::Eq).not());
        prop_assert_eq!(is(Operator::Gte), is(Operator::Lt).not());
        prop_assert_eq!(is(Operator::Gt), is(Operator::Lte).not());
        prop_assert_eq!(is(Operator::Lte), Truth::any([is(Operator::Lt), is(Operator::Eq)]));
    }
}
