//! Random definitions for property tests: valid, in the form that reading leaves them in.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::catalog::{Catalog, Remember};
use super::condition::*;
use super::definition::*;
use super::number::Number;
use crate::event::Value;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z_]{0,8}",
        // Names that YAML or JSON could trip over, and texts beyond ASCII.
        prop::sample::select(vec![
            "no", "010", "22:00", "a\"b", "a: b", "x #y", "käse", "🛒", "null", "a.b", "-"
        ])
        .prop_map(str::to_owned),
    ]
}

fn names(least: usize) -> impl Strategy<Value = Vec<String>> {
    btree_set(name(), least..4).prop_map(|names| names.into_iter().collect())
}

fn duration_ms() -> impl Strategy<Value = i64> {
    (1i64..=3_660 * 86_400).prop_map(|seconds| seconds * 1_000)
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::from_i64),
        (-999_999_999_999_999i128..=999_999_999_999_999).prop_map(Number),
        (-1_000i128..1_000).prop_map(|cents| Number(cents * 10_000_000)),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![name(), ".{0,20}", Just("2026-01-15T10:30:00Z".to_owned())]
}

fn field() -> impl Strategy<Value = Field> {
    // `user.segments` belongs to the language already.
    prop_oneof![name().prop_map(Field::Event), name().prop_map(|name| Field::User(format!("t_{name}")))]
}

fn field_comparison() -> impl Strategy<Value = (Operator, Right)> {
    use Operator::*;
    let literal = prop_oneof![
        any::<bool>().prop_map(Literal::Boolean),
        number().prop_map(Literal::Number),
        text().prop_map(Literal::String)
    ];
    let ordered = prop_oneof![number().prop_map(Literal::Number), text().prop_map(Literal::String)];
    let texts = || vec(text().prop_map(Literal::String), 1..4).prop_map(Right::Literals);
    let numbers = vec(number().prop_map(Literal::Number), 1..4).prop_map(Right::Literals);
    let pick = |operators: &[Operator]| prop::sample::select(operators.to_vec());
    prop_oneof![
        (pick(&[Eq, Ne]), literal.prop_map(Right::Literal)),
        (pick(&[Lt, Lte, Gt, Gte]), ordered.prop_map(Right::Literal)),
        (pick(&[Prefix, Suffix, Contains]), text().prop_map(|text| Right::Literal(Literal::String(text)))),
        (pick(&[Exists, Missing]), Just(Right::Nothing)),
        (Just(Between), vec(number().prop_map(Literal::Number), 2).prop_map(Right::Literals)),
        (pick(&[In, NotIn]), prop_oneof![texts(), numbers]),
        (pick(&[AnyOf, AllOf, NoneOf]), texts()),
        (pick(&[Eq, Ne, Lt, Gte, In, Contains, AnyOf]), field().prop_map(Right::Ref)),
    ]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    use HistoryFunction as Fn;
    let window = || prop_oneof![duration_ms().prop_map(Window::LastMs), Just(Window::Lifetime)];
    let history = |function| {
        (name(), window()).prop_map(move |(event_type, window)| {
            Operand::History(HistoryQuery { event_type, function, window })
        })
    };
    let count = (0i64..10_000).prop_map(|count| Right::Literal(Literal::Number(Number::from_i64(count))));
    let of = |left: BoxedStrategy<Operand>, rest: BoxedStrategy<(Operator, Right)>| {
        (left, rest).prop_map(|(left, (operator, right))| Comparison { left, operator, right })
    };
    prop_oneof![
        of(field().prop_map(Operand::Field).boxed(), field_comparison().boxed()),
        of(
            history(Fn::Exists).boxed(),
            any::<bool>().prop_map(|value| (Operator::Eq, Right::Literal(Literal::Boolean(value)))).boxed()
        ),
        of(history(Fn::Count).boxed(), (Just(Operator::Gte), count).boxed()),
        of(
            history(Fn::Since).boxed(),
            duration_ms().prop_map(|ms| (Operator::Lte, Right::Literal(Literal::DurationMs(ms)))).boxed()
        ),
    ]
}

/// A random condition.
pub(crate) fn condition() -> impl Strategy<Value = Condition> {
    comparison().prop_map(Condition::Compare).prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(Condition::All),
            vec(inner.clone(), 1..4).prop_map(Condition::Any),
            inner.prop_map(|part| Condition::Not(Box::new(part))),
        ]
    })
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        Just(Limit::OncePerEver),
        Just(Limit::OncePerCalendarDay),
        (1u32..100, duration_ms()).prop_map(|(n, per_ms)| Limit::AtMost { n, per_ms }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Long),
        (-999_999_999_999_999i128..=999_999_999_999_999)
            .prop_map(|units| Value::Double(Number(units).to_f64())),
        text().prop_map(Value::String),
        vec(text(), 0..3).prop_map(Value::Strings),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let params = || btree_map(name(), value(), 0..4);
    prop_oneof![
        (name(), name(), params()).prop_map(|(channel, template, params)| Action {
            kind: ActionKind::Send,
            channel: Some(channel),
            template: Some(template),
            params,
        }),
        (option::of(name()), params()).prop_map(|(channel, params)| Action {
            kind: ActionKind::Alert,
            channel,
            template: None,
            params,
        }),
    ]
}

/// A random campaign.
pub(crate) fn campaign() -> impl Strategy<Value = Campaign> {
    let time = || option::of(-10_000_000_000_000i64..10_000_000_000_000);
    let schedule = (time(), time()).prop_map(|(start_ms, end_ms)| Schedule { start_ms, end_ms });
    let suppressed = prop::sample::select(vec![WhenSuppressed::Next, WhenSuppressed::Stop]);
    let group = (name(), suppressed).prop_map(|(name, when_suppressed)| Group { name, when_suppressed });
    let limits = vec(limit(), 0..4).prop_map(|mut limits| {
        let mut seen = Vec::new();
        limits.retain(|limit| {
            !seen.contains(limit) && {
                seen.push(*limit);
                true
            }
        });
        limits
    });
    (
        (
            "[a-z0-9][a-zA-Z0-9_.-]{0,10}",
            option::of(text()),
            option::of(prop::sample::select(Status::ALL.to_vec())),
        ),
        (option::of(schedule), names(1), option::of(condition()), any::<i32>()),
        (option::of(group), names(0), limits, action()),
    )
        .prop_map(
            |(
                (id, description, status),
                (schedule, trigger, when, priority),
                (group, tags, limits, action),
            )| {
                Campaign {
                    id,
                    description,
                    status,
                    schedule,
                    trigger,
                    when,
                    priority,
                    group,
                    tags,
                    limits,
                    action,
                }
            },
        )
}

/// A random catalog.
pub(crate) fn catalog() -> impl Strategy<Value = Catalog> {
    let remember = (duration_ms(), 1u32..=4_096, names(0))
        .prop_map(|(for_ms, at_most, properties)| Remember { for_ms, at_most, properties });
    (btree_map(name(), remember, 0..4), btree_set(name(), 0..4), duration_ms()).prop_map(
        |(remember, pii_traits, allowed_lateness_ms)| Catalog { remember, pii_traits, allowed_lateness_ms },
    )
}
