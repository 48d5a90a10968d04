//! What every store must do, whatever it is made of.
//!
//! Each case is an async function over the traits. `for_each_case!` hands their names to a macro of the including
//! binary, so no binary can forget one. Cases share a store and nothing in it: every key begins with a fresh id.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use campaignd::decision::{ActionKind, DecidedAction, Decision, LimitReason, Outcome, Reason, ReasonCode};
use campaignd::event::Value;
use campaignd::store::{AuditQuery, AuditRow, AuditStore, Cell, FenceRow, StateStore, StoreError};
use futures::future::join_all;
use uuid::Uuid;

/// Calls `$macro!` with the names of all cases.
macro_rules! for_each_case {
    ($macro:ident) => {
        $macro! {
            load_answers_in_the_order_asked,
            a_user_without_a_cell_is_none,
            nothing_asked_and_nothing_written_is_nothing,
            the_higher_timestamp_wins_in_any_order_of_arrival,
            the_higher_timestamp_wins_within_one_call,
            on_equal_timestamps_the_greater_bytes_win,
            a_repeated_write_changes_nothing,
            cells_may_be_empty_and_may_be_a_megabyte,
            user_ids_may_hold_any_character,
            a_user_id_that_is_no_key_is_refused,
            a_thousand_cells_in_one_call,
            a_fence_is_taken_once_and_read_back,
            a_fence_is_replaced_by_who_names_the_owner,
            an_owner_who_was_replaced_is_fenced,
            the_clock_is_ours_or_near_it,
            the_token_decides_when_fences_are_equal,
            of_many_takers_exactly_one_wins,
            fences_of_other_partitions_and_topics_are_apart,
            an_owner_may_record_positions_under_his_token,
            audit_rows_come_back_exactly_as_inserted,
            an_audit_row_inserted_again_is_one_row,
            audit_rows_come_newest_first_across_months,
            audit_filters_and_limit,
            audit_rows_of_other_users_stay_apart,
            audit_times_may_be_anything,
        }
    };
}
pub(crate) use for_each_case;

/// A name nothing else in the store has.
fn fresh(name: &str) -> String {
    format!("{name}-{}", Uuid::new_v4().simple())
}

fn cell(user_id: &str, bytes: impl Into<Vec<u8>>, timestamp_us: i64) -> Cell {
    Cell { user_id: user_id.to_owned(), bytes: Bytes::from(bytes.into()), timestamp_us }
}

async fn load_one(store: &dyn StateStore, user_id: &str) -> Option<Bytes> {
    load_all(store, &[user_id]).await.pop().unwrap()
}

async fn load_all(store: &dyn StateStore, user_ids: &[&str]) -> Vec<Option<Bytes>> {
    store.load(user_ids).await.into_iter().collect::<Result<_, _>>().unwrap()
}

/// A time base like a real fence: microseconds of today.
const FENCE_US: i64 = 1_780_000_000_000_000;

pub async fn load_answers_in_the_order_asked(store: &(impl StateStore + AuditStore)) {
    let users: Vec<String> = (0..50).map(|i| fresh(&format!("order-{i}"))).collect();
    let cells: Vec<Cell> =
        users.iter().step_by(2).map(|user| cell(user, user.as_bytes(), FENCE_US)).collect();
    store.write(&cells).await.unwrap();
    for order in [users.clone(), users.iter().rev().cloned().collect()] {
        let asked: Vec<&str> = order.iter().map(String::as_str).collect();
        let loaded = load_all(store, &asked).await;
        assert_eq!(loaded.len(), asked.len());
        for (user, found) in order.iter().zip(loaded) {
            let written = cells.iter().any(|cell| cell.user_id == *user);
            assert_eq!(found, written.then(|| Bytes::from(user.clone())), "{user}");
        }
    }
    let twice = load_all(store, &[&users[0], &users[1], &users[0]]).await;
    assert_eq!(twice, [Some(Bytes::from(users[0].clone())), None, Some(Bytes::from(users[0].clone()))]);
}

pub async fn a_user_without_a_cell_is_none(store: &(impl StateStore + AuditStore)) {
    assert_eq!(load_one(store, &fresh("nobody")).await, None);
}

