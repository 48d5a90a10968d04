//! Decisions in Avro, with their framing.

use std::sync::LazyLock;

use serde::de::value::Error as ValueError;
use serde::de::{DeserializeOwned, IntoDeserializer};
use uuid::Uuid;

use super::binary::{put_long, put_optional_long, put_optional_string, put_string, put_values};
use super::datum::{DecodeError, Fields, decode};
use super::wire::{self, FramingError};
use super::writer::WriterSchema;
use super::{DECISION_SCHEMA, SchemaError, SchemaSource};
use crate::decision::{ActionKind, DecidedAction, Decision, LimitReason, Reason, ReasonCode};

/// Writes output records by the schemas compiled into this binary, under the ids that the registry gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputCodec {
    /// Id of `schemas/decision.avsc`.
    pub decision_schema_id: u32,
    /// Id of `schemas/activity.avsc`.
    pub activity_schema_id: u32,
}

/// Why an output record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// Not in the wire format.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// Written with another schema than this codec's.
    #[error("written with schema {found}, not {expected}; ask the registry for its schema")]
    OtherSchema {
        /// The schema id of the record.
        found: u32,
        /// The codec's.
        expected: u32,
    },
    /// The schema of the record is not to be had.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The body is not a decision.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

static COMPILED_DECISION_SCHEMA: LazyLock<Result<WriterSchema, SchemaError>> =
    LazyLock::new(|| WriterSchema::parse(0, DECISION_SCHEMA));

impl OutputCodec {
    /// A decision as a record value: framed Avro.
    pub fn encode_decision(&self, decision: &Decision) -> Vec<u8> {
        let mut out = wire::header(self.decision_schema_id, 384);
        encode_decision(decision, &mut out);
        out
    }

    /// Reads what [`OutputCodec::encode_decision`] wrote under the same id. For records of other writers' versions use
    /// [`read_decision`].
    pub fn decode_decision(&self, value: &[u8]) -> Result<Decision, OutputError> {
        let (found, body) = wire::split(value)?;
        let expected = self.decision_schema_id;
        if found != expected {
            return Err(OutputError::OtherSchema { found, expected });
        }
        let schema = COMPILED_DECISION_SCHEMA.as_ref().map_err(Clone::clone)?;
        Ok(decode_decision(schema, body)?)
    }
}

/// Reads a decision record written by any version of the schema.
pub async fn read_decision(source: &dyn SchemaSource, value: &[u8]) -> Result<Decision, OutputError> {
    let (id, body) = wire::split(value)?;
    let schema = match source.cached(id) {
        Some(schema) => schema,
        None => source.schema(id).await?,
    };
    Ok(decode_decision(&schema, body)?)
}

fn encode_decision(decision: &Decision, out: &mut Vec<u8>) {
    let mut id = Uuid::encode_buffer();
    put_string(out, decision.decision_id.hyphenated().encode_lower(&mut id));
    put_string(out, &decision.event_id);
    put_string(out, &decision.user_id);
    put_string(out, &decision.campaign_id);
    put_long(out, decision.campaign_version);
    put_string(out, &decision.event_type);
    put_long(out, decision.occurred_at_ms);
    put_long(out, decision.decided_at_ms);
    put_string(out, decision.outcome.as_str());

    put_string(out, code_text(decision.reason.code));
    match &decision.reason.limit {
        None => put_long(out, 0),
        Some(limit) => {
            put_long(out, 1);
            put_string(out, &limit.limit);
            put_long(out, i64::from(limit.used));
            put_long(out, i64::from(limit.allowed));
            put_optional_long(out, limit.reopens_at_ms);
        }
    }
    put_optional_string(out, decision.reason.outranked_by.as_deref());

    let action = &decision.action;
    put_string(out, kind_text(action.kind));
    put_optional_string(out, action.channel.as_deref());
    put_optional_string(out, action.template.as_deref());
    put_optional_string(out, action.variant.as_deref());
    put_optional_string(out, action.recipient.as_deref());
    put_values(out, action.params.iter().map(|(name, value)| (name, value)));

    put_optional_string(out, decision.trace_id.as_deref());
}

