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
    pub(super) erasure: Option<Erasure>,
}

/// The mark that an erasure leaves: events not newer than it are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Position of the erasing event; what stands before it is not newer.
    pub position: Position,
    /// Its time, ms since the Unix epoch; what happened then or before is not newer.
    pub at_ms: i64,
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

    /// The newest erasure of the user, if there was one.
    pub fn erasure(&self) -> Option<Erasure> {
        self.erasure
    }

    /// Whether an event is not newer than the user's erasure.
    pub fn is_erased(&self, position: Position, at_ms: i64) -> bool {
        self.erasure.is_some_and(|erasure| position < erasure.position || at_ms <= erasure.at_ms)
    }

    /// Forgets the user: only the mark, the applied position and what may not have been committed yet stay. Of two
    /// erasures the later bounds count. It may overtake events of the user that wait (rule P9).
    pub fn erase(&mut self, position: Position, at_ms: i64) {
        let before = self.erasure;
        let applied = self.applied.max(Some(position));
        let outbox = std::mem::take(&mut self.outbox);
        let erasure = Erasure {
            position: before.map_or(position, |erasure| erasure.position.max(position)),
            at_ms: before.map_or(at_ms, |erasure| erasure.at_ms.max(at_ms)),
        };
        *self = UserState { applied, outbox, erasure: Some(erasure), ..UserState::default() };
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
