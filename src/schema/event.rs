//! Events in Avro.

use super::binary::{put_long, put_optional_string, put_string, put_values};
use super::datum::{DecodeError, decode};
use super::writer::WriterSchema;
use crate::event::{Event, Limits};

/// Decodes an event by its writer's schema and checks [`Limits::DEFAULT`].
///
/// The writer's schema may lack `properties`, `traits` and `trace_id`, have fields in another order, fields more, `int`
/// for `long` and `float` for `double`, and timestamps of other units. Never panics; memory stays proportional to the
/// body, whatever its bytes and whatever the schema.
pub fn decode_event(schema: &WriterSchema, body: &[u8]) -> Result<Event, DecodeError> {
    let mut fields = decode(schema, body)?.into_record("the event")?;
    let event = Event {
        event_id: fields.require(0, "event_id")?.into_string("event_id")?,
        user_id: fields.require(1, "user_id")?.into_string("user_id")?,
        event_type: fields.require(2, "type")?.into_string("type")?,
        occurred_at_ms: fields.require(3, "occurred_at")?.into_long("occurred_at")?,
        properties: match fields.optional(4, "properties") {
            Some(datum) => datum.into_values("properties")?,
            None => Default::default(),
        },
        traits: match fields.optional(5, "traits") {
            Some(datum) => datum.into_values("traits")?,
            None => Default::default(),
        },
        trace_id: fields.optional(6, "trace_id").map(|datum| datum.into_string("trace_id")).transpose()?,
    };
    Limits::DEFAULT.check(&event)?;
    Ok(event)
}

/// Appends the event's Avro body by `schemas/event.avsc`.
pub fn encode_event(event: &Event, out: &mut Vec<u8>) {
    put_string(out, &event.event_id);
    put_string(out, &event.user_id);
    put_string(out, &event.event_type);
    put_long(out, event.occurred_at_ms);
    put_values(out, event.properties.iter());
    put_values(out, event.traits.iter());
    put_optional_string(out, event.trace_id.as_deref());
}
