//! Writing to the topic (rule C1): take the transactional id, read to the end, compare, write all in one transaction.
//!
//! All writers of a group share one transactional id. Taking it fences whoever wrote before, and everything that one
//! committed is read afterwards; so of two writers at once, one sees the other's result or fails, and never overwrites it
//! unseen. Only what differs is written; nothing is deleted but control records that were named for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::log::{self, PARTITION, TopicLog};
use super::{CampaignsError, CampaignsTopic};
use crate::campaign::catalog::Catalog;
use crate::campaign::definition::Campaign;
use crate::campaign::live::{CATALOG_KEY, CONTROL_PREFIX, LiveCampaigns, campaign_key};

/// Header that says who wrote a record.
pub const AUTHOR_HEADER: &str = "author";
/// Header that says when, RFC 3339 in UTC.
pub const TIME_HEADER: &str = "time";

/// What is to be live; what is not named stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// The catalog, when it is to be set.
    pub catalog: Option<Catalog>,
    /// Campaigns; one without a status keeps the live one, and a new one becomes active.
    pub campaigns: Vec<Campaign>,
    /// Control records, by key; `None` deletes one.
    pub controls: BTreeMap<String, Option<String>>,
}

/// What a publication did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// What was written, the catalog first, then campaigns by id, then control records.
    pub changes: Vec<PublishedChange>,
    /// How many were as desired already.
    pub unchanged: usize,
}

/// A record that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedChange {
    /// Record key, such as `campaign:welcome`.
    pub key: String,
    /// Whether it was there before.
    pub kind: Kind,
    /// Its offset, which is the campaign's version.
    pub version: i64,
}

/// Whether a written record was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It was not.
    Added,
    /// It was, and differed.
    Changed,
    /// It was, and is gone.
    Removed,
}

/// Makes the topic hold what is desired. Blocks; nothing is visible to readers before everything is.
///
/// `time` is the moment the records are said to be of, RFC 3339.
pub fn publish(
    topic: &CampaignsTopic,
    transactional_id: &str,
    desired: &Desired,
    author: &str,
    time: &str,
) -> Result<Published, CampaignsError> {
    let log = TopicLog::open(topic)?;
    let producer = producer(topic, transactional_id)?;
    // Before reading: whoever began earlier cannot commit any more, so what is read is what will be overwritten.
    producer.init_transactions(topic.request_timeout).map_err(|error| failed(topic, &error))?;
    let mut live = LiveCampaigns::default();
    log.read_to_end(topic.catch_up_timeout, |message| {
        // A record that cannot be used counts as absent, see `differences`.
        let _ = log::fold(&mut live, &message);
    })?;
    let (records, unchanged) = differences(&live, desired);
    if records.is_empty() {
        return Ok(Published { changes: Vec::new(), unchanged });
    }
    let versions = write(topic, &producer, &records, author, time)?;
    let changes = records
        .into_iter()
        .map(|record| {
            let version = versions.get(&record.key).copied().unwrap_or(-1);
            PublishedChange { key: record.key, kind: record.kind, version }
        })
        .collect();
    Ok(Published { changes, unchanged })
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: String,
    /// `None` is a tombstone.
    pub(super) value: Option<String>,
    pub(super) kind: Kind,
}

/// What must be written so that the topic holds what is desired, and how much already is as desired.
pub(super) fn differences(live: &LiveCampaigns, desired: &Desired) -> (Vec<Record>, usize) {
    let mut wanted: Vec<(String, Option<String>, Option<String>)> = Vec::new();
    if let Some(catalog) = &desired.catalog {
        let now = live.catalog().map(|catalog| catalog.to_canonical_json());
        wanted.push((CATALOG_KEY.to_owned(), Some(catalog.to_canonical_json()), now));
    }
    // By id, so that the order of files does not show; of two with one id the last stays.
    let by_id: BTreeMap<&str, &Campaign> =
        desired.campaigns.iter().map(|campaign| (campaign.id.as_str(), campaign)).collect();
    for (id, campaign) in by_id {
        let known = live.campaign(id).map(|live| &live.campaign);
        let mut campaign = campaign.clone();
        if campaign.status.is_none() {
            campaign.status = Some(known.map_or(campaign.effective_status(), Campaign::effective_status));
        }
        let (value, now) = (campaign.to_canonical_json(), known.map(Campaign::to_canonical_json));
        wanted.push((campaign_key(id), Some(value), now));
    }
    for (key, value) in &desired.controls {
        let name = key.strip_prefix(CONTROL_PREFIX).unwrap_or(key);
        let now = live.control(name).map(|value| String::from_utf8_lossy(value).into_owned());
        wanted.push((key.clone(), value.clone(), now));
    }
    let total = wanted.len();
    let records: Vec<Record> = wanted
        .into_iter()
        .filter_map(|(key, value, now)| {
            let kind = match (&now, &value) {
                (_, None) => Kind::Removed,
                (Some(_), Some(_)) => Kind::Changed,
                (None, Some(_)) => Kind::Added,
            };
            // An unusable record that came after the good one would outlive it when the topic is compacted.
            let unusable = live.rejected().any(|rejected| rejected.key == key);
            (unusable || now != value).then_some(Record { key, value, kind })
        })
        .collect();
    let unchanged = total - records.len();
    (records, unchanged)
}

