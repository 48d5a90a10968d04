//! How an output of the outbox becomes a record: topic, partition, key and headers.
//!
//! A dead letter is the record as it was read, byte for byte, with our headers behind the producer's.

use bytes::Bytes;

use super::log::{Header, OutputRecord, OutputTopic, Record};
use crate::decision::Outcome;
use crate::schema::wire;

/// Longest trace context that is passed on; version 00 of the W3C format has 55 characters.
const MAX_TRACEPARENT_BYTES: usize = 256;
/// Largest value of a dead letter. The brokers' limit holds for compressed batches, so a record may be larger than the
/// limit of `events` suggests; the dead letter topic takes 16 MiB.
const MAX_DEAD_LETTER_BYTES: usize = 15 * 1024 * 1024;

/// Names of our headers. Believed only on topics that we write.
pub mod header {
    /// Outcome of a decision, so that a consumer can filter without decoding.
    pub const OUTCOME: &str = "outcome";
    /// W3C trace context, kept through every hop.
    pub const TRACEPARENT: &str = "traceparent";
    /// Topic a dead letter was read from.
    pub const ORIGINAL_TOPIC: &str = "campaignd.original.topic";
    /// Partition it was read from.
    pub const ORIGINAL_PARTITION: &str = "campaignd.original.partition";
    /// Offset it was read at.
    pub const ORIGINAL_OFFSET: &str = "campaignd.original.offset";
    /// Its timestamp, ms since the Unix epoch.
    pub const ORIGINAL_TIMESTAMP: &str = "campaignd.original.timestamp";
    /// Stable error code.
    pub const ERROR_CODE: &str = "campaignd.error.code";
    /// Bounded text.
    pub const ERROR_TEXT: &str = "campaignd.error.text";
    /// Schema id of the framing, where there is one.
    pub const SCHEMA_ID: &str = "campaignd.schema.id";
    /// Size of a value that is too large even for the dead letter topic and was left out; the original position tells
    /// where it stands.
    pub const VALUE_OMITTED: &str = "campaignd.value.omitted";
    /// Offset of the newest campaign record that was live.
    pub const CAMPAIGNS_POSITION: &str = "campaignd.campaigns.position";
    /// Prefix of all of ours but `outcome`.
    pub const PREFIX: &str = "campaignd.";
}

fn text(name: &str, value: impl Into<String>) -> Header {
    Header { name: name.to_owned(), value: Some(Bytes::from(value.into())) }
}

fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "allow",
        Outcome::Suppress => "suppress",
        Outcome::Holdout => "holdout",
    }
}

/// The trace context, unless it is longer than one can be: a producer must not make our records too large.
fn trace_context(record: &Record) -> Option<Header> {
    let is_bounded = |h: &&Header| h.value.as_ref().is_some_and(|value| value.len() <= MAX_TRACEPARENT_BYTES);
    record.headers.iter().filter(|h| h.name == header::TRACEPARENT).find(is_bounded).cloned()
}

/// A decision's record.
pub fn decision(record: &Record, outcome: Outcome, bytes: Bytes) -> OutputRecord {
    let mut headers = vec![text(header::OUTCOME, outcome_text(outcome))];
    headers.extend(trace_context(record));
    OutputRecord {
        topic: OutputTopic::Decisions,
        partition: record.partition,
        key: record.key.clone(),
        value: Some(bytes),
        headers,
    }
}

/// An activity's record.
pub fn activity(record: &Record, bytes: Bytes) -> OutputRecord {
    OutputRecord {
        topic: OutputTopic::Activity,
        partition: record.partition,
        key: record.key.clone(),
        value: Some(bytes),
        headers: trace_context(record).into_iter().collect(),
    }
}

