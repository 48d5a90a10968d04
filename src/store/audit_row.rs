//! An audit row as both stores keep it: one JSON object that holds the whole decision.
//!
//! Every value comes back as it was published. Doubles are kept by their shortest text, and those that JSON has no
//! number for (NaN, the infinities) by name.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AuditQuery, AuditRow};
use crate::decision::{ActionKind, DecidedAction, Decision, LimitReason, Outcome, Reason, ReasonCode};
use crate::event::Value;

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    decision_id: Cow<'a, str>,
    event_id: Cow<'a, str>,
    user_id: Cow<'a, str>,
    campaign_id: Cow<'a, str>,
    campaign_version: i64,
    event_type: Cow<'a, str>,
    occurred_at_ms: i64,
    decided_at_ms: i64,
    outcome: Outcome,
    reason: ReasonCode,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    limit: Option<StoredLimit<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    outranked_by: Option<Cow<'a, str>>,
    action: StoredAction<'a>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    trace_id: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct StoredLimit<'a> {
    limit: Cow<'a, str>,
    used: u32,
    allowed: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reopens_at_ms: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct StoredAction<'a> {
    kind: ActionKind,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    channel: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    template: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    variant: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    recipient: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    params: Vec<(Cow<'a, str>, StoredValue<'a>)>,
}

/// Tagged, because 2 and 2.0 are two values.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredValue<'a> {
    Null,
    Boolean(bool),
    Long(i64),
    Double(f64),
    NotFinite(Cow<'a, str>),
    String(Cow<'a, str>),
    Strings(Cow<'a, [String]>),
}

/// The JSON of the row.
pub(super) fn encode(row: &AuditRow) -> String {
    let decision = &row.decision;
    let Reason { code, limit, outranked_by } = &decision.reason;
    let stored = Stored {
        decision_id: decision.decision_id.to_string().into(),
        event_id: (&decision.event_id).into(),
        user_id: (&decision.user_id).into(),
        campaign_id: (&decision.campaign_id).into(),
        campaign_version: decision.campaign_version,
        event_type: (&decision.event_type).into(),
        occurred_at_ms: decision.occurred_at_ms,
        decided_at_ms: decision.decided_at_ms,
        outcome: decision.outcome,
        reason: *code,
        limit: limit.as_ref().map(|limit| StoredLimit {
            limit: (&limit.limit).into(),
            used: limit.used,
            allowed: limit.allowed,
            reopens_at_ms: limit.reopens_at_ms,
        }),
        outranked_by: outranked_by.as_ref().map(Cow::from),
        action: encode_action(&decision.action),
        trace_id: decision.trace_id.as_ref().map(Cow::from),
    };
    serde_json::to_string(&stored).unwrap_or_default() // texts and finite numbers always serialize
}

fn encode_action(action: &DecidedAction) -> StoredAction<'_> {
    let value = |value| match value {
        &Value::Null => StoredValue::Null,
        &Value::Boolean(value) => StoredValue::Boolean(value),
        &Value::Long(value) => StoredValue::Long(value),
        &Value::Double(value) if value.is_finite() => StoredValue::Double(value),
        Value::Double(value) => StoredValue::NotFinite(value.to_string().into()),
        Value::String(value) => StoredValue::String(value.into()),
        Value::Strings(value) => StoredValue::Strings(value.as_slice().into()),
    };
    StoredAction {
        kind: action.kind,
        channel: action.channel.as_ref().map(Cow::from),
        template: action.template.as_ref().map(Cow::from),
        variant: action.variant.as_ref().map(Cow::from),
        recipient: action.recipient.as_ref().map(Cow::from),
        params: action.params.iter().map(|(name, param)| (name.into(), value(param))).collect(),
    }
}

/// The row of the JSON, or what is wrong with it.
pub(super) fn decode(json: &[u8]) -> Result<AuditRow, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("an audit row does not decode: {what}");
    let stored: Stored<'_> = serde_json::from_slice(json).map_err(|error| wrong(&error))?;
    let limit = stored.limit.map(|limit| LimitReason {
        limit: limit.limit.into_owned(),
        used: limit.used,
        allowed: limit.allowed,
        reopens_at_ms: limit.reopens_at_ms,
    });
    let decision = Decision {
        decision_id: Uuid::parse_str(&stored.decision_id).map_err(|error| wrong(&error))?,
        event_id: stored.event_id.into_owned(),
        user_id: stored.user_id.into_owned(),
        campaign_id: stored.campaign_id.into_owned(),
        campaign_version: stored.campaign_version,
        event_type: stored.event_type.into_owned(),
        occurred_at_ms: stored.occurred_at_ms,
        decided_at_ms: stored.decided_at_ms,
        outcome: stored.outcome,
        reason: Reason { code: stored.reason, limit, outranked_by: stored.outranked_by.map(Cow::into_owned) },
        action: decode_action(stored.action).map_err(|error| wrong(&error))?,
        trace_id: stored.trace_id.map(Cow::into_owned),
    };
    Ok(AuditRow { decision })
}

fn decode_action(stored: StoredAction<'_>) -> Result<DecidedAction, std::num::ParseFloatError> {
    let value = |value| {
        Ok(match value {
            StoredValue::Null => Value::Null,
            StoredValue::Boolean(value) => Value::Boolean(value),
            StoredValue::Long(value) => Value::Long(value),
            StoredValue::Double(value) => Value::Double(value),
            StoredValue::NotFinite(value) => Value::Double(value.parse()?),
            StoredValue::String(value) => Value::String(value.into_owned()),
            StoredValue::Strings(value) => Value::Strings(value.into_owned()),
        })
    };
    let params = stored.params.into_iter().map(|(name, param)| Ok((name.into_owned(), value(param)?)));
    Ok(DecidedAction {
        kind: stored.kind,
        channel: stored.channel.map(Cow::into_owned),
        template: stored.template.map(Cow::into_owned),
        variant: stored.variant.map(Cow::into_owned),
        recipient: stored.recipient.map(Cow::into_owned),
        params: params.collect::<Result<_, _>>()?,
    })
}

/// Whether the row passes the filters that no key order serves. User and time are the reader's.
pub(super) fn matches(row: &AuditRow, query: &AuditQuery) -> bool {
    let decision = &row.decision;
    query.campaign_id.as_ref().is_none_or(|id| *id == decision.campaign_id)
        && query.outcome.is_none_or(|outcome| outcome == decision.outcome)
}

/// The stable name of an outcome or a reason, as on the wire.
pub fn name(of: impl Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
