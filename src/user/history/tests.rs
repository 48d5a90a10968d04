use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400_000;

fn rule(for_ms: i64, at_most: u32) -> Rule<'static> {
    Rule { for_ms, at_most, properties: &[] }
}

/// A history of `purchase` at the times given, in this order, under one rule and without lateness.
fn purchases(times: &[i64], rule: Rule<'static>) -> History {
    let mut history = History::default();
    let mut newest = i64::MIN;
    for at in times {
        newest = newest.max(*at);
        history.record("purchase", *at, newest, 0, &Properties::new(), |_| Some(rule));
    }
    history
}

fn ask(history: &History, function: HistoryFunction, window: Window, at_ms: i64) -> HistoryAnswer {
    history.answer(&HistoryQuery { event_type: "purchase".to_owned(), function, window }, at_ms)
}

fn exists(history: &History, window: Window, at_ms: i64) -> HistoryAnswer {
    ask(history, HistoryFunction::Exists, window, at_ms)
}

fn count(history: &History, window: Window, at_ms: i64) -> HistoryAnswer {
    ask(history, HistoryFunction::Count, window, at_ms)
}

fn since(history: &History, window: Window, at_ms: i64) -> HistoryAnswer {
    ask(history, HistoryFunction::Since, window, at_ms)
}

const TRUNCATED: HistoryAnswer = HistoryAnswer::Unknown(Unknown::HistoryTruncated);
const NONE: HistoryAnswer = HistoryAnswer::Unknown(Unknown::MissingField);

#[test]
fn nothing_happened() {
    let history = History::default();
    for window in [Window::Lifetime, Window::LastMs(DAY)] {
        assert_eq!(exists(&history, window, 0), HistoryAnswer::Exists(false));
        assert_eq!(count(&history, window, 0), HistoryAnswer::Count(0));
        assert_eq!(since(&history, window, 0), NONE);
    }
    assert!(history.of_type("purchase").is_none());
}

#[test]
fn windows_are_half_open() {
    let history = purchases(&[1000], rule(DAY, 256));
    // (t - D, t]: exactly D old is out, at t itself is in.
    assert_eq!(count(&history, Window::LastMs(500), 1499), HistoryAnswer::Count(1));
    assert_eq!(count(&history, Window::LastMs(500), 1500), HistoryAnswer::Count(0));
    assert_eq!(exists(&history, Window::LastMs(500), 1500), HistoryAnswer::Exists(false));
    assert_eq!(since(&history, Window::LastMs(500), 1500), NONE);
    assert_eq!(since(&history, Window::LastMs(500), 1499), HistoryAnswer::SinceMs(499));
    assert_eq!(count(&history, Window::LastMs(500), 1000), HistoryAnswer::Count(1));
}

#[test]
fn what_happens_later_does_not_exist_for_a_late_event() {
    let history = purchases(&[1000, 2000, 3000], rule(DAY, 256));
    assert_eq!(count(&history, Window::LastMs(DAY), 2500), HistoryAnswer::Count(2));
    assert_eq!(exists(&history, Window::LastMs(DAY), 999), HistoryAnswer::Exists(false));
    assert_eq!(count(&history, Window::LastMs(DAY), 999), HistoryAnswer::Count(0));
    assert_eq!(since(&history, Window::Lifetime, 2500), HistoryAnswer::SinceMs(500));
    assert_eq!(since(&history, Window::Lifetime, 999), NONE);
}

#[test]
fn lifetime_holds_everything_recorded_also_for_a_late_event() {
    let history = purchases(&[1000, 2000, 3000], rule(DAY, 2));
    for at_ms in [0, 999, 2500, 9999] {
        assert_eq!(exists(&history, Window::Lifetime, at_ms), HistoryAnswer::Exists(true));
        assert_eq!(count(&history, Window::Lifetime, at_ms), HistoryAnswer::Count(3));
    }
}

#[test]
fn an_empty_or_negative_window_holds_nothing() {
    let history = purchases(&[1000], rule(DAY, 256));
    for length in [0, -5, i64::MIN] {
        assert_eq!(count(&history, Window::LastMs(length), 1000), HistoryAnswer::Count(0));
        assert_eq!(exists(&history, Window::LastMs(length), 1000), HistoryAnswer::Exists(false));
        assert_eq!(since(&history, Window::LastMs(length), 1000), NONE);
    }
}

