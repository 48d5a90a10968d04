use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::campaign::catalog::Remember;
use crate::decision::{ActionKind, DecidedAction, Reason, ReasonCode};
use crate::event::Value;
use crate::user::allows::Allows;

fn at(offset: i64) -> Position {
    Position { incarnation: 0, partition: 3, offset }
}

fn event(id: &str, occurred_at_ms: i64) -> Event {
    Event {
        event_id: id.to_owned(),
        user_id: "u1".to_owned(),
        event_type: "purchase".to_owned(),
        occurred_at_ms,
        properties: Properties::new(),
        traits: Properties::new(),
        trace_id: None,
    }
}

fn catalog() -> Catalog {
    Catalog {
        remember: BTreeMap::from([(
            "purchase".to_owned(),
            Remember { for_ms: 86_400_000, at_most: 256, properties: vec!["sku".to_owned()] },
        )]),
        pii_traits: ["email".to_owned()].into(),
        ..Catalog::default()
    }
}

fn decision(campaign: &str, outcome: Outcome) -> Decision {
    Decision {
        decision_id: Uuid::nil(),
        event_id: "e".to_owned(),
        user_id: "u1".to_owned(),
        campaign_id: campaign.to_owned(),
        campaign_version: 1,
        event_type: "purchase".to_owned(),
        occurred_at_ms: 0,
        decided_at_ms: 0,
        outcome,
        reason: Reason { code: ReasonCode::Allowed, limit: None, outranked_by: None },
        action: DecidedAction {
            kind: ActionKind::Alert,
            channel: None,
            template: None,
            variant: None,
            recipient: None,
            params: Vec::new(),
        },
        trace_id: None,
    }
}

#[test]
fn recording_an_event_moves_everything_that_belongs_to_it() {
    let mut state = UserState::new();
    let mut first = event("e1", 1_000);
    first.traits = [
        ("tier".to_owned(), Value::String("gold".to_owned())),
        ("email".to_owned(), Value::String("a@example.org".to_owned())),
    ]
    .into();
    first.properties = [("sku".to_owned(), Value::String("A1".to_owned()))].into();
    assert!(!state.is_duplicate(&first));

    state.record(
        at(7),
        &first,
        &[
            decision("yes", Outcome::Allow),
            decision("no", Outcome::Suppress),
            decision("held", Outcome::Holdout),
        ],
        &catalog(),
    );

    assert_eq!(state.applied(), Some(at(7)));
    assert_eq!(state.newest_event_ms(), Some(1_000));
    assert!(state.is_duplicate(&first));
    assert_eq!(state.traits().keys().collect::<Vec<_>>(), ["tier"], "PII is dropped");
    let purchase = state.history().of_type("purchase").unwrap();
    assert_eq!(purchase.lifetime_count(), 1);
    let past = purchase.kept().next().unwrap();
    assert_eq!((past.at_ms(), past.property("sku")), (1_000, Some(&Value::String("A1".to_owned()))));
    assert!(matches!(state.allows().of("yes"), Allows::Known(allows) if allows.times_ms() == [1_000]));
    assert!(matches!(state.allows().of("held"), Allows::Known(allows) if allows.total() == 1));
    assert_eq!(state.allows().of("no"), Allows::Never);
    assert!(state.outbox().is_empty());
}

#[test]
fn a_late_event_does_not_move_the_newest_time_back() {
    let mut state = UserState::new();
    state.record(at(1), &event("e1", 5_000), &[], &catalog());
    state.record(at(2), &event("e2", 1_000), &[], &catalog());
    assert_eq!(state.newest_event_ms(), Some(5_000));
    assert_eq!(state.history().of_type("purchase").unwrap().lifetime_count(), 2);
}

#[test]
fn an_unremembered_type_still_counts_as_seen() {
    let mut state = UserState::new();
    state.record(at(1), &event("e1", 5_000), &[], &Catalog::default());
    assert!(state.history().of_type("purchase").is_none());
    assert!(state.is_duplicate(&event("e1", 9_000)));
    assert_eq!(state.applied(), Some(at(1)));
}

#[test]
fn the_applied_position_never_moves_back() {
    let mut state = UserState::new();
    assert_eq!(state.applied(), None);
    state.mark_applied(at(9));
    state.mark_applied(at(3));
    assert_eq!(state.applied(), Some(at(9)));
    let next_life = Position { incarnation: 1, partition: 0, offset: 0 };
    state.mark_applied(next_life);
    assert_eq!(state.applied(), Some(next_life));
}

#[test]
fn bytes_grow_with_what_is_remembered() {
    let mut state = UserState::new();
    let empty = state.approximate_bytes();
    for n in 0..10 {
        state.record(at(n), &event(&format!("e{n}"), n), &[decision("yes", Outcome::Allow)], &catalog());
    }
    let some = state.approximate_bytes();
    assert!(some > empty + 10 * 48, "{empty} {some}");
    state.outbox_mut().push(at(9), vec![crate::user::Output::Activity { bytes: vec![0; 1_000] }]);
    assert!(state.approximate_bytes() >= some + 1_000);
}
