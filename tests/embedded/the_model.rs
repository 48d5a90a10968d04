//! The model itself on trial: short histories whose outcome the design's text fixes, worked out by hand.

use serde_json::{Value, json};

use crate::support::model::{Model, Verdict, decision_id};

const START_MS: i64 = 1_768_435_200_000; // 2026-01-15T00:00:00Z
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Events of one user, numbered in the order of the topic.
struct Story {
    model: Model,
    next: u32,
}

impl Story {
    fn of(campaigns: &[Value]) -> Story {
        Story { model: Model::new(campaigns), next: 0 }
    }

    fn event(&mut self, event_type: &str, at: i64, properties: Value, traits: Value) -> Vec<String> {
        self.next += 1;
        let event = json!({
            "event_id": format!("e{}", self.next), "user_id": "u", "type": event_type,
            "occurred_at": START_MS + at, "properties": properties, "traits": traits, "trace_id": null,
        });
        match self.model.handle(&event) {
            Verdict::Decided(decisions) => {
                decisions.iter().map(|d| format!("{} {}", d.campaign_id, d.reason)).collect()
            }
            Verdict::Ignored => vec!["ignored".to_owned()],
            Verdict::Duplicate => vec!["duplicate".to_owned()],
            Verdict::Erased => vec!["erased".to_owned()],
        }
    }

    fn plain(&mut self, event_type: &str, at: i64) -> Vec<String> {
        self.event(event_type, at, json!({}), json!({}))
    }
}

fn campaign(id: &str, more: Value) -> Value {
    let mut campaign = json!({
        "id": id, "status": "active", "trigger": ["tick"], "priority": 0, "limits": [],
        "action": {"type": "send", "channel": "email", "template": "T"},
    });
    let fields = campaign.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    campaign
}

#[test]
fn a_window_leaves_out_what_is_exactly_as_old_as_it_is_long() {
    let when =
        json!({"history": {"event": "tick", "fn": "exists", "last": "10m"}, "op": "eq", "value": true});
    let mut story = Story::of(&[campaign("c", json!({"when": when}))]);
    assert_eq!(story.plain("tick", 0), ["ignored"]);
    assert_eq!(story.plain("tick", 10 * MINUTE), ["ignored"]);
    assert_eq!(story.plain("tick", 20 * MINUTE - 1), ["c allowed"]);
}

#[test]
fn an_event_is_not_part_of_its_own_history() {
    let when = json!({"history": {"event": "tick", "fn": "count"}, "op": "eq", "value": 0});
    let mut story = Story::of(&[campaign("first", json!({"when": when}))]);
    assert_eq!(story.plain("tick", 0), ["first allowed"]);
    assert_eq!(story.plain("tick", 0), ["ignored"]);
}

#[test]
fn since_is_unknown_without_a_past_and_counts_to_the_latest() {
    let when = json!({"history": {"event": "signup", "fn": "since"}, "op": "lte", "value": "30d"});
    let mut story = Story::of(&[campaign("c", json!({"when": when}))]);
    assert_eq!(story.plain("tick", 0), ["ignored"]);
    story.plain("signup", 0);
    assert_eq!(story.plain("tick", 30 * DAY), ["c allowed"]);
    assert_eq!(story.plain("tick", 30 * DAY + 1), ["ignored"]);
    story.plain("signup", 30 * DAY + 1);
    assert_eq!(story.plain("tick", 31 * DAY), ["c allowed"]);
}

#[test]
fn once_ever_never_opens_again() {
    let mut story = Story::of(&[campaign("c", json!({"limits": [{"once_per": "ever"}]}))]);
    assert_eq!(story.plain("tick", 0), ["c allowed"]);
    assert_eq!(story.plain("tick", 4_000 * DAY), ["c once_ever"]);
}

#[test]
fn a_calendar_day_ends_at_midnight_utc_of_the_event() {
    let mut story = Story::of(&[campaign("c", json!({"limits": [{"once_per": "calendar_day"}]}))]);
    assert_eq!(story.plain("tick", 23 * HOUR), ["c allowed"]);
    assert_eq!(story.plain("tick", DAY - 1), ["c calendar_limit"]);
    assert_eq!(story.plain("tick", DAY), ["c allowed"]);
    // Thirty minutes late, so not a late event: it belongs to the first day, which is used up.
    assert_eq!(story.plain("tick", DAY - 30 * MINUTE), ["c calendar_limit"]);
}

#[test]
fn a_rolling_cap_opens_when_the_oldest_is_exactly_as_old_as_the_window() {
    let mut story = Story::of(&[campaign("c", json!({"limits": [{"at_most": 2, "per": "1h"}]}))]);
    assert_eq!(story.plain("tick", 0), ["c allowed"]);
    assert_eq!(story.plain("tick", 10 * MINUTE), ["c allowed"]);
    assert_eq!(story.plain("tick", HOUR - 1), ["c rolling_limit"]);
    assert_eq!(story.plain("tick", HOUR), ["c allowed"]);
    assert_eq!(story.plain("tick", HOUR + 1), ["c rolling_limit"]);
}

#[test]
fn a_rolling_cap_cannot_be_raced_by_an_event_from_before() {
    let mut story = Story::of(&[campaign("c", json!({"limits": [{"at_most": 1, "per": "30m"}]}))]);
    assert_eq!(story.plain("tick", 40 * MINUTE), ["c allowed"]);
    assert_eq!(
        story.plain("tick", 20 * MINUTE),
        ["c rolling_limit"],
        "both would lie in the window ending at 40 min"
    );
    assert_eq!(story.plain("tick", 10 * MINUTE), ["c allowed"], "exactly thirty minutes apart");
}

