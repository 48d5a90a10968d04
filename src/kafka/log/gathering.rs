//! A batch while it is gathered, and its bounds.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::time::Instant;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::BatchLimits;
use crate::pipeline::log::{Input, InputTopic, Record};

/// Key hashes of a batch, counted with a fixed hasher.
type KeyCounts = HashMap<u64, usize, BuildHasherDefault<Xxh3>>;

/// A batch being gathered; its bounds count the records of all topics together.
#[derive(Default)]
pub(super) struct Gathering {
    pub records: Vec<Record>,
    pub next_offsets: BTreeMap<Input, i64>,
    pub full: bool,
    /// Since when its first record waits.
    pub since: Option<Instant>,
    bytes: usize,
    per_key: KeyCounts,
    retry_records: usize,
    retry_bytes: usize,
}

impl Gathering {
    /// Records of the same key that are in it.
    pub fn records_of(&self, record: &Record) -> usize {
        self.per_key.get(&key_hash(record)).copied().unwrap_or(0)
    }

    pub fn push(&mut self, record: Record, limits: &BatchLimits) {
        self.since.get_or_insert_with(Instant::now);
        let bytes = size(&record);
        self.bytes += bytes;
        if record.topic != InputTopic::Events {
            self.retry_records += 1;
            self.retry_bytes += bytes;
        }
        *self.per_key.entry(key_hash(&record)).or_insert(0) += 1;
        self.full = self.bytes >= limits.max_bytes || self.records.len() + 1 >= limits.max_records;
        self.next_offsets.insert(record.input(), record.offset + 1);
        self.records.push(record);
    }

    /// Whether retry records have had their half of the batch, while there are events to fill the other one. Of an odd
    /// number of records they get the middle one every second time, so that in batches of one record nobody starves.
    pub fn retry_has_its_half(&self, limits: &BatchLimits, middle: bool) -> bool {
        let half = if middle { limits.max_records.div_ceil(2) } else { limits.max_records / 2 };
        self.retry_records >= half || self.retry_bytes >= limits.max_bytes / 2
    }
}

fn key_hash(record: &Record) -> u64 {
    record.key.as_deref().map_or(0, xxh3_64)
}

/// Bytes of a record, as far as they are its own.
pub(super) fn size(record: &Record) -> usize {
    let headers: usize =
        record.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len) + headers
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(max_records: usize) -> BatchLimits {
        BatchLimits { max_wait: Duration::ZERO, max_records, max_bytes: 1_000, max_records_per_user: 10 }
    }

    fn record(topic: InputTopic, offset: i64, bytes: usize) -> Record {
        let value = Some(Bytes::from(vec![0; bytes]));
        Record { topic, partition: 0, offset, timestamp_ms: None, key: None, value, headers: Vec::new() }
    }

    #[test]
    fn the_bounds_count_all_topics_together() {
        let mut gathering = Gathering::default();
        gathering.push(record(InputTopic::Events, 7, 1), &limits(3));
        gathering.push(record(InputTopic::Retry(1), 5, 1), &limits(3));
        assert!(!gathering.full);
        gathering.push(record(InputTopic::Retry(2), 9, 1), &limits(3));
        assert!(gathering.full);
        assert_eq!(gathering.records_of(&record(InputTopic::Events, 8, 1)), 3);
        let next: Vec<(Input, i64)> = gathering.next_offsets.into_iter().collect();
        assert_eq!(next, [(Input::events(0), 8), (Input::retry(1, 0), 6), (Input::retry(2, 0), 10)]);
    }

    #[test]
    fn retry_records_get_half_of_the_records_and_half_of_the_bytes() {
        let mut gathering = Gathering::default();
        assert!(
            gathering.retry_has_its_half(&limits(1), false)
                && !gathering.retry_has_its_half(&limits(1), true)
        );
        gathering.push(record(InputTopic::Events, 0, 900), &limits(4));
        gathering.push(record(InputTopic::Retry(1), 0, 1), &limits(4));
        assert!(!gathering.retry_has_its_half(&limits(4), false));
        gathering.push(record(InputTopic::Retry(1), 1, 1), &limits(4));
        assert!(gathering.retry_has_its_half(&limits(4), true));
        let mut gathering = Gathering::default();
        gathering.push(record(InputTopic::Retry(1), 0, 500), &limits(100));
        assert!(gathering.retry_has_its_half(&limits(100), true));
    }
}
