//! Small events, campaigns and catalogs for the tests of this module.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::campaign::catalog::{Catalog, Remember};
use crate::campaign::definition::{Action, Campaign, Group, Limit, Status, WhenSuppressed};
use crate::campaign::set::{CampaignSet, LiveCampaign};
use crate::decision::{ActionKind, Decision};
use crate::event::{Event, Properties};
use crate::position::Position;
use crate::user::UserState;

/// An event of user `u1` without properties.
pub fn event(id: &str, event_type: &str, occurred_at_ms: i64) -> Event {
    Event {
        event_id: id.to_owned(),
        user_id: "u1".to_owned(),
        event_type: event_type.to_owned(),
        occurred_at_ms,
        properties: Properties::new(),
        traits: Properties::new(),
        trace_id: Some("trace-1".to_owned()),
    }
}

/// A campaign that every `view` triggers, without condition or limits.
pub fn campaign(id: &str) -> Campaign {
    Campaign {
        id: id.to_owned(),
        description: None,
        status: Some(Status::Active),
        schedule: None,
        trigger: vec!["view".to_owned()],
        when: None,
        priority: 0,
        group: None,
        tags: Vec::new(),
        limits: Vec::new(),
        action: Action {
            kind: ActionKind::Send,
            channel: Some("email".to_owned()),
            template: Some("HELLO".to_owned()),
            params: BTreeMap::new(),
        },
    }
}

/// The same with limits.
pub fn limited(id: &str, limits: &[Limit]) -> Campaign {
    Campaign { limits: limits.to_vec(), ..campaign(id) }
}

/// The same in a group.
pub fn grouped(id: &str, priority: i32, when_suppressed: WhenSuppressed, limits: &[Limit]) -> Campaign {
    let group = Some(Group { name: "g".to_owned(), when_suppressed });
    Campaign { priority, group, ..limited(id, limits) }
}

/// A set in which the campaign at index n has version n.
pub fn set(campaigns: Vec<Campaign>) -> CampaignSet {
    let live = campaigns
        .into_iter()
        .zip(0..)
        .map(|(campaign, version)| Arc::new(LiveCampaign { campaign, version }));
    CampaignSet::new(live, Arc::new(catalog()), 1)
}

/// Remembers `view` and `purchase` for 30 days; `email` is personal.
pub fn catalog() -> Catalog {
    let month = Remember { for_ms: 30 * 86_400_000, at_most: 256, properties: Vec::new() };
    Catalog {
        remember: BTreeMap::from([("view".to_owned(), month.clone()), ("purchase".to_owned(), month)]),
        pii_traits: ["email".to_owned()].into(),
        ..Catalog::default()
    }
}

/// Folds an event into the state, at the position after the last.
pub fn record(state: &mut UserState, event: &Event, decisions: &[Decision], catalog: &Catalog) {
    let offset = state.applied().map_or(0, |position| position.offset + 1);
    state.record(Position { incarnation: 0, partition: 0, offset }, event, decisions, catalog);
}
