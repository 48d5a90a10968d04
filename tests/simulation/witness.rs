//! What is seen of one process from outside, for rules that show only in between.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use campaignd::pipeline::log::{Input, InputTopic};
use campaignd::position::Position;
use campaignd::telemetry::metrics::Metrics;
use campaignd::user::{UserState, codec};

use crate::campaigns::ALWAYS_OF_INTEREST;
use crate::group::Membership;
use crate::oracle::as_event;
use crate::workload::Nature;
use crate::world::{World, lock};

/// Batches that may be between the log and the committer.
const BATCHES: usize = 4;

/// Where a batch ends, and the records of `events` in it: partition and offset.
type Batch = (BTreeMap<Input, i64>, Vec<(i32, i64)>);

/// What one process has been seen doing.
#[derive(Default)]
pub struct Witness {
    pub metrics: Option<Metrics>,
    /// The cell of each user as it was read last, since reading began.
    loaded: BTreeMap<String, Option<UserState>>,
    batches: VecDeque<Batch>,
    /// Replays that nothing explains, in batches that have committed (rule S8).
    unexplained: u64,
    /// So many have been held against the counter.
    checked: u64,
    /// So many must have been counted when the next batch commits, unless everything is forgotten before.
    to_be_counted: Option<u64>,
    /// The membership whose revocation has been acknowledged last (rule O5).
    pub given_back: Option<Membership>,
}

impl Witness {
    /// Reading begins anew: caches are empty.
    pub fn begins(&mut self) {
        self.loaded.clear();
        self.batches.clear();
        self.to_be_counted = None;
    }

    /// A cell has been read. True when it had been read before: it was evicted.
    pub fn loads(&mut self, user: &str, cell: Option<&Bytes>) -> bool {
        let state = cell.and_then(|bytes| codec::decode(bytes).ok());
        self.loaded.insert(user.to_owned(), state).is_some()
    }

    /// A batch has been handed out.
    pub fn reads(&mut self, next_offsets: &BTreeMap<Input, i64>, records: Vec<(i32, i64)>) {
        self.batches.push_back((next_offsets.clone(), records));
        if self.batches.len() > BATCHES {
            self.batches.pop_front();
        }
    }

    /// A batch has committed and its answer has been taken.
    pub fn committed(&mut self, world: &World, next_offsets: &BTreeMap<Input, i64>) {
        let Some((_, records)) = self.batches.iter().find(|(ends, _)| ends == next_offsets) else { return };
        let found =
            records.iter().filter(|(partition, offset)| self.is_unexplained(world, *partition, *offset));
        self.unexplained += u64::try_from(found.count()).expect("few");
        self.to_be_counted = (self.unexplained > 0).then_some(self.unexplained);
    }

    /// Whether a record lies at or below what its cell says is applied, and the cell knows nothing of it.
    fn is_unexplained(&self, world: &World, partition: i32, offset: i64) -> bool {
        let placed = lock(&world.placed);
        let Some(record) = placed.iter().rfind(|r| r.partition == partition && r.offset == offset) else {
            return false;
        };
        let Nature::Event { json, .. } = &record.nature else { return false };
        let user = json["user_id"].as_str().unwrap_or_default();
        let Some(Some(state)) = self.loaded.get(user) else { return false };
        let position = Position { incarnation: 0, partition, offset };
        let at_ms = json["occurred_at"].as_i64().unwrap_or_default();
        json["type"] == ALWAYS_OF_INTEREST
            && state.applied() >= Some(position)
            && state.outbox().get(position).is_none()
            && !state.is_duplicate(&as_event(json))
            && !state.is_erased(position, at_ms)
            && !lock(&world.ever_parked).contains(user)
    }

    /// The next batch is about to commit: the counts of the one before have been told by now.
    pub fn commits(&mut self, world: &World) {
        let Some(expected) = self.to_be_counted.take() else { return };
        let before = std::mem::replace(&mut self.checked, expected);
        world.books().count("unexplained replays", expected - before);
        let counted = self.metrics.as_ref().map_or(0, |metrics| metrics.snapshot().unexplained_replays);

        if counted < expected {
            world.violation(format_args!(
                "S8: {expected} replays that nothing explains, {counted} were counted"
            ));
        }
    }

    /// What was in flight has been given up; nobody may hear how it ended.
    pub fn settles(&mut self) {
        self.to_be_counted = None;
    }
}

/// Records of `events` among inputs.
pub fn of_events(input: Input, offset: i64) -> Option<(i32, i64)> {
    (input.topic == InputTopic::Events).then_some((input.partition, offset))
}
