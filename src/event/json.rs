//! Events as JSON, one a line: for files, HTTP and tests.
//!
//! `{"event_id":"…","user_id":"…","type":"purchase","occurred_at":"2026-01-15T10:30:00Z","properties":{"amount":29.99},
//! "traits":{"country":"DE"},"trace_id":null}`. `occurred_at` is RFC 3339 or integer milliseconds. An integer number is
//! a long, any other number a double, read to the nearest double exactly; unknown and doubled keys are refused rather
//! than dropped, because a dropped key is a misspelt one.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::limits::{LimitError, Limits};
use super::{Event, Properties, Value};

/// Why a JSON event was refused.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or not the shape of an event.
    #[error("not an event: {0}")]
    Shape(#[from] serde_json::Error),
    /// `occurred_at` is a text that is not RFC 3339.
    #[error("occurred_at is not an RFC 3339 time such as 2026-01-15T10:30:00Z: {0}")]
    Time(jiff::Error),
    /// A bound is broken.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    event_id: String,
    user_id: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    occurred_at: Time<'a>,
    #[serde(default)]
    properties: Option<Named>,
    #[serde(default)]
    traits: Option<Named>,
    #[serde(default)]
    trace_id: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "occurred_at is an RFC 3339 time or integer milliseconds")]
enum Time<'a> {
    Milliseconds(i64),
    Text(#[serde(borrow)] std::borrow::Cow<'a, str>),
}

impl Event {
    /// Reads one JSON line.
    pub fn from_json(line: &str) -> Result<Event, EventError> {
        let line: Line<'_> = serde_json::from_str(line)?;
        let occurred_at_ms = match line.occurred_at {
            Time::Milliseconds(ms) => ms,
            Time::Text(text) => text.parse::<Timestamp>().map_err(EventError::Time)?.as_millisecond(),
        };
        let event = Event {
            event_id: line.event_id,
            user_id: line.user_id,
            event_type: line.event_type,
            occurred_at_ms,
            properties: line.properties.map(|named| named.0).unwrap_or_default(),
            traits: line.traits.map(|named| named.0).unwrap_or_default(),
            trace_id: line.trace_id,
        };
        Limits::DEFAULT.check(&event)?;
        Ok(event)
    }

    /// One JSON line, without the line break, that [`Event::from_json`] reads back. A double that JSON cannot write (NaN,
    /// infinite) becomes null.
    pub fn to_json(&self) -> String {
        // Writing to memory cannot fail and all keys are texts.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("event_id", &self.event_id)?;
        map.serialize_entry("user_id", &self.user_id)?;
        map.serialize_entry("type", &self.event_type)?;
        match Timestamp::from_millisecond(self.occurred_at_ms) {
            Ok(time) => map.serialize_entry("occurred_at", &format_args!("{time:.3}"))?,
            Err(_) => map.serialize_entry("occurred_at", &self.occurred_at_ms)?,
        }
        map.serialize_entry("properties", &self.properties)?;
        map.serialize_entry("traits", &self.traits)?;
        map.serialize_entry("trace_id", &self.trace_id)?;
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Boolean(value) => serializer.serialize_bool(*value),
            Value::Long(value) => serializer.serialize_i64(*value),
            Value::Double(value) => serializer.serialize_f64(*value),
            Value::String(value) => serializer.serialize_str(value),
            Value::Strings(values) => values.serialize(serializer),
        }
    }
}

/// Properties whose names must differ.
pub(crate) struct Named(pub(crate) Properties);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Named;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of values by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let mut properties = Properties::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = value(map.next_value::<&RawValue>()?.get()).map_err(A::Error::custom)?;
                    if properties.insert(name, value).is_some() {
                        return Err(A::Error::custom("a property is given twice; remove one of them"));
                    }
                }
                Ok(Named(properties))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A value from its JSON text. Doubles are parsed from the text itself because serde_json's own parser may be one unit
