//! Writing to the topic (rule C1): take the transactional id, read to the end, compare, write all in one transaction.
//!
//! All writers of a group share one transactional id. Taking it fences whoever wrote before, and everything that one
//! committed is read afterwards; so of two writers at once, one sees the other's result or fails, and never overwrites it
//! unseen. Only what differs is written; nothing is deleted but control records that were named for it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::log::{self, PARTITION, TopicLog};
use super::{CampaignsError, CampaignsTopic};
use crate::campaign::catalog::Catalog;
use crate::campaign::definition::Campaign;
use crate::campaign::live::{CATALOG_KEY, CONTROL_PREFIX, LiveCampaigns, campaign_key};
use crate::kafka::transactions::{NewRecord, Transactions, WriteError};
use crate::pipeline::log::Header;

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
    // Before reading: whoever began earlier cannot commit any more, so what is read is what will be overwritten.
    let transactions = Transactions::take(topic.client.clone(), transactional_id, topic.request_timeout)
        .map_err(|error| failed(topic, error))?;
    let mut live = LiveCampaigns::default();
    log.read_to_end(topic.catch_up_timeout, |message| {
        // A record that cannot be used counts as absent, see `differences`.
        let _ = log::fold(&mut live, &message);
    })?;
    let (records, unchanged) = differences(&live, desired);
    if records.is_empty() {
        return Ok(Published { changes: Vec::new(), unchanged });
    }
    let versions = write(topic, &transactions, &records, author, time)?;
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

/// One transaction; the offsets of the records by key.
fn write(
    topic: &CampaignsTopic,
    transactions: &Transactions,
    records: &[Record],
    author: &str,
    time: &str,
) -> Result<BTreeMap<String, i64>, CampaignsError> {
    let header = |name: &str, value: &str| Header {
        name: name.to_owned(),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    };
    let headers = [header(AUTHOR_HEADER, author), header(TIME_HEADER, time)];
    let new: Vec<NewRecord<'_>> = records
        .iter()
        .map(|record| NewRecord {
            topic: &topic.topic,
            partition: PARTITION,
            key: Some(record.key.as_bytes()),
            value: record.value.as_deref().map(str::as_bytes),
            headers: &headers,
        })
        .collect();
    let offsets = transactions.write(&new, None).map_err(|error| failed(topic, error))?;
    Ok(records.iter().map(|record| record.key.clone()).zip(offsets).collect())
}

fn failed(topic: &CampaignsTopic, error: WriteError) -> CampaignsError {
    let topic = topic.topic.clone();
    match error {
        WriteError::Overtaken => CampaignsError::Overtaken,
        WriteError::Unknown(cause) => CampaignsError::Unknown { topic, cause },
        WriteError::TooLarge => CampaignsError::NotWritten { topic, cause: error.to_string() },
        WriteError::NotWritten(cause) => CampaignsError::NotWritten { topic, cause },
    }
}
