//! The catalog: what is remembered of users, which traits are personal, and the workspace's settings.
//!
//! What is remembered depends on the catalog and not on the campaigns, so a new campaign sees the past at once. One
//! catalog is live at a time, under the key `catalog` of the `campaigns` topic; without one, [`Catalog::default`] holds.

use std::collections::{BTreeMap, BTreeSet};

use crate::user::history::{MAX_KEPT_PROPERTIES, MAX_KEPT_VALUE_BYTES};

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

/// Most bytes that the remembered occurrences of one user may take in the state cell (rule S9).
///
/// The rest of a cell is bounded by itself: traits 2.1 MiB, allow log 2.4 MiB, the outboxes of two batches in flight 4 MiB.
/// Together they stay below the 16 MiB that Cassandra and ScyllaDB take in one write by default.
pub const MAX_REMEMBERED_BYTES: u64 = 4 * 1024 * 1024;
/// What an occurrence takes beside its properties, and a property beside its value.
const OCCURRENCE_BYTES: u64 = 32;
const PROPERTY_BYTES: u64 = 16;

impl Catalog {
    /// Bytes that the remembered occurrences of one user can take at most, with every value as long as is kept.
    pub fn remembered_bytes(&self) -> u64 {
        let value_bytes = u64::try_from(MAX_KEPT_VALUE_BYTES).unwrap_or(u64::MAX);
        let of_type = |remember: &Remember| {
            let kept = remember.properties.len().min(MAX_KEPT_PROPERTIES);
            let properties =
                u64::try_from(kept).unwrap_or(u64::MAX).saturating_mul(PROPERTY_BYTES + value_bytes);
            u64::from(remember.at_most).saturating_mul(OCCURRENCE_BYTES.saturating_add(properties))
        };
        self.remember.values().map(of_type).fold(0, u64::saturating_add)
    }

    /// Why a state made by this catalog could become too large to be written; `None` when it cannot.
    pub fn too_large(&self) -> Option<String> {
        let bytes = self.remembered_bytes();
        (bytes > MAX_REMEMBERED_BYTES).then(|| {
            format!(
                "what is remembered of one user can take {bytes} bytes, allowed are {MAX_REMEMBERED_BYTES}"
            )
        })
    }
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
