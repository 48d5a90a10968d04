use super::*;
use crate::campaign::condition::{
    Comparison, Condition, HistoryFunction, HistoryQuery, Literal, Operand, Operator, Right, Unknown, Window,
};
use crate::campaign::definition::{Limit, Schedule, Status};
use crate::campaign::number::Number;
use crate::decision::ActionKind;
use crate::decision::fixtures::{campaign, event, grouped, limited, record, set};
use crate::event::Value;

const HOUR: i64 = 3_600_000;

/// One user whose events are decided and recorded one after the other.
struct Story {
    state: UserState,
    set: CampaignSet,
    next: u32,
}

impl Story {
    fn of(campaigns: Vec<Campaign>) -> Self {
        Self { state: UserState::new(), set: set(campaigns), next: 0 }
    }

    fn decide(&mut self, event: &Event) -> Vec<Decision> {
        let decisions = decide(&self.state, event, &self.set, 77);
        record(&mut self.state, event, &decisions, self.set.catalog());
        decisions
    }

    /// Campaign and reason code of each decision for a `view` at that time.
    fn view(&mut self, at_ms: i64) -> Vec<(String, ReasonCode)> {
        self.next += 1;
        let event = event(&format!("e{}", self.next), "view", at_ms);
        self.decide(&event).into_iter().map(|decision| (decision.campaign_id, decision.reason.code)).collect()
    }
}

fn is(expected: &[(&str, ReasonCode)]) -> Vec<(String, ReasonCode)> {
    expected.iter().map(|(id, code)| ((*id).to_owned(), *code)).collect()
}

#[test]
fn a_decision_says_all_that_is_known() {
    let mut sale = campaign("sale");
    sale.action.params = [("percent".to_owned(), Value::Long(10))].into();
    let mut story = Story::of(vec![campaign("other"), sale]);
    story.set = set(vec![story.set.campaign("sale").unwrap().campaign.clone()]);
    let decisions = story.decide(&event("e1", "view", 5));
    let expected = Decision {
        decision_id: decision_id("u1", "e1", "sale"),
        event_id: "e1".to_owned(),
        user_id: "u1".to_owned(),
        campaign_id: "sale".to_owned(),
        campaign_version: 0,
        event_type: "view".to_owned(),
        occurred_at_ms: 5,
        decided_at_ms: 77,
        outcome: Outcome::Allow,
        reason: Reason::of(ReasonCode::Allowed),
        action: DecidedAction {
            kind: ActionKind::Send,
            channel: Some("email".to_owned()),
            template: Some("HELLO".to_owned()),
            variant: None,
            recipient: None,
            params: vec![("percent".to_owned(), Value::Long(10))],
        },
        trace_id: Some("trace-1".to_owned()),
    };
    assert_eq!(decisions, [expected]);
}

#[test]
fn only_active_campaigns_of_the_type_decide() {
    let mut paused = campaign("paused");
    paused.status = Some(Status::Paused);
    let mut story = Story::of(vec![campaign("a"), paused]);
    assert_eq!(story.view(0), is(&[("a", ReasonCode::Allowed)]));
    assert!(story.decide(&event("p", "purchase", 1)).is_empty());
}

#[test]
fn who_does_not_match_is_observed() {
    let mut over = campaign("over");
    over.schedule = Some(Schedule { start_ms: None, end_ms: Some(0) });
    let mut bought = campaign("bought");
    bought.when = Some(Condition::Compare(Comparison {
        left: Operand::History(HistoryQuery {
            event_type: "purchase".to_owned(),
            function: HistoryFunction::Since,
            window: Window::Lifetime,
        }),
        operator: Operator::Lt,
        right: Right::Literal(Literal::DurationMs(1)),
    }));
    let set = set(vec![over, bought, campaign("yes")]);
    let mut seen = Vec::new();
    let decisions = decide_observing(&UserState::new(), &event("e", "view", 0), &set, 0, |live, no_match| {
        seen.push((live.campaign.id.clone(), no_match));
    });
    assert_eq!(decisions.len(), 1);
    assert_eq!(
        seen,
        [
            ("bought".to_owned(), NoMatch::Unknown(Unknown::MissingField)),
            ("over".to_owned(), NoMatch::OutOfSchedule)
        ]
    );
}

#[test]
fn an_event_is_not_part_of_its_own_history() {
    let mut first = campaign("first");
    first.when = Some(Condition::Compare(Comparison {
        left: Operand::History(HistoryQuery {
            event_type: "view".to_owned(),
            function: HistoryFunction::Count,
            window: Window::Lifetime,
        }),
        operator: Operator::Eq,
        right: Right::Literal(Literal::Number(Number::from_i64(0))),
    }));
    let mut story = Story::of(vec![first]);
    assert_eq!(story.view(10), is(&[("first", ReasonCode::Allowed)]));
    assert!(story.view(11).is_empty());
    assert!(story.view(9).is_empty(), "an older view that comes late is not the first one");
}

#[test]
fn late_means_more_than_the_allowed_lateness_behind_the_newest() {
    let mut story = Story::of(vec![campaign("a"), limited("once", &[Limit::OncePerEver])]);
    story.view(2 * HOUR);
    assert_eq!(story.view(HOUR), is(&[("a", ReasonCode::Allowed), ("once", ReasonCode::OnceEver)]));
    assert_eq!(story.view(HOUR - 1), is(&[("a", ReasonCode::LateEvent), ("once", ReasonCode::LateEvent)]));
    assert_eq!(story.state.history().of_type("view").unwrap().lifetime_count(), 3, "remembered all the same");
    assert_eq!(story.state.newest_event_ms(), Some(2 * HOUR));
}

