//! A user's events are decided in their order, whatever the lanes, batches and neighbours.
//!
//! Each of 1,000 users makes 50 steps, numbered. One campaign fires only when the user's history holds exactly as many
//! steps as the number says, so a step decided too early, too late or on another lane's copy of the user is missed; a
//! rolling cap and a trait written by the step before add two more ways to notice.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::support::compare::same_decisions_in_order;
use crate::support::kafka::Record;
use crate::support::shop::{Item, Truth};
use crate::support::stage::Stage;
use crate::support::wire::frame_event;

const USERS: usize = 1_000;
const STEPS: usize = 50;

const CAMPAIGNS: &[(&str, &str)] = &[
    ("catalog.yaml", "remember:\n  step: { for: 30d }\n"),
    (
        "in_order.yaml",
        "id: in_order\nstatus: active\ntrigger: step\n\
         when: { history: { event: step, fn: count }, op: eq, ref: event.number }\n\
         action: { type: alert, channel: crm, template: STEP }\n",
    ),
    (
        "capped.yaml",
        "id: capped\nstatus: active\ntrigger: step\n\
         when: { field: event.colour, op: eq, value: red }\n\
         limits:\n  - { at_most: 2, per: 10m }\n\
         action: { type: alert, channel: crm, template: RED }\n",
    ),
    (
        "after_red.yaml",
        "id: after_red\nstatus: active\ntrigger: step\n\
         when:\n  all:\n    - { field: user.seen, op: eq, value: true }\n    - { field: event.colour, op: eq, value: blue }\n\
         limits:\n  - { once_per: ever }\n\
         action: { type: alert, channel: crm, template: BLUE }\n",
    ),
];

#[test]
fn every_user_is_decided_in_order_on_many_lanes() {
    let mut stage = Stage::embedded("order", 24);
    stage.settings.lanes = 8;
    stage.apply(CAMPAIGNS);
    let steps = steps(stage.schema_id);
    let mut truth = Truth::default();
    truth.add(&mut stage.model(), &steps);
    let reasons = truth.reasons();
    assert!(reasons["allowed"] > 50_000 && reasons["rolling_limit"] > 500, "worth nothing: {reasons:?}");

    stage.produce(&steps);
    let mut process = stage.start();
    let handled = stage.await_handled(&mut process, steps.len() as u64);
    assert_eq!((handled.decided, handled.dead), (truth.decided, 0));
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
}

/// The users take turns at random; each makes his own steps in order, a minute apart.
fn steps(schema_id: u32) -> Vec<Item> {
    let mut random = ChaCha8Rng::seed_from_u64(0x0bde);
    let mut waiting: Vec<(usize, usize)> = (0..USERS).map(|user| (user, 0)).collect();
    let mut items = Vec::with_capacity(USERS * STEPS);
    while !waiting.is_empty() {
        let turn = random.random_range(0..waiting.len());
        let (user, number) = waiting[turn];
        if number + 1 == STEPS {
            waiting.swap_remove(turn);
        } else {
            waiting[turn].1 += 1;
        }
        let colour = match random.random_range(0..10) {
            0..2 => "red",
            2 => "blue",
            _ => "grey",
        };
        let event = json!({
            "event_id": format!("{user}-{number}"), "user_id": format!("user-{user}"), "type": "step",
            "occurred_at": 1_767_225_600_000_i64 + number as i64 * 60_000,
            "properties": { "number": number, "colour": colour },
            "traits": if colour == "red" { json!({ "seen": true }) } else { json!({}) },
        });
        let record = Record {
            key: Some(format!("user-{user}").into_bytes()),
            value: Some(frame_event(schema_id, &event)),
            ..Record::default()
        };
        items.push(Item { record, event: Some(event) });
    }
    items
}
