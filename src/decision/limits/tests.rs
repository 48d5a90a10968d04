use proptest::prelude::*;

use super::*;
use crate::campaign::catalog::Catalog;
use crate::decision::fixtures::{event, record};
use crate::decision::{Outcome, decide, fixtures};
use crate::user::UserState;
use crate::user::allows::{MAX_CAMPAIGNS, MAX_TIMES_PER_CAMPAIGN};

const HOUR: i64 = 3_600_000;

/// A user for whom campaign `c` said yes at these times, in this order.
fn allowed_at(times: &[i64]) -> UserState {
    let mut state = UserState::new();
    for (n, at_ms) in times.iter().enumerate() {
        allow(&mut state, "c", n, *at_ms);
    }
    state
}

fn allow(state: &mut UserState, campaign: &str, n: usize, at_ms: i64) {
    let event = event(&format!("{campaign} {n}"), "view", at_ms);
    let decisions = decide(&UserState::new(), &event, &fixtures::set(vec![fixtures::campaign(campaign)]), 0);
    assert_eq!(decisions.iter().map(|decision| decision.outcome).collect::<Vec<_>>(), [Outcome::Allow]);
    record(state, &event, &decisions, &Catalog::default());
}

fn ask(limit: Limit, times: &[i64], at_ms: i64) -> Option<(ReasonCode, u32, Option<i64>)> {
    let state = allowed_at(times);
    check_one(&limit, state.allows().of("c"), at_ms)
        .map(|refusal| (refusal.code, refusal.limit.used, refusal.limit.reopens_at_ms))
}

fn at_most(n: u32, per_ms: i64) -> Limit {
    Limit::AtMost { n, per_ms }
}

#[test]
fn once_ever_is_once() {
    assert_eq!(ask(Limit::OncePerEver, &[], 0), None);
    assert_eq!(ask(Limit::OncePerEver, &[5], 0), Some((ReasonCode::OnceEver, 1, None)));
    assert_eq!(ask(Limit::OncePerEver, &[5, 6], i64::MAX), Some((ReasonCode::OnceEver, 2, None)));
}

#[test]
fn a_calendar_day_is_a_utc_day_of_the_events_time() {
    let limit = Limit::OncePerCalendarDay;
    let at_23 = 23 * HOUR;
    assert_eq!(ask(limit, &[at_23], DAY_MS - 1), Some((ReasonCode::CalendarLimit, 1, Some(DAY_MS))));
    assert_eq!(ask(limit, &[at_23], DAY_MS), None, "an hour later, but another day");
    assert_eq!(ask(limit, &[at_23], -1), None, "the day before the epoch");
    assert_eq!(ask(limit, &[-1], -DAY_MS), Some((ReasonCode::CalendarLimit, 1, Some(0))));
}

#[test]
fn the_next_open_day_is_the_first_that_is_not_used() {
    let times = [0, DAY_MS, 2 * DAY_MS + 5, 4 * DAY_MS];
    assert_eq!(
        ask(Limit::OncePerCalendarDay, &times, HOUR),
        Some((ReasonCode::CalendarLimit, 1, Some(3 * DAY_MS)))
    );
}

#[test]
fn a_rolling_window_is_half_open() {
    let limit = at_most(1, 10);
    assert_eq!(ask(limit, &[0], 9), Some((ReasonCode::RollingLimit, 1, Some(10))));
    assert_eq!(ask(limit, &[0], 10), None);
    assert_eq!(ask(limit, &[0], 0), Some((ReasonCode::RollingLimit, 1, Some(10))));
}

#[test]
fn a_rolling_limit_reopens_when_the_oldest_of_n_leaves() {
    assert_eq!(ask(at_most(3, 100), &[0, 10, 20], 30), Some((ReasonCode::RollingLimit, 3, Some(100))));
    assert_eq!(ask(at_most(2, 100), &[0, 10, 20], 30), Some((ReasonCode::RollingLimit, 3, Some(110))));
    assert_eq!(ask(at_most(4, 100), &[0, 10, 20], 30), None);
}

#[test]
fn a_late_event_must_fit_into_every_window_that_holds_it() {
    // Two per 10: (1, 11] would hold 5, 8 and 11.
    assert_eq!(ask(at_most(2, 10), &[8, 11], 5), Some((ReasonCode::RollingLimit, 2, Some(18))));
    assert_eq!(ask(at_most(2, 10), &[8, 11], 1), None, "11 is exactly ten later");
    assert_eq!(ask(at_most(1, 10), &[100], 91), Some((ReasonCode::RollingLimit, 1, Some(110))));
    assert_eq!(ask(at_most(1, 10), &[100], 90), None);
}

