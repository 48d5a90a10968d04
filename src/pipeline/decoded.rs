//! Second hop: a record judged as far as its bytes, its schema and its place allow.
//!
//! From here on a record of a retry topic is what it was on `events`: its [`Origin`] says where it stood.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::apply::Standing;
use super::breaker::{GuardedSchemas, NoSchema};
use super::failure::{BadRecord, Failure, Reaction, policy};
use super::log::{InputTopic, Record};
use super::parking::Origin;
use super::settings::Settings;
use crate::event::{Event, Limits};
use crate::mutant::{Mutant, is};
use crate::position::Position;
use crate::schema::{WriterSchema, decode_event, wire};

/// A record with its event, or with what is wrong with it.
#[derive(Debug)]
pub struct Decoded {
    /// The record as read.
    pub record: Record,
    /// Where it stood on `events`; absent when a retry record does not say so, which makes it a dead letter.
    pub origin: Option<Origin>,
    /// Its key, when it is a user id that lives in the record's partition.
    pub user_id: Option<String>,
    /// The event, or the verdict.
    pub content: Result<Event, Verdict>,
}

/// Why a record is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The kind.
    pub bad: BadRecord,
    /// What exactly, bounded and free of the producer's values.
    pub text: String,
}

impl Decoded {
    /// Position on `events`.
    pub fn position(&self) -> Option<Position> {
        self.origin.as_ref().map(|origin| origin.position)
    }

    /// Timestamp of the record on `events`, ms since the Unix epoch.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.origin.as_ref().map_or(self.record.timestamp_ms, |origin| origin.timestamp_ms)
    }

    /// Whether it was read from a retry topic.
    pub fn is_retry(&self) -> bool {
        self.record.topic != InputTopic::Events
    }

    /// Whether the event erases its user.
    pub fn is_erasure(&self) -> bool {
        self.content.as_ref().is_ok_and(Event::is_erasure)
    }
}

impl Verdict {
    /// A verdict; the text is cut to the bound of a header.
    pub fn new(bad: BadRecord, text: impl Into<String>) -> Verdict {
        let mut text: String = text.into();
        if text.len() > MAX_TEXT_BYTES {
            let end = (0..=MAX_TEXT_BYTES).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            text.truncate(end);
        }
        Verdict { bad, text }
    }

    /// Whether the verdict goes through the user's cell (rule S6).
    pub fn recorded(&self) -> bool {
        policy(&Failure::Bad(self.bad)) != Reaction::DeadLetter { recorded: false }
    }
}

/// Bound of an error text in a header.
const MAX_TEXT_BYTES: usize = 512;

/// The epoch has ended while waiting: what is being done is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned;

/// Judges records; one per lane.
pub struct Decoder {
    schemas: GuardedSchemas,
    settings: Arc<Settings>,
    limits: Limits,
}

impl Decoder {
    /// A decoder over a source of schemas.
    pub fn new(schemas: GuardedSchemas, settings: Arc<Settings>) -> Decoder {
        Decoder { schemas, settings, limits: Limits::default() }
    }

    /// Judges one record. Waits while the registry does not answer; a dead letter is never made of that.
    pub async fn decode(&self, record: Record, standing: &Standing) -> Result<Decoded, Abandoned> {
        let origin = match self.origin_of(&record, standing)? {
            Ok(origin) => origin,
            Err(verdict) => {
                return Ok(Decoded { record, origin: None, user_id: None, content: Err(verdict) });
            }
        };
        let origin = Some(origin);
        let user_id = match self.user_of(&record, standing.ownership.partition_count) {
            Ok(user_id) => user_id,
            Err(verdict) => return Ok(Decoded { record, origin, user_id: None, content: Err(verdict) }),
        };
        let content = self.event_of(&record, &user_id, &standing.epoch).await?;
        Ok(Decoded { record, origin, user_id: Some(user_id), content })
    }

