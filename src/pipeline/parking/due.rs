//! When a record of a retry topic may be handed out. Both sides of the event log, Kafka's and the simulated one, use it.

use std::collections::VecDeque;

use crate::pipeline::log::Record;
use crate::pipeline::outputs::header;

/// When the retry record is due, ms since the Unix epoch. One whose header is missing, doubled or no number is due at
/// once: it is poison, and only who takes it can say so.
pub fn due(record: &Record) -> Option<i64> {
    let mut values = record.headers.iter().filter(|h| h.name == header::DUE);
    let (first, second) = (values.next()?, values.next());
    let text = std::str::from_utf8(first.value.as_deref()?).ok()?;
    second.is_none().then(|| text.parse().ok())?
}

/// What was read ahead of one retry partition. A tier has one delay, so its partition is due in the order of its offsets,
/// and waits as a whole for its head (rule P6).
#[derive(Debug, Default)]
pub struct DueQueue {
    records: VecDeque<Record>,
}

impl DueQueue {
    /// Adds the next record of the partition.
    pub fn push(&mut self, record: Record) {
        self.records.push_back(record);
    }

    /// The head, if it is due.
    pub fn take(&mut self, now_ms: i64) -> Option<Record> {
        self.head_is_due(now_ms).then(|| self.records.pop_front())?
    }

    /// Puts a record back that was taken.
    pub fn put_back(&mut self, record: Record) {
        self.records.push_front(record);
    }

    /// Whether there is a head and it is due.
    pub fn head_is_due(&self, now_ms: i64) -> bool {
        self.records.front().is_some_and(|head| due(head).is_none_or(|due_ms| due_ms <= now_ms))
    }

    /// When the head is due, ms since the Unix epoch; `None` without one.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.records.front().map(|head| due(head).unwrap_or(i64::MIN))
    }

    /// Records read ahead.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was read ahead.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::pipeline::log::{Header, InputTopic};

    fn record(due: &[&'static str]) -> Record {
        let header = |value: &&'static str| Header {
            name: header::DUE.to_owned(),
            value: Some(Bytes::from_static(value.as_bytes())),
        };
        Record {
            topic: InputTopic::Retry(1),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: due.iter().map(header).collect(),
        }
    }

    /// Rule P6.
    #[test]
    fn the_head_holds_back_what_stands_behind_it() {
        let mut queue = DueQueue::default();
        assert_eq!((queue.take(9), queue.next_due_ms()), (None, None));
        queue.push(record(&["20"]));
        queue.push(record(&["10"]));
        assert_eq!((queue.take(19), queue.next_due_ms()), (None, Some(20)));
        assert_eq!(queue.take(20), Some(record(&["20"])));
        assert_eq!(queue.take(20), Some(record(&["10"])));
    }

    #[test]
    fn a_record_without_one_due_time_is_due_at_once() {
        for headers in [&[][..], &["soon"], &["10", "20"], &[""]] {
            let mut queue = DueQueue::default();
            queue.push(record(headers));
            assert!(queue.head_is_due(i64::MIN), "{headers:?}");
        }
    }
}
