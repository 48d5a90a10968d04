//! The catalog: what is remembered of users, which traits are personal, and the workspace's settings.
//!
//! What is remembered depends on the catalog and not on the campaigns, so a new campaign sees the past at once. One
//! catalog is live at a time, under the key `catalog` of the `campaigns` topic; without one, [`Catalog::default`] holds.

use std::collections::{BTreeMap, BTreeSet};

/// Occurrences kept of a type when the catalog does not say how many.
pub const DEFAULT_REMEMBER_AT_MOST: u32 = 256;
/// Most occurrences the catalog may ask to keep of one type.
pub const MAX_REMEMBER_AT_MOST: u32 = 4_096;
/// How old an event may be against the user's newest one, when the catalog does not say: an hour.
pub const DEFAULT_ALLOWED_LATENESS_MS: i64 = 3_600_000;

/// The declared facts about events and users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// What is remembered, by event type.
    pub remember: BTreeMap<String, Remember>,
    /// Traits that are personal data.
    pub pii_traits: BTreeSet<String>,
    /// An event older than this against the user's newest event is late: remembered, but its decisions are
    /// `suppress: late_event`.
    pub allowed_lateness_ms: i64,
}

/// How the occurrences of one event type are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remember {
    /// For how long, milliseconds.
    pub for_ms: i64,
    /// At most so many, the latest.
    pub at_most: u32,
    /// Which properties of each occurrence are kept, in name order.
    pub properties: Vec<String>,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog {
            remember: BTreeMap::new(),
            pii_traits: BTreeSet::new(),
            allowed_lateness_ms: DEFAULT_ALLOWED_LATENESS_MS,
        }
    }
}
