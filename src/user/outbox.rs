//! Encoded outputs of a user's events that may not have been committed to Kafka yet.
//!
//! An entry enters with the state change it belongs to (one cell, one write), and leaves when the batch that
//! published it has committed, or when a freshly loaded state shows that its event lies behind the committed offset.
//! Entries are ordered by position, and there is at most one per position. The outbox does not publish and does not
//! bound itself: the pipeline closes a batch before the bytes kept here grow past its limit.

use crate::decision::Outcome;
use crate::position::Position;

/// Bytes counted for an entry besides its outputs, and for an output besides its payload: position, lengths and
/// allocation overhead, rounded up.
const OVERHEAD_BYTES: usize = 48;

/// One output of an event, encoded as it will be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A record for `decisions`.
    Decision {
        /// Repeated as a header, so that a consumer can filter without decoding.
        outcome: Outcome,
        /// The framed record value.
        bytes: Vec<u8>,
    },
    /// A record for `activity`.
    Activity {
        /// The framed record value.
        bytes: Vec<u8>,
    },
    /// The event goes to the dead letter topic; its bytes are those of the record that is read again.
    DeadLetter {
        /// Stable error code.
        code: String,
        /// Bounded error text.
        text: String,
    },
}

impl Output {
    /// Bytes that the output occupies, roughly.
    pub fn approximate_bytes(&self) -> usize {
        let payload = match self {
            Output::Decision { bytes, .. } | Output::Activity { bytes } => bytes.len(),
            Output::DeadLetter { code, text } => code.len().saturating_add(text.len()),
        };
        payload.saturating_add(OVERHEAD_BYTES)
    }
}

/// What one event put out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Position of the event.
    pub position: Position,
    /// Its outputs, in the order in which they are published.
    pub outputs: Vec<Output>,
}

impl OutboxEntry {
    fn approximate_bytes(&self) -> usize {
        self.outputs.iter().map(Output::approximate_bytes).fold(OVERHEAD_BYTES, usize::saturating_add)
    }
}

/// An entry, and the batch that published it as far as this process knows. The mark is never stored: after a crash
/// nobody knows it, and rule S5b decides instead.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    entry: OutboxEntry,
    published_by: Option<u64>,
}

/// The outputs of a user that may not have been committed yet, in order of position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    slots: Vec<Slot>,
    bytes: usize,
}

impl Outbox {
    /// Adds what the event at `position` put out. An entry that stands at the same position is replaced.
    pub fn push(&mut self, position: Position, outputs: Vec<Output>) {
        let entry = OutboxEntry { position, outputs };
        self.bytes = self.bytes.saturating_add(entry.approximate_bytes());
        let slot = Slot { entry, published_by: None };
        if self.slots.last().is_none_or(|last| last.entry.position < position) {
            self.slots.push(slot);
            return;
        }
        match self.slots.binary_search_by(|slot| slot.entry.position.cmp(&position)) {
            Ok(at) => {
                if let Some(old) = self.slots.get_mut(at) {
                    self.bytes = self.bytes.saturating_sub(old.entry.approximate_bytes());
                    *old = slot;
                }
            }
            Err(at) => self.slots.insert(at, slot),
        }
    }

    /// The entry of the event at `position`.
    pub fn get(&self, position: Position) -> Option<&OutboxEntry> {
        let at = self.slots.binary_search_by(|slot| slot.entry.position.cmp(&position)).ok()?;
        self.slots.get(at).map(|slot| &slot.entry)
    }

