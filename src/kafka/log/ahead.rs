//! What was read ahead of the retry partitions and waits until it is due (rule P6). Time is an argument.
//!
//! Always holds: of a partition no more is read ahead than its bound and one record; a partition over its bound is
//! crammed until half of it is gone, so that it is not paused and resumed for every record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::gathering::size;
use crate::pipeline::log::{Input, Record};
use crate::pipeline::parking::DueQueue;

/// Most records read ahead of one retry partition.
const MAX_RECORDS: usize = 1_000;
/// Most bytes of them; there may be four partitions and more for each of `events`.
const MAX_BYTES: usize = 1024 * 1024;

/// Records of all retry partitions of this member.
#[derive(Default)]
pub(super) struct ReadAhead {
    /// Longest wait that a head is believed, ms. Who can write to the topic could else stop a partition for ever.
    longest_ms: i64,
    partitions: BTreeMap<Input, Waiting>,
    crammed: BTreeSet<Input>,
    /// When the first of all heads is due, and the last one.
    due_ms: Option<(i64, i64)>,
    /// Whose record was taken last; the next one's turn is behind it.
    last: Option<Input>,
}

#[derive(Default)]
struct Waiting {
    queue: DueQueue,
    bytes: usize,
    /// When the head is due; reading it in the header each time would cost more than the record is worth.
    due_ms: Option<i64>,
}

impl Waiting {
    fn change<T>(&mut self, change: impl FnOnce(&mut DueQueue) -> T) -> T {
        let result = change(&mut self.queue);
        self.due_ms = self.queue.next_due_ms();
        result
    }

    fn is_over(&self, share: usize) -> bool {
        self.queue.len() >= MAX_RECORDS / share || self.bytes >= MAX_BYTES / share
    }
}

impl ReadAhead {
    /// Nothing yet. A head that claims to be due later than `longest` from now is due at once: what was written when
    /// delays were longer, and what was not written by us, must not hold up what stands behind it.
    pub fn new(longest: Duration) -> ReadAhead {
        let longest_ms = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
        ReadAhead { longest_ms, ..ReadAhead::default() }
    }

    /// Forgets everything: it is read again.
    pub fn clear(&mut self) {
        *self = ReadAhead { longest_ms: self.longest_ms, ..ReadAhead::default() };
    }

    /// Adds the next record of its partition; true when the partition has become crammed by it.
    pub fn push(&mut self, record: Record) -> bool {
        let input = record.input();
        let waiting = self.partitions.entry(input).or_default();
        waiting.bytes += size(&record);
        if waiting.queue.is_empty() {
            waiting.change(|queue| queue.push(record));
            self.look_again();
        } else {
            waiting.queue.push(record);
        }
        let is_over = self.partitions.get(&input).is_some_and(|waiting| waiting.is_over(1));
        is_over && self.crammed.insert(input)
    }

    /// The next record that is due, from each partition in turn.
    pub fn take(&mut self, now_ms: i64) -> Option<Record> {
        let (first, last) = self.due_ms?;
        let latest = now_ms.saturating_add(self.longest_ms);
        if first > now_ms && last <= latest {
            return None;
        }
        let is_due = |(input, waiting): (&Input, &Waiting)| {
            waiting.due_ms.is_some_and(|due_ms| due_ms <= now_ms || due_ms > latest).then_some(*input)
        };
        let behind = self.partitions.iter().filter(|(input, _)| Some(**input) > self.last);
        let input = behind.chain(self.partitions.iter()).find_map(is_due)?;
        let waiting = self.partitions.get_mut(&input)?;
        let record = waiting.change(|queue| queue.take(i64::MAX))?;
        waiting.bytes = waiting.bytes.saturating_sub(size(&record));
        self.last = Some(input);
        self.look_again();
        Some(record)
    }

    /// Puts the record back that was taken last.
    pub fn put_back(&mut self, record: Record) {
        let waiting = self.partitions.entry(record.input()).or_default();
        waiting.bytes += size(&record);
        waiting.change(|queue| queue.put_back(record));
        self.look_again();
    }