pub async fn nothing_asked_and_nothing_written_is_nothing(store: &(impl StateStore + AuditStore)) {
    assert_eq!(load_all(store, &[]).await, []);
    store.write(&[]).await.unwrap();
    store.insert_audit(&[]).await.unwrap();
    assert_eq!(store.read_audit(&query(&fresh("nobody"))).await.unwrap(), []);
}

pub async fn the_higher_timestamp_wins_in_any_order_of_arrival(store: &(impl StateStore + AuditStore)) {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let user = fresh("order");
        for step in order {
            // The bytes fall while the timestamps rise, so that only the timestamp can decide.
            store.write(&[cell(&user, [9 - step as u8], FENCE_US + step)]).await.unwrap();
        }
        assert_eq!(load_one(store, &user).await.as_deref(), Some([7].as_slice()), "{order:?}");
    }
}

pub async fn the_higher_timestamp_wins_within_one_call(store: &(impl StateStore + AuditStore)) {
    let user = fresh("within");
    let cells = [cell(&user, "b", FENCE_US + 1), cell(&user, "a", FENCE_US + 2), cell(&user, "c", FENCE_US)];
    store.write(&cells).await.unwrap();
    assert_eq!(load_one(store, &user).await.as_deref(), Some(b"a".as_slice()));
}

pub async fn on_equal_timestamps_the_greater_bytes_win(store: &(impl StateStore + AuditStore)) {
    for order in [["a", "b"], ["b", "a"]] {
        let user = fresh("tie");
        for bytes in order {
            store.write(&[cell(&user, bytes, FENCE_US)]).await.unwrap();
        }
        assert_eq!(load_one(store, &user).await.as_deref(), Some(b"b".as_slice()), "{order:?}");
    }
}

pub async fn a_repeated_write_changes_nothing(store: &(impl StateStore + AuditStore)) {
    let (user, other) = (fresh("repeat"), fresh("repeat"));
    let first = [cell(&user, "first", FENCE_US), cell(&other, "other", FENCE_US)];
    store.write(&first).await.unwrap();
    store.write(&first).await.unwrap();
    store.write(&[cell(&user, "second", FENCE_US + 1)]).await.unwrap();
    store.write(&first).await.unwrap();
    assert_eq!(load_one(store, &user).await.as_deref(), Some(b"second".as_slice()));
    assert_eq!(load_one(store, &other).await.as_deref(), Some(b"other".as_slice()));
}