    /// All entries, in order of position.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &OutboxEntry> {
        self.slots.iter().map(|slot| &slot.entry)
    }

    /// Keeps the entries whose position `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&Position) -> bool) {
        self.retain_slots(|slot| keep(&slot.entry.position));
    }

    /// Notes that the batch numbered `batch` carries the entry at `position`; of two batches the later one counts.
    /// Nothing happens when there is no such entry.
    pub fn mark_published(&mut self, position: Position, batch: u64) {
        if let Ok(at) = self.slots.binary_search_by(|slot| slot.entry.position.cmp(&position))
            && let Some(slot) = self.slots.get_mut(at)
        {
            slot.published_by = slot.published_by.max(Some(batch));
        }
    }

    /// Drops the entries that a batch up to and including `up_to_batch` published: it has committed (rule S5a).
    pub fn drop_committed(&mut self, up_to_batch: u64) {
        self.retain_slots(|slot| slot.published_by.is_none_or(|batch| batch > up_to_batch));
    }

    /// For a state just loaded (rule S5b): drops entries of an older incarnation, and entries of `partition` below
    /// `next_offset`, its committed position, unless their own record still waits in a retry topic: forwarding a record
    /// is not publishing its entry. What this process knows of publishing is no reason to keep them: committed is
    /// committed. Returns how many of an older incarnation went.
    pub fn drop_behind(
        &mut self,
        partition: i32,
        incarnation: u32,
        next_offset: i64,
        is_pending: impl Fn(Position) -> bool,
    ) -> usize {
        let mut older = 0;
        self.retain(|position| {
            if is_pending(*position) {
                return true;
            }
            older += usize::from(position.incarnation < incarnation);
            let behind = position.incarnation == incarnation
                && position.partition == partition
                && position.offset < next_offset;
            position.incarnation >= incarnation && !behind
        });
        older
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes that the entries occupy, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn retain_slots(&mut self, keep: impl FnMut(&Slot) -> bool) {
        let before = self.slots.len();
        self.slots.retain(keep);
        if self.slots.len() != before {
            self.bytes =
                self.slots.iter().map(|slot| slot.entry.approximate_bytes()).fold(0, usize::saturating_add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Position {
        Position { incarnation: 0, partition: 1, offset }
    }

    fn activity(length: usize) -> Vec<Output> {
        vec![Output::Activity { bytes: vec![7; length] }]
    }

    fn offsets(outbox: &Outbox) -> Vec<i64> {
        outbox.entries().map(|entry| entry.position.offset).collect()
    }

    #[test]
    fn entries_are_ordered_by_position_whatever_the_order_of_pushing() {
        let mut outbox = Outbox::default();
        for offset in [5, 9, 1, 7] {
            outbox.push(at(offset), activity(1));
        }
        assert_eq!(offsets(&outbox), [1, 5, 7, 9]);
        assert_eq!(outbox.get(at(7)).map(|entry| entry.position.offset), Some(7));
        assert!(outbox.get(at(8)).is_none());
        assert_eq!(outbox.len(), 4);
        assert!(!outbox.is_empty());
    }

    #[test]
    fn a_second_push_at_a_position_replaces_the_first() {
        let mut outbox = Outbox::default();
        outbox.push(at(1), activity(100));
        outbox.push(at(2), activity(1));
        let alone = {
            let mut other = Outbox::default();
            other.push(at(1), activity(3));
            other.push(at(2), activity(1));
            other
        };
        outbox.push(at(1), activity(3));
        assert_eq!(outbox, alone);
        assert_eq!(outbox.bytes(), alone.bytes());
    }

    #[test]
    fn an_entry_goes_when_the_batch_that_published_it_has_committed() {
        let mut outbox = Outbox::default();
        for offset in 1..=4 {
            outbox.push(at(offset), activity(1));
        }
        outbox.mark_published(at(1), 10);
        outbox.mark_published(at(2), 11);
        outbox.mark_published(at(3), 12);
        outbox.mark_published(at(99), 1);
        outbox.drop_committed(11);
        assert_eq!(offsets(&outbox), [3, 4], "batch 12 has not committed, and nobody published 4");
        outbox.drop_committed(u64::MAX);
        assert_eq!(offsets(&outbox), [4]);
    }

    #[test]
    fn a_republished_entry_waits_for_the_later_batch() {
        let mut outbox = Outbox::default();
        outbox.push(at(1), activity(1));
        outbox.mark_published(at(1), 5);
        outbox.mark_published(at(1), 3);
        outbox.drop_committed(4);
        assert_eq!(outbox.len(), 1);
        outbox.drop_committed(5);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_loaded_state_drops_what_lies_behind_the_committed_offset() {
        let mut outbox = Outbox::default();
        let positions = [
            Position { incarnation: 0, partition: 1, offset: 900 },
            Position { incarnation: 1, partition: 0, offset: 3 },
            Position { incarnation: 1, partition: 1, offset: 9 },
            Position { incarnation: 1, partition: 1, offset: 10 },
            Position { incarnation: 1, partition: 1, offset: 11 },
        ];
        for position in positions {
            outbox.push(position, activity(1));
        }
        outbox.drop_behind(1, 1, 10, |_| false);
        let kept: Vec<Position> = outbox.entries().map(|entry| entry.position).collect();
        assert_eq!(kept, [positions[1], positions[3], positions[4]]);
    }

    #[test]
    fn bytes_follow_the_entries() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.bytes(), 0);
        outbox.push(at(1), activity(1000));
        let one = outbox.bytes();
        assert!((1000..1200).contains(&one));
        outbox.push(
            at(2),
            vec![
                Output::Decision { outcome: Outcome::Allow, bytes: vec![0; 500] },
                Output::DeadLetter { code: "future_event".to_owned(), text: "x".repeat(100) },
            ],
        );
        assert!(outbox.bytes() > one + 600);
        outbox.retain(|position| position.offset == 1);
        assert_eq!(outbox.bytes(), one);
    }
}
