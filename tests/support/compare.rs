//! Holds what came out against what the model says: nothing lost, nothing twice, nothing else, each user in order.

use std::collections::BTreeMap;
use std::fmt::Write;

use campaignd::decision::Decision;

use super::model::Expected;

/// A published decision in the model's words.
pub fn as_expected(decision: &Decision) -> Expected {
    let name = |value: serde_json::Result<serde_json::Value>| {
        value.expect("it serialises").as_str().expect("to a text").to_owned()
    };
    Expected {
        user_id: decision.user_id.clone(),
        event_id: decision.event_id.clone(),
        campaign_id: decision.campaign_id.clone(),
        outcome: name(serde_json::to_value(decision.outcome)),
        reason: name(serde_json::to_value(decision.reason.code)),
        outranked_by: decision.reason.outranked_by.clone(),
        occurred_at_ms: decision.occurred_at_ms,
        decision_id: decision.decision_id.to_string(),
    }
}

/// Compares as sets: for readers that promise no order, such as the audit table.
pub fn same_decisions(expected: &[Expected], found: &[Expected]) -> Result<(), String> {
    let mut counts: BTreeMap<&Expected, (usize, usize)> = BTreeMap::new();
    for decision in expected {
        counts.entry(decision).or_default().0 += 1;
    }
    for decision in found {
        counts.entry(decision).or_default().1 += 1;
    }
    let wrong: Vec<_> = counts.into_iter().filter(|(_, (want, got))| want != got).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let mut report = format!(
        "{} of {} expected decisions differ, {} were found:\n",
        wrong.len(),
        expected.len(),
        found.len()
    );
    for (decision, (want, got)) in wrong.iter().take(20) {
        let what = match (want, got) {
            (_, 0) => "lost",
            (0, _) => "not expected",
            _ => "more than once",
        };
        writeln!(report, "  {what} (expected {want}, found {got}): {decision:?}").expect("a string takes it");
    }
    Err(report)
}

/// Compares user by user, each user's decisions in the order in which they stand on the topic.
pub fn same_decisions_in_order(expected: &[Expected], found: &[Expected]) -> Result<(), String> {
    same_decisions(expected, found)?;
    let (expected, found) = (by_user(expected), by_user(found));
    for (user_id, expected) in expected {
        let found = found.get(user_id).map(Vec::as_slice).unwrap_or_default();
        if let Some(at) = expected.iter().zip(found).position(|(want, got)| want != got) {
            return Err(format!(
                "the decisions of user {user_id} are out of order at number {at}: expected {:?}, found {:?}",
                expected[at], found[at]
            ));
        }
    }
    Ok(())
}

fn by_user(decisions: &[Expected]) -> BTreeMap<&str, Vec<&Expected>> {
    let mut users: BTreeMap<&str, Vec<&Expected>> = BTreeMap::new();
    for decision in decisions {
        users.entry(&decision.user_id).or_default().push(decision);
    }
    users
}
