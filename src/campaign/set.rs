//! The campaigns that are live at one position of the `campaigns` topic: immutable, swapped as a whole.
//!
//! A batch decides with one set from its first event to its last. The set is not the reader: folding records into sets
//! is [`super::live`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalog::Catalog;
use super::definition::{Campaign, Status};
use super::release::Release;
use crate::event::Event;

/// A campaign and the version that is live.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveCampaign {
    /// The definition.
    pub campaign: Campaign,
    /// Offset of its record on `campaigns`.
    pub version: i64,
}

/// An immutable set of campaigns with its catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignSet {
    campaigns: Vec<Arc<LiveCampaign>>,
    by_event_type: BTreeMap<String, Vec<Arc<LiveCampaign>>>,
    catalog: Arc<Catalog>,
    releases: BTreeMap<String, Release>,
    position: i64,
}

impl Default for CampaignSet {
    /// No campaigns, the default catalog, position -1.
    fn default() -> CampaignSet {
        CampaignSet::new([], Arc::default(), -1)
    }
}

impl CampaignSet {
    /// Builds the set; of two campaigns with one id the later in the iteration stays.
    pub fn new(
        campaigns: impl IntoIterator<Item = Arc<LiveCampaign>>,
        catalog: Arc<Catalog>,
        position: i64,
    ) -> CampaignSet {
        let by_id: BTreeMap<String, Arc<LiveCampaign>> =
            campaigns.into_iter().map(|live| (live.campaign.id.clone(), live)).collect();
        let campaigns: Vec<_> = by_id.into_values().collect();

        // Sorted once and dealt out in that order, so every list is sorted. Ids ascend already and the sort is stable.
        let mut active: Vec<&Arc<LiveCampaign>> =
            campaigns.iter().filter(|live| live.campaign.effective_status() == Status::Active).collect();
        active.sort_by_key(|live| std::cmp::Reverse(live.campaign.priority));
        let mut by_event_type: BTreeMap<String, Vec<Arc<LiveCampaign>>> = BTreeMap::new();
        for live in active {
            for event_type in &live.campaign.trigger {
                by_event_type.entry(event_type.clone()).or_default().push(Arc::clone(live));
            }
        }
        CampaignSet { campaigns, by_event_type, catalog, releases: BTreeMap::new(), position }
    }

    /// The same set with the users whose waiting records an operator lets go.
    pub fn with_releases(self, releases: BTreeMap<String, Release>) -> CampaignSet {
        CampaignSet { releases, ..self }
    }

    /// Whether an operator lets go a waiting record of the user that was written to `events` at that time, ms since the
    /// Unix epoch (rule P8).
    pub fn is_released(&self, user_id: &str, written_ms: Option<i64>) -> bool {
        self.releases.get(user_id).is_some_and(|release| written_ms.is_none_or(|ms| ms <= release.until_ms))
    }

    /// Active campaigns that an event of this type triggers: priority descending, then id ascending.
    pub fn candidates(&self, event_type: &str) -> &[Arc<LiveCampaign>] {
        self.by_event_type.get(event_type).map_or(&[], Vec::as_slice)
    }

    /// Whether the event can change or cause anything: a campaign triggers on its type, the catalog remembers it, it
    /// carries traits, or its type is reserved (rule K1).
    pub fn is_of_interest(&self, event: &Event) -> bool {
        !self.candidates(&event.event_type).is_empty()
            || self.catalog.remember.contains_key(&event.event_type)
            || !event.traits.is_empty()
            || event.is_reserved()
    }

    /// The live catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Offset of the last record folded in; -1 when none was.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// All campaigns whatever their status, by id.
    pub fn campaigns(&self) -> impl ExactSizeIterator<Item = &Arc<LiveCampaign>> {
        self.campaigns.iter()
    }

    /// One campaign by its id.
    pub fn campaign(&self, id: &str) -> Option<&Arc<LiveCampaign>> {
        let index = self.campaigns.binary_search_by(|live| live.campaign.id.as_str().cmp(id)).ok()?;
        self.campaigns.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::definition::{Action, ActionKind};

    fn live(id: &str, status: Option<Status>, priority: i32, trigger: &[&str]) -> Arc<LiveCampaign> {
        Arc::new(LiveCampaign {
            campaign: Campaign {
                id: id.to_owned(),
                description: None,
                status,
                schedule: None,
                trigger: trigger.iter().map(|name| (*name).to_owned()).collect(),
                when: None,
                priority,
                group: None,
                tags: Vec::new(),
                limits: Vec::new(),
                action: Action {
                    kind: ActionKind::Alert,
                    channel: None,
                    template: None,
                    params: BTreeMap::new(),
                },
            },
            version: 7,
        })
    }

    fn ids(candidates: &[Arc<LiveCampaign>]) -> Vec<&str> {
        candidates.iter().map(|live| live.campaign.id.as_str()).collect()
    }

    #[test]
    fn candidates_are_active_and_sorted_by_priority_then_id() {
        let set = CampaignSet::new(
            [
                live("c", None, 1, &["purchase"]),
                live("b", Some(Status::Active), 1, &["purchase", "view"]),
                live("a", Some(Status::Active), -5, &["purchase"]),
                live("z", Some(Status::Active), 9, &["purchase"]),
                live("paused", Some(Status::Paused), 99, &["purchase"]),
                live("draft", Some(Status::Draft), 99, &["purchase"]),
                live("ended", Some(Status::Ended), 99, &["purchase"]),
            ],
            Arc::default(),
            41,
        );
        assert_eq!(ids(set.candidates("purchase")), ["z", "b", "c", "a"]);
        assert_eq!(ids(set.candidates("view")), ["b"]);
        assert!(set.candidates("refund").is_empty());
        assert_eq!(set.campaigns().len(), 7);
        assert_eq!(set.position(), 41);
        assert_eq!(set.campaign("paused").map(|live| live.campaign.priority), Some(99));
        assert!(set.campaign("nobody").is_none());
    }

    #[test]
    fn an_empty_set_stands_before_the_first_record() {
        let set = CampaignSet::default();
        assert_eq!(set.position(), -1);
        assert_eq!(set.catalog().allowed_lateness_ms, 3_600_000);
    }
}
