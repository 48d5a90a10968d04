//! Deciding: `decide(state, event, campaigns, now) -> decisions with reasons`.
//!
//! Pure: neither Kafka, nor a database, nor a clock. The same function decides in `run`, `demo`, backtest,
//! explain and the tests. The way of an event: [`scope`] lays the event over the state, [`matching`] says which
//! campaigns decide at all, [`steps`] gives each its reason, [`limits`] being the largest of the steps.

#[cfg(test)]
pub(crate) mod fixtures;
pub mod id;
pub mod json;
pub mod limits;
pub mod matching;
pub mod scope;
pub mod sentence;
pub mod steps;
#[cfg(test)]
mod stories;

pub use id::decision_id;
pub use steps::{decide, decide_observing};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Value;

/// What one campaign decided for one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// UUIDv5 over length-prefixed user, event and campaign id: the same on every replay.
    pub decision_id: Uuid,
    /// The event that caused it.
    pub event_id: String,
    /// The user it is for.
    pub user_id: String,
    /// The campaign that decided.
    pub campaign_id: String,
    /// Offset of the campaign's record on `campaigns`.
    pub campaign_version: i64,
    /// Type of the event.
    pub event_type: String,
    /// When the event happened, ms since the Unix epoch.
    pub occurred_at_ms: i64,
    /// When it was decided, ms since the Unix epoch.
    pub decided_at_ms: i64,
    /// Yes, no, or control group.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// What is to be done when the outcome is `allow`.
    pub action: DecidedAction,
    /// Trace id of the event.
    pub trace_id: Option<String>,
}

/// The three outcomes of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Do it.
    Allow,
    /// Do not; the reason says why.
    Suppress,
    /// Would be done, but the user is in the control group.
    Holdout,
}

impl Outcome {
    /// The text in JSON, Avro and the `outcome` header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Allow => "allow",
            Outcome::Suppress => "suppress",
            Outcome::Holdout => "holdout",
        }
    }
}

/// Why a decision came out as it did. Fields other than `code` are set where the code calls for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The stable reason code.
    pub code: ReasonCode,
    /// The limit that refused, for the codes that name one.
    pub limit: Option<LimitReason>,
    /// The campaign of the same group that took the slot, for `outranked`.
    pub outranked_by: Option<String>,
}

impl Reason {
    /// A reason that needs no detail.
    pub fn of(code: ReasonCode) -> Self {
        Self { code, limit: None, outranked_by: None }
    }
}

/// A limit as a support person needs to see it.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitReason {
    /// The limit as written, such as `at_most 3 per 7d`.
    pub limit: String,
    /// Allows counted.
    pub used: u32,
    /// Allows permitted.
    pub allowed: u32,
    /// When it would be allowed again, ms since the Unix epoch; absent for never.
    pub reopens_at_ms: Option<i64>,
}

/// Reason codes of decisions (section 8 of the design); the wire form is snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// All steps passed.
    Allowed,
    /// Older than `allowed_lateness` against the user's newest event.
    LateEvent,
    /// A better campaign of the same group decided.
    Outranked,
    /// `once_per: ever` is used up.
    OnceEver,
    /// A calendar limit is used up.
    CalendarLimit,
    /// A rolling limit is used up.
    RollingLimit,
    /// The bounded allow log has overflowed, so the rolling cap fails closed.
    CapHistoryTruncated,
    /// The encoded decision would exceed the record limit.
    TooLarge,
}

impl ReasonCode {
    /// What a decision with this reason says.
    pub fn outcome(self) -> Outcome {
        match self {
            ReasonCode::Allowed => Outcome::Allow,
            ReasonCode::LateEvent
            | ReasonCode::Outranked
            | ReasonCode::OnceEver
            | ReasonCode::CalendarLimit
            | ReasonCode::RollingLimit
            | ReasonCode::CapHistoryTruncated
            | ReasonCode::TooLarge => Outcome::Suppress,
        }
    }
}

/// The action of a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct DecidedAction {
    /// `send` or `alert`.
    pub kind: ActionKind,
    /// Channel such as `email`.
    pub channel: Option<String>,
    /// Template to render.
    pub template: Option<String>,
    /// Variant that was drawn.
    pub variant: Option<String>,
    /// The recipient when the action names one; absent until sealing exists.
    pub recipient: Option<String>,
    /// Parameters, by name, in name order.
    pub params: Vec<(String, Value)>,
}

/// What kind of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Send a message.
    Send,
    /// Raise an alert.
    Alert,
}
