//! Folds the records of the `campaigns` topic into what is live.
//!
//! What always holds: a record that cannot be used changes nothing but the list of rejected records, so the last good
//! definition stays live; a record at or below the position changes nothing at all, so records may be read again.
//! It reads no topic itself, and does not check campaigns against the catalog: the two arrive in any order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::canonical::MAX_RECORD_BYTES;
use super::catalog::Catalog;
use super::definition::Campaign;
use super::release::Release;
use super::set::{CampaignSet, LiveCampaign};

/// Key of the catalog's record.
pub const CATALOG_KEY: &str = "catalog";
/// Prefix of the keys of campaigns.
pub const CAMPAIGN_PREFIX: &str = "campaign:";
/// Prefix of the keys of control records.
pub const CONTROL_PREFIX: &str = "control:";

/// Most campaigns that are live at once.
const MAX_CAMPAIGNS: usize = 500_000;
/// Most control records that are live at once.
const MAX_CONTROLS: usize = 1_000;
/// Most rejected records that are listed; all are counted.
const MAX_REJECTED: usize = 1_000;
/// Longest key and longest error text that are kept of a rejected record, characters.
const MAX_TEXT_CHARS: usize = 300;

/// Key of a campaign's record.
pub fn campaign_key(id: &str) -> String {
    format!("{CAMPAIGN_PREFIX}{id}")
}

/// What a record did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A campaign has a new version.
    Campaign(String),
    /// A campaign is gone.
    CampaignRemoved(String),
    /// The catalog has changed.
    Catalog,
    /// The catalog is gone; the default holds.
    CatalogRemoved,
    /// A control record has changed or is gone.
    Control(String),
    /// Nothing: a tombstone of what was not there, or a record that was folded in before.
    Nothing,
}

/// A record that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "record {key} at offset {offset} of the campaigns topic is not usable, the last good one stays: {error}"
)]
pub struct RejectedRecord {
    /// Its key, readable and shortened.
    pub key: String,
    /// Its offset.
    pub offset: i64,
    /// Why.
    pub error: String,
}

/// What is live, as records come in.
#[derive(Clone, Debug)]
pub struct LiveCampaigns {
    campaigns: BTreeMap<String, Arc<LiveCampaign>>,
    catalog: Option<Arc<Catalog>>,
    controls: BTreeMap<String, Vec<u8>>,
    rejected: BTreeMap<Vec<u8>, RejectedRecord>,
    rejected_total: u64,
    position: i64,
}

impl Default for LiveCampaigns {
    fn default() -> LiveCampaigns {
        LiveCampaigns {
            campaigns: BTreeMap::new(),
            catalog: None,
            controls: BTreeMap::new(),
            rejected: BTreeMap::new(),
            rejected_total: 0,
            position: -1,
        }
    }
}