#[test]
fn a_gap_in_the_past_can_reopen_before_the_newest() {
    assert_eq!(ask(at_most(1, 10), &[0, 100], 5), Some((ReasonCode::RollingLimit, 1, Some(10))));
}

#[test]
fn nothing_is_allowed_never_reopens() {
    assert_eq!(ask(at_most(0, 10), &[], 5), Some((ReasonCode::RollingLimit, 0, None)));
    assert_eq!(ask(at_most(0, 10), &[1], 5), Some((ReasonCode::RollingLimit, 1, None)));
}

#[test]
fn a_cap_above_what_is_kept_fails_closed() {
    let many: Vec<i64> = (0..=64).collect();
    assert_eq!(many.len(), MAX_TIMES_PER_CAMPAIGN + 1);
    // The time 0 is lost: a window that reaches it can not be counted.
    let (code, used, reopens) = ask(at_most(100, 1000), &many, 100).unwrap();
    assert_eq!((code, used, reopens), (ReasonCode::CapHistoryTruncated, 65, Some(1000)));
    assert_eq!(ask(at_most(100, 100), &many, 100), None, "(0, 100] does not reach it");
    assert_eq!(ask(at_most(64, 1000), &many, 100).unwrap().0, ReasonCode::RollingLimit, "full without it");
}

#[test]
fn a_day_before_the_kept_times_fails_closed() {
    // Campaign c was allowed once a minute over a day and more: only the last 64 times are kept.
    let many: Vec<i64> = (0..1500).map(|n| n * 60_000).collect();
    let last_day = 1499 * 60_000_i64 / DAY_MS;
    assert_eq!(last_day, 1);
    let day_1 = Some(2 * DAY_MS);
    assert_eq!(
        ask(Limit::OncePerCalendarDay, &many, DAY_MS + 5),
        Some((ReasonCode::CalendarLimit, 60, day_1))
    );
    assert_eq!(ask(Limit::OncePerCalendarDay, &many, 5).unwrap().0, ReasonCode::CalendarLimit);
    assert_eq!(
        ask(Limit::OncePerCalendarDay, &many, -5),
        Some((ReasonCode::CapHistoryTruncated, 0, day_1)),
        "nobody knows"
    );
    assert_eq!(ask(Limit::OncePerCalendarDay, &many, 2 * DAY_MS), None);
}

#[test]
fn a_full_log_refuses_limits_of_campaigns_that_it_does_not_hold() {
    let mut state = UserState::new();
    for n in 0..MAX_CAMPAIGNS {
        allow(&mut state, &format!("c{n}"), n, 0);
    }
    for limit in [Limit::OncePerEver, Limit::OncePerCalendarDay, at_most(5, 10)] {
        let refusal = check_one(&limit, state.allows().of("c"), 0).unwrap();
        assert_eq!(refusal.code, ReasonCode::CapHistoryTruncated);
        assert_eq!(refusal.limit.limit, limit.to_string());
    }
    assert_eq!(check(&[], state.allows().of("c"), 0), None);
}

#[test]
fn the_limit_that_reopens_last_is_named() {
    let limits = [at_most(1, HOUR), Limit::OncePerCalendarDay, at_most(5, HOUR)];
    let named = |times: &[i64], at_ms: i64, limits: &[Limit]| {
        let state = allowed_at(times);
        check(limits, state.allows().of("c"), at_ms).map(|refusal| refusal.limit.limit)
    };
    assert_eq!(named(&[HOUR], HOUR + 1, &limits).as_deref(), Some("once_per calendar_day"));
    let late = DAY_MS - 10;
    assert_eq!(named(&[late], late + 1, &limits).as_deref(), Some("at_most 1 per 1h"));
    let with_ever = [at_most(1, HOUR), Limit::OncePerEver, Limit::OncePerCalendarDay];
    assert_eq!(named(&[late], late + 1, &with_ever).as_deref(), Some("once_per ever"));
    assert_eq!(named(&[late], late + HOUR, &limits), None);
    assert_eq!(named(&[], 0, &limits), None);
}

#[test]
fn extreme_times_do_no_harm() {
    let extremes = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];
    for at_ms in extremes {
        for limit in [
            Limit::OncePerEver,
            Limit::OncePerCalendarDay,
            at_most(1, i64::MAX),
            at_most(2, i64::MIN),
            at_most(1, 0),
        ] {
            ask(limit, &extremes, at_ms);
        }
    }
}

