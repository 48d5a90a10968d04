//! An event as decoded: what a user did, when, and with which properties.
//!
//! It is the same value whether it came from Avro, from a JSON line or from the generator. It is not a Kafka
//! record: partition, offset and headers stay with the pipeline.

mod json;
mod limits;

use std::collections::BTreeMap;

pub use json::EventError;
pub(crate) use json::Named;
pub use limits::{LimitError, Limits};

/// A property or trait value, exactly the shapes that `schemas/event.avsc` allows.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Explicitly no value.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A 64-bit integer.
    Long(i64),
    /// A 64-bit float; may be NaN or infinite, which conditions treat as UNKNOWN.
    Double(f64),
    /// A text.
    String(String),
    /// A list of texts.
    Strings(Vec<String>),
}

/// Values by name, in name order so that everything derived from them is deterministic.
pub type Properties = BTreeMap<String, Value>;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The producer's id; two records of one user with the same id are one event.
    pub event_id: String,
    /// Whom it is about; also the record key.
    pub user_id: String,
    /// Event type, such as `purchase`; `user.` and `subscription.` prefixes are reserved.
    pub event_type: String,
    /// When it happened, milliseconds since the Unix epoch, UTC.
    pub occurred_at_ms: i64,
    /// What is known of the event.
    pub properties: Properties,
    /// New values of user traits, merged before conditions are evaluated; empty when none came.
    pub traits: Properties,
    /// The producer's trace id.
    pub trace_id: Option<String>,
}
