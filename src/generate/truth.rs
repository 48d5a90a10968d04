//! What a run was fed, to be compared with what came out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Generated, GeneratedRecord, PoisonKind};

/// Counts of what was generated. After all is handled: decided and ignored events together are `events`, duplicates
/// dropped are `duplicates`, dead letters are [`GroundTruth::dead_letters`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroundTruth {
    /// All records.
    pub records: u64,
    /// Events with an id of their own.
    pub events: u64,
    /// Repeated events.
    pub duplicates: u64,
    /// Events that lie before a newer one of their user; they count as events.
    pub late: u64,
    /// Poison by kind.
    pub poison: BTreeMap<PoisonKind, u64>,
    /// Events by type, duplicates not counted.
    pub by_type: BTreeMap<String, u64>,
}

impl GroundTruth {
    /// How many records must end in the dead letter topic.
    pub fn dead_letters(&self) -> u64 {
        self.poison.values().sum()
    }

    pub(super) fn observe(&mut self, generated: &Generated) {
        self.records += 1;
        match &generated.record {
            GeneratedRecord::Event(event) => {
                self.events += 1;
                match self.by_type.get_mut(&event.event_type) {
                    Some(count) => *count += 1,
                    None => drop(self.by_type.insert(event.event_type.clone(), 1)),
                }
            }
            GeneratedRecord::Duplicate(_) => self.duplicates += 1,
            GeneratedRecord::Poison(poison) => *self.poison.entry(poison.kind).or_default() += 1,
        }
    }
}