#[test]
fn of_two_limits_the_one_that_reopens_last_is_named() {
    let limits = json!([{"once_per": "calendar_day"}, {"at_most": 1, "per": "1h"}]);
    let mut story = Story::of(&[campaign("c", json!({"limits": limits}))]);
    assert_eq!(story.plain("tick", 12 * HOUR), ["c allowed"]);
    assert_eq!(story.plain("tick", 12 * HOUR + 1), ["c calendar_limit"]);
    assert_eq!(story.plain("tick", DAY + 23 * HOUR + 30 * MINUTE), ["c allowed"]);
    assert_eq!(story.plain("tick", DAY + 23 * HOUR + 40 * MINUTE), ["c rolling_limit"]);
}

#[test]
fn a_late_event_is_suppressed_but_remembered() {
    let seen = json!({"history": {"event": "tick", "fn": "count"}, "op": "gte", "value": 2});
    let mut story = Story::of(&[campaign("all", json!({})), campaign("third", json!({"when": seen}))]);
    assert_eq!(story.plain("tick", 2 * HOUR), ["all allowed"]);
    assert_eq!(story.plain("tick", HOUR), ["all allowed"], "an hour is not more than an hour");
    assert_eq!(story.plain("tick", HOUR - 1), ["all late_event", "third late_event"]);
    assert_eq!(story.plain("tick", 2 * HOUR), ["all allowed", "third allowed"]);
}

#[test]
fn a_suppressed_campaign_takes_the_slot_only_when_it_stops() {
    for (when_suppressed, second) in [("next", "low allowed"), ("stop", "low outranked")] {
        let high = json!({"priority": 9, "limits": [{"once_per": "ever"}],
            "group": {"name": "g", "when_suppressed": when_suppressed}});
        let low = json!({"group": {"name": "g", "when_suppressed": "next"}});
        let mut story = Story::of(&[campaign("low", low), campaign("high", high)]);
        assert_eq!(story.plain("tick", 0), ["high allowed", "low outranked"]);
        assert_eq!(story.plain("tick", 1), ["high once_ever", second]);
    }
}

#[test]
fn equal_priorities_are_decided_by_the_smaller_id() {
    let group = json!({"group": {"name": "g", "when_suppressed": "next"}});
    let mut story = Story::of(&[campaign("b", group.clone()), campaign("a", group)]);
    assert_eq!(story.plain("tick", 0), ["a allowed", "b outranked"]);
}

#[test]
fn unknown_is_no_match_even_when_negated() {
    let gold = json!({"field": "user.tier", "op": "eq", "value": "gold"});
    let not = json!({"not": gold});
    let either = json!({"any": [gold, {"field": "event.n", "op": "gt", "value": 5}]});
    let campaigns = [
        campaign("a", json!({"when": gold})),
        campaign("b", json!({"when": not})),
        campaign("c", json!({"when": either})),
    ];
    let mut story = Story::of(&campaigns);
    assert_eq!(story.plain("tick", 0), ["ignored"]);
    assert_eq!(story.event("tick", 1, json!({"n": 6}), json!({})), ["c allowed"]);
    assert_eq!(story.event("tick", 2, json!({"n": "6"}), json!({})), ["ignored"], "a text is not a number");
    assert_eq!(story.event("tick", 3, json!({}), json!({"tier": "gold"})), ["a allowed", "c allowed"]);
    assert_eq!(story.event("tick", 4, json!({}), json!({"tier": "silver"})), ["b allowed"]);
}

#[test]
fn a_schedule_is_asked_by_the_events_time_and_ends_before_its_end() {
    let schedule = json!({"start": "2026-01-15T01:00:00Z", "end": "2026-01-15T02:00:00Z"});
    let mut story = Story::of(&[campaign("c", json!({"schedule": schedule}))]);
    assert_eq!(story.plain("tick", HOUR - 1), ["ignored"]);
    assert_eq!(story.plain("tick", HOUR), ["c allowed"]);
    assert_eq!(story.plain("tick", 2 * HOUR), ["ignored"]);
}

#[test]
fn the_same_event_id_is_one_event_even_with_other_contents() {
    let mut story = Story::of(&[campaign("c", json!({}))]);
    assert_eq!(story.plain("tick", 0), ["c allowed"]);
    story.next = 0;
    assert_eq!(story.event("tick", 5, json!({"n": 1}), json!({"tier": "gold"})), ["duplicate"]);
}

#[test]
fn a_personal_trait_is_neither_seen_nor_remembered() {
    let when = json!({"field": "user.email", "op": "exists"});
    let model = Model::new(&[campaign("c", json!({"when": when}))]).without_traits(&["email"]);
    let mut story = Story { model, next: 0 };
    assert_eq!(story.event("tick", 0, json!({}), json!({"email": "a@example.org"})), ["ignored"]);
    assert_eq!(story.plain("tick", 1), ["ignored"]);
}

#[test]
fn decision_ids_do_not_confuse_neighbouring_parts() {
    assert_ne!(decision_id("ab", "c", "d"), decision_id("a", "bc", "d"));
    assert_eq!(decision_id("a", "b", "c"), decision_id("a", "b", "c"));
}
