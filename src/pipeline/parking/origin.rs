//! Where a retry record came from, as its headers say (rule P10).

use bytes::Bytes;

use crate::pipeline::log::{Header, Record};
use crate::pipeline::outputs::header;
use crate::position::Position;

/// Longest error code that is read back.
const MAX_CODE_BYTES: usize = 64;
/// Most attempts that are believed; a record that fails every ten minutes reaches it after nineteen years.
const MAX_ATTEMPT: u32 = 1_000_000;

/// What a record has been through. On `events` it is made from the record's own place; on a retry topic it is read from
/// our headers, which are believed nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where the record stood on `events`.
    pub position: Position,
    /// Timestamp of the record on `events`, ms since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Attempts that failed by the record's own fault; they run out (rule P5).
    pub attempt: u32,
    /// All attempts that failed; 0 for a record that has only been blocked.
    pub failures: u32,
    /// Error code of the last failure; `None` while the record has only been blocked.
    pub code: Option<String>,
}

impl Origin {
    /// The origin of a record read from `events`.
    pub fn of_event(position: Position, timestamp_ms: Option<i64>) -> Origin {
        Origin { position, timestamp_ms, attempt: 0, failures: 0, code: None }
    }

    /// Reads the headers of a record of a retry topic.
    ///
    /// # Errors
    ///
    /// A sentence that says which header is missing, doubled or wrong: the record was not written by us.
    pub fn of_retry(record: &Record, events_topic: &str) -> Result<Origin, String> {
        let topic = one(record, header::ORIGINAL_TOPIC)?;
        if topic != events_topic {
            return Err(format!("{} is not the topic of events", header::ORIGINAL_TOPIC));
        }
        let partition: i32 = number(record, header::ORIGINAL_PARTITION)?;
        if partition != record.partition {
            return Err(format!("{} is not the partition it stands on", header::ORIGINAL_PARTITION));
        }
        let offset: i64 = number(record, header::ORIGINAL_OFFSET)?;
        let attempt: u32 = number(record, header::ATTEMPT)?;
        let failures: u32 = number(record, header::FAILURES)?;
        if offset < 0 || attempt > MAX_ATTEMPT || failures > MAX_ATTEMPT {
            return Err(format!("an offset or a count of {} is out of range", header::PREFIX));
        }
        let incarnation = number(record, header::ORIGINAL_INCARNATION)?;
        number::<i64>(record, header::DUE)?;
        let code = match count(record, header::ERROR_CODE) {
            0 => None,
            _ => Some(one(record, header::ERROR_CODE)?).filter(|code| code.len() <= MAX_CODE_BYTES),
        };
        let timestamp_ms = match count(record, header::ORIGINAL_TIMESTAMP) {
            0 => None,
            _ => Some(number(record, header::ORIGINAL_TIMESTAMP)?),
        };
        Ok(Origin {
            position: Position { incarnation, partition, offset },
            timestamp_ms,
            attempt,
            failures,
            code: code.map(str::to_owned),
        })
    }
}

fn count(record: &Record, name: &str) -> usize {
    record.headers.iter().filter(|h| h.name == name).count()
}

/// The one value of the header, as text.
fn one<'a>(record: &'a Record, name: &str) -> Result<&'a str, String> {
    let mut found = record.headers.iter().filter(|h| h.name == name);
    match (found.next(), found.next()) {
        (Some(Header { value: Some(value), .. }), None) => text(value, name),
        (Some(_), None) => Err(format!("{name} is null")),
        (None, _) => Err(format!("{name} is missing")),
        (Some(_), Some(_)) => Err(format!("{name} is there more than once")),
    }
}

fn text<'a>(value: &'a Bytes, name: &str) -> Result<&'a str, String> {
    std::str::from_utf8(value).map_err(|_| format!("{name} is not UTF-8"))
}

fn number<T: std::str::FromStr>(record: &Record, name: &str) -> Result<T, String> {
    one(record, name)?.parse().map_err(|_| format!("{name} is not a number in range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partitioner::Partitioner;
    use crate::pipeline::log::{InputTopic, OutputRecord};
    use crate::pipeline::outputs::{self, Why};
    use crate::pipeline::settings::Settings;
    use crate::pipeline::tests::settings;

    fn event() -> Record {
        Record {
            topic: InputTopic::Events,
            partition: 4,
            offset: 17,
            timestamp_ms: Some(1_000),
            key: Some(Bytes::from_static(b"ada")),
            value: Some(Bytes::from_static(b"not even framed")),
            headers: vec![Header { name: "mine".into(), value: None }],
        }
    }

    fn origin() -> Origin {
        Origin {
            position: Position { incarnation: 2, partition: 4, offset: 17 },
            timestamp_ms: Some(1_000),
            attempt: 3,
            failures: 5,
            code: Some("unknown_schema".into()),
        }
    }

    fn parked(settings: &Settings) -> Record {
        let why = Why { code: Some("unknown_schema"), text: "why", campaigns_position: 12 };
        let OutputRecord { partition, key, value, headers, .. } =
            outputs::retry(&event(), &origin(), 2, 5_000, settings, why);
        Record {
            topic: InputTopic::Retry(2),
            partition,
            offset: 0,
            timestamp_ms: Some(9),
            key,
            value,
            headers,
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_the_record_is_as_it_was() {
        let settings = settings(Partitioner::Murmur2);
        let record = parked(&settings);
        assert_eq!(Origin::of_retry(&record, "events"), Ok(origin()));
        assert_eq!((&record.key, &record.value, record.partition), (&event().key, &event().value, 4));
        assert_eq!(record.headers.first(), event().headers.first());
        assert_eq!(crate::pipeline::parking::due(&record), Some(5_000));
        // Ours are written once, however often the record moves.
        let again = outputs::retry(
            &record,
            &origin(),
            3,
            6_000,
            &settings,
            Why { code: None, text: "", campaigns_position: 12 },
        );
        let due = again.headers.iter().filter(|h| h.name == header::DUE).count();
        assert_eq!((due, again.headers.iter().filter(|h| h.name == "mine").count()), (1, 1));
    }

    #[test]
    fn a_record_with_a_header_missing_doubled_or_wrong_is_not_ours() {
        let good = parked(&settings(Partitioner::Murmur2));
        let needed = [
            header::ORIGINAL_TOPIC,
            header::ORIGINAL_PARTITION,
            header::ORIGINAL_OFFSET,
            header::ORIGINAL_INCARNATION,
            header::ATTEMPT,
            header::FAILURES,
            header::DUE,
        ];
        for name in needed {
            let mut without = good.clone();
            without.headers.retain(|h| h.name != name);
            assert!(Origin::of_retry(&without, "events").unwrap_err().contains("missing"), "{name}");
            let mut wrong = good.clone();
            let text = Some(Bytes::from_static(b"-1x"));
            wrong.headers.iter_mut().filter(|h| h.name == name).for_each(|h| h.value.clone_from(&text));
            assert!(Origin::of_retry(&wrong, "events").is_err(), "{name}");
            let mut doubled = good.clone();
            doubled.headers.extend(good.headers.iter().find(|h| h.name == name).cloned());
            assert!(Origin::of_retry(&doubled, "events").unwrap_err().contains("more than once"), "{name}");
        }
        assert!(Origin::of_retry(&good, "other").is_err());
        assert!(Origin::of_retry(&Record { partition: 5, ..good }, "events").is_err());
    }
}