/// A dead letter: the record itself, and why. A header of ours that the producer forged is left out, so that each of
/// ours is there once.
pub fn dead_letter(
    record: &Record,
    events_topic: &str,
    code: &str,
    reason: &str,
    campaigns_position: i64,
) -> OutputRecord {
    let mut headers: Vec<Header> =
        record.headers.iter().filter(|h| !h.name.starts_with(header::PREFIX)).cloned().collect();
    headers.push(text(header::ORIGINAL_TOPIC, events_topic));
    headers.push(text(header::ORIGINAL_PARTITION, record.partition.to_string()));
    headers.push(text(header::ORIGINAL_OFFSET, record.offset.to_string()));
    if let Some(timestamp_ms) = record.timestamp_ms {
        headers.push(text(header::ORIGINAL_TIMESTAMP, timestamp_ms.to_string()));
    }
    headers.push(text(header::ERROR_CODE, code));
    headers.push(text(header::ERROR_TEXT, reason));
    if let Some(Ok((id, _))) = record.value.as_deref().map(wire::split) {
        headers.push(text(header::SCHEMA_ID, id.to_string()));
    }
    headers.push(text(header::CAMPAIGNS_POSITION, campaigns_position.to_string()));
    let value = record.value.clone().filter(|value| value.len() <= MAX_DEAD_LETTER_BYTES);
    if let (None, Some(omitted)) = (&value, &record.value) {
        headers.push(text(header::VALUE_OMITTED, omitted.len().to_string()));
    }
    OutputRecord {
        topic: OutputTopic::DeadLetters,
        partition: record.partition,
        key: record.key.clone(),
        value,
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_is_the_record_with_our_headers_once() {
        let header = |name: &str, value: &'static [u8]| Header {
            name: name.into(),
            value: Some(Bytes::from_static(value)),
        };
        let record = Record {
            partition: 4,
            offset: 17,
            timestamp_ms: Some(1_000),
            key: Some(Bytes::from_static(b"ada")),
            value: Some(Bytes::from_static(b"\0\0\0\0\x07rest")),
            headers: vec![
                header("traceparent", b"00-1"),
                header(header::ERROR_CODE, b"forged"),
                Header { name: "null".into(), value: None },
            ],
        };
        let dead = dead_letter(&record, "events", "bad_avro", "why", 12);
        assert_eq!((dead.partition, &dead.key, &dead.value), (4, &record.key, &record.value));
        let headers: Vec<(String, Option<String>)> = dead
            .headers
            .iter()
            .map(|h| (h.name.clone(), h.value.as_ref().map(|v| String::from_utf8_lossy(v).into_owned())))
            .collect();
        let ours = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(
            headers,
            [
                ours("traceparent", "00-1"),
                ("null".to_owned(), None),
                ours(header::ORIGINAL_TOPIC, "events"),
                ours(header::ORIGINAL_PARTITION, "4"),
                ours(header::ORIGINAL_OFFSET, "17"),
                ours(header::ORIGINAL_TIMESTAMP, "1000"),
                ours(header::ERROR_CODE, "bad_avro"),
                ours(header::ERROR_TEXT, "why"),
                ours(header::SCHEMA_ID, "7"),
                ours(header::CAMPAIGNS_POSITION, "12"),
            ]
        );
    }

    fn record(headers: Vec<Header>, value: Vec<u8>) -> Record {
        let key = Some(Bytes::from_static(b"ada"));
        Record { partition: 0, offset: 0, timestamp_ms: None, key, value: Some(Bytes::from(value)), headers }
    }

    #[test]
    fn a_trace_context_is_passed_on_unless_it_is_too_long_to_be_one() {
        let trace = |length: usize| Header {
            name: header::TRACEPARENT.into(),
            value: Some(vec![b'0'; length].into()),
        };
        let names = |length: usize| -> Vec<String> {
            let output = decision(&record(vec![trace(length)], Vec::new()), Outcome::Allow, Bytes::new());
            output.headers.into_iter().map(|h| h.name).collect()
        };
        assert_eq!(names(MAX_TRACEPARENT_BYTES), ["outcome", "traceparent"]);
        assert_eq!(names(MAX_TRACEPARENT_BYTES + 1), ["outcome"]);
    }

    #[test]
    fn a_value_that_no_topic_would_take_is_left_out_and_said_so() {
        let is_omitted = |length: usize| {
            let dead = dead_letter(&record(Vec::new(), vec![0; length]), "events", "too_large", "why", 0);
            let is_said = dead.headers.iter().any(|h| {
                h.name == header::VALUE_OMITTED && h.value.as_deref() == Some(length.to_string().as_bytes())
            });
            assert_eq!(dead.value.is_none(), is_said);
            is_said
        };
        assert!(!is_omitted(MAX_DEAD_LETTER_BYTES));
        assert!(is_omitted(MAX_DEAD_LETTER_BYTES + 1));
    }
}
