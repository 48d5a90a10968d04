//! Two records with one event id are one event: one decision for each campaign, and a counter.

use serde_json::json;

use crate::support::compare::same_decisions_in_order;
use crate::support::kafka::Record;
use crate::support::shop::{CAMPAIGNS, Item, Shop, Truth};
use crate::support::stage::Stage;
use crate::support::wire::frame_event;

#[test]
fn an_event_sent_again_is_counted_and_not_decided() {
    let stage = Stage::embedded("twice", 4);
    stage.apply(CAMPAIGNS);
    // Each event once, then all of them again in the same order, then each three times in a row.
    let once: Vec<Item> = Shop::new(7, 40, 0.0, stage.schema_id).take(800);
    let mut records = once.clone();
    records.extend(once);
    records.extend((0..100).flat_map(|n| vec![signup(stage.schema_id, n); 3]));
    let mut truth = Truth::default();
    truth.add(&mut stage.model(), &records);
    assert!(truth.duplicates >= 900, "worth nothing: {} duplicates", truth.duplicates);

    stage.produce(&records);
    let mut process = stage.start();
    let handled = stage.await_handled(&mut process, records.len() as u64);
    assert_eq!(
        (handled.decided, handled.ignored, handled.duplicates, handled.dead),
        (truth.decided, truth.ignored, truth.duplicates, 0)
    );
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
}

fn signup(schema_id: u32, number: u32) -> Item {
    let user_id = format!("newcomer-{}", number / 2);
    let event = json!({
        "event_id": format!("signup-{number}"), "user_id": user_id, "type": "signup",
        "occurred_at": 1_767_225_600_000_i64 + i64::from(number), "properties": {}, "traits": {},
    });
    let record = Record {
        key: Some(user_id.into_bytes()),
        value: Some(frame_event(schema_id, &event)),
        ..Record::default()
    };
    Item { record, event: Some(event) }
}
