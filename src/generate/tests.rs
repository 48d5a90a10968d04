//! The generator keeps its promises.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::event::Value;
use crate::schema::{DecodeError, EVENT_SCHEMA, WriterSchema, decode_event};

fn options() -> GenerateOptions {
    GenerateOptions {
        events: 20_000,
        users: 300,
        seed: 7,
        duplicates: 0.05,
        poison: 0.05,
        late: 0.02,
        skew: 0.8,
        wrong_partitions: true,
        ..GenerateOptions::default()
    }
}

fn all(options: GenerateOptions) -> (Vec<Generated>, GroundTruth) {
    let mut generator = Generator::new(options).unwrap();
    let records = generator.by_ref().collect();
    (records, generator.truth().clone())
}

#[test]
fn the_same_options_give_the_same_records() {
    assert_eq!(all(options()), all(options()));
    let (other, _) = all(GenerateOptions { seed: 8, ..options() });
    assert_ne!(all(options()).0, other);
}

/// A change of these lines changes what every seed means: then say so in the changelog.
#[test]
fn a_seed_means_the_same_in_every_release() {
    let few = GenerateOptions { events: 400, users: 3, ..options() };
    let lines: Vec<_> =
        all(few).0.iter().filter_map(|g| Some(g.event()?.to_json())).skip(3).step_by(90).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_truth_adds_up() {
    let (records, truth) = all(options());
    assert_eq!(records.len(), 20_000);
    assert_eq!(truth.records, 20_000);
    assert_eq!(truth.records, truth.events + truth.duplicates + truth.dead_letters());
    assert_eq!(truth.events, truth.by_type.values().sum::<u64>());
    assert!((800..1200).contains(&truth.duplicates), "{truth:?}");
    assert!((800..1200).contains(&truth.dead_letters()), "{truth:?}");
    assert_eq!(truth.poison.len(), 8, "every kind comes: {truth:?}");
    assert!(truth.late > 100, "{truth:?}");
    assert_eq!(truth.by_type["signup"], 300);
    let expected: u64 =
        records.iter().filter(|g| matches!(g.record, GeneratedRecord::Event(_))).count() as u64;
    assert_eq!(truth.events, expected);
}

#[test]
fn ids_are_unique_and_duplicates_repeat_an_earlier_event() {
    let (records, _) = all(options());
    let mut seen = BTreeMap::new();
    for (index, generated) in records.iter().enumerate() {
        match &generated.record {
            GeneratedRecord::Event(event) => {
                assert!(seen.insert(event.event_id.clone(), (event.clone(), index)).is_none());
            }
            GeneratedRecord::Duplicate(event) => assert_eq!(&seen[&event.event_id].0, event),
            GeneratedRecord::Poison(_) => {}
        }
    }
}

#[test]
fn a_users_events_come_in_order_but_for_the_late_ones() {
    let options = options();
    let (records, truth) = all(options.clone());
    let (mut newest, mut late) = (BTreeMap::new(), 0);
    for generated in &records {
        let GeneratedRecord::Event(event) = &generated.record else { continue };
        let newest = newest.entry(&event.user_id).or_insert_with(|| {
            assert_eq!(event.event_type, "signup", "a user signs up first");
            i64::MIN
        });
        if event.occurred_at_ms < *newest {
            late += 1;
        } else {
            assert!(event.occurred_at_ms > *newest);
            *newest = event.occurred_at_ms;
        }
        assert!((options.start_ms..options.end_ms() + 1_000).contains(&event.occurred_at_ms));
    }
    assert_eq!(late, truth.late);
    let (_, in_time) = all(GenerateOptions { late: 0.0, ..options });
    assert_eq!(in_time.late, 0);
}

#[test]
fn events_decode_and_poison_does_not() {
    let schema = WriterSchema::parse(1, EVENT_SCHEMA).unwrap();
    for generated in all(options()).0 {
        let value = generated.value(1);
        let GeneratedRecord::Poison(poison) = &generated.record else {
            let event = decode_event(&schema, wire::split(&value).unwrap().1).unwrap();
            assert_eq!(Some(&event), generated.event());
            assert_eq!(generated.key(), Some(event.user_id.as_bytes()));
            continue;
        };
        let decoded = wire::split(&value).map(|(id, body)| (id, decode_event(&schema, body)));
        match (poison.kind, decoded) {
            (PoisonKind::BadFraming, Err(_)) => {}
            (PoisonKind::BadAvro, Ok((1, Err(DecodeError::Truncated)))) => {}
            (PoisonKind::Garbage, Ok((1, Err(DecodeError::Malformed("a negative length"))))) => {}
            (PoisonKind::UnknownValueType, Ok((1, Err(error)))) => {
                assert_eq!(error, DecodeError::Malformed("a branch that the union does not have"));
            }
            (PoisonKind::Oversized, Ok((1, Err(DecodeError::Limit(_))))) => {}
            (PoisonKind::WrongKey, Ok((1, Ok(event)))) => {
                assert_ne!(generated.key().unwrap(), event.user_id.as_bytes());
            }
            (PoisonKind::MissingKey, Ok((1, Ok(_)))) => assert_eq!(generated.key(), None),
            (PoisonKind::WrongPartition, Ok((1, Ok(event)))) => {
                assert!(generated.wants_wrong_partition());
                assert_eq!(generated.key(), Some(event.user_id.as_bytes()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn no_wrong_partition_unless_there_are_several() {
    let (records, truth) = all(GenerateOptions { wrong_partitions: false, ..options() });
    assert_eq!(truth.poison.len(), 7);
    assert!(!records.iter().any(Generated::wants_wrong_partition));
}

#[test]
fn skew_gives_few_users_most_events() {
    let share_of_first = |skew| {
        let (records, _) = all(GenerateOptions { skew, users: 1_000, ..options() });
        records.iter().filter(|g| g.user_id == "user-000000").count()
    };
    assert!((5..60).contains(&share_of_first(0.0)));
    assert!(share_of_first(1.0) > 1_500);
}

#[test]
fn the_shops_stories_all_occur() {
    let (records, _) = all(options());
    let events: Vec<&Event> = records.iter().filter_map(Generated::event).collect();
    let has = |event_type: &str, name: &str, wanted: &dyn Fn(&Value) -> bool| {
        let some = events.iter().filter(|event| event.event_type == event_type);
        some.filter(|event| event.properties.get(name).is_some_and(wanted)).count()
    };
    assert!(has("purchase", "amount", &|v| matches!(v, Value::Double(v) if *v > 50.0)) > 500);
    assert!(has("purchase", "rating", &|v| *v == Value::Long(5)) > 200);
    assert!(
        has("payment_failed", "failure_reason", &|v| *v == Value::String("INSUFFICIENT_FUNDS".into())) > 500
    );
    let tiers: BTreeSet<_> =
        events.iter().filter_map(|e| Some(format!("{:?}", e.traits.get("tier")?))).collect();
    assert_eq!(tiers.len(), 3);
    let mut failures = BTreeMap::new();
    for event in events.iter().filter(|event| event.event_type == "payment_failed") {
        *failures.entry((&event.user_id, event.occurred_at_ms / 86_400_000)).or_insert(0) += 1;
    }
    assert!(
        failures.values().filter(|count| **count > 1).count() > 50,
        "payments fail twice a day now and then"
    );
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let refused = |options: GenerateOptions| Generator::new(options).unwrap_err().to_string();
    assert_eq!(refused(GenerateOptions { users: 0, ..options() }), "users is 0; allowed is 1 to 20000000");
    assert_eq!(refused(GenerateOptions { poison: 1.5, ..options() }), "poison is 1.5; allowed is 0 to 1");
    assert_eq!(refused(GenerateOptions { skew: f64::NAN, ..options() }), "skew is NaN; allowed is 0 to 4");
    let both = GenerateOptions { poison: 0.6, duplicates: 0.6, ..options() };
    assert!(refused(both).starts_with("duplicates and poison together"));
    assert!(refused(GenerateOptions { start_ms: -1, ..options() }).starts_with("start_ms"));
    assert_eq!(all(GenerateOptions { events: 0, ..options() }).0, []);
}
