//! The model and `decide` agree on random campaigns and random events of one user, without Kafka and without a store.
//!
//! Times are whole tens of minutes and so are windows, so that their edges are met all the time.

use std::collections::BTreeMap;

use campaignd::campaign::live::LiveCampaigns;
use campaignd::decision::decide;
use campaignd::event::Event;
use campaignd::position::Position;
use campaignd::user::UserState;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::support::compare::as_expected;
use crate::support::model::{Expected, Model, Verdict};

const STREAMS: u64 = 3_000;
const EVENTS_PER_STREAM: usize = 60;
const START_MS: i64 = 1_767_225_600_000;
const TEN_MINUTES_MS: i64 = 600_000;
const TYPES: [&str; 3] = ["alpha", "beta", "gamma"];

#[test]
fn random_campaigns_decide_random_events_as_the_model_says() {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..STREAMS {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for decision in one_stream(seed, &mut random) {
            *reasons.entry(decision.reason).or_default() += 1;
        }
    }
    println!("{STREAMS} streams, decisions by reason: {reasons:?}");
    for reason in ["allowed", "late_event", "outranked", "once_ever", "calendar_limit", "rolling_limit"] {
        assert!(reasons.get(reason).is_some_and(|count| *count >= 2_000), "worth nothing: {reasons:?}");
    }
}

fn one_stream(seed: u64, random: &mut ChaCha8Rng) -> Vec<Expected> {
    let count = random.random_range(1..8);
    let campaigns: Vec<Value> = (0..count).map(|n| campaign(random, n)).collect();
    let catalog =
        json!({ "remember": { "alpha": { "for": "10d" }, "beta": { "for": "10d" } }, "pii_traits": ["k"] });
    let mut live = LiveCampaigns::default();
    live.apply(b"catalog", Some(catalog.to_string().as_bytes()), 0).unwrap();
    for (offset, campaign) in (1..).zip(&campaigns) {
        let key = format!("campaign:{}", campaign["id"].as_str().unwrap());
        live.apply(key.as_bytes(), Some(campaign.to_string().as_bytes()), offset).unwrap();
    }
    let set = live.snapshot();

    let mut state = UserState::new();
    let mut model = Model::new(&campaigns).without_traits(&["k"]);
    let mut all = Vec::new();
    let mut past: Vec<Value> = Vec::new();
    let mut now = START_MS;
    for number in 0..EVENTS_PER_STREAM {
        let json = match past.choose(random) {
            Some(earlier) if random.random_bool(0.04) => earlier.clone(),
            _ => event(random, number, &mut now),
        };
        past.push(json.clone());
        let event = Event::from_json(&json.to_string()).unwrap();
        let found = if state.is_duplicate(&event) {
            Verdict::Duplicate
        } else {
            let decisions = decide(&state, &event, &set, now);
            let position = Position { incarnation: 0, partition: 0, offset: number as i64 };
            state.record(position, &event, &decisions, set.catalog());
            match decisions.iter().map(as_expected).collect::<Vec<_>>() {
                none if none.is_empty() => Verdict::Ignored,
                some => Verdict::Decided(some),
            }
        };
        let expected = model.handle(&json);
        assert_eq!(
            found, expected,
            "seed {seed}, event {number}: {json}\ncampaigns: {campaigns:#?}\npast: {past:#?}"
        );
        if let Verdict::Decided(decisions) = expected {
            all.extend(decisions);
        }
    }
    all
}

fn event(random: &mut ChaCha8Rng, number: usize, now: &mut i64) -> Value {
    *now += random.random_range(0..8) * TEN_MINUTES_MS;
    let back = match random.random_range(0..20) {
        0..3 => random.random_range(1..7) * TEN_MINUTES_MS,
        3 => random.random_range(7..20) * TEN_MINUTES_MS,
        _ => 0,
    };
    let mut properties = json!({});
    if random.random_bool(0.8) {
        let values = [json!(1), json!(2), json!(2.5), json!(0.1), json!("2"), json!(true), Value::Null];
        properties["n"] = values.choose(random).unwrap().clone();
    }
    if random.random_bool(0.8) {
        let values = [json!("red"), json!("blue"), json!(7), json!(["red", "green"]), json!([])];
        properties["s"] = values.choose(random).unwrap().clone();
    }
    let mut traits = json!({});
    if random.random_bool(0.3) {
        traits["t"] = [json!("gold"), json!("silver"), json!(2), Value::Null].choose(random).unwrap().clone();
    }
    if random.random_bool(0.2) {
        traits["k"] = json!("someone@example.org");
    }
    let event_type = TYPES.choose(random).unwrap();
    json!({
        "event_id": format!("e{number}"), "user_id": "u", "type": event_type,
        "occurred_at": *now - back, "properties": properties, "traits": traits,
    })
}