/// What became of the records of a transaction.
#[derive(Default)]
struct Delivered {
    /// Offset by key.
    offsets: BTreeMap<String, i64>,
    /// The last failure.
    failure: Option<KafkaError>,
}

/// Takes the delivery reports.
#[derive(Default)]
struct Deliveries(Mutex<Delivered>);

impl Deliveries {
    fn noted(&self) -> MutexGuard<'_, Delivered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut noted = self.noted();
        match result {
            Ok(message) => {
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                noted.offsets.insert(key, message.offset());
            }
            Err((error, _)) => noted.failure = Some(error.clone()),
        }
    }
}

fn producer(
    topic: &CampaignsTopic,
    transactional_id: &str,
) -> Result<BaseProducer<Deliveries>, CampaignsError> {
    topic
        .client
        .clone()
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", topic.request_timeout.as_millis().to_string())
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .create_with_context(Deliveries::default())
        .map_err(|error| log::unreachable(&topic.topic, &error))
}

/// One transaction; the offsets of the records by key.
fn write(
    topic: &CampaignsTopic,
    producer: &BaseProducer<Deliveries>,
    records: &[Record],
    author: &str,
    time: &str,
) -> Result<BTreeMap<String, i64>, CampaignsError> {
    producer.begin_transaction().map_err(|error| failed(topic, &error))?;
    let sent = send(topic, producer, records, author, time)
        .and_then(|()| producer.flush(topic.request_timeout).map_err(|error| failed(topic, &error)));
    let noted = producer.context().noted().failure.clone();
    let outcome = match (sent, noted) {
        (Err(error), _) => Err(error),
        (Ok(()), Some(error)) => Err(failed(topic, &error)),
        (Ok(()), None) => Ok(()),
    };
    if let Err(error) = outcome {
        // Readers never see it either way; aborting only frees them from waiting for the time-out.
        if let Err(abort) = producer.abort_transaction(topic.request_timeout) {
            tracing::debug!(error = %abort, "the transaction ends by its time-out");
        }
        return Err(error);
    }
    commit(topic, producer)?;
    Ok(std::mem::take(&mut producer.context().noted().offsets))
}

fn send(
    topic: &CampaignsTopic,
    producer: &BaseProducer<Deliveries>,
    records: &[Record],
    author: &str,
    time: &str,
) -> Result<(), CampaignsError> {
    let deadline = Instant::now() + topic.catch_up_timeout;
    for record in records {
        let headers = OwnedHeaders::new()
            .insert(Header { key: AUTHOR_HEADER, value: Some(author) })
            .insert(Header { key: TIME_HEADER, value: Some(time) });
        let mut next = BaseRecord::to(&topic.topic).partition(PARTITION).key(&record.key).headers(headers);
        next.payload = record.value.as_deref();
        while let Err((error, back)) = producer.send(next) {
            let full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            if !full || Instant::now() > deadline {
                return Err(failed(topic, &error));
            }
            producer.poll(Duration::from_millis(20));
            next = back;
        }
    }
    Ok(())
}

/// Commits; an answer that did not come is asked for again on the same producer, which is safe.
fn commit(topic: &CampaignsTopic, producer: &BaseProducer<Deliveries>) -> Result<(), CampaignsError> {
    let deadline = Instant::now() + topic.catch_up_timeout;
    loop {
        let error = match producer.commit_transaction(topic.request_timeout) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let KafkaError::Transaction(details) = &error else { return Err(failed(topic, &error)) };
        if details.is_retriable() && Instant::now() < deadline {
            continue;
        }
        if details.txn_requires_abort() {
            if let Err(abort) = producer.abort_transaction(topic.request_timeout) {
                tracing::debug!(error = %abort, "the transaction ends by its time-out");
            }
            return Err(failed(topic, &error));
        }
        if is_fenced(&error) {
            return Err(CampaignsError::Overtaken);
        }
        return Err(CampaignsError::Unknown { topic: topic.topic.clone(), cause: error.to_string() });
    }
}

fn is_fenced(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| {
        matches!(
            code,
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    })
}

fn failed(topic: &CampaignsTopic, error: &KafkaError) -> CampaignsError {
    if is_fenced(error) {
        return CampaignsError::Overtaken;
    }
    CampaignsError::NotWritten { topic: topic.topic.clone(), cause: error.to_string() }
}