#[test]
fn the_number_kept_is_bounded_and_lifetime_stays_exact() {
    let history = purchases(&[10, 20, 30, 40, 50], rule(DAY, 3));
    let kept: Vec<i64> = history.of_type("purchase").unwrap().kept().map(|past| past.at_ms()).collect();
    assert_eq!(kept, [30, 40, 50]);
    let purchase = history.of_type("purchase").unwrap();
    assert_eq!((purchase.lifetime_count(), purchase.first_ms(), purchase.last_ms()), (5, 10, 50));
    assert_eq!(count(&history, Window::Lifetime, 100), HistoryAnswer::Count(5));
    assert_eq!(exists(&history, Window::Lifetime, 100), HistoryAnswer::Exists(true));

    // (20, 60]: 20 is the newest that was dropped, so nothing that was dropped lies inside.
    assert_eq!(count(&history, Window::LastMs(40), 60), HistoryAnswer::Count(3));
    // (19, 60]: at least one that was dropped lies inside, and one lies before.
    assert_eq!(count(&history, Window::LastMs(41), 60), TRUNCATED);
    assert_eq!(exists(&history, Window::LastMs(41), 60), HistoryAnswer::Exists(true));
    assert_eq!(since(&history, Window::LastMs(41), 60), HistoryAnswer::SinceMs(10));
    // (9, 60]: all there ever was lies inside.
    assert_eq!(count(&history, Window::LastMs(51), 60), HistoryAnswer::Count(5));
}

#[test]
fn as_of_a_time_before_the_oldest_kept_only_what_is_certain_is_answered() {
    let history = purchases(&[10, 20, 30, 40, 50, 60], rule(DAY, 2));
    // As of 35: dropped are 10, 20, 30 and 40, of which only the newest, 40, and the first, 10, are known.
    assert_eq!(count(&history, Window::LastMs(10), 35), TRUNCATED);
    assert_eq!(since(&history, Window::Lifetime, 35), TRUNCATED);
    assert_eq!(exists(&history, Window::LastMs(10), 35), TRUNCATED);
    assert_eq!(exists(&history, Window::LastMs(30), 35), HistoryAnswer::Exists(true), "the first is inside");
    // As of 45 the newest dropped one is the latest.
    assert_eq!(since(&history, Window::Lifetime, 45), HistoryAnswer::SinceMs(5));
    assert_eq!(
        count(&history, Window::LastMs(45), 45),
        HistoryAnswer::Count(4),
        "all but the kept 50 and 60"
    );
    assert_eq!(exists(&history, Window::LastMs(6), 45), HistoryAnswer::Exists(true));
    assert_eq!(exists(&history, Window::LastMs(5), 45), HistoryAnswer::Exists(false));
}

#[test]
fn age_bounds_what_is_kept_and_answers_say_so() {
    let history = purchases(&[0, DAY, 10 * DAY], rule(5 * DAY, 256));
    assert_eq!(history.of_type("purchase").unwrap().kept().count(), 1);
    assert_eq!(count(&history, Window::LastMs(5 * DAY), 10 * DAY), HistoryAnswer::Count(1));
    assert_eq!(count(&history, Window::Lifetime, 10 * DAY), HistoryAnswer::Count(3));
    assert_eq!(count(&history, Window::LastMs(9 * DAY + 1), 10 * DAY), TRUNCATED);
    assert_eq!(since(&history, Window::Lifetime, 9 * DAY), HistoryAnswer::SinceMs(8 * DAY));
}

#[test]
fn other_types_grow_old_too() {
    let mut history = purchases(&[0], rule(DAY, 256));
    history.record("view", 3 * DAY, 3 * DAY, 0, &Properties::new(), |_| Some(rule(DAY, 256)));
    assert_eq!(history.of_type("purchase").unwrap().kept().count(), 0);
    assert_eq!(history.of_type("purchase").unwrap().lifetime_count(), 1);
    assert_eq!(history.types().map(|(name, _)| name).collect::<Vec<_>>(), ["purchase", "view"]);
}

#[test]
fn lateness_is_kept_on_top_so_that_a_late_event_finds_its_window() {
    let mut history = History::default();
    let remember = |_: &str| Some(rule(DAY, 256));
    let hour = DAY / 24;
    history.record("purchase", 0, 0, hour, &Properties::new(), remember);
    history.record("view", DAY + hour / 2, DAY + hour / 2, hour, &Properties::new(), remember);
    // A late event at DAY - 1 asks for its last day: (-1, DAY - 1].
    assert_eq!(count(&history, Window::LastMs(DAY), DAY - 1), HistoryAnswer::Count(1));
    assert_eq!(history.of_type("purchase").unwrap().kept().count(), 1);
}

