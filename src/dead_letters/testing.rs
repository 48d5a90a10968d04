//! Dead letters for the tests of this module.

use bytes::Bytes;

use super::letter::DeadLetter;
use super::place::Place;
use crate::config::Config;
use crate::pipeline::log::{Header, InputTopic, Record};
use crate::pipeline::outputs::{self, Why, header};
use crate::pipeline::parking::Origin;
use crate::position::Position;

/// A dead letter of `ada` at a place, with a code, as the pipeline writes it; dead-lettered at second `offset`.
pub(crate) fn letter(partition: i32, offset: i64, code: &str) -> DeadLetter {
    letter_of(Some("ada"), partition, offset, code, 0)
}

/// The same of another user or of none, replayed so often.
pub(super) fn letter_of(
    user: Option<&str>,
    partition: i32,
    offset: i64,
    code: &str,
    replays: u32,
) -> DeadLetter {
    let mut headers = vec![Header { name: "n".into(), value: Some(Bytes::from_static(b"1")) }];
    if replays > 0 {
        headers.push(Header { name: header::REPLAYS.into(), value: Some(replays.to_string().into()) });
    }
    let record = Record {
        topic: InputTopic::Events,
        partition,
        offset: 1_000 + offset,
        timestamp_ms: Some(500),
        key: user.map(|user| Bytes::copy_from_slice(user.as_bytes())),
        value: Some(Bytes::from_static(b"\0\0\0\0\x07rest")),
        headers,
    };
    dead(&record, Place { partition, offset }, code)
}

/// A record of `events` as the dead letter that the pipeline makes of it.
pub(crate) fn dead(record: &Record, place: Place, code: &str) -> DeadLetter {
    let position = Position { incarnation: 0, partition: record.partition, offset: record.offset };
    let origin = Origin::of_event(position, record.timestamp_ms);
    let why = Why { code: Some(code), text: "why", campaigns_position: 12 };
    let dead = outputs::dead_letter(record, Some(&origin), &Config::default().pipeline_settings(), why);
    DeadLetter::of(place, Some(place.offset * 1_000), dead.key, dead.value, dead.headers)
}
