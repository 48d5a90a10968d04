//! The codec against `apache-avro`, against evolving schemas, and against bytes that nobody vouches for.

use std::collections::HashMap;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::decision::{ActionKind, DecidedAction, Decision, LimitReason, Outcome, Reason, ReasonCode};
use crate::event::{Event, LimitError, Properties, Value};

fn compiled() -> WriterSchema {
    WriterSchema::parse(1, EVENT_SCHEMA).unwrap()
}

fn encoded(event: &Event) -> Vec<u8> {
    let mut body = Vec::new();
    encode_event(event, &mut body);
    body
}

fn sample() -> Event {
    let text = r#"{"event_id":"e1","user_id":"u1","type":"purchase","occurred_at":1768473000000,"properties":{"amount":29.99,"n":-3,"tags":["a","b"],"gift":false,"note":null,"sku":"x"},"traits":{"country":"DE"},"trace_id":"t"}"#;
    Event::from_json(text).unwrap()
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Long),
        any::<f64>().prop_filter("NaN differs from itself", |v| !v.is_nan()).prop_map(Value::Double),
        "\\PC{0,20}".prop_map(Value::String),
        prop::collection::vec("\\PC{0,10}", 0..4).prop_map(Value::Strings),
    ]
}

fn any_properties() -> impl Strategy<Value = Properties> {
    prop::collection::btree_map("\\PC{0,10}", any_value(), 0..6)
}

prop_compose! {
    fn any_event()(
        ids in prop::array::uniform3("\\PC{1,40}"),
        occurred_at_ms in -62_135_596_800_000i64..253_402_214_400_000,
        properties in any_properties(),
        traits in any_properties(),
        trace_id in prop::option::of("\\PC{0,40}"),
    ) -> Event {
        let [event_id, user_id, event_type] = ids;
        Event { event_id, user_id, event_type, occurred_at_ms, properties, traits, trace_id }
    }
}

prop_compose! {
    fn any_decision()(
        id in any::<u128>(),
        ids in prop::array::uniform4("\\PC{0,20}"),
        times in any::<(i64, i64, i64)>(),
        outcome in prop::sample::select(vec![Outcome::Allow, Outcome::Suppress, Outcome::Holdout]),
        code in prop::sample::select(vec![ReasonCode::Allowed, ReasonCode::CalendarLimit, ReasonCode::TooLarge]),
        limit in prop::option::of(("\\PC{0,20}", any::<u32>(), any::<u32>(), any::<Option<i64>>())),
        texts in prop::array::uniform6(prop::option::of("\\PC{0,20}")),
        params in any_properties(),
        kind in prop::sample::select(vec![ActionKind::Send, ActionKind::Alert]),
    ) -> Decision {
        let [event_id, user_id, campaign_id, event_type] = ids;
        let [outranked_by, channel, template, variant, recipient, trace_id] = texts;
        let limit = limit.map(|(limit, used, allowed, reopens_at_ms)| LimitReason { limit, used, allowed, reopens_at_ms });
        Decision {
            decision_id: Uuid::from_u128(id),
            event_id,
            user_id,
            campaign_id,
            campaign_version: times.0,
            event_type,
            occurred_at_ms: times.1,
            decided_at_ms: times.2,
            outcome,
            reason: Reason { code, limit, outranked_by },
            action: DecidedAction { kind, channel, template, variant, recipient, params: params.into_iter().collect() },
            trace_id,
        }
    }
}

fn avro_value(value: &Value) -> Avro {
    let (branch, value) = match value {
        Value::Null => (0, Avro::Null),
        Value::Boolean(value) => (1, Avro::Boolean(*value)),
        Value::Long(value) => (2, Avro::Long(*value)),
        Value::Double(value) => (3, Avro::Double(*value)),
        Value::String(value) => (4, Avro::String(value.clone())),
        Value::Strings(values) => (5, Avro::Array(values.iter().cloned().map(Avro::String).collect())),
    };
    Avro::Union(branch, Box::new(value))
}

fn avro_map(values: &Properties) -> Avro {
    Avro::Map(values.iter().map(|(name, value)| (name.clone(), avro_value(value))).collect::<HashMap<_, _>>())
}