    /// Our headers are believed on retry topics only (rule P10).
    fn origin_of(&self, record: &Record, standing: &Standing) -> Result<Result<Origin, Verdict>, Abandoned> {
        match record.topic {
            InputTopic::Events
                if is(Mutant::P10Headers)
                    && Origin::of_retry(record, &self.settings.events_topic).is_ok() =>
            {
                Ok(Origin::of_retry(record, &self.settings.events_topic)
                    .map_err(|text| Verdict::new(BadRecord::BadRetryRecord, text)))
            }
            InputTopic::Retry(_) => Ok(Origin::of_retry(record, &self.settings.events_topic)
                .map_err(|text| Verdict::new(BadRecord::BadRetryRecord, text))),
            // A record of a partition that is not ours belongs to an epoch that has ended.
            InputTopic::Events => {
                let position =
                    standing.ownership.position(record.partition, record.offset).ok_or(Abandoned)?;
                Ok(Ok(Origin::of_event(position, record.timestamp_ms)))
            }
        }
    }

    fn user_of(&self, record: &Record, partition_count: i32) -> Result<String, Verdict> {
        let bad = |text: &str| Verdict::new(BadRecord::BadKey, text);
        let key =
            record.key.as_deref().ok_or_else(|| bad("the record has no key; the key must be the user id"))?;
        let user_id = std::str::from_utf8(key).map_err(|_| bad("the key is not UTF-8"))?;
        if user_id.is_empty() || user_id.len() > self.limits.max_id_bytes {
            return Err(bad("the key is empty or longer than a user id may be"));
        }
        let home = self.settings.events_partitioner.partition(key, partition_count);
        if home != record.partition {
            let text = format!(
                "the key belongs to partition {home} of {partition_count} by events.partitioner; use the same \
                 partitioner in every producer"
            );
            return Err(Verdict::new(BadRecord::WrongPartition, text));
        }
        Ok(user_id.to_owned())
    }

    async fn event_of(
        &self,
        record: &Record,
        user_id: &str,
        epoch: &CancellationToken,
    ) -> Result<Result<Event, Verdict>, Abandoned> {
        let value = record.value.as_deref().unwrap_or_default();
        if value.len() > self.settings.max_record_bytes {
            let text = format!("{} bytes, allowed are {}", value.len(), self.settings.max_record_bytes);
            return Ok(Err(Verdict::new(BadRecord::TooLarge, text)));
        }
        let (id, body) = match wire::split(value) {
            Ok(parts) => parts,
            Err(error) => return Ok(Err(Verdict::new(BadRecord::BadFraming, error.to_string()))),
        };
        let schema = match self.schemas.cached(id) {
            Some(schema) => schema,
            None => match self.schemas.schema(id, epoch).await? {
                Ok(schema) => schema,
                Err(NoSchema::Unusable(text)) => return Ok(Err(Verdict::new(BadRecord::BadSchema, text))),
                Err(NoSchema::Unknown) => {
                    let text = format!("the registry knows no schema {id}");
                    return Ok(Err(Verdict::new(BadRecord::UnknownSchema, text)));
                }
            },
        };
        Ok(self.read(&schema, body, user_id))
    }

    fn read(&self, schema: &WriterSchema, body: &[u8], user_id: &str) -> Result<Event, Verdict> {
        let event = decode_event(schema, body).map_err(|error| {
            let bad = if error.is_limit() { BadRecord::LimitsExceeded } else { BadRecord::BadAvro };
            Verdict::new(bad, error.to_string())
        })?;
        if event.user_id != user_id {
            return Err(Verdict::new(BadRecord::WrongKey, "the record key is not the event's user_id"));
        }
        Ok(event)
    }
}

/// How far an event may be ahead of `now_ms` before it is a dead letter.
pub fn judge_time(event: &Event, now_ms: i64, max_future_skew: Duration) -> Result<(), Verdict> {
    let skew_ms = i64::try_from(max_future_skew.as_millis()).unwrap_or(i64::MAX);
    let ahead_ms = event.occurred_at_ms.saturating_sub(now_ms);
    if ahead_ms > skew_ms {
        let text = format!("occurred_at is {ahead_ms} ms ahead of now, allowed are {skew_ms}");
        return Err(Verdict::new(BadRecord::FutureEvent, text));
    }
    Ok(())
}
