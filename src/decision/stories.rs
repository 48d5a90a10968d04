//! The sample campaigns, each told as a story: from the YAML file over its canonical JSON and the set to decisions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::campaign::catalog::Catalog;
use crate::campaign::check::check_campaign;
use crate::campaign::live::{LiveCampaigns, campaign_key};
use crate::campaign::set::CampaignSet;
use crate::campaign::yaml::{parse_campaign, parse_catalog};
use crate::decision::{Decision, Outcome, ReasonCode, decide};
use crate::event::{Event, Properties, Value};
use crate::generate::{GenerateOptions, Generated, GeneratedRecord, Generator};
use crate::position::Position;
use crate::user::{UserState, codec};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// 2026-01-15T00:00:00Z.
const START: i64 = 1_768_435_200_000;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/campaigns");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn sample_catalog() -> Catalog {
    let path = files().into_iter().find(|path| path.ends_with("catalog.yaml")).unwrap();
    parse_catalog("catalog.yaml", &fs::read_to_string(path).unwrap()).unwrap()
}

/// The samples as the processor has them after reading the `campaigns` topic.
fn samples() -> CampaignSet {
    let mut live = LiveCampaigns::default();
    let catalog = sample_catalog().to_canonical_json();
    live.apply(b"catalog", Some(catalog.as_bytes()), 0).unwrap();
    for (path, offset) in files().into_iter().zip(1..) {
        if path.ends_with("catalog.yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let campaign = parse_campaign(&name, &fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(name, format!("{}.yaml", campaign.id), "a sample's file is named after it");
        assert_eq!(check_campaign(&campaign, Some(&sample_catalog())), [], "{name}");
        let json = campaign.to_canonical_json();
        live.apply(campaign_key(&campaign.id).as_bytes(), Some(json.as_bytes()), offset).unwrap();
    }
    live.snapshot()
}

/// A user whose events are handled as the pipeline does, the state being stored and loaded between any two.
struct User {
    set: CampaignSet,
    cell: Vec<u8>,
    events: i64,
}

impl User {
    fn new() -> Self {
        let mut cell = Vec::new();
        codec::encode(&UserState::new(), &mut cell);
        Self { set: samples(), cell, events: 0 }
    }

    /// `campaign reason` of each decision about an event so long after the start.
    fn does(&mut self, event_type: &str, after_ms: i64, properties: &[(&str, Value)]) -> Vec<String> {
        self.does_with(event_type, after_ms, properties, &[])
    }

    fn does_with(
        &mut self,
        event_type: &str,
        after_ms: i64,
        properties: &[(&str, Value)],
        traits: &[(&str, Value)],
    ) -> Vec<String> {
        let named = |values: &[(&str, Value)]| -> Properties {
            values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        self.events += 1;
        let event = Event {
            event_id: format!("e{}", self.events),
            user_id: "u1".to_owned(),
            event_type: event_type.to_owned(),
            occurred_at_ms: START + after_ms,
            properties: named(properties),
            traits: named(traits),
            trace_id: None,
        };
        let mut state = codec::decode(&self.cell).unwrap();
        let decisions = decide(&state, &event, &self.set, START);
        let position = Position { incarnation: 0, partition: 0, offset: self.events };
        state.record(position, &event, &decisions, self.set.catalog());
        self.cell.clear();
        codec::encode(&state, &mut self.cell);
        decisions.iter().map(|decision| format!("{} {}", decision.campaign_id, code(decision))).collect()
    }
}

fn code(decision: &Decision) -> String {
    serde_json::to_value(decision.reason.code).unwrap().as_str().unwrap().to_owned()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn amount(amount: f64) -> (&'static str, Value) {
    ("amount", Value::Double(amount))
}

/// Nothing that the story does not ask about.
fn only(campaign: &str, decisions: Vec<String>) -> Vec<String> {
    decisions.into_iter().filter(|decision| decision.starts_with(campaign)).collect()
}

#[test]
fn a_purchase_above_50_and_gold_tier() {
    let mut user = User::new();
    let mut buys = |after_ms: i64, amount: Value, tier: &[(&str, Value)]| {
        only("gold_purchase", user.does_with("purchase", after_ms, &[("amount", amount)], tier))
    };
    assert!(buys(0, Value::Double(99.0), &[]).is_empty(), "no tier is known");
    assert!(buys(1, Value::Double(99.0), &[("tier", text("silver"))]).is_empty());
    assert_eq!(
        buys(2, Value::Double(50.01), &[("tier", text("gold"))]),
        ["gold_purchase allowed"],
        "the tier of the very event counts"
    );
    assert!(buys(3, Value::Double(50.0), &[]).is_empty(), "50 is not above 50");
    assert_eq!(buys(4, Value::Long(51), &[]), ["gold_purchase allowed"], "the tier is remembered");
    assert!(buys(5, text("51"), &[]).is_empty(), "a text is not a number");
    assert!(buys(6, Value::Double(f64::NAN), &[]).is_empty());
    assert!(buys(7, Value::Double(99.0), &[("tier", Value::Null)]).is_empty(), "no longer gold");
}

#[test]
fn the_first_purchase_or_one_with_a_high_rating_within_30_days_of_signup() {
    let mut user = User::new();
    let rated = |rating: i64| [amount(10.0), ("rating", Value::Long(rating))];
    assert_eq!(user.does("signup", 0, &[]), ["welcome allowed"]);
    assert_eq!(user.does("purchase", DAY, &[amount(10.0)]), ["early_purchase allowed"], "the first");
    assert!(user.does("purchase", 2 * DAY, &[amount(10.0)]).is_empty(), "neither first nor rated");
    assert!(user.does("purchase", 3 * DAY, &rated(3)).is_empty());
    assert_eq!(user.does("purchase", 4 * DAY, &rated(4)), ["early_purchase allowed"]);
    assert_eq!(user.does("purchase", 30 * DAY, &rated(5)), ["early_purchase allowed"], "exactly 30 days");
    assert!(user.does("purchase", 30 * DAY + 1, &rated(5)).is_empty());
}

#[test]
fn a_rating_without_a_signup_is_not_early() {
    let mut user = User::new();
    let rated = [amount(10.0), ("rating", Value::Long(5))];
    assert_eq!(user.does("purchase", 0, &rated), ["early_purchase allowed"], "but the first is the first");
    assert!(user.does("purchase", 1, &rated).is_empty());
}

#[test]
fn a_payment_failed_for_insufficient_funds_once_per_calendar_day() {
    let mut user = User::new();
    let mut fails = |after_ms: i64, reason: &str| {
        user.does("payment_failed", after_ms, &[("failure_reason", text(reason)), amount(20.0)])
    };
    assert!(fails(0, "CARD_EXPIRED").is_empty());
    assert_eq!(fails(23 * HOUR, "INSUFFICIENT_FUNDS"), ["insufficient_funds allowed"]);
    assert_eq!(fails(24 * HOUR - 1, "INSUFFICIENT_FUNDS"), ["insufficient_funds calendar_limit"]);
    assert_eq!(fails(24 * HOUR, "INSUFFICIENT_FUNDS"), ["insufficient_funds allowed"], "another day");
    assert_eq!(
        fails(24 * HOUR - 2, "INSUFFICIENT_FUNDS"),
        ["insufficient_funds calendar_limit"],
        "a late event counts for its own day"
    );
    assert_eq!(fails(22 * HOUR, "INSUFFICIENT_FUNDS"), ["insufficient_funds late_event"]);
}

#[test]
fn suspected_fraud_is_looked_into_three_times_a_day_at_most() {
    let mut user = User::new();
    let mut fails = |after_ms: i64| {
        user.does("payment_failed", after_ms, &[("failure_reason", text("FRAUD_SUSPECTED")), amount(20.0)])
    };
    for hour in [0, 10, 20] {
        assert_eq!(fails(hour * HOUR), ["suspected_fraud allowed"]);
    }
    assert_eq!(fails(23 * HOUR), ["suspected_fraud rolling_limit"]);
    assert_eq!(fails(24 * HOUR), ["suspected_fraud allowed"], "the first is exactly a day old");
    assert_eq!(fails(25 * HOUR), ["suspected_fraud rolling_limit"]);
}

#[test]
fn of_two_cart_campaigns_one_gets_through_and_the_first_may_stop_both() {
    let mut user = User::new();
    let opted_in = [("marketing_opt_in", Value::Boolean(true)), ("country", text("DE"))];
    user.does_with("signup", 0, &[], &opted_in);
    let mut adds = |after_ms: i64| user.does("cart_add", after_ms, &[]);
    assert_eq!(adds(HOUR), ["cart_reminder allowed"], "full_cart does not match yet");
    assert_eq!(adds(2 * HOUR), ["cart_reminder allowed"]);
    assert_eq!(adds(3 * HOUR), ["full_cart allowed", "cart_reminder outranked"]);
    assert_eq!(
        adds(4 * HOUR),
        ["full_cart rolling_limit", "cart_reminder outranked"],
        "suppressed, but it stops the other"
    );
    assert_eq!(adds(12 * DAY), ["cart_reminder allowed"], "the cart was empty for a week");
}

#[test]
fn a_cart_campaign_that_does_not_match_stops_nobody() {
    let mut user = User::new();
    user.does_with("signup", 0, &[], &[("marketing_opt_in", Value::Boolean(true)), ("country", text("US"))]);
    for minute in 1..=3 {
        user.does("purchase", minute, &[amount(1.0)]);
        assert!(user.does("cart_add", minute * MINUTE, &[]).is_empty(), "bought today, and not in the US");
    }
    user.does_with("user.updated", 4 * MINUTE, &[], &[("country", text("FR"))]);
    assert_eq!(user.does("cart_add", 5 * MINUTE, &[]), ["cart_reminder allowed"], "moved to France");
    assert_eq!(user.does("cart_add", 6 * MINUTE, &[]), ["cart_reminder allowed"]);
    assert_eq!(user.does("cart_add", 7 * MINUTE, &[]), ["cart_reminder rolling_limit"]);
}

#[test]
fn everybody_is_welcomed_once() {
    let mut user = User::new();
    assert_eq!(user.does("signup", 0, &[]), ["welcome allowed"]);
    assert_eq!(user.does("signup", 700 * DAY, &[]), ["welcome once_ever"]);
}

/// The generator's shop makes every sample campaign say yes, and every reason that the samples can give occur; so the
/// demo shows all of it.
#[test]
fn the_generated_shop_makes_every_sample_fire() {
    let set = samples();
    let options =
        GenerateOptions { events: 20_000, users: 500, late: 0.02, duplicates: 0.02, ..Default::default() };
    let mut users: BTreeMap<String, UserState> = BTreeMap::new();
    let mut yes: BTreeMap<String, u64> = BTreeMap::new();
    let mut reasons: BTreeMap<ReasonCode, u64> = BTreeMap::new();
    let mut duplicates = 0;
    for (Generated { user_id, record }, offset) in Generator::new(options).unwrap().zip(0..) {
        let (event, again) = match record {
            GeneratedRecord::Event(event) => (event, false),
            GeneratedRecord::Duplicate(event) => (event, true),
            GeneratedRecord::Poison(poison) => panic!("{poison:?}"),
        };
        let state = users.entry(user_id).or_default();
        assert_eq!(state.is_duplicate(&event), again, "{}", event.event_id);
        let position = Position { incarnation: 0, partition: 0, offset };
        if again {
            duplicates += 1;
            state.mark_applied(position);
            continue;
        }
        let decisions = decide(state, &event, &set, event.occurred_at_ms);
        state.record(position, &event, &decisions, set.catalog());
        for decision in decisions {
            *reasons.entry(decision.reason.code).or_default() += 1;
            if decision.outcome == Outcome::Allow {
                *yes.entry(decision.campaign_id).or_default() += 1;
            }
        }
    }
    let expected: Vec<&str> = set.campaigns().map(|live| live.campaign.id.as_str()).collect();
    assert_eq!(yes.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{yes:?}");
    for code in [
        ReasonCode::Allowed,
        ReasonCode::LateEvent,
        ReasonCode::Outranked,
        ReasonCode::CalendarLimit,
        ReasonCode::RollingLimit,
    ] {
        assert!(reasons.contains_key(&code), "{code:?} does not occur: {reasons:?}");
    }
    assert!(duplicates > 100);
    assert!(users.values().all(|state| !state.traits().contains_key("email")), "PII is not stored");
}
