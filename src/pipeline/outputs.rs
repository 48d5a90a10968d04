//! How an output of the outbox becomes a record: topic, partition, key and headers.
//!
//! A dead letter is the record as it was read, byte for byte, with our headers behind the producer's.

use bytes::Bytes;

use super::log::{Header, InputTopic, OutputRecord, OutputTopic, Record};
use super::parking::Origin;
use super::settings::Settings;
use crate::decision::Outcome;
use crate::mutant::{Mutant, is};
use crate::schema::wire;

/// Longest trace context that is passed on; version 00 of the W3C format has 55 characters.
const MAX_TRACEPARENT_BYTES: usize = 256;
/// Largest value that is carried to a retry topic or the dead letter topic. The brokers' limit holds for compressed
/// batches, so a record may be larger than the limit of `events` suggests; our topics take 16 MiB.
const MAX_CARRIED_BYTES: usize = 15 * 1024 * 1024;

/// Largest number that the header of replays may hold. No record is replayed more often.
pub const MAX_REPLAYS: u32 = 1_000;

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
    /// Incarnation of the topic that the original offset belongs to.
    pub const ORIGINAL_INCARNATION: &str = "campaignd.original.incarnation";
    /// Attempts of a retry record that failed by its own fault; they run out.
    pub const ATTEMPT: &str = "campaignd.retry.attempt";
    /// All attempts of a retry record that failed; they choose its tier.
    pub const FAILURES: &str = "campaignd.retry.failures";
    /// When a retry record is due, ms since the Unix epoch.
    pub const DUE: &str = "campaignd.retry.due";
    /// How often the record has been replayed from the dead letter topic. The only one of ours that goes back to `events`
    /// and counts there: a record that dies again must not begin at 0 again.
    pub const REPLAYS: &str = "campaignd.replays";
    /// Prefix of all of ours but `outcome`.
    pub const PREFIX: &str = "campaignd.";
}

fn text(name: &str, value: impl Into<String>) -> Header {
    Header { name: name.to_owned(), value: Some(Bytes::from(value.into())) }
}

/// The trace context, unless it is longer than one can be: a producer must not make our records too large.
fn trace_context(record: &Record) -> Option<Header> {
    let is_bounded = |h: &&Header| h.value.as_ref().is_some_and(|value| value.len() <= MAX_TRACEPARENT_BYTES);
    record.headers.iter().filter(|h| h.name == header::TRACEPARENT).find(is_bounded).cloned()
}

/// A decision's record.
pub fn decision(record: &Record, outcome: Outcome, bytes: Bytes) -> OutputRecord {
    let mut headers = vec![text(header::OUTCOME, outcome.as_str())];
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

/// Why a record goes to another topic of ours.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    /// Stable error code; `None` for a record that only waits behind another one.
    pub code: Option<&'a str>,
    /// Bounded text.
    pub text: &'a str,
    /// Offset of the newest campaign record that was live.
    pub campaigns_position: i64,
}