#[test]
fn campaigns_go_by_priority_then_id() {
    let stop = |id, priority| grouped(id, priority, WhenSuppressed::Next, &[]);
    let mut story = Story::of(vec![stop("b", 1), stop("c", 2), stop("a", 1)]);
    assert_eq!(
        story.view(0),
        is(&[("c", ReasonCode::Allowed), ("a", ReasonCode::Outranked), ("b", ReasonCode::Outranked)])
    );
}

#[test]
fn who_was_outranked_says_by_whom() {
    let mut story = Story::of(vec![
        grouped("high", 9, WhenSuppressed::Next, &[]),
        grouped("low", 1, WhenSuppressed::Next, &[]),
        campaign("alone"),
    ]);
    let decisions = story.decide(&event("e", "view", 0));
    let by: Vec<_> = decisions
        .iter()
        .map(|decision| {
            (decision.campaign_id.as_str(), decision.outcome, decision.reason.outranked_by.as_deref())
        })
        .collect();
    assert_eq!(
        by,
        [
            ("high", Outcome::Allow, None),
            ("low", Outcome::Suppress, Some("high")),
            ("alone", Outcome::Allow, None)
        ]
    );
}

#[test]
fn a_suppressed_campaign_leaves_the_slot_to_the_next() {
    let mut story = Story::of(vec![
        grouped("high", 9, WhenSuppressed::Next, &[Limit::OncePerEver]),
        grouped("low", 1, WhenSuppressed::Next, &[]),
    ]);
    assert_eq!(story.view(0), is(&[("high", ReasonCode::Allowed), ("low", ReasonCode::Outranked)]));
    assert_eq!(story.view(1), is(&[("high", ReasonCode::OnceEver), ("low", ReasonCode::Allowed)]));
}

#[test]
fn a_suppressed_campaign_that_stops_keeps_the_slot() {
    let mut story = Story::of(vec![
        grouped("high", 9, WhenSuppressed::Stop, &[Limit::OncePerEver]),
        grouped("low", 1, WhenSuppressed::Next, &[]),
    ]);
    story.view(0);
    assert_eq!(story.view(1), is(&[("high", ReasonCode::OnceEver), ("low", ReasonCode::Outranked)]));
}

#[test]
fn a_campaign_that_does_not_match_takes_no_slot() {
    let mut high = grouped("high", 9, WhenSuppressed::Stop, &[]);
    high.schedule = Some(Schedule { start_ms: Some(100), end_ms: None });
    let mut story = Story::of(vec![high, grouped("low", 1, WhenSuppressed::Next, &[])]);
    assert_eq!(story.view(0), is(&[("low", ReasonCode::Allowed)]));
}

#[test]
fn outranked_comes_before_own_limits_and_stopping_does_not_move_the_slot() {
    let mut story = Story::of(vec![
        grouped("high", 9, WhenSuppressed::Next, &[]),
        grouped("middle", 5, WhenSuppressed::Stop, &[Limit::AtMost { n: 0, per_ms: 1 }]),
        grouped("low", 1, WhenSuppressed::Next, &[]),
    ]);
    let decisions = story.decide(&event("e", "view", 0));
    let by: Vec<_> = decisions.iter().map(|decision| decision.reason.outranked_by.as_deref()).collect();
    assert_eq!(by, [None, Some("high"), Some("high")]);
}

#[test]
fn a_refused_limit_is_told_with_its_numbers() {
    let mut story = Story::of(vec![limited("c", &[Limit::AtMost { n: 2, per_ms: 7 * 24 * HOUR }])]);
    story.view(0);
    story.view(HOUR);
    let decisions = story.decide(&event("e", "view", 2 * HOUR));
    let reason = &decisions[0].reason;
    assert_eq!(reason.code, ReasonCode::RollingLimit);
    assert_eq!(decisions[0].outcome, Outcome::Suppress);
    let limit = reason.limit.as_ref().unwrap();
    assert_eq!(limit.limit, "at_most 2 per 7d");
    assert_eq!((limit.used, limit.allowed, limit.reopens_at_ms), (2, 2, Some(7 * 24 * HOUR)));
}

#[test]
fn suppressed_decisions_do_not_count() {
    let mut story = Story::of(vec![limited("c", &[Limit::AtMost { n: 1, per_ms: 10 }])]);
    assert_eq!(story.view(0), is(&[("c", ReasonCode::Allowed)]));
    for at_ms in 1..10 {
        assert_eq!(story.view(at_ms), is(&[("c", ReasonCode::RollingLimit)]));
    }
    assert_eq!(story.view(10), is(&[("c", ReasonCode::Allowed)]));
}

#[test]
fn deciding_twice_gives_the_same_and_changes_nothing() {
    let mut story = Story::of(vec![limited("c", &[Limit::OncePerCalendarDay]), campaign("d")]);
    story.view(0);
    let before = story.state.clone();
    let event = event("x", "view", 1);
    let first = decide(&story.state, &event, &story.set, 5);
    let second = decide(&story.state, &event, &story.set, 5);
    assert_eq!(first, second);
    assert_eq!(story.state, before);
}

#[test]
fn every_code_has_its_outcome() {
    assert_eq!(ReasonCode::Allowed.outcome(), Outcome::Allow);
    for code in [
        ReasonCode::LateEvent,
        ReasonCode::Outranked,
        ReasonCode::OnceEver,
        ReasonCode::CalendarLimit,
        ReasonCode::RollingLimit,
        ReasonCode::CapHistoryTruncated,
        ReasonCode::TooLarge,
    ] {
        assert_eq!(code.outcome(), Outcome::Suppress, "{code:?}");
    }
}