fn avro_optional(text: &Option<String>) -> Avro {
    match text {
        None => Avro::Union(0, Box::new(Avro::Null)),
        Some(text) => Avro::Union(1, Box::new(Avro::String(text.clone()))),
    }
}

/// The event as the library sees it.
fn avro_event(event: &Event) -> Avro {
    Avro::Record(vec![
        ("event_id".into(), Avro::String(event.event_id.clone())),
        ("user_id".into(), Avro::String(event.user_id.clone())),
        ("type".into(), Avro::String(event.event_type.clone())),
        ("occurred_at".into(), Avro::TimestampMillis(event.occurred_at_ms)),
        ("properties".into(), avro_map(&event.properties)),
        ("traits".into(), avro_map(&event.traits)),
        ("trace_id".into(), avro_optional(&event.trace_id)),
    ])
}

fn read_by_library(schema: &str, mut body: &[u8]) -> Avro {
    let schema = Schema::parse_str(schema).unwrap();
    let value = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut body).unwrap();
    assert!(body.is_empty());
    value
}

fn write_by_library(schema: &str, value: Avro) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

use apache_avro::Schema;

proptest! {
    #[test]
    fn the_library_reads_the_events_that_we_write(event in any_event()) {
        prop_assert_eq!(read_by_library(EVENT_SCHEMA, &encoded(&event)), avro_event(&event));
    }

    #[test]
    fn we_read_the_events_that_the_library_writes(event in any_event()) {
        let body = write_by_library(EVENT_SCHEMA, avro_event(&event));
        prop_assert_eq!(decode_event(&compiled(), &body).unwrap(), event);
    }

    #[test]
    fn a_decision_is_read_back(decision in any_decision()) {
        let codec = OutputCodec { decision_schema_id: 7, activity_schema_id: 8 };
        let value = codec.encode_decision(&decision);
        prop_assert_eq!(codec.decode_decision(&value).unwrap(), decision.clone());
        let Avro::Record(fields) = read_by_library(DECISION_SCHEMA, &value[wire::HEADER_BYTES..]) else { panic!() };
        let fields: HashMap<_, _> = fields.into_iter().collect();
        prop_assert_eq!(&fields["campaign_id"], &Avro::String(decision.campaign_id.clone()));
        prop_assert_eq!(&fields["decided_at"], &Avro::TimestampMillis(decision.decided_at_ms));
        prop_assert_eq!(&fields["trace_id"], &avro_optional(&decision.trace_id));
        let Avro::Record(action) = &fields["action"] else { panic!() };
        let params = decision.action.params.iter().cloned().collect();
        prop_assert_eq!(&action[5].1, &avro_map(&params));
    }

    #[test]
    fn no_record_that_is_cut_off_is_taken_for_a_whole_one(event in any_event()) {
        let body = encoded(&event);
        let schema = compiled();
        for length in 0..body.len() {
            prop_assert_eq!(decode_event(&schema, &body[..length]), Err(DecodeError::Truncated), "{}", length);
        }
    }

    #[test]
    fn random_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        for schema in [EVENT_SCHEMA, RECURSIVE, EVERY_TYPE] {
            let _ = datum::decode(&WriterSchema::parse(1, schema).unwrap(), &body);
        }
        let _ = decode_event(&compiled(), &body);
    }

    #[test]
    fn mutated_records_decode_or_fail_but_never_panic(
        event in any_event(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut body = encoded(&event);
        for (place, byte, change) in changes {
            let place = place.index(body.len().max(1)).min(body.len().saturating_sub(1));
            match change {
                0 if !body.is_empty() => body[place] = byte,
                1 if !body.is_empty() => drop(body.remove(place)),
                _ => body.insert(place, byte),
            }
        }
        if let Ok(event) = decode_event(&compiled(), &body) {
            // NaN differs from itself, so what is compared is the text.
            let again = decode_event(&compiled(), &encoded(&event)).unwrap();
            prop_assert_eq!(format!("{again:?}"), format!("{event:?}"));
        }
    }

    #[test]
    fn mutated_schemas_parse_or_fail_but_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\",:a-z0-9]{0,3}"), 1..4),
        body in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut text = EVENT_SCHEMA.to_owned();
        for (place, new) in changes {
            let place = place.index(text.len());
            text.replace_range(place..(place + 1).min(text.len()), &new);
        }
        if let Ok(schema) = WriterSchema::parse(1, &text) {
            let _ = decode_event(&schema, &body);
            let _ = decode_event(&schema, &encoded(&sample()));
        }
    }
}