/// A dead letter: the record itself, and why. A header of ours that the producer forged is left out, so that each of
/// ours is there once. Without an origin the record is named by where it was read.
pub fn dead_letter(
    record: &Record,
    origin: Option<&Origin>,
    topics: &Settings,
    why: Why<'_>,
) -> OutputRecord {
    let mut headers = foreign(record);
    match (origin, record.topic) {
        (Some(origin), _) => headers.extend(place(origin, &topics.events_topic)),
        (None, InputTopic::Retry(tier)) => {
            let topic = format!("{}.{tier}", topics.retry.topic);
            headers.extend(read_at(record, topic));
        }
        (None, InputTopic::Events) => headers.extend(read_at(record, topics.events_topic.clone())),
    }
    headers.extend(reasons(record, why));
    let value = record.value.clone().filter(|value| value.len() <= MAX_CARRIED_BYTES);
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

/// A record that waits in `tier` until `due_ms`, for the partition number that it came from (rule P10).
pub fn retry(
    record: &Record,
    origin: &Origin,
    tier: u8,
    due_ms: i64,
    topics: &Settings,
    why: Why<'_>,
) -> OutputRecord {
    let mut headers = foreign(record);
    headers.extend(place(origin, &topics.events_topic));
    headers.push(text(header::ORIGINAL_INCARNATION, origin.position.incarnation.to_string()));
    headers.push(text(header::ATTEMPT, origin.attempt.to_string()));
    headers.push(text(header::FAILURES, origin.failures.to_string()));
    headers.push(text(header::DUE, due_ms.to_string()));
    headers.extend(reasons(record, why));
    OutputRecord {
        topic: OutputTopic::Retry(tier),
        partition: record.partition + i32::from(is(Mutant::P10Partition)),
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}

/// Whether a retry topic takes the record.
pub fn can_be_parked(record: &Record) -> bool {
    record.value.as_ref().is_none_or(|value| value.len() <= MAX_CARRIED_BYTES)
}

/// How often a record has been replayed, as its headers say; 0 when they say nothing, or nothing that can be.
///
/// A producer can forge it. A high number forbids to replay his own record, and a low one is raised at each replay.
pub fn replays(headers: &[Header]) -> u32 {
    let said = headers.iter().filter(|header| header.name == header::REPLAYS);
    let numbers = said.filter_map(|header| std::str::from_utf8(header.value.as_deref()?).ok()?.parse().ok());
    numbers.filter(|number| (1..=MAX_REPLAYS).contains(number)).max().unwrap_or(0)
}

/// The producer's own headers, and how often the record has been replayed.
fn foreign(record: &Record) -> Vec<Header> {
    let own = record.headers.iter().filter(|h| !h.name.starts_with(header::PREFIX)).cloned();
    let replays = Some(replays(&record.headers)).filter(|count| *count > 0);
    own.chain(replays.map(|count| text(header::REPLAYS, count.to_string()))).collect()
}

/// Where the record stood on `events`.
fn place(origin: &Origin, events_topic: &str) -> impl Iterator<Item = Header> {
    let timestamp = origin.timestamp_ms.map(|ms| text(header::ORIGINAL_TIMESTAMP, ms.to_string()));
    [
        text(header::ORIGINAL_TOPIC, events_topic),
        text(header::ORIGINAL_PARTITION, origin.position.partition.to_string()),
        text(header::ORIGINAL_OFFSET, origin.position.offset.to_string()),
    ]
    .into_iter()
    .chain(timestamp)
}

fn read_at(record: &Record, topic: String) -> impl Iterator<Item = Header> {
    let timestamp = record.timestamp_ms.map(|ms| text(header::ORIGINAL_TIMESTAMP, ms.to_string()));
    [
        text(header::ORIGINAL_TOPIC, topic),
        text(header::ORIGINAL_PARTITION, record.partition.to_string()),
        text(header::ORIGINAL_OFFSET, record.offset.to_string()),
    ]
    .into_iter()
    .chain(timestamp)
}

fn reasons(record: &Record, why: Why<'_>) -> impl Iterator<Item = Header> {
    let code = why.code.map(|code| text(header::ERROR_CODE, code));
    let reason = text(header::ERROR_TEXT, why.text);
    let schema = record
        .value
        .as_deref()
        .and_then(|value| wire::split(value).ok())
        .map(|(id, _)| text(header::SCHEMA_ID, id.to_string()));
    let position = text(header::CAMPAIGNS_POSITION, why.campaigns_position.to_string());
    code.into_iter().chain([reason]).chain(schema).chain([position])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partitioner::Partitioner;
    use crate::pipeline::tests::settings;
    use crate::position::Position;

    #[test]
    fn a_dead_letter_is_the_record_with_our_headers_once() {
        let header = |name: &str, value: &'static [u8]| Header {
            name: name.into(),
            value: Some(Bytes::from_static(value)),
        };
        let record = Record {
            topic: InputTopic::Events,
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
        let origin = Origin::of_event(Position { incarnation: 0, partition: 4, offset: 17 }, Some(1_000));
        let settings = settings(Partitioner::Murmur2);
        let why = Why { code: Some("bad_avro"), text: "why", campaigns_position: 12 };
        let dead = dead_letter(&record, Some(&origin), &settings, why);
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
        let (topic, value) = (InputTopic::Events, Some(Bytes::from(value)));
        Record { topic, partition: 0, offset: 0, timestamp_ms: None, key, value, headers }
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
    fn the_number_of_replays_survives_and_nothing_else_that_is_said_of_it() {
        let said = |value: &'static [u8]| Header {
            name: header::REPLAYS.into(),
            value: Some(Bytes::from_static(value)),
        };
        let kept = |headers: Vec<Header>| -> Vec<Option<Bytes>> {
            let record = record(headers, Vec::new());
            let (settings, why) =
                (settings(Partitioner::Murmur2), Why { code: None, text: "why", campaigns_position: 0 });
            let origin = Origin::of_event(Position { incarnation: 0, partition: 0, offset: 0 }, None);
            let counts = |output: OutputRecord| -> Vec<Option<Bytes>> {
                let said = output.headers.into_iter().filter(|h| h.name == header::REPLAYS);
                said.map(|h| h.value).collect()
            };
            let dead = counts(dead_letter(&record, Some(&origin), &settings, why));
            assert_eq!(counts(retry(&record, &origin, 1, 0, &settings, why)), dead);
            dead
        };
        assert_eq!(kept(vec![said(b"2")]), [Some(Bytes::from_static(b"2"))]);
        assert_eq!(kept(vec![said(b"7"), said(b"2"), said(b"nine")]), [Some(Bytes::from_static(b"7"))]);
        assert_eq!(kept(vec![said(b"1000")]), [Some(Bytes::from_static(b"1000"))]);
        for forged in [&b"0"[..], b"1001", b"-1", b"", b"\xff", b"99999999999999999999", b"1.5"] {
            assert_eq!(kept(vec![said(forged)]), [], "{forged:?}");
        }
    }

    #[test]
    fn a_value_that_no_topic_would_take_is_left_out_and_said_so() {
        let is_omitted = |length: usize| {
            let why = Why { code: Some("too_large"), text: "why", campaigns_position: 0 };
            let settings = settings(Partitioner::Murmur2);
            let dead = dead_letter(&record(Vec::new(), vec![0; length]), None, &settings, why);
            let is_said = dead.headers.iter().any(|h| {
                h.name == header::VALUE_OMITTED && h.value.as_deref() == Some(length.to_string().as_bytes())
            });
            assert_eq!(dead.value.is_none(), is_said);
            is_said
        };
        assert!(!is_omitted(MAX_CARRIED_BYTES));
        assert!(is_omitted(MAX_CARRIED_BYTES + 1));
    }
}
