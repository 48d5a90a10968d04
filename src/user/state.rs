//! The state of one user.

use crate::campaign::catalog::Catalog;
use crate::decision::{Decision, Outcome};
use crate::event::{Event, Properties};
use crate::position::Position;

use super::allows::AllowLog;
use super::dedup::DedupWindow;
use super::history::{History, Rule};
use super::outbox::Outbox;
use super::traits;

/// All that is remembered of a user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserState {
    pub(super) applied: Option<Position>,
    pub(super) newest_event_ms: Option<i64>,
    pub(super) traits: Properties,
    pub(super) history: History,
    pub(super) allows: AllowLog,
    pub(super) dedup: DedupWindow,
    pub(super) outbox: Outbox,
}

impl UserState {
    /// The state of a user of whom nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Highest position of an event that has been applied; a record at or below it changes nothing.
    pub fn applied(&self) -> Option<Position> {
        self.applied
    }

    /// Moves the applied position without remembering anything else: for a duplicate, and for a record that ends as
    /// a dead letter (rule S6). Never moves it back.
    pub fn mark_applied(&mut self, position: Position) {
        self.applied = self.applied.max(Some(position));
    }

    /// Whether the event's id has been seen within the dedup window.
    pub fn is_duplicate(&self, event: &Event) -> bool {
        self.dedup.contains(&event.event_id)
    }

    /// What may not have been committed to Kafka yet.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// What may not have been committed to Kafka yet, to be changed.
    pub fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Time of the user's newest event, ms since the Unix epoch.
    pub fn newest_event_ms(&self) -> Option<i64> {
        self.newest_event_ms
    }

    /// The user's traits; PII traits are never among them.
    pub fn traits(&self) -> &Properties {
        &self.traits
    }

    /// What the user did.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Which campaigns said yes, and when.
    pub fn allows(&self) -> &AllowLog {
        &self.allows
    }

    /// Folds an event and what was decided for it: merges traits (those that `catalog` names PII are dropped),
    /// remembers the occurrence, logs each allow and holdout, remembers the event id, moves the newest event time and
    /// the applied position. The outputs are not touched; whoever encodes them pushes them.
    pub fn record(&mut self, position: Position, event: &Event, decisions: &[Decision], catalog: &Catalog) {
        let at_ms = event.occurred_at_ms;
        let newest_ms = self.newest_event_ms.map_or(at_ms, |newest| newest.max(at_ms));
        self.newest_event_ms = Some(newest_ms);
        traits::merge(&mut self.traits, &event.traits, &catalog.pii_traits);
        self.history.record(
            &event.event_type,
            at_ms,
            newest_ms,
            catalog.allowed_lateness_ms,
            &event.properties,
            |event_type| {
                catalog.remember.get(event_type).map(|remember| Rule {
                    for_ms: remember.for_ms,
                    at_most: remember.at_most,
                    properties: &remember.properties,
                })
            },
        );
        for decision in decisions {
            match decision.outcome {
                Outcome::Allow | Outcome::Holdout => self.allows.record(&decision.campaign_id, at_ms),
                Outcome::Suppress => {}
            }
        }
        self.dedup.insert(&event.event_id, newest_ms);
        self.mark_applied(position);
    }

    /// Bytes that the state occupies in memory, roughly; also an upper estimate of its encoded size.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>()
            .saturating_add(traits::approximate_bytes(&self.traits))
            .saturating_add(self.history.approximate_bytes())
            .saturating_add(self.allows.approximate_bytes())
            .saturating_add(self.dedup.approximate_bytes())
            .saturating_add(self.outbox.bytes())
    }
}

#[cfg(test)]
mod tests;
