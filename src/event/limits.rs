//! How large an event may be.
//!
//! Every event passes [`Limits::check`] before anything else sees it, so that no producer can make a user's state, a
//! decision or a computation with its time grow without bound.

use super::{Event, Properties, Value};

/// Earliest accepted `occurred_at`: 0001-01-01T00:00:00Z, the first instant RFC 3339 can write.
const EARLIEST_MS: i64 = -62_135_596_800_000;
/// Latest accepted `occurred_at`: 9999-12-31T00:00:00Z, a day short of what RFC 3339 can write, so that a day may be
/// added.
const LATEST_MS: i64 = 253_402_214_400_000;

/// Bounds of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest event id, user id, event type and trace id, in bytes.
    pub max_id_bytes: usize,
    /// Most properties, and most traits.
    pub max_properties: usize,
    /// Longest name of a property or trait, in bytes.
    pub max_name_bytes: usize,
    /// Longest text value, in bytes.
    pub max_value_bytes: usize,
    /// Most texts in a list.
    pub max_list_items: usize,
    /// All names and values together, in bytes.
    pub max_total_bytes: usize,
}

impl Limits {
    /// The bounds in force.
    pub const DEFAULT: Limits = Limits {
        max_id_bytes: 256,
        max_properties: 256,
        max_name_bytes: 128,
        max_value_bytes: 8 * 1024,
        max_list_items: 256,
        max_total_bytes: 128 * 1024,
    };

    /// Whether the event keeps all bounds; the first one it breaks otherwise.
    pub fn check(&self, event: &Event) -> Result<(), LimitError> {
        self.check_id("event_id", &event.event_id)?;
        self.check_id("user_id", &event.user_id)?;
        self.check_id("type", &event.event_type)?;
        if let Some(trace_id) = &event.trace_id
            && trace_id.len() > self.max_id_bytes
        {
            return Err(self.too_long("trace_id", trace_id.len()));
        }
        if !(EARLIEST_MS..=LATEST_MS).contains(&event.occurred_at_ms) {
            return Err(LimitError::Time { occurred_at_ms: event.occurred_at_ms });
        }
        let mut total = 0;
        self.check_properties("properties", &event.properties, &mut total)?;
        self.check_properties("traits", &event.traits, &mut total)?;
        if total > self.max_total_bytes {
            return Err(LimitError::TotalTooLong { bytes: total, allowed: self.max_total_bytes });
        }
        Ok(())
    }

    fn check_id(&self, field: &'static str, id: &str) -> Result<(), LimitError> {
        if id.is_empty() {
            return Err(LimitError::Empty { field });
        }
        if id.len() > self.max_id_bytes { Err(self.too_long(field, id.len())) } else { Ok(()) }
    }

    fn too_long(&self, field: &'static str, bytes: usize) -> LimitError {
        LimitError::IdTooLong { field, bytes, allowed: self.max_id_bytes }
    }