pub async fn cells_may_be_empty_and_may_be_a_megabyte(store: &(impl StateStore + AuditStore)) {
    let (empty, large) = (fresh("empty"), fresh("large"));
    let megabyte: Vec<u8> = (0..1_048_576_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    store.write(&[cell(&empty, "", FENCE_US), cell(&large, megabyte.clone(), FENCE_US)]).await.unwrap();
    assert_eq!(load_one(store, &empty).await.as_deref(), Some([].as_slice()));
    assert!(load_one(store, &large).await.as_deref() == Some(&megabyte), "the megabyte came back changed");
}

pub async fn user_ids_may_hold_any_character(store: &(impl StateStore + AuditStore)) {
    let tag = fresh("odd");
    let odd = [
        " ",
        "'",
        "\"",
        "\u{0}",
        "\u{0}\u{0}",
        "/",
        "..",
        "%00",
        "\n",
        "ä",
        "a\u{308}",
        "\u{1F600}",
        "\u{10FFFF}",
        "{}",
        "?",
    ];
    let users: Vec<String> =
        odd.iter().flat_map(|odd| [format!("{tag}{odd}"), format!("{odd}{tag}")]).collect();
    assert_eq!(users.iter().collect::<BTreeSet<_>>().len(), users.len());
    let cells: Vec<Cell> = users.iter().map(|user| cell(user, user.as_bytes(), FENCE_US)).collect();
    store.write(&cells).await.unwrap();
    let asked: Vec<&str> = users.iter().map(String::as_str).collect();
    for (user, found) in users.iter().zip(load_all(store, &asked).await) {
        assert_eq!(found.as_deref(), Some(user.as_bytes()), "{user:?}");
        let row = AuditRow { decision: decision(user, 1_768_472_000_000, 0) };
        store.insert_audit(std::slice::from_ref(&row)).await.unwrap();
        assert_eq!(store.read_audit(&query(user)).await.unwrap(), [row], "{user:?}");
    }
}

pub async fn a_user_id_that_is_no_key_is_refused(store: &(impl StateStore + AuditStore)) {
    for user in [String::new(), "x".repeat(70_000)] {
        let bytes = user.len();
        // The others of the call are answered all the same.
        let loaded = store.load(&[&user, "nobody at all"]).await;
        assert!(matches!(loaded[..], [Err(StoreError::Refused(_)), Ok(None)]), "load of {bytes} bytes");
        let written = store.write(&[cell(&user, "x", FENCE_US)]).await;
        assert!(matches!(written, Err(StoreError::Refused(_))), "write of {bytes} bytes: {written:?}");
    }
}

pub async fn a_thousand_cells_in_one_call(store: &(impl StateStore + AuditStore)) {
    let tag = fresh("many");
    let users: Vec<String> = (0..1_000).map(|i| format!("{tag}-{i}")).collect();
    let cells: Vec<Cell> = users.iter().map(|user| cell(user, user.repeat(8), FENCE_US)).collect();
    store.write(&cells).await.unwrap();
    let asked: Vec<&str> = users.iter().map(String::as_str).collect();
    let loaded = load_all(store, &asked).await;
    assert!(loaded.iter().zip(&cells).all(|(found, cell)| found.as_ref() == Some(&cell.bytes)));
}

fn fence(fence_us: i64) -> FenceRow {
    FenceRow {
        fence_us,
        token: Uuid::new_v4(),
        cluster_id: "cluster".to_owned(),
        partition_count: 12,
        incarnation: 0,
        committed_offset: None,
        retry_offsets: BTreeMap::new(),
    }
}

fn is_fenced(result: &Result<(), StoreError>, topic: &str, partition: i32) -> bool {
    matches!(result, Err(StoreError::Fenced { topic: t, partition: p }) if t == topic && *p == partition)
}

pub async fn a_fence_is_taken_once_and_read_back(store: &(impl StateStore + AuditStore)) {
    let topic = fresh("events");
    assert_eq!(store.read_fence(&topic, 3).await.unwrap(), None);
    let mut mine = fence(FENCE_US);
    mine.committed_offset = Some(4_711);
    mine.retry_offsets = [(1, 7), (3, 0)].into();
    mine.incarnation = 2;
    store.replace_fence(&topic, 3, None, &mine).await.unwrap();
    assert_eq!(store.read_fence(&topic, 3).await.unwrap(), Some(mine.clone()));

    let late = store.replace_fence(&topic, 3, None, &fence(FENCE_US + 1)).await;
    assert!(is_fenced(&late, &topic, 3), "{late:?}");
    store.replace_fence(&topic, 3, None, &mine).await.expect("repeating the call that won is a success");
    assert_eq!(store.read_fence(&topic, 3).await.unwrap(), Some(mine));
}

pub async fn a_fence_is_replaced_by_who_names_the_owner(store: &(impl StateStore + AuditStore)) {
    let topic = fresh("events");
    let (first, second) = (fence(FENCE_US), fence(FENCE_US + 1_000_000));
    let early = store.replace_fence(&topic, 0, Some(&first), &second).await;
    assert!(is_fenced(&early, &topic, 0), "no row stands there yet: {early:?}");
    store.replace_fence(&topic, 0, None, &first).await.unwrap();
    store.replace_fence(&topic, 0, Some(&first), &second).await.unwrap();
    store.replace_fence(&topic, 0, Some(&first), &second).await.expect("repeating it is a success");
    assert_eq!(store.read_fence(&topic, 0).await.unwrap(), Some(second));
}

pub async fn an_owner_who_was_replaced_is_fenced(store: &(impl StateStore + AuditStore)) {
    let topic = fresh("events");
    let (zombie, owner) = (fence(FENCE_US), fence(FENCE_US + 1_000_000));
    store.replace_fence(&topic, 0, None, &zombie).await.unwrap();
    store.replace_fence(&topic, 0, Some(&zombie), &owner).await.unwrap();
    let again = FenceRow { fence_us: FENCE_US + 2_000_000, ..zombie.clone() };
    let refused = store.replace_fence(&topic, 0, Some(&zombie), &again).await;
    assert!(is_fenced(&refused, &topic, 0), "{refused:?}");
    assert_eq!(store.read_fence(&topic, 0).await.unwrap(), Some(owner));
}

pub async fn the_token_decides_when_fences_are_equal(store: &(impl StateStore + AuditStore)) {
    let topic = fresh("events");
    let (owner, twin) = (fence(FENCE_US), fence(FENCE_US));
    store.replace_fence(&topic, 0, None, &owner).await.unwrap();
    let taken = store.replace_fence(&topic, 0, None, &twin).await;
    assert!(is_fenced(&taken, &topic, 0), "the same number is not the same owner: {taken:?}");
    let replaced = store.replace_fence(&topic, 0, Some(&twin), &fence(FENCE_US + 1)).await;
    assert!(is_fenced(&replaced, &topic, 0), "{replaced:?}");
    assert_eq!(store.read_fence(&topic, 0).await.unwrap(), Some(owner));
}

pub async fn of_many_takers_exactly_one_wins(store: &(impl StateStore + AuditStore)) {
    let topic = fresh("events");
    let mut standing: Option<FenceRow> = None;
    for round in 0..3 {
        // Equal numbers on purpose: only tokens tell the takers apart.
        let takers: Vec<FenceRow> = (0..8).map(|_| fence(FENCE_US + round)).collect();
        let taken =
            join_all(takers.iter().map(|taker| take_until_known(store, &topic, standing.as_ref(), taker)))
                .await;
        let winners: Vec<&FenceRow> =
            takers.iter().zip(&taken).filter_map(|(taker, won)| won.then_some(taker)).collect();
        assert_eq!(winners.len(), 1, "round {round}: {taken:?}");
        standing = store.read_fence(&topic, 0).await.unwrap();
        assert_eq!(standing.as_ref(), Some(winners[0]), "round {round}");
    }
}

/// Repeats the call as its contract allows while the store does not know; `true` when it won.
async fn take_until_known(
    store: &impl StateStore,
    topic: &str,
    expected: Option<&FenceRow>,
    next: &FenceRow,
) -> bool {
    for _ in 0..50 {
        match store.replace_fence(topic, 0, expected, next).await {
            Ok(()) => return true,
            Err(StoreError::Fenced { .. }) => return false,
            Err(StoreError::Unavailable(_)) => {}
            Err(StoreError::Refused(text)) => panic!("{text}"),
        }
    }
    panic!("the store did not answer in 50 attempts");
}

pub async fn fences_of_other_partitions_and_topics_are_apart(store: &(impl StateStore + AuditStore)) {
    let topics = [fresh("events"), fresh("events")];
    for topic in &topics {
        for partition in [0, 1, 255, 256, i32::MAX] {
            store
                .replace_fence(topic, partition, None, &fence(FENCE_US + i64::from(partition)))
                .await
                .unwrap();
        }
    }
    for topic in &topics {
        for partition in [0, 1, 255, 256, i32::MAX] {
            let row = store.read_fence(topic, partition).await.unwrap().unwrap();
            assert_eq!(row.fence_us, FENCE_US + i64::from(partition));
        }
    }
}

pub async fn an_owner_may_record_positions_under_his_token(store: &(impl StateStore + AuditStore)) {
    let topic = fresh("events");
    let mut mine = fence(FENCE_US);
    store.replace_fence(&topic, 0, None, &mine).await.unwrap();
    for offset in [10, 20] {
        let next = FenceRow { committed_offset: Some(offset), ..mine.clone() };
        store.replace_fence(&topic, 0, Some(&mine), &next).await.unwrap();
        assert_eq!(store.read_fence(&topic, 0).await.unwrap(), Some(next.clone()));
        mine = next;
    }
}

fn query(user_id: &str) -> AuditQuery {
    AuditQuery { user_id: user_id.to_owned(), limit: 1_000, ..AuditQuery::default() }
}

/// A plain allow of the user's event `number`.
fn decision(user_id: &str, occurred_at_ms: i64, number: u32) -> Decision {
    Decision {
        decision_id: Uuid::new_v5(
            &Uuid::NAMESPACE_OID,
            format!("{user_id}/{occurred_at_ms}/{number}").as_bytes(),
        ),
        event_id: format!("event-{number}"),
        user_id: user_id.to_owned(),
        campaign_id: "welcome".to_owned(),
        campaign_version: 7,
        event_type: "purchase".to_owned(),
        occurred_at_ms,
        decided_at_ms: occurred_at_ms.clamp(0, 4_000_000_000_000) + 15,
        outcome: Outcome::Allow,
        reason: Reason { code: ReasonCode::Allowed, limit: None, outranked_by: None },
        action: DecidedAction {
            kind: ActionKind::Send,
            channel: Some("email".to_owned()),
            template: Some("WELCOME".to_owned()),
            variant: None,
            recipient: None,
            params: Vec::new(),
        },
        trace_id: None,
    }
}

fn rows(decisions: impl IntoIterator<Item = Decision>) -> Vec<AuditRow> {
    decisions.into_iter().map(|decision| AuditRow { decision }).collect()
}

pub async fn audit_rows_come_back_exactly_as_inserted(store: &(impl StateStore + AuditStore)) {
    let user = fresh("exact");
    let mut full = decision(&user, 1_768_472_000_123, 1);
    full.outcome = Outcome::Suppress;
    full.reason = Reason {
        code: ReasonCode::RollingLimit,
        limit: Some(LimitReason {
            limit: "at_most 3 per 7d".to_owned(),
            used: 3,
            allowed: 3,
            reopens_at_ms: Some(1_768_999_000_456),
        }),
        outranked_by: None,
    };
    full.action = DecidedAction {
        kind: ActionKind::Alert,
        channel: None,
        template: None,
        variant: Some("b".to_owned()),
        recipient: None,
        params: vec![
            ("a".to_owned(), Value::Null),
            ("b".to_owned(), Value::Boolean(true)),
            ("c".to_owned(), Value::Long(i64::MIN)),
            ("d".to_owned(), Value::Double(29.99)),
            ("e".to_owned(), Value::Double(2.0)),
            ("f".to_owned(), Value::String("say \"hä\"\n\u{1F600}".to_owned())),
            ("g".to_owned(), Value::Strings(vec![String::new(), "x".to_owned()])),
        ],
    };
    full.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
    let mut outranked = decision(&user, 1_768_472_000_122, 2);
    outranked.outcome = Outcome::Suppress;
    outranked.reason =
        Reason { code: ReasonCode::Outranked, limit: None, outranked_by: Some("better".to_owned()) };
    let inserted = rows([full, outranked]);
    store.insert_audit(&inserted).await.unwrap();
    assert_eq!(store.read_audit(&query(&user)).await.unwrap(), inserted);
}

pub async fn an_audit_row_inserted_again_is_one_row(store: &(impl StateStore + AuditStore)) {
    let user = fresh("again");
    let inserted = rows([decision(&user, 2_000, 1), decision(&user, 1_000, 2)]);
    store.insert_audit(&inserted).await.unwrap();
    store.insert_audit(&inserted).await.unwrap();
    store.insert_audit(&inserted[1..]).await.unwrap();
    assert_eq!(store.read_audit(&query(&user)).await.unwrap(), inserted);
}

const DAY_MS: i64 = 86_400_000;
/// 2026-01-31T23:59:59.999Z.
const END_OF_JANUARY_MS: i64 = 1_769_903_999_999;

pub async fn audit_rows_come_newest_first_across_months(store: &(impl StateStore + AuditStore)) {
    let user = fresh("months");
    let times =
        (-3..=3).map(|quarter| END_OF_JANUARY_MS + quarter * 90 * DAY_MS).chain([END_OF_JANUARY_MS + 1]);
    let mut inserted = rows(times.map(|time| decision(&user, time, 0)));
    // Two decisions at one time: by decision id.
    inserted.push(AuditRow { decision: decision(&user, END_OF_JANUARY_MS, 1) });
    store.insert_audit(&inserted).await.unwrap();
    inserted.sort_by_key(|row| (-row.decision.occurred_at_ms, row.decision.decision_id));
    assert_eq!(store.read_audit(&query(&user)).await.unwrap(), inserted);
}

pub async fn audit_filters_and_limit(store: &(impl StateStore + AuditStore)) {
    let user = fresh("filters");
    // Newest first, across a month's end.
    let inserted = rows((0..40).map(|i| {
        let mut row = decision(&user, END_OF_JANUARY_MS + DAY_MS * (20 - i64::from(i)), i);
        row.campaign_id = if i % 3 == 0 { "third" } else { "other" }.to_owned();
        row.outcome = [Outcome::Allow, Outcome::Suppress, Outcome::Holdout][(i % 5 % 3) as usize];
        row
    }));
    store.insert_audit(&inserted).await.unwrap();
    let time = |i: usize| inserted[i].decision.occurred_at_ms;

    let all = query(&user);
    let queries = [
        all.clone(),
        AuditQuery { since_ms: Some(time(25)), ..all.clone() },
        AuditQuery { until_ms: Some(time(25)), ..all.clone() },
        AuditQuery { since_ms: Some(time(22)), until_ms: Some(time(18)), ..all.clone() },
        AuditQuery { since_ms: Some(time(18)), until_ms: Some(time(22)), ..all.clone() },
        AuditQuery { since_ms: Some(i64::MIN), until_ms: Some(i64::MAX), ..all.clone() },
        AuditQuery { campaign_id: Some("third".to_owned()), ..all.clone() },
        AuditQuery { outcome: Some(Outcome::Holdout), limit: 5, ..all.clone() },
        AuditQuery { campaign_id: Some("third".to_owned()), outcome: Some(Outcome::Suppress), ..all.clone() },
        AuditQuery { campaign_id: Some("nobody's".to_owned()), ..all.clone() },
        AuditQuery { limit: 0, ..all.clone() },
        AuditQuery { limit: 1, ..all.clone() },
        AuditQuery { limit: 25, ..all.clone() },
    ];
    let mut sizes = BTreeSet::new();
    for query in queries {
        let wanted: Vec<&AuditRow> = inserted
            .iter()
            .filter(|row| query.since_ms.is_none_or(|since| row.decision.occurred_at_ms >= since))
            .filter(|row| query.until_ms.is_none_or(|until| row.decision.occurred_at_ms < until))
            .filter(|row| query.campaign_id.as_ref().is_none_or(|id| row.decision.campaign_id == *id))
            .filter(|row| query.outcome.is_none_or(|outcome| row.decision.outcome == outcome))
            .take(query.limit)
            .collect();
        sizes.insert(wanted.len());
        let found = store.read_audit(&query).await.unwrap();
        let events = |rows: Vec<&AuditRow>| -> Vec<String> {
            rows.iter().map(|row| row.decision.event_id.clone()).collect()
        };
        assert_eq!(events(found.iter().collect()), events(wanted), "{query:?}");
    }
    assert!(sizes.len() > 6, "the queries tell nothing apart: {sizes:?}");
}

pub async fn audit_rows_of_other_users_stay_apart(store: &(impl StateStore + AuditStore)) {
    let user = fresh("apart");
    let users = [user.clone(), format!("{user}0"), format!("{user}\u{0}"), user[..user.len() - 1].to_owned()];
    for (number, user) in (0..).zip(&users) {
        store.insert_audit(&rows([decision(user, END_OF_JANUARY_MS, number)])).await.unwrap();
    }
    for (number, user) in (0..).zip(&users) {
        let found = store.read_audit(&query(user)).await.unwrap();
        assert_eq!(found, rows([decision(user, END_OF_JANUARY_MS, number)]));
    }
}

pub async fn audit_times_may_be_anything(store: &(impl StateStore + AuditStore)) {
    let user = fresh("times");
    // From the year 1 to the year 9999, the span that an event's time can have.
    let times = [253_402_300_799_000, 4_102_444_800_000, 1, 0, -1, -2_208_988_800_001, -62_135_596_800_000];
    let inserted = rows(times.map(|time| decision(&user, time, 0)));
    store.insert_audit(&inserted).await.unwrap();
    assert_eq!(store.read_audit(&query(&user)).await.unwrap(), inserted);
    let before_1970 = AuditQuery { until_ms: Some(0), ..query(&user) };
    assert_eq!(store.read_audit(&before_1970).await.unwrap(), inserted[4..]);
}

pub async fn the_clock_is_ours_or_near_it(store: &(impl StateStore + AuditStore)) {
    let ours_ms = jiff::Timestamp::now().as_millisecond();
    if let Some(theirs_ms) = store.clock_ms().await.unwrap() {
        assert!((theirs_ms - ours_ms).abs() < 60_000, "{theirs_ms} and {ours_ms}");
    }
}