/// in the last place off, and an event must mean the same from a file and from Kafka.
fn value(text: &str) -> Result<Value, String> {
    match text.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(Value::Boolean(true)),
        Some(b'f') => Ok(Value::Boolean(false)),
        Some(b'"') => serde_json::from_str(text).map(Value::String).map_err(|error| error.to_string()),
        Some(b'[') => serde_json::from_str(text)
            .map(Value::Strings)
            .map_err(|error| format!("a list holds texts only: {error}")),
        Some(b'{') => {
            Err("a value is null, a boolean, a number, a text or a list of texts, not an object".into())
        }
        _ if text.contains(['.', 'e', 'E']) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Value::Double(value)),
            _ => Err(format!("the number {} is too large for a double", clip(text))),
        },
        _ => text
            .parse()
            .map(Value::Long)
            .map_err(|_| format!("the integer {} does not fit 64 bits; write it as a text", clip(text))),
    }
}

fn clip(text: &str) -> &str {
    text.get(..40).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"event_id":"e1","user_id":"u1","type":"purchase","occurred_at":"2026-01-15T10:30:00Z","properties":{"amount":29.99,"n":3,"tags":["a","b"],"gift":false,"note":null},"traits":{"country":"DE"},"trace_id":null}"#;

    #[test]
    fn the_documented_line_is_read() {
        let event = Event::from_json(LINE).unwrap();
        assert_eq!(event.occurred_at_ms, 1_768_473_000_000);
        assert_eq!(event.properties["amount"], Value::Double(29.99));
        assert_eq!(event.properties["n"], Value::Long(3));
        assert_eq!(event.properties["tags"], Value::Strings(vec!["a".into(), "b".into()]));
        assert_eq!(event.properties["note"], Value::Null);
        assert_eq!(event.traits["country"], Value::String("DE".into()));
        let in_ms = LINE.replace("\"2026-01-15T10:30:00Z\"", "1768473000000");
        assert_eq!(Event::from_json(&in_ms).unwrap(), event);
        let with_zone = LINE.replace("10:30:00Z", "11:30:00.000+01:00");
        assert_eq!(Event::from_json(&with_zone).unwrap(), event);
    }

    #[test]
    fn properties_traits_and_trace_id_may_be_absent() {
        let event = Event::from_json(r#"{"event_id":"e","user_id":"u","type":"t","occurred_at":5}"#).unwrap();
        assert!(event.properties.is_empty() && event.traits.is_empty() && event.trace_id.is_none());
    }

    #[test]
    fn what_is_wrong_is_refused_with_a_reason() {
        let refused =
            |from: &str, to: &str| Event::from_json(&LINE.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused("\"event_id\"", "\"id\"").contains("unknown field `id`"));
        assert!(refused("\"event_id\":\"e1\",", "").contains("missing field `event_id`"));
        assert!(refused("2026-01-15T10:30:00Z", "yesterday").contains("RFC 3339"));
        assert!(refused("\"2026-01-15T10:30:00Z\"", "1.5").contains("integer milliseconds"));
        assert!(refused("29.99", "{\"eur\":1}").contains("not an object"));
        assert!(refused("29.99", "1e999").contains("too large"));
        assert!(refused("29.99", "18446744073709551616").contains("64 bits"));
        assert!(refused("[\"a\",\"b\"]", "[1]").contains("texts only"));
        assert!(refused("\"n\":3", "\"amount\":3").contains("twice"));
        assert!(refused("\"u1\"", "\"\"").contains("user_id is empty"));
        assert!(Event::from_json(&format!("{LINE}x")).is_err());
        assert!(Event::from_json("").is_err());
    }

    prop_compose! {
        fn any_event()(
            ids in prop::array::uniform3("[a-z\\PC]{1,20}"),
            occurred_at_ms in -62_135_596_800_000i64..253_402_214_400_000,
            properties in prop::collection::btree_map("\\PC{0,10}", any_value(), 0..5),
            traits in prop::collection::btree_map("\\PC{0,10}", any_value(), 0..5),
            trace_id in prop::option::of("\\PC{0,20}"),
        ) -> Event {
            let [event_id, user_id, event_type] = ids;
            Event { event_id, user_id, event_type, occurred_at_ms, properties, traits, trace_id }
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Long),
            any::<f64>()
                .prop_filter("JSON has no NaN or infinity", |v| v.is_finite())
                .prop_map(Value::Double),
            "\\PC{0,20}".prop_map(Value::String),
            prop::collection::vec("\\PC{0,10}", 0..4).prop_map(Value::Strings),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(event in any_event()) {
            prop_assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
        }
    }
}