    fn check_properties(
        &self,
        field: &'static str,
        properties: &Properties,
        total: &mut usize,
    ) -> Result<(), LimitError> {
        if properties.len() > self.max_properties {
            let allowed = self.max_properties;
            return Err(LimitError::TooManyProperties { field, count: properties.len(), allowed });
        }
        for (name, value) in properties {
            if name.len() > self.max_name_bytes {
                let allowed = self.max_name_bytes;
                return Err(LimitError::NameTooLong { field, bytes: name.len(), allowed });
            }
            *total += name.len();
            match value {
                Value::Null | Value::Boolean(_) | Value::Long(_) | Value::Double(_) => *total += 8,
                Value::String(text) => self.check_text(field, text, total)?,
                Value::Strings(texts) => {
                    if texts.len() > self.max_list_items {
                        let allowed = self.max_list_items;
                        return Err(LimitError::ListTooLong { field, count: texts.len(), allowed });
                    }
                    for text in texts {
                        self.check_text(field, text, total)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_text(&self, field: &'static str, text: &str, total: &mut usize) -> Result<(), LimitError> {
        if text.len() > self.max_value_bytes {
            let allowed = self.max_value_bytes;
            return Err(LimitError::ValueTooLong { field, bytes: text.len(), allowed });
        }
        *total += text.len();
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

/// The bound that an event breaks. The texts carry sizes and field names, never values or a producer's names: those may
/// be personal data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// An id is empty.
    #[error("{field} is empty; give it a value")]
    Empty {
        /// The field of the event.
        field: &'static str,
    },
    /// An id is too long.
    #[error("{field} has {bytes} bytes, {allowed} are allowed; shorten it")]
    IdTooLong {
        /// The field of the event.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        allowed: usize,
    },
    /// The time cannot be written as a date.
    #[error(
        "occurred_at {occurred_at_ms} lies outside the years 1 to 9999; it counts milliseconds since 1970"
    )]
    Time {
        /// The time given.
        occurred_at_ms: i64,
    },
    /// Too many properties or traits.
    #[error("{field} has {count} entries, {allowed} are allowed; send fewer")]
    TooManyProperties {
        /// `properties` or `traits`.
        field: &'static str,
        /// How many came.
        count: usize,
        /// How many are allowed.
        allowed: usize,
    },
    /// A name is too long.
    #[error("a name in {field} has {bytes} bytes, {allowed} are allowed; shorten it")]
    NameTooLong {
        /// `properties` or `traits`.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        allowed: usize,
    },
    /// A text is too long.
    #[error("a value in {field} has {bytes} bytes, {allowed} are allowed; shorten it")]
    ValueTooLong {
        /// `properties` or `traits`.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        allowed: usize,
    },
    /// A list is too long.
    #[error("a list in {field} has {count} items, {allowed} are allowed; send fewer")]
    ListTooLong {
        /// `properties` or `traits`.
        field: &'static str,
        /// How many came.
        count: usize,
        /// How many are allowed.
        allowed: usize,
    },
    /// All together is too long.
    #[error("properties and traits have {bytes} bytes together, {allowed} are allowed; send fewer")]
    TotalTooLong {
        /// How many came.
        bytes: usize,
        /// How many are allowed.
        allowed: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            event_id: "e".into(),
            user_id: "u".into(),
            event_type: "purchase".into(),
            occurred_at_ms: 0,
            properties: Properties::new(),
            traits: Properties::new(),
            trace_id: None,
        }
    }

    fn broken(change: impl FnOnce(&mut Event)) -> LimitError {
        let mut event = event();
        assert_eq!(Limits::DEFAULT.check(&event), Ok(()));
        change(&mut event);
        Limits::DEFAULT.check(&event).unwrap_err()
    }

    #[test]
    fn each_bound_is_kept() {
        let long = |n: usize| "x".repeat(n);
        assert!(matches!(broken(|e| e.event_id.clear()), LimitError::Empty { field: "event_id" }));
        assert!(matches!(broken(|e| e.user_id = long(257)), LimitError::IdTooLong { field: "user_id", .. }));
        assert!(matches!(broken(|e| e.event_type = long(257)), LimitError::IdTooLong { field: "type", .. }));
        assert!(matches!(broken(|e| e.trace_id = Some(long(257))), LimitError::IdTooLong { .. }));
        assert!(matches!(broken(|e| e.occurred_at_ms = i64::MAX), LimitError::Time { .. }));
        assert!(matches!(broken(|e| e.occurred_at_ms = i64::MIN), LimitError::Time { .. }));
        let many = |e: &mut Event| (0..257).for_each(|n| drop(e.traits.insert(n.to_string(), Value::Null)));
        assert!(matches!(broken(many), LimitError::TooManyProperties { field: "traits", count: 257, .. }));
        let name = |e: &mut Event| drop(e.properties.insert(long(129), Value::Null));
        assert!(matches!(broken(name), LimitError::NameTooLong { .. }));
        let value = |e: &mut Event| drop(e.properties.insert("p".into(), Value::String(long(8193))));
        assert!(matches!(broken(value), LimitError::ValueTooLong { .. }));
        let list = |e: &mut Event| {
            drop(e.properties.insert("p".into(), Value::Strings(vec![String::new(); 257])));
        };
        assert!(matches!(broken(list), LimitError::ListTooLong { .. }));
        let total = |e: &mut Event| {
            (0..17).for_each(|n| drop(e.properties.insert(n.to_string(), Value::String(long(8192)))));
        };
        assert!(matches!(broken(total), LimitError::TotalTooLong { .. }));
    }
}
