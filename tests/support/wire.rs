//! Events in Avro and the Confluent framing, written out by hand: a second opinion on what a producer sends.

use serde_json::Value;

use super::model::instant_ms;

/// An event, given as the README's JSON line, as a producer writes it under a schema id.
pub fn frame_event(schema_id: u32, event: &Value) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(schema_id.to_be_bytes());
    bytes.extend(encode_event(event));
    bytes
}

/// The body alone, in the field order of `schemas/event.avsc`.
pub fn encode_event(event: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in ["event_id", "user_id", "type"] {
        text(&mut bytes, event[field].as_str().expect("a text"));
    }
    long(&mut bytes, instant_ms(&event["occurred_at"]).expect("an instant"));
    map(&mut bytes, &event["properties"]);
    map(&mut bytes, &event["traits"]);
    match event.get("trace_id").and_then(Value::as_str) {
        None => long(&mut bytes, 0),
        Some(id) => {
            long(&mut bytes, 1);
            text(&mut bytes, id);
        }
    }
    bytes
}

fn long(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    long(bytes, value.len() as i64);
    bytes.extend(value.as_bytes());
}

fn map(bytes: &mut Vec<u8>, value: &Value) {
    if let Some(entries) = value.as_object().filter(|entries| !entries.is_empty()) {
        long(bytes, entries.len() as i64);
        for (name, value) in entries {
            text(bytes, name);
            union(bytes, value);
        }
    }
    long(bytes, 0);
}

/// Branches: null, boolean, long, double, string, array of string.
fn union(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => long(bytes, 0),
        Value::Bool(value) => {
            long(bytes, 1);
            bytes.push(u8::from(*value));
        }
        Value::Number(number) => match number.as_i64() {
            Some(value) => {
                long(bytes, 2);
                long(bytes, value);
            }
            None => {
                long(bytes, 3);
                bytes.extend(number.as_f64().expect("a double").to_le_bytes());
            }
        },
        Value::String(value) => {
            long(bytes, 4);
            text(bytes, value);
        }
        Value::Array(list) => {
            long(bytes, 5);
            if !list.is_empty() {
                long(bytes, list.len() as i64);
                list.iter().for_each(|one| text(bytes, one.as_str().expect("a text")));
            }
            long(bytes, 0);
        }
        Value::Object(_) => panic!("an event has no nested records"),
    }
}
