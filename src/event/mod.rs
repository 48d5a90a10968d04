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

/// Type of the event that erases its user.
pub const USER_ERASED: &str = "user.erased";
/// Types that mean something to campaignd itself: beginnings, and whole names.
const RESERVED_PREFIXES: [&str; 2] = ["user.", "subscription."];
const RESERVED: [&str; 2] = ["campaign.joined", "campaign.left"];

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

impl Event {
    /// Whether it erases its user.
    pub fn is_erasure(&self) -> bool {
        self.event_type == USER_ERASED
    }

    /// Whether its type means something to campaignd itself, whatever the campaigns say.
    pub fn is_reserved(&self) -> bool {
        RESERVED.contains(&self.event_type.as_str())
            || RESERVED_PREFIXES.iter().any(|prefix| self.event_type.starts_with(prefix))
    }
}