/// Decodes a decision by its writer's schema.
pub fn decode_decision(schema: &WriterSchema, body: &[u8]) -> Result<Decision, DecodeError> {
    let mut fields = decode(schema, body)?.into_record("the decision")?;
    let mut reason = fields.require(9, "reason")?.into_record("reason")?;
    let mut action = fields.require(10, "action")?.into_record("action")?;
    Ok(Decision {
        decision_id: fitting("decision_id", Uuid::parse_str(&text(&mut fields, 0, "decision_id")?).ok())?,
        event_id: text(&mut fields, 1, "event_id")?,
        user_id: text(&mut fields, 2, "user_id")?,
        campaign_id: text(&mut fields, 3, "campaign_id")?,
        campaign_version: fields.require(4, "campaign_version")?.into_long("campaign_version")?,
        event_type: text(&mut fields, 5, "event_type")?,
        occurred_at_ms: fields.require(6, "occurred_at")?.into_long("occurred_at")?,
        decided_at_ms: fields.require(7, "decided_at")?.into_long("decided_at")?,
        outcome: known("outcome", text(&mut fields, 8, "outcome")?)?,
        reason: Reason {
            code: known("code", text(&mut reason, 0, "code")?)?,
            limit: match reason.optional(1, "limit") {
                Some(datum) => Some(limit(&mut datum.into_record("limit")?)?),
                None => None,
            },
            outranked_by: optional_text(&mut reason, 2, "outranked_by")?,
        },
        action: DecidedAction {
            kind: known("type", text(&mut action, 0, "type")?)?,
            channel: optional_text(&mut action, 1, "channel")?,
            template: optional_text(&mut action, 2, "template")?,
            variant: optional_text(&mut action, 3, "variant")?,
            recipient: optional_text(&mut action, 4, "recipient")?,
            params: match action.optional(5, "params") {
                Some(datum) => datum.into_values("params")?.into_iter().collect(),
                None => Vec::new(),
            },
        },
        trace_id: optional_text(&mut fields, 11, "trace_id")?,
    })
}

fn limit(fields: &mut Fields<'_>) -> Result<LimitReason, DecodeError> {
    let count = |field, value: i64| fitting(field, u32::try_from(value).ok());
    Ok(LimitReason {
        limit: text(fields, 0, "limit")?,
        used: count("used", fields.require(1, "used")?.into_long("used")?)?,
        allowed: count("allowed", fields.require(2, "allowed")?.into_long("allowed")?)?,
        reopens_at_ms: fields
            .optional(3, "reopens_at")
            .map(|datum| datum.into_long("reopens_at"))
            .transpose()?,
    })
}

fn text(fields: &mut Fields<'_>, place: usize, name: &'static str) -> Result<String, DecodeError> {
    fields.require(place, name)?.into_string(name)
}

fn optional_text(
    fields: &mut Fields<'_>,
    place: usize,
    name: &'static str,
) -> Result<Option<String>, DecodeError> {
    fields.optional(place, name).map(|datum| datum.into_string(name)).transpose()
}

fn fitting<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::OutOfRange { field })
}

/// An enum value by its wire text, which is the same in JSON and in Avro.
fn known<T: DeserializeOwned>(field: &'static str, text: String) -> Result<T, DecodeError> {
    T::deserialize(text.into_deserializer()).map_err(|_: ValueError| DecodeError::UnknownText { field })
}

fn kind_text(kind: ActionKind) -> &'static str {
    match kind {
        ActionKind::Send => "send",
        ActionKind::Alert => "alert",
    }
}

fn code_text(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::Allowed => "allowed",
        ReasonCode::LateEvent => "late_event",
        ReasonCode::Outranked => "outranked",
        ReasonCode::OnceEver => "once_ever",
        ReasonCode::CalendarLimit => "calendar_limit",
        ReasonCode::RollingLimit => "rolling_limit",
        ReasonCode::CapHistoryTruncated => "cap_history_truncated",
        ReasonCode::TooLarge => "too_large",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Outcome;

    #[test]
    fn texts_are_those_of_serde() {
        fn check<T: DeserializeOwned + PartialEq + std::fmt::Debug>(
            values: &[T],
            text: impl Fn(&T) -> &'static str,
        ) {
            values
                .iter()
                .for_each(|value| assert_eq!(&known::<T>("", text(value).to_owned()).unwrap(), value));
        }
        check(&[Outcome::Allow, Outcome::Suppress, Outcome::Holdout], |v| v.as_str());
        check(&[ActionKind::Send, ActionKind::Alert], |v| kind_text(*v));
        use ReasonCode::*;
        let codes = [
            Allowed,
            LateEvent,
            Outranked,
            OnceEver,
            CalendarLimit,
            RollingLimit,
            CapHistoryTruncated,
            TooLarge,
        ];
        check(&codes, |v| code_text(*v));
        assert!(known::<Outcome>("outcome", "maybe".into()).is_err());
    }
}
