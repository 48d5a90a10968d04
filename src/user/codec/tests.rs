use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::campaign::catalog::{Catalog, Remember};
use crate::decision::Outcome;
use crate::event::{Event, Properties, Value};
use crate::position::Position;
use crate::user::allows::MAX_TIMES_PER_CAMPAIGN;
use crate::user::{Output, history, traits};

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Long),
        // NaN is not equal to itself; the exact bits are compared in a test of its own.
        any::<f64>().prop_filter("NaN", |value| !value.is_nan()).prop_map(Value::Double),
        "\\PC{0,12}".prop_map(Value::String),
        proptest::collection::vec("\\PC{0,6}", 0..4).prop_map(Value::Strings),
    ]
}

fn properties() -> impl Strategy<Value = Properties> {
    proptest::collection::btree_map("[a-f]{1,2}", value(), 0..6)
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u64>(), "[a-c]", -1_000_i64..1_000, properties(), properties()).prop_map(
        |(id, event_type, occurred_at_ms, properties, traits)| Event {
            event_id: id.to_string(),
            user_id: "u".to_owned(),
            event_type,
            occurred_at_ms,
            properties,
            traits,
            trace_id: None,
        },
    )
}

fn output() -> impl Strategy<Value = Output> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (prop_oneof![Just(Outcome::Allow), Just(Outcome::Suppress), Just(Outcome::Holdout)], bytes())
            .prop_map(|(outcome, bytes)| Output::Decision { outcome, bytes }),
        bytes().prop_map(|bytes| Output::Activity { bytes }),
        ("[a-z_]{0,9}", "\\PC{0,20}").prop_map(|(code, text)| Output::DeadLetter { code, text }),
    ]
}

fn position() -> impl Strategy<Value = Position> {
    (0_u32..3, 0_i32..3, any::<i64>()).prop_map(|(incarnation, partition, offset)| Position {
        incarnation,
        partition,
        offset,
    })
}

fn catalog() -> Catalog {
    let remember = |at_most| Remember {
        for_ms: 1_500,
        at_most,
        properties: ["a", "b", "ab", "f"].map(str::to_owned).to_vec(),
    };
    Catalog {
        remember: BTreeMap::from([("a".to_owned(), remember(3)), ("b".to_owned(), remember(256))]),
        pii_traits: ["c".to_owned()].into(),
        ..Catalog::default()
    }
}

/// States that the public operations can reach.
fn state() -> impl Strategy<Value = UserState> {
    let step = (event(), position(), proptest::collection::vec("[a-d]", 0..3));
    let steps = proptest::collection::vec(step, 0..20);
    let entries = proptest::collection::vec((position(), proptest::collection::vec(output(), 0..3)), 0..4);
    (steps, entries, any::<bool>()).prop_map(|(steps, entries, overflowed)| {
        let mut state = UserState::new();
        for (event, position, campaigns) in steps {
            state.record(position, &event, &[], &catalog());
            for campaign in campaigns {
                state.allows.record(&campaign, event.occurred_at_ms);
            }
        }
        for (position, outputs) in entries {
            state.outbox.push(position, outputs);
        }
        state.history.overflowed = overflowed;
        state
    })
}

fn encoded(state: &UserState) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(state, &mut bytes);
    bytes
}

/// A state in which every part holds something.
fn full() -> UserState {
    let mut state = UserState::new();
    let everything: Properties = [
        ("a".to_owned(), Value::Null),
        ("b".to_owned(), Value::Boolean(true)),
        ("ab".to_owned(), Value::Double(0.1)),
        ("d".to_owned(), Value::Long(-5)),
        ("e".to_owned(), Value::String("text".to_owned())),
        ("f".to_owned(), Value::Strings(vec!["x".to_owned(), String::new()])),
    ]
    .into();
    for n in 0..100 {
        let event = Event {
            event_id: format!("e{n}"),
            user_id: "u".to_owned(),
            event_type: "a".to_owned(),
            occurred_at_ms: n,
            properties: everything.clone(),
            traits: everything.clone(),
            trace_id: None,
        };
        state.record(Position { incarnation: 1, partition: 2, offset: n }, &event, &[], &catalog());
        state.allows.record("c1", n);
    }
    state.outbox.push(
        Position { incarnation: 1, partition: 2, offset: 99 },
        vec![
            Output::Decision { outcome: Outcome::Holdout, bytes: vec![1, 2, 3] },
            Output::Activity { bytes: vec![] },
            Output::DeadLetter { code: "future_event".to_owned(), text: "too early".to_owned() },
            Output::Decision { outcome: Outcome::Allow, bytes: vec![4] },
        ],
    );
    state
}

#[test]
fn a_new_state_is_small() {
    let bytes = encoded(&UserState::new());
    assert!(bytes.len() < 40, "{}", bytes.len());
    assert_eq!(decode(&bytes), Ok(UserState::new()));
}

#[test]
fn every_part_survives() {
    let state = full();
    assert_eq!(state.allows.len(), 1);
    assert_eq!(state.dedup.len(), 100);
    assert_eq!(decode(&encoded(&state)), Ok(state));
}

#[test]
fn encoding_appends() {
    let mut bytes = b"before".to_vec();
    encode(&UserState::new(), &mut bytes);
    assert!(bytes.starts_with(b"before"));
    assert_eq!(decode(&bytes[6..]), Ok(UserState::new()));
}