    /// When the first head is due, ms since the Unix epoch; `None` when nothing waits.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.due_ms.map(|(first, _)| first)
    }

    /// Whether the partition is to rest.
    pub fn is_crammed(&self, input: &Input) -> bool {
        self.crammed.contains(input)
    }

    /// Lets go of crammed partitions that have room again; true when there was one.
    pub fn release(&mut self) -> bool {
        let before = self.crammed.len();
        let is_over = |input: &Input| self.partitions.get(input).is_some_and(|waiting| waiting.is_over(2));
        self.crammed.retain(is_over);
        self.crammed.len() < before
    }

    fn look_again(&mut self) {
        let heads = || self.partitions.values().filter_map(|waiting| waiting.due_ms);
        self.due_ms = heads().min().zip(heads().max());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::pipeline::log::{Header, InputTopic};
    use crate::pipeline::outputs::header;

    fn record(tier: u8, partition: i32, offset: i64, due_ms: i64) -> Record {
        let due = Header { name: header::DUE.to_owned(), value: Some(Bytes::from(due_ms.to_string())) };
        let topic = InputTopic::Retry(tier);
        Record { topic, partition, offset, timestamp_ms: None, key: None, value: None, headers: vec![due] }
    }

    fn ahead() -> ReadAhead {
        ReadAhead::new(Duration::from_secs(1))
    }

    fn taken(ahead: &mut ReadAhead, now_ms: i64) -> Vec<(Input, i64)> {
        std::iter::from_fn(|| ahead.take(now_ms)).map(|record| (record.input(), record.offset)).collect()
    }

    #[test]
    fn only_what_is_due_is_taken_from_each_partition_in_turn() {
        let mut ahead = ahead();
        for (tier, offset, due_ms) in [(1, 0, 10), (1, 1, 10), (1, 2, 30), (2, 0, 20), (2, 1, 20), (3, 0, 90)]
        {
            ahead.push(record(tier, 0, offset, due_ms));
        }
        assert_eq!((ahead.next_due_ms(), taken(&mut ahead, 9)), (Some(10), Vec::new()));
        let (first, second) = (Input::retry(1, 0), Input::retry(2, 0));
        assert_eq!(taken(&mut ahead, 20), [(first, 0), (second, 0), (first, 1), (second, 1)]);
        assert_eq!(ahead.next_due_ms(), Some(30));
        ahead.clear();
        assert_eq!((ahead.next_due_ms(), ahead.take(i64::MAX)), (None, None));
    }

    #[test]
    fn a_head_that_claims_to_wait_longer_than_any_tier_waits_for_nothing() {
        let mut ahead = ahead();
        ahead.push(record(1, 0, 0, 1_000));
        ahead.push(record(2, 0, 0, i64::MAX));
        ahead.push(record(2, 0, 1, 1_001));
        let (first, second) = (Input::retry(1, 0), Input::retry(2, 0));
        assert_eq!(taken(&mut ahead, 0), [(second, 0), (second, 1)]);
        assert_eq!(taken(&mut ahead, 1_000), [(first, 0)]);
    }

    #[test]
    fn a_record_that_is_put_back_comes_again_first() {
        let mut ahead = ahead();
        ahead.push(record(1, 0, 5, 10));
        ahead.push(record(1, 0, 6, 10));
        let first = ahead.take(10).unwrap();
        ahead.put_back(first);
        assert_eq!(taken(&mut ahead, 10), [(Input::retry(1, 0), 5), (Input::retry(1, 0), 6)]);
    }

    #[test]
    fn a_partition_is_crammed_at_its_bound_until_half_of_it_is_gone() {
        let mut ahead = ahead();
        let input = Input::retry(1, 7);
        let crammed: Vec<i64> =
            (0..).take(MAX_RECORDS).filter(|n| ahead.push(record(1, 7, *n, *n))).collect();
        assert_eq!(crammed, [MAX_RECORDS as i64 - 1]);
        assert!(ahead.is_crammed(&input) && !ahead.push(record(1, 7, 9_999, 9_999)), "it is crammed once");
        taken(&mut ahead, MAX_RECORDS as i64 / 2 + 1);
        assert!(ahead.is_crammed(&input), "as long as nobody asks");
        assert!(ahead.release() && !ahead.is_crammed(&input) && !ahead.release());
    }

    #[test]
    fn large_records_cram_a_partition_by_their_bytes() {
        let mut ahead = ahead();
        let large =
            |offset| Record { value: Some(Bytes::from(vec![0; MAX_BYTES / 2])), ..record(1, 0, offset, 0) };
        assert!(!ahead.push(large(0)));
        assert!(ahead.push(large(1)));
        taken(&mut ahead, 0);
        assert!(ahead.release());
    }
}
