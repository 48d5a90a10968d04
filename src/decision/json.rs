//! Decisions as JSON, one a line: for `tail`, `audit`, files and tests.
//!
//! The fields come in the order of the README; what a decision does not have is null, but for the details of a reason,
//! which are absent. Times are RFC 3339 in UTC with milliseconds. Reading gives back what was written, except that a
//! parameter that JSON can not write (NaN, infinite) comes back as null.

use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::event::{Named, Value};

use super::{ActionKind, DecidedAction, Decision, LimitReason, Outcome, Reason, ReasonCode};

/// Why a JSON line is no decision.
#[derive(Debug, thiserror::Error)]
#[error("not a decision: {0}")]
pub struct JsonError(#[from] serde_json::Error);

impl Decision {
    /// One JSON line, without the line break.
    pub fn to_json(&self) -> String {
        // Writing to memory cannot fail and all keys are texts.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Decision::to_json`] wrote.
    pub fn from_json(line: &str) -> Result<Decision, JsonError> {
        let line: Line = serde_json::from_str(line)?;
        Ok(Decision {
            decision_id: line.decision_id.0,
            event_id: line.event_id,
            user_id: line.user_id,
            campaign_id: line.campaign_id,
            campaign_version: line.campaign_version,
            event_type: line.event_type,
            occurred_at_ms: line.occurred_at.0,
            decided_at_ms: line.decided_at.0,
            outcome: line.outcome,
            reason: Reason {
                code: line.reason.code,
                limit: line.reason.limit.map(|limit| LimitReason {
                    limit: limit.limit,
                    used: limit.used,
                    allowed: limit.allowed,
                    reopens_at_ms: limit.reopens_at.map(|time| time.0),
                }),
                outranked_by: line.reason.outranked_by,
            },
            action: DecidedAction {
                kind: line.action.kind,
                channel: line.action.channel,
                template: line.action.template,
                variant: line.action.variant,
                recipient: line.action.recipient,
                params: line.action.params.0.into_iter().collect(),
            },
            trace_id: line.trace_id,
        })
    }
}

impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(12))?;
        map.serialize_entry("decision_id", &Id(self.decision_id))?;
        map.serialize_entry("event_id", &self.event_id)?;
        map.serialize_entry("user_id", &self.user_id)?;
        map.serialize_entry("campaign_id", &self.campaign_id)?;
        map.serialize_entry("campaign_version", &self.campaign_version)?;
        map.serialize_entry("event_type", &self.event_type)?;
        map.serialize_entry("occurred_at", &Time(self.occurred_at_ms))?;
        map.serialize_entry("decided_at", &Time(self.decided_at_ms))?;
        map.serialize_entry("outcome", &self.outcome)?;
        map.serialize_entry("reason", &self.reason)?;
        map.serialize_entry("action", &self.action)?;
        map.serialize_entry("trace_id", &self.trace_id)?;
        map.end()
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", &self.code)?;
        if let Some(limit) = &self.limit {
            map.serialize_entry("limit", limit)?;
        }
        if let Some(winner) = &self.outranked_by {
            map.serialize_entry("outranked_by", winner)?;
        }
        map.end()
    }
}

impl Serialize for LimitReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("limit", &self.limit)?;
        map.serialize_entry("used", &self.used)?;
        map.serialize_entry("allowed", &self.allowed)?;
        map.serialize_entry("reopens_at", &self.reopens_at_ms.map(Time))?;
        map.end()
    }
}

impl Serialize for DecidedAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("channel", &self.channel)?;
        map.serialize_entry("template", &self.template)?;
        map.serialize_entry("variant", &self.variant)?;
        map.serialize_entry("recipient", &self.recipient)?;
        map.serialize_entry("params", &Params(&self.params))?;
        map.end()
    }
}