#[test]
fn an_arrival_older_than_what_was_dropped_is_counted_only() {
    let mut history = purchases(&[10, 20, 30], rule(DAY, 2));
    // More room now; 5 is older than the dropped 10 and must not be kept beside the gap.
    history.record("purchase", 5, 30, 0, &Properties::new(), |_| Some(rule(DAY, 10)));
    let kept: Vec<i64> = history.of_type("purchase").unwrap().kept().map(|past| past.at_ms()).collect();
    assert_eq!(kept, [20, 30]);
    assert_eq!(count(&history, Window::Lifetime, 30), HistoryAnswer::Count(4));
    assert_eq!(history.of_type("purchase").unwrap().first_ms(), 5);
}

#[test]
fn the_catalogs_properties_are_kept() {
    let wanted: Vec<String> = ["sku", "amount", "absent", "huge", "nothing"].map(str::to_owned).to_vec();
    let properties: Properties = [
        ("sku".to_owned(), Value::String("A1".to_owned())),
        ("amount".to_owned(), Value::Double(9.5)),
        ("other".to_owned(), Value::Long(1)),
        ("huge".to_owned(), Value::String("x".repeat(MAX_KEPT_VALUE_BYTES + 1))),
        ("nothing".to_owned(), Value::Null),
    ]
    .into();
    let mut history = History::default();
    let rule = Rule { for_ms: DAY, at_most: 5, properties: &wanted };
    history.record("purchase", 1, 1, 0, &properties, |_| Some(rule));
    let past = history.of_type("purchase").unwrap().kept().next().unwrap();
    assert_eq!(past.property("sku"), Some(&Value::String("A1".to_owned())));
    assert_eq!(past.property("amount"), Some(&Value::Double(9.5)));
    for name in ["other", "absent", "huge", "nothing"] {
        assert_eq!(past.property(name), None, "{name}");
    }
}

#[test]
fn property_names_that_nobody_uses_any_more_make_room() {
    let mut history = History::default();
    for n in 0..200_i64 {
        // Two names an occurrence, one of them new each time, in changing catalogs; three occurrences are kept.
        let wanted = [format!("p{n}"), "sku".to_owned()];
        let properties: Properties =
            [(format!("p{n}"), Value::Long(n)), ("sku".to_owned(), Value::Long(-n))].into();
        let rule = Rule { for_ms: DAY, at_most: 3, properties: &wanted };
        history.record("purchase", n, n, 0, &properties, |_| Some(rule));
        let purchase = history.of_type("purchase").unwrap();
        assert!(purchase.names.len() <= MAX_NAMES);
        for past in purchase.kept() {
            let at = past.at_ms();
            assert_eq!(past.property(&format!("p{at}")), Some(&Value::Long(at)));
            assert_eq!(past.property("sku"), Some(&Value::Long(-at)));
        }
    }
}

#[test]
fn names_in_use_are_never_given_up() {
    let mut history = History::default();
    for n in 0..100_i64 {
        let wanted = [format!("p{n}")];
        let properties: Properties = [(format!("p{n}"), Value::Long(n))].into();
        let rule = Rule { for_ms: DAY, at_most: 100, properties: &wanted };
        history.record("purchase", n, n, 0, &properties, |_| Some(rule));
    }
    let purchase = history.of_type("purchase").unwrap();
    let found = purchase.kept().filter(|past| past.property(&format!("p{}", past.at_ms())).is_some()).count();
    assert_eq!(found, MAX_NAMES, "the first ones keep theirs, the later ones count as missing");
}

#[test]
fn types_are_bounded_and_unlisted_ones_make_room() {
    let mut history = History::default();
    let all = |_: &str| Some(rule(DAY, 1));
    for n in 0..MAX_TYPES {
        history.record(&format!("t{n}"), n.try_into().unwrap(), 1000, 0, &Properties::new(), all);
    }
    history.record("purchase", 2000, 2000, 0, &Properties::new(), all);
    assert_eq!(history.types.len(), MAX_TYPES);
    assert_eq!(count(&history, Window::Lifetime, 3000), TRUNCATED, "nobody knows");

    let without = |name: &str| (name != "t7" && name != "t9").then(|| rule(DAY, 1));
    history.record("purchase", 2001, 2001, 0, &Properties::new(), without);
    assert_eq!(history.types.len(), MAX_TYPES);
    assert!(history.of_type("t7").is_none());
    assert!(history.of_type("t9").is_some());
    assert_eq!(count(&history, Window::LastMs(10), 3000), HistoryAnswer::Count(0));
}