#[test]
fn marks_of_publishing_are_not_stored() {
    let mut state = full();
    let unmarked = state.clone();
    state.outbox.mark_published(Position { incarnation: 1, partition: 2, offset: 99 }, 5);
    assert_ne!(state, unmarked);
    assert_eq!(decode(&encoded(&state)), Ok(unmarked));
}

#[test]
fn nan_keeps_its_bits() {
    let mut state = UserState::new();
    let nan = f64::from_bits(0x7ff8_0000_0000_1234);
    state.traits.insert("n".to_owned(), Value::Double(nan));
    let back = decode(&encoded(&state)).unwrap();
    assert!(matches!(back.traits.get("n"), Some(Value::Double(value)) if value.to_bits() == nan.to_bits()));
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = encoded(&full());
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = encoded(&full());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(decode(&damaged).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(decode(&[]), Err(CodecError::Length { length: 0 }));
    assert_eq!(decode(&[VERSION, 0, 0]), Err(CodecError::Length { length: 3 }));
    assert_eq!(decode(&vec![VERSION; MAX_BYTES + 1]), Err(CodecError::Length { length: MAX_BYTES + 1 }));
    assert_eq!(decode(&[9, 0, 0, 0, 0, 0]), Err(CodecError::Version { version: 9 }));
    assert_eq!(decode(&[VERSION, 0, 0, 0, 0, 0]), Err(CodecError::Checksum));
    let mut valid_checksum = vec![VERSION];
    valid_checksum.extend_from_slice(&checksum(VERSION, b"nonsense").to_le_bytes());
    valid_checksum.extend_from_slice(b"nonsense");
    assert_eq!(decode(&valid_checksum), Err(CodecError::Body));
    let text = CodecError::Version { version: 9 }.to_string();
    assert!(text.contains("version 9") && text.contains("up to 1"), "{text}");
}

#[test]
fn a_body_that_contradicts_itself_is_refused() {
    let mut unsorted = full();
    unsorted.history.types.get_mut("a").unwrap().kept.swap(0, 2);
    assert_eq!(decode(&encoded(&unsorted)), Err(CodecError::Body));

    let mut unnamed = full();
    unnamed.history.types.get_mut("a").unwrap().names.clear();
    assert_eq!(decode(&encoded(&unnamed)), Err(CodecError::Body));

    let mut empty_allows = full();
    empty_allows.allows.insert(7, Default::default());
    assert_eq!(decode(&encoded(&empty_allows)), Err(CodecError::Body));
}

/// The bytes of version 1 as first released. If this fails, states written by the released version can not be read
/// any more: add a version instead of changing this one.
#[test]
fn version_1_does_not_change() {
    let bytes = encoded(&full());
    let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
    assert_eq!((bytes.len(), hash), (1151, 11_825_940_597_673_678_889));
}

/// A state at nearly all of its bounds is far from the bound on the cell.
#[test]
fn the_largest_state_fits() {
    let mut state = UserState::new();
    let wide = Catalog {
        remember: (0..20)
            .map(|n| {
                let properties = vec!["p".to_owned()];
                (format!("t{n}"), Remember { for_ms: i64::MAX, at_most: 256, properties })
            })
            .collect(),
        ..Catalog::default()
    };
    for n in 0..20 * 256_i64 {
        let event = Event {
            event_id: format!("event number {n}"),
            user_id: "u".to_owned(),
            event_type: format!("t{}", n % 20),
            occurred_at_ms: n * 977,
            properties: [("p".to_owned(), Value::String("x".repeat(history::MAX_KEPT_VALUE_BYTES)))].into(),
            traits: Properties::new(),
            trace_id: None,
        };
        state.record(Position { incarnation: 0, partition: 0, offset: n }, &event, &[], &wide);
    }
    for n in 0..traits::MAX_TRAITS {
        state.traits.insert(format!("trait{n}"), Value::String("y".repeat(1_000)));
    }
    for n in 0..crate::user::allows::MAX_CAMPAIGNS {
        state.allows.record(&format!("campaign{n}"), i64::try_from(n).unwrap() * 977);
    }
    for n in 0..64 {
        for time in 0..MAX_TIMES_PER_CAMPAIGN {
            state.allows.record(&format!("campaign{n}"), i64::try_from(time).unwrap() * 1_000_003);
        }
    }
    let bytes = encoded(&state);
    assert!(bytes.len() < MAX_BYTES / 4, "{}", bytes.len());
    assert!(bytes.len() <= state.approximate_bytes(), "{} {}", bytes.len(), state.approximate_bytes());
    assert_eq!(decode(&bytes), Ok(state));
}

proptest! {
    #[test]
    fn a_state_survives(state in state()) {
        let bytes = encoded(&state);
        prop_assert_eq!(decode(&bytes), Ok(state.clone()));
        prop_assert!(bytes.len() <= state.approximate_bytes());
    }

    #[test]
    fn the_same_state_has_the_same_bytes(state in state()) {
        prop_assert_eq!(encoded(&state), encoded(&decode(&encoded(&state)).unwrap()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
        // Past version and checksum, too.
        let mut framed = vec![VERSION];
        framed.extend_from_slice(&checksum(VERSION, &bytes).to_le_bytes());
        framed.extend_from_slice(&bytes);
        let _ = decode(&framed);
    }
}