const RECURSIVE: &str = r#"{"type":"record","name":"R","fields":[{"name":"next","type":["null","R"]},{"name":"all","type":{"type":"array","items":"R"}}]}"#;
const EVERY_TYPE: &str = r#"{"type":"record","name":"n.All","fields":[
    {"name":"nulls","type":{"type":"array","items":"null"}},
    {"name":"fixed","type":{"type":"fixed","name":"F","size":3}},
    {"name":"again","type":"F"},
    {"name":"enum","type":{"type":"enum","name":"E","symbols":["A","B"]}},
    {"name":"float","type":"float"},{"name":"bytes","type":"bytes"},
    {"name":"uuid","type":{"type":"string","logicalType":"uuid"}},
    {"name":"decimal","type":{"type":"bytes","logicalType":"decimal","precision":4}},
    {"name":"micros","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"maps","type":{"type":"map","values":{"type":"map","values":{"type":"array","items":["null","E"]}}}}]}"#;

fn hostile(schema: &str, body: &[u8]) -> DecodeError {
    datum::decode(&WriterSchema::parse(1, schema).unwrap(), body).unwrap_err()
}

fn long(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    binary::put_long(&mut out, value);
    out
}

#[test]
fn counts_and_lengths_that_the_record_cannot_hold_are_refused_at_once() {
    for count in [1 << 40, i64::MAX, i64::MIN, -1 << 40] {
        // A negative count is followed by the size of the block.
        let body = [long(count), long(10)].concat();
        assert_eq!(
            hostile(r#"{"type":"array","items":"null"}"#, &body),
            DecodeError::TooManyItems { bytes: body.len() }
        );
        assert!(matches!(hostile(r#"{"type":"array","items":"string"}"#, &body), DecodeError::Truncated));
        let text = hostile(r#""string""#, &long(count));
        assert!(
            matches!(text, DecodeError::Truncated | DecodeError::Malformed("a negative length")),
            "{text:?}"
        );
    }
    let empty = r#"{"type":"array","items":{"type":"record","name":"Empty","fields":[]}}"#;
    assert!(matches!(hostile(empty, &long(i64::MAX)), DecodeError::TooManyItems { .. }));
    let fixed = r#"{"type":"fixed","name":"F","size":4611686018427387904}"#;
    assert_eq!(hostile(fixed, b"xxx"), DecodeError::Truncated);
}

#[test]
fn nesting_is_bounded_whatever_the_schema_says() {
    assert_eq!(hostile(RECURSIVE, &[2; 1_000_000]), DecodeError::TooDeep);
    let without_end = r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#;
    assert_eq!(hostile(without_end, b""), DecodeError::TooDeep);
    let deep = format!("{}\"null\"{}", r#"{"type":"array","items":"#.repeat(100_000), "}".repeat(100_000));
    assert!(matches!(WriterSchema::parse(1, &deep), Err(SchemaError::Invalid { .. })));
}

#[test]
fn malformed_bytes_are_refused() {
    assert_eq!(hostile(r#""boolean""#, &[2]), DecodeError::Malformed("a boolean that is neither 0 nor 1"));
    assert_eq!(hostile(r#""string""#, &[2, 0xff]), DecodeError::Malformed("a text that is not UTF-8"));
    assert_eq!(hostile(r#""long""#, &[0xff; 11]), DecodeError::Malformed("an integer of more than 64 bits"));
    assert_eq!(
        hostile(r#"["null","long"]"#, &[4]),
        DecodeError::Malformed("a branch that the union does not have")
    );
    assert_eq!(
        hostile(r#"["null","long"]"#, &[1]),
        DecodeError::Malformed("a branch that the union does not have")
    );
    let symbols = r#"{"type":"enum","name":"E","symbols":["A"]}"#;
    assert_eq!(hostile(symbols, &[2]), DecodeError::Malformed("a symbol that the enum does not have"));
    assert_eq!(hostile(r#""null""#, &[0]), DecodeError::TrailingBytes { bytes: 1 });
    let block = [long(-1), long(5), long(7), long(0)].concat();
    let array = r#"{"type":"array","items":"long"}"#;
    assert_eq!(hostile(array, &block), DecodeError::Malformed("a block whose size does not match its items"));
    let block = [long(-1), long(1), long(7), long(1), long(8), long(0)].concat();
    let schema = WriterSchema::parse(1, array).unwrap();
    let items = datum::Datum::Array(vec![datum::Datum::Long(7), datum::Datum::Long(8)]);
    assert_eq!(datum::decode(&schema, &block), Ok(items));
    for value in [0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN] {
        let schema = WriterSchema::parse(1, r#""long""#).unwrap();
        assert_eq!(datum::decode(&schema, &long(value)), Ok(datum::Datum::Long(value)));
    }
}

#[test]
fn an_event_of_a_newer_producer_is_read() {
    // Other order, fields more (nested, recursive, an enum), narrower numbers, microseconds, no traits and no trace id.
    let newer = r#"{"type":"record","name":"com.shop.Event","fields":[
        {"name":"source","type":{"type":"enum","name":"Source","symbols":["WEB","APP"]},"default":"WEB"},
        {"name":"user_id","type":"string"},
        {"name":"event_id","type":{"type":"string","logicalType":"uuid"}},
        {"name":"tree","type":{"type":"record","name":"Tree","fields":[
            {"name":"name","type":"string"},{"name":"children","type":{"type":"array","items":"Tree"}}]}},
        {"name":"type","type":["null","string"]},
        {"name":"occurred_at","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"properties","type":{"type":"map","values":["null","int","float","string"]}}]}"#;
    let tree = |name: &str, children| {
        Avro::Record(vec![
            ("name".into(), Avro::String(name.into())),
            ("children".into(), Avro::Array(children)),
        ])
    };
    let properties = [
        ("n".to_owned(), Avro::Union(1, Box::new(Avro::Int(3)))),
        ("f".to_owned(), Avro::Union(2, Box::new(Avro::Float(0.5)))),
    ];
    let id = "00000000-0000-0000-0000-000000000007";
    let value = Avro::Record(vec![
        ("source".into(), Avro::Enum(1, "APP".into())),
        ("user_id".into(), Avro::String("u1".into())),
        ("event_id".into(), Avro::Uuid(Uuid::from_u128(7))),
        ("tree".into(), tree("root", vec![tree("leaf", vec![])])),
        ("type".into(), Avro::Union(1, Box::new(Avro::String("view".into())))),
        ("occurred_at".into(), Avro::TimestampMicros(1_768_473_000_000_999)),
        ("properties".into(), Avro::Map(properties.into_iter().collect())),
    ]);
    let body = write_by_library(newer, value);
    let event = decode_event(&WriterSchema::parse(2, newer).unwrap(), &body).unwrap();
    assert_eq!(
        (event.event_id.as_str(), event.user_id.as_str(), event.event_type.as_str()),
        (id, "u1", "view")
    );
    assert_eq!(event.occurred_at_ms, 1_768_473_000_000);
    assert_eq!(event.properties["n"], Value::Long(3));
    assert_eq!(event.properties["f"], Value::Double(0.5));
    assert!(event.traits.is_empty() && event.trace_id.is_none());
}

#[test]
fn a_schema_that_is_no_event_is_a_bad_record_not_a_crash() {
    let decode =
        |schema: &str, body: &[u8]| decode_event(&WriterSchema::parse(1, schema).unwrap(), body).unwrap_err();
    assert!(matches!(decode(r#""string""#, &[2, b'x']), DecodeError::WrongType { .. }));
    let other = r#"{"type":"record","name":"O","fields":[{"name":"user_id","type":"string"}]}"#;
    assert_eq!(decode(other, &[2, b'x']), DecodeError::MissingField { field: "event_id" });
    let bytes = EVENT_SCHEMA.replacen("\"null\", \"boolean\"", "\"bytes\", \"boolean\"", 1);
    let mut event = sample();
    event.properties = [("p".to_owned(), Value::String(String::new()))].into();
    let mut body = encoded(&event);
    let p = body.iter().position(|byte| *byte == b'p' && body[0] != b'p').unwrap();
    let p = body[p..].windows(2).position(|two| two == [b'p', 8]).unwrap() + p;
    body[p + 1] = 0;
    let error = decode(&bytes, &body);
    assert!(matches!(error, DecodeError::WrongType { field: "properties", found: "bytes", .. }), "{error:?}");
    assert!(!error.is_limit());
}

#[test]
fn an_event_beyond_the_limits_is_refused() {
    let mut event = sample();
    event.user_id = String::new();
    let error = decode_event(&compiled(), &encoded(&event)).unwrap_err();
    assert_eq!(error, DecodeError::Limit(LimitError::Empty { field: "user_id" }));
    assert!(error.is_limit());
}

#[test]
fn a_decision_of_a_newer_version_is_read() {
    let newer = DECISION_SCHEMA.replacen(
        r#"{ "name": "outranked_by","#,
        r#"{ "name": "window", "type": "string", "default": "" }, { "name": "outranked_by","#,
        1,
    );
    assert_ne!(newer, DECISION_SCHEMA);
    let decision = Decision {
        decision_id: Uuid::from_u128(1),
        event_id: "e".into(),
        user_id: "u".into(),
        campaign_id: "c".into(),
        campaign_version: 1,
        event_type: "t".into(),
        occurred_at_ms: 2,
        decided_at_ms: 3,
        outcome: Outcome::Suppress,
        reason: Reason { code: ReasonCode::Outranked, limit: None, outranked_by: Some("better".into()) },
        action: DecidedAction {
            kind: ActionKind::Send,
            channel: None,
            template: None,
            variant: None,
            recipient: None,
            params: Vec::new(),
        },
        trace_id: None,
    };
    let codec = OutputCodec { decision_schema_id: 7, activity_schema_id: 8 };
    let value = codec.encode_decision(&decision);
    let Avro::Record(mut fields) = read_by_library(DECISION_SCHEMA, &value[wire::HEADER_BYTES..]) else {
        panic!()
    };
    let Avro::Record(reason) = &mut fields[9].1 else { panic!() };
    reason.insert(2, ("window".into(), Avro::String("7d".into())));
    let body = write_by_library(&newer, Avro::Record(fields));
    assert_eq!(decode_decision(&WriterSchema::parse(9, &newer).unwrap(), &body), Ok(decision));
    let other = codec.decode_decision(&wire::frame(9, &body));
    assert_eq!(other, Err(OutputError::OtherSchema { found: 9, expected: 7 }));
}

#[test]
fn references_are_resolved() {
    let money = r#"{"type":"record","name":"shop.Money","fields":[{"name":"cents","type":"long"}]}"#;
    let order = r#"{"type":"record","name":"shop.Order","fields":[{"name":"total","type":"shop.Money"}]}"#;
    assert!(matches!(WriterSchema::parse(1, order), Err(SchemaError::Invalid { id: 1, .. })));
    let schema = WriterSchema::parse_with_references(1, order, &[money.to_owned()]).unwrap();
    let body = long(5);
    let mut order = datum::decode(&schema, &body).unwrap().into_record("order").unwrap();
    let mut total = order.require(0, "total").unwrap().into_record("total").unwrap();
    assert_eq!(total.require(0, "cents"), Ok(datum::Datum::Long(5)));
}

#[test]
fn every_schema_parses() {
    for schema in [EVENT_SCHEMA, DECISION_SCHEMA, ACTIVITY_SCHEMA] {
        WriterSchema::parse(1, schema).unwrap();
    }
}

#[tokio::test]
async fn an_in_memory_source_knows_what_it_was_given() {
    let source = InMemorySchemas::new().with(3, EVENT_SCHEMA).unwrap();
    assert_eq!(source.schema(3).await.unwrap().id(), 3);
    assert_eq!(source.schema(4).await.unwrap_err(), SchemaError::Unknown { id: 4 });
    assert!(source.cached(3).is_some() && source.cached(4).is_none());
    assert_eq!(
        InMemorySchemas::new().with(3, "{").unwrap_err().to_string().split(':').next(),
        Some("schema 3 is not usable")
    );
}