/// What a key says the record is.
enum Key<'a> {
    Campaign(&'a str),
    Catalog,
    Control(&'a str),
}

impl<'a> Key<'a> {
    fn parse(key: &'a [u8]) -> Result<Key<'a>, String> {
        let text = str::from_utf8(key).map_err(|_| "the key is not UTF-8".to_owned())?;
        match text.split_once(':') {
            Some(("campaign", id)) if !id.is_empty() => Ok(Key::Campaign(id)),
            Some(("control", name)) if !name.is_empty() => Ok(Key::Control(name)),
            None if text == CATALOG_KEY => Ok(Key::Catalog),
            _ => Err("the key is none of `campaign:<id>`, `catalog` and `control:<name>`".to_owned()),
        }
    }
}

impl LiveCampaigns {
    /// Folds in one record; `None` is a tombstone.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>, offset: i64) -> Result<Change, RejectedRecord> {
        if offset <= self.position {
            return Ok(Change::Nothing);
        }
        self.position = offset;
        let outcome = Key::parse(key).and_then(|parsed| self.fold(parsed, value, offset));
        match outcome {
            Ok(change) => {
                self.rejected.remove(key);
                Ok(change)
            }
            Err(error) => Err(self.reject(key, offset, &error)),
        }
    }

    fn fold(&mut self, key: Key<'_>, value: Option<&[u8]>, offset: i64) -> Result<Change, String> {
        match (key, value) {
            (Key::Campaign(id), None) => Ok(match self.campaigns.remove(id) {
                Some(_) => Change::CampaignRemoved(id.to_owned()),
                None => Change::Nothing,
            }),
            (Key::Campaign(id), Some(value)) => {
                let campaign = Campaign::from_canonical_json(value).map_err(|error| error.to_string())?;
                if campaign.id != id {
                    return Err(format!("the value is the campaign `{}`", campaign.id));
                }
                if self.campaigns.len() >= MAX_CAMPAIGNS && !self.campaigns.contains_key(id) {
                    return Err(format!("{MAX_CAMPAIGNS} campaigns are live already; delete some"));
                }
                self.campaigns.insert(id.to_owned(), Arc::new(LiveCampaign { campaign, version: offset }));
                Ok(Change::Campaign(id.to_owned()))
            }
            (Key::Catalog, None) => Ok(match self.catalog.take() {
                Some(_) => Change::CatalogRemoved,
                None => Change::Nothing,
            }),
            (Key::Catalog, Some(value)) => {
                let catalog = Catalog::from_canonical_json(value).map_err(|error| error.to_string())?;
                if let Some(reason) = catalog.too_large() {
                    return Err(reason);
                }
                self.catalog = Some(Arc::new(catalog));
                Ok(Change::Catalog)
            }
            (Key::Control(name), None) => Ok(match self.controls.remove(name) {
                Some(_) => Change::Control(name.to_owned()),
                None => Change::Nothing,
            }),
            (Key::Control(name), Some(value)) => {
                if value.len() > MAX_RECORD_BYTES {
                    return Err(format!(
                        "the record has {} bytes, more than {MAX_RECORD_BYTES}",
                        value.len()
                    ));
                }
                if self.controls.len() >= MAX_CONTROLS && !self.controls.contains_key(name) {
                    return Err(format!("{MAX_CONTROLS} control records are live already"));
                }
                if Release::user_of(name).is_some() {
                    Release::from_json(value)?;
                }
                self.controls.insert(name.to_owned(), value.to_vec());
                Ok(Change::Control(name.to_owned()))
            }
        }
    }

    fn reject(&mut self, key: &[u8], offset: i64, error: &str) -> RejectedRecord {
        let readable = String::from_utf8_lossy(key);
        let rejected = RejectedRecord {
            key: readable.escape_debug().take(MAX_TEXT_CHARS).collect(),
            offset,
            error: error.chars().take(MAX_TEXT_CHARS).collect(),
        };
        self.rejected_total += 1;
        if self.rejected.len() < MAX_REJECTED || self.rejected.contains_key(key) {
            self.rejected.insert(key.to_vec(), rejected.clone());
        }
        rejected
    }

    /// Moves the position without a record, for offsets that a compacted topic or a transaction marker leaves out.
    pub fn skip_to(&mut self, position: i64) {
        self.position = self.position.max(position);
    }

    /// Offset of the last record folded in; -1 when none was.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Records that could not be used and have not been replaced since, by key; the first 1,000 of them.
    pub fn rejected(&self) -> impl ExactSizeIterator<Item = &RejectedRecord> {
        self.rejected.values()
    }

    /// How many records could not be used since the beginning.
    pub fn rejected_total(&self) -> u64 {
        self.rejected_total
    }

    /// A live campaign.
    pub fn campaign(&self, id: &str) -> Option<&Arc<LiveCampaign>> {
        self.campaigns.get(id)
    }

    /// The live catalog; `None` when there is none and the default holds.
    pub fn catalog(&self) -> Option<&Arc<Catalog>> {
        self.catalog.as_ref()
    }

    /// The value of a control record.
    pub fn control(&self, name: &str) -> Option<&[u8]> {
        self.controls.get(name).map(Vec::as_slice)
    }

    /// What is live now, as a set that does not change any more.
    pub fn snapshot(&self) -> CampaignSet {
        let catalog = self.catalog.clone().unwrap_or_default();
        CampaignSet::new(self.campaigns.values().cloned(), catalog, self.position)
            .with_releases(self.releases())
    }

    /// The users whose waiting records an operator lets go.
    pub fn releases(&self) -> BTreeMap<String, Release> {
        let controls = self.controls.iter();
        controls
            .filter_map(|(name, value)| {
                Some((Release::user_of(name)?.to_owned(), Release::from_json(value).ok()?))
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