#[test]
fn a_type_that_is_not_remembered_leaves_nothing() {
    let mut history = History::default();
    history.record("view", 1, 1, 0, &Properties::new(), |_| None);
    assert_eq!(history, History::default());
}

#[test]
fn bytes_follow_what_is_kept() {
    let wanted = ["sku".to_owned()];
    let rule = Rule { for_ms: DAY, at_most: 4, properties: &wanted };
    let properties: Properties = [("sku".to_owned(), Value::String("x".repeat(100)))].into();
    let mut history = History::default();
    for n in 0..50 {
        history.record("purchase", n, n, 0, &properties, |_| Some(rule));
    }
    let purchase = history.of_type("purchase").unwrap();
    let fresh: usize = purchase.kept.iter().map(Occurrence::bytes).sum();
    assert_eq!(purchase.bytes, fresh);
    assert!((400..2_000).contains(&history.approximate_bytes()));
}

proptest! {
    /// Against all occurrences ever: an answer is right or UNKNOWN; and it is not UNKNOWN when nothing was dropped
    /// inside the window.
    #[test]
    fn answers_are_never_wrong(
        times in proptest::collection::vec(0_i64..60, 0..40),
        at_most in 0_u32..8,
        for_ms in 1_i64..80,
        raised in proptest::option::of((0_usize..40, 0_u32..12)),
        at_ms in -5_i64..70,
        length in -1_i64..70,
        lifetime in any::<bool>(),
    ) {
        let mut history = History::default();
        let mut newest = i64::MIN;
        for (n, at) in times.iter().enumerate() {
            newest = newest.max(*at);
            let at_most = match raised { Some((from, other)) if n >= from => other, _ => at_most };
            history.record("purchase", *at, newest, 0, &Properties::new(), |_| Some(rule(for_ms, at_most)));
        }
        let window = if lifetime { Window::Lifetime } else { Window::LastMs(length) };
        let inside: Vec<i64> = times
            .iter()
            .copied()
            .filter(|at| *at <= at_ms && (lifetime || *at > at_ms - length.max(0)))
            .collect();

        // Lifetime exists and count are about everything recorded.
        let counted = if lifetime { times.len() } else { inside.len() };
        match exists(&history, window, at_ms) {
            HistoryAnswer::Exists(answer) => prop_assert_eq!(answer, counted > 0),
            answer => prop_assert_eq!(answer, TRUNCATED),
        }
        match count(&history, window, at_ms) {
            HistoryAnswer::Count(answer) => prop_assert_eq!(answer, counted as u64),
            answer => prop_assert_eq!(answer, TRUNCATED),
        }
        match since(&history, window, at_ms) {
            HistoryAnswer::SinceMs(answer) => prop_assert_eq!(Some(at_ms - answer), inside.iter().copied().max()),
            NONE => prop_assert!(inside.is_empty()),
            answer => prop_assert_eq!(answer, TRUNCATED),
        }

        let dropped = history.of_type("purchase").and_then(|history| history.dropped_ms);
        let certain = match (window, dropped) {
            (_, None) => true,
            (Window::Lifetime, Some(dropped)) => dropped <= at_ms,
            (Window::LastMs(length), Some(dropped)) => dropped <= at_ms - length.max(0),
        };
        if certain {
            prop_assert_ne!(exists(&history, window, at_ms), TRUNCATED);
            prop_assert_ne!(count(&history, window, at_ms), TRUNCATED);
            prop_assert_ne!(since(&history, window, at_ms), TRUNCATED);
        }
        if let Some(history) = history.of_type("purchase") {
            prop_assert!(history.kept.iter().all(|kept| history.dropped_ms.is_none_or(|d| d <= kept.at_ms)));
        }
    }

    #[test]
    fn extreme_times_do_no_harm(
        times in proptest::collection::vec(prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()], 0..20),
        for_ms in any::<i64>(),
        lateness in any::<i64>(),
        at_ms in prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()],
        length in any::<i64>(),
    ) {
        let mut history = History::default();
        for at in &times {
            history.record("purchase", *at, *at, lateness, &Properties::new(), |_| Some(rule(for_ms, 3)));
        }
        for window in [Window::LastMs(length), Window::Lifetime] {
            exists(&history, window, at_ms);
            count(&history, window, at_ms);
            since(&history, window, at_ms);
        }
    }
}