struct Params<'a>(&'a [(String, Value)]);

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    decision_id: Id,
    event_id: String,
    user_id: String,
    campaign_id: String,
    campaign_version: i64,
    event_type: String,
    occurred_at: Time,
    decided_at: Time,
    outcome: Outcome,
    reason: ReasonLine,
    action: ActionLine,
    trace_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonLine {
    code: ReasonCode,
    #[serde(default)]
    limit: Option<LimitLine>,
    #[serde(default)]
    outranked_by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitLine {
    limit: String,
    used: u32,
    allowed: u32,
    reopens_at: Option<Time>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionLine {
    #[serde(rename = "type")]
    kind: ActionKind,
    channel: Option<String>,
    template: Option<String>,
    variant: Option<String>,
    recipient: Option<String>,
    params: Named,
}

struct Id(Uuid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Uuid::parse_str(&text).map(Id).map_err(serde::de::Error::custom)
    }
}

/// Milliseconds since the Unix epoch, as text; as a plain number beyond the years that RFC 3339 can write.
struct Time(i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Timestamp::from_millisecond(self.0) {
            Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
            Err(_) => serializer.serialize_i64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a time is RFC 3339 text or integer milliseconds")]
        enum Shape {
            Milliseconds(i64),
            Text(String),
        }
        match Shape::deserialize(deserializer)? {
            Shape::Milliseconds(ms) => Ok(Time(ms)),
            Shape::Text(text) => {
                let time: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
                Ok(Time(time.as_millisecond()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decision::fixtures::{campaign, event, set};
    use crate::decision::{decide, decision_id};
    use crate::user::UserState;

    fn example() -> Decision {
        let mut sale = campaign("sale");
        sale.action.params = [
            ("percent".to_owned(), Value::Long(10)),
            ("factor".to_owned(), Value::Double(1.0)),
            ("tags".to_owned(), Value::Strings(vec!["a".to_owned()])),
        ]
        .into();
        let mut decisions = decide(
            &UserState::new(),
            &event("e1", "view", 1_768_473_000_250),
            &set(vec![sale]),
            1_768_473_001_000,
        );
        decisions.remove(0)
    }

    #[test]
    fn the_documented_line_is_written() {
        insta::assert_snapshot!(example().to_json(), @r#"{"decision_id":"af306c49-3832-59f8-8c7f-3a0af07d9a3f","event_id":"e1","user_id":"u1","campaign_id":"sale","campaign_version":0,"event_type":"view","occurred_at":"2026-01-15T10:30:00.250Z","decided_at":"2026-01-15T10:30:01.000Z","outcome":"allow","reason":{"code":"allowed"},"action":{"type":"send","channel":"email","template":"HELLO","variant":null,"recipient":null,"params":{"factor":1.0,"percent":10,"tags":["a"]}},"trace_id":"trace-1"}"#);
    }

    #[test]
    fn a_reason_shows_its_details_only() {
        let mut decision = example();
        decision.reason = Reason {
            code: ReasonCode::RollingLimit,
            limit: Some(LimitReason {
                limit: "at_most 3 per 7d".to_owned(),
                used: 3,
                allowed: 3,
                reopens_at_ms: Some(1_768_473_000_000),
            }),
            outranked_by: None,
        };
        insta::assert_snapshot!(serde_json::to_string(&decision.reason).unwrap(), @r#"{"code":"rolling_limit","limit":{"limit":"at_most 3 per 7d","used":3,"allowed":3,"reopens_at":"2026-01-15T10:30:00.000Z"}}"#);
        decision.reason = Reason { outranked_by: Some("b".to_owned()), ..Reason::of(ReasonCode::Outranked) };
        insta::assert_snapshot!(serde_json::to_string(&decision.reason).unwrap(), @r#"{"code":"outranked","outranked_by":"b"}"#);
    }

    #[test]
    fn what_is_no_decision_is_refused_with_a_reason() {
        let line = example().to_json();
        assert!(Decision::from_json(&line).is_ok());
        let refused =
            |from: &str, to: &str| Decision::from_json(&line.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused("\"user_id\"", "\"user\"").contains("unknown field `user`"));
        assert!(refused("\"allow\"", "\"perhaps\"").contains("unknown variant `perhaps`"));
        assert!(refused("2026-01-15T", "yesterday").contains("not a decision"));
        assert!(refused("\"send\"", "\"shout\"").contains("unknown variant"));
        assert!(refused("\"decision_id\":\"", "\"decision_id\":\"x").contains("not a decision"));
        assert!(Decision::from_json("").is_err());
    }

    #[test]
    fn times_beyond_the_calendar_are_numbers() {
        let mut decision = example();
        decision.occurred_at_ms = i64::MAX;
        decision.decided_at_ms = i64::MIN;
        assert!(decision.to_json().contains("\"occurred_at\":9223372036854775807"));
        assert_eq!(Decision::from_json(&decision.to_json()).unwrap(), decision);
    }

    fn any_param() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Long),
            any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::Double),
            "\\PC{0,9}".prop_map(Value::String),
            proptest::collection::vec("\\PC{0,5}", 0..3).prop_map(Value::Strings),
        ]
    }

    fn any_reason() -> impl Strategy<Value = Reason> {
        let limit = ("\\PC{0,9}", any::<u32>(), any::<u32>(), proptest::option::of(any::<i64>())).prop_map(
            |(limit, used, allowed, reopens_at_ms)| LimitReason { limit, used, allowed, reopens_at_ms },
        );
        let code = prop_oneof![
            Just(ReasonCode::Allowed),
            Just(ReasonCode::LateEvent),
            Just(ReasonCode::Outranked),
            Just(ReasonCode::OnceEver),
            Just(ReasonCode::CalendarLimit),
            Just(ReasonCode::RollingLimit),
            Just(ReasonCode::CapHistoryTruncated),
            Just(ReasonCode::TooLarge),
        ];
        (code, proptest::option::of(limit), proptest::option::of("\\PC{0,9}"))
            .prop_map(|(code, limit, outranked_by)| Reason { code, limit, outranked_by })
    }

    prop_compose! {
        fn any_decision()(
            ids in prop::array::uniform4("\\PC{0,12}"),
            version in any::<i64>(),
            times in any::<(i64, i64)>(),
            outcome in prop_oneof![Just(Outcome::Allow), Just(Outcome::Suppress), Just(Outcome::Holdout)],
            reason in any_reason(),
            kind in prop_oneof![Just(ActionKind::Send), Just(ActionKind::Alert)],
            texts in prop::array::uniform5(proptest::option::of("\\PC{0,9}")),
            params in proptest::collection::btree_map("\\PC{0,6}", any_param(), 0..4),
        ) -> Decision {
            let [event_id, user_id, campaign_id, event_type] = ids;
            let [channel, template, variant, recipient, trace_id] = texts;
            Decision {
                decision_id: decision_id(&user_id, &event_id, &campaign_id),
                event_id,
                user_id,
                campaign_id,
                campaign_version: version,
                event_type,
                occurred_at_ms: times.0,
                decided_at_ms: times.1,
                outcome,
                reason,
                action: DecidedAction {
                    kind,
                    channel,
                    template,
                    variant,
                    recipient,
                    params: params.into_iter().collect(),
                },
                trace_id,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(decision in any_decision()) {
            prop_assert_eq!(Decision::from_json(&decision.to_json()).unwrap(), decision);
        }
    }
}