fn campaign(random: &mut ChaCha8Rng, number: usize) -> Value {
    let mut triggers: Vec<&str> = TYPES.into_iter().filter(|_| random.random_bool(0.6)).collect();
    if triggers.is_empty() {
        triggers.push("alpha");
    }
    let mut limits = vec![
        json!({ "once_per": "ever" }),
        json!({ "once_per": "calendar_day" }),
        json!({ "at_most": 1, "per": "30m" }),
        json!({ "at_most": 2, "per": "2h" }),
        json!({ "at_most": 5, "per": "1d" }),
    ];
    let odds = [0.04, 0.15, 0.25, 0.25, 0.2];
    let mut odds = odds.iter();
    limits.retain(|_| random.random_bool(*odds.next().unwrap()));
    let mut campaign = json!({
        "id": format!("c{number}"), "status": "active", "trigger": triggers, "priority": random.random_range(-1..3),
        "limits": limits, "action": { "type": "send", "channel": "email", "template": "T" },
    });
    if random.random_bool(0.7) {
        campaign["when"] = condition(random, 2);
    }
    if random.random_bool(0.6) {
        let name = ["g", "h"].choose(random).unwrap();
        let when_suppressed = ["next", "stop"].choose(random).unwrap();
        campaign["group"] = json!({ "name": name, "when_suppressed": when_suppressed });
    }
    if random.random_bool(0.1) {
        campaign["schedule"] = json!({ "start": "2026-01-01T06:00:00Z", "end": "2026-01-02T00:00:00Z" });
    }
    if random.random_bool(0.05) {
        campaign["status"] = json!("paused");
    }
    campaign
}

fn condition(random: &mut ChaCha8Rng, depth: usize) -> Value {
    if depth > 0 && random.random_bool(0.5) {
        let parts: Vec<Value> =
            (0..random.random_range(1..4)).map(|_| condition(random, depth - 1)).collect();
        return match random.random_range(0..3) {
            0 => json!({ "all": parts }),
            1 => json!({ "any": parts }),
            _ => json!({ "not": parts[0] }),
        };
    }
    let leaves = [
        json!({ "field": "event.n", "op": "gt", "value": 1 }),
        json!({ "field": "event.n", "op": "lte", "value": 2.5 }),
        json!({ "field": "event.n", "op": "between", "value": [0.1, 2] }),
        json!({ "field": "event.n", "op": "ne", "value": 2 }),
        json!({ "field": "event.n", "op": "in", "value": [1, 2.5] }),
        json!({ "field": "event.n", "op": "eq", "ref": "user.t" }),
        json!({ "field": "event.n", "op": "exists" }),
        json!({ "field": "event.s", "op": "eq", "value": "red" }),
        json!({ "field": "event.s", "op": "missing" }),
        json!({ "field": "event.s", "op": "prefix", "value": "b" }),
        json!({ "field": "event.s", "op": "contains", "value": "red" }),
        json!({ "field": "event.s", "op": "any_of", "value": ["green", "red"] }),
        json!({ "field": "event.s", "op": "none_of", "value": ["green"] }),
        json!({ "field": "event.s", "op": "not_in", "value": ["red", "green"] }),
        json!({ "field": "user.t", "op": "eq", "value": "gold" }),
        json!({ "field": "user.t", "op": "suffix", "value": "er" }),
        json!({ "field": "user.k", "op": "exists" }),
        json!({ "history": { "event": "alpha", "fn": "exists", "last": "30m" }, "op": "eq", "value": true }),
        json!({ "history": { "event": "beta", "fn": "exists", "lifetime": true }, "op": "eq", "value": false }),
        json!({ "history": { "event": "alpha", "fn": "count", "last": "2h" }, "op": "gte", "value": 2 }),
        json!({ "history": { "event": "beta", "fn": "count", "last": "1d" }, "op": "lt", "value": 4 }),
        json!({ "history": { "event": "alpha", "fn": "count", "lifetime": true }, "op": "eq", "ref": "event.n" }),
        json!({ "history": { "event": "beta", "fn": "since", "lifetime": true }, "op": "lte", "value": "1h" }),
        json!({ "history": { "event": "alpha", "fn": "since", "last": "3h" }, "op": "gt", "value": "20m" }),
    ];
    leaves.choose(random).unwrap().clone()
}