/// Allows by arrival as the limits say.
fn arrivals(times: &[i64], limits: &[Limit]) -> Vec<i64> {
    let mut state = UserState::new();
    let mut allowed = Vec::new();
    for (n, at_ms) in times.iter().enumerate() {
        if check(limits, state.allows().of("c"), *at_ms).is_none() {
            allow(&mut state, "c", n, *at_ms);
            allowed.push(*at_ms);
        }
    }
    allowed
}

fn fullest_window(times: &[i64], per_ms: i64) -> usize {
    let in_window = |end: i64| times.iter().filter(|at| **at > end - per_ms && **at <= end).count();
    times.iter().map(|end| in_window(*end)).max().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_order_of_arrival_breaks_the_cap(
        times in proptest::collection::vec(0_i64..300, 1..120),
        n in 1_u32..6,
        per_ms in 1_i64..60,
    ) {
        let allowed = arrivals(&times, &[at_most(n, per_ms)]);
        prop_assert!(fullest_window(&allowed, per_ms) <= n as usize);
        prop_assert!(!allowed.is_empty());
    }

    #[test]
    fn no_order_of_arrival_breaks_the_cap_when_the_log_overflows(
        times in proptest::collection::vec(0_i64..3_000, 100..300),
        n in prop_oneof![1_u32..6, 60_u32..90],
        per_ms in 1_i64..2_000,
    ) {
        let allowed = arrivals(&times, &[at_most(n, per_ms)]);
        prop_assert!(fullest_window(&allowed, per_ms) <= n as usize);
    }

    /// Every permutation of a few arrivals, not a sample of them.
    #[test]
    fn no_permutation_breaks_the_cap(
        times in proptest::collection::vec(0_i64..20, 5),
        n in 1_u32..4,
        per_ms in 1_i64..12,
    ) {
        for order in permutations(&times) {
            let allowed = arrivals(&order, &[at_most(n, per_ms)]);
            prop_assert!(fullest_window(&allowed, per_ms) <= n as usize, "{:?}", order);
        }
    }

    /// In order: allowed exactly when fewer than N lie in (t - D, t].
    #[test]
    fn in_order_the_rule_is_the_simple_one(
        mut times in proptest::collection::vec(0_i64..500, 0..150),
        n in 1_u32..10,
        per_ms in 1_i64..100,
    ) {
        times.sort_unstable();
        let mut expected: Vec<i64> = Vec::new();
        for at in &times {
            if expected.iter().filter(|before| **before > at - per_ms).count() < n as usize {
                expected.push(*at);
            }
        }
        prop_assert_eq!(arrivals(&times, &[at_most(n, per_ms)]), expected);
    }

    /// A refusal is needed (one more would break the cap), and what it says about reopening is true: at that time it
    /// is allowed, and at no known time before.
    #[test]
    fn a_refusal_is_needed_and_reopens_when_it_says(
        times in proptest::collection::vec(0_i64..100, 1..40),
        n in 1_u32..5,
        per_ms in 1_i64..40,
        at_ms in 0_i64..100,
    ) {
        let limit = at_most(n, per_ms);
        let allowed = arrivals(&times, &[limit]);
        let state = allowed_at(&allowed);
        let fits = |at: i64| {
            let mut with = allowed.clone();
            with.push(at);
            fullest_window(&with, per_ms) <= n as usize
        };
        match check_one(&limit, state.allows().of("c"), at_ms) {
            None => prop_assert!(fits(at_ms)),
            Some(refusal) => {
                prop_assert!(!fits(at_ms));
                let reopens = refusal.limit.reopens_at_ms.unwrap();
                prop_assert!(fits(reopens));
                prop_assert!((at_ms..reopens).all(|earlier| !fits(earlier)));
            }
        }
    }

    #[test]
    fn no_order_of_arrival_gives_a_day_two(times in proptest::collection::vec(0_i64..20, 1..60)) {
        let times: Vec<i64> = times.iter().map(|sixth| sixth * DAY_MS / 6).collect();
        let allowed = arrivals(&times, &[Limit::OncePerCalendarDay]);
        let mut days: Vec<i64> = allowed.iter().map(|at| at / DAY_MS).collect();
        days.sort_unstable();
        let mut expected: Vec<i64> = times.iter().map(|at| at / DAY_MS).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(days, expected, "each day once");
    }
}

fn permutations(times: &[i64]) -> Vec<Vec<i64>> {
    if times.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for n in 0..times.len() {
        let mut rest = times.to_vec();
        let first = rest.remove(n);
        for mut tail in permutations(&rest) {
            tail.insert(0, first);
            all.push(tail);
        }
    }
    all
}
