//! Whether the process lives and whether it is ready, and why not.
//!
//! Ready means: the campaigns are loaded, an assignment was seen, the store has a session. Alive means: nothing has
//! failed for good and the polling thread still comes round. Notes (a pause, a breaker) are shown but decide nothing:
//! a processor that waits for its store must keep its place in the group, not be restarted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

/// What must hold before the process is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The campaigns topic has been read to its end.
    Campaigns,
    /// The group has given an assignment, even an empty one.
    Assignment,
    /// The store answers.
    Store,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Campaigns, Self::Assignment, Self::Store];

    /// Name in `/readyz`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Campaigns => "campaigns",
            Self::Assignment => "assignment",
            Self::Store => "store",
        }
    }

    const fn until_then(self) -> &'static str {
        match self {
            Self::Campaigns => "the campaigns topic has not been read to its end yet",
            Self::Assignment => "the group has not given an assignment yet",
            Self::Store => "the store has no session yet",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A polling thread that has not come round for so long is stuck: a poll takes at most a second, and a rebalance at
/// most the largest `group.drain_timeout_ms`, 45 s.
const POLL_STALE: Duration = Duration::from_secs(60);

/// Health of the process; clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// Milliseconds from `started` to the last poll, plus one; 0 before the first.
    last_poll_ms: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    conditions: BTreeMap<Condition, (bool, String)>,
    notes: BTreeMap<&'static str, String>,
    failure: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Alive and not ready.
    pub fn new() -> Self {
        let conditions = Condition::ALL
            .into_iter()
            .map(|condition| (condition, (false, condition.until_then().to_string())));
        let state = State { conditions: conditions.collect(), ..State::default() };
        let shared =
            Shared { started: Instant::now(), last_poll_ms: AtomicU64::new(0), state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// A condition holds; the detail is shown.
    pub fn ready(&self, condition: Condition, detail: impl Into<String>) {
        self.state().conditions.insert(condition, (true, detail.into()));
    }

    /// A condition does not hold (any more), and why.
    pub fn not_ready(&self, condition: Condition, reason: impl Into<String>) {
        self.state().conditions.insert(condition, (false, reason.into()));
    }

    /// Shows something that decides nothing, such as why intake pauses; `None` takes it away.
    pub fn note(&self, name: &'static str, text: Option<String>) {
        let mut state = self.state();
        match text {
            Some(text) => state.notes.insert(name, text),
            None => state.notes.remove(name),
        };
    }

    /// The process cannot go on; it is neither alive nor ready from now on.
    pub fn fail(&self, reason: impl Into<String>) {
        self.state().failure.get_or_insert(reason.into());
    }

    /// The polling thread has come round. It reads the clock, so not for every record.
    pub fn polled(&self) {
        let elapsed = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.shared.last_poll_ms.store(elapsed + 1, Ordering::Relaxed);
    }

    /// Whether every condition holds and nothing has failed.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.failure.is_none() && state.conditions.values().all(|(ready, _)| *ready)
    }

    /// Why the process should be restarted; `None` while it is alive.
    pub fn dead_because(&self) -> Option<String> {
        if let Some(reason) = &self.state().failure {
            return Some(reason.clone());
        }
        let last = Duration::from_millis(self.shared.last_poll_ms.load(Ordering::Relaxed).checked_sub(1)?);
        let silent = self.shared.started.elapsed().saturating_sub(last);
        (silent > POLL_STALE).then(|| format!("the polling thread has been stuck for {} s", silent.as_secs()))
    }

    /// The body of `/readyz`.
    pub fn report(&self) -> serde_json::Value {
        let ready = self.is_ready();
        let state = self.state();
        let conditions: serde_json::Map<_, _> = state
            .conditions
            .iter()
            .map(|(condition, (ready, detail))| {
                (condition.to_string(), json!({ "ready": ready, "detail": detail }))
            })
            .collect();
        json!({ "ready": ready, "conditions": conditions, "notes": state.notes, "failure": state.failure })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_condition_holds() {
        for missing in Condition::ALL {
            let health = Health::new();
            for condition in Condition::ALL {
                if condition != missing {
                    health.ready(condition, "fine");
                }
            }
            assert!(!health.is_ready(), "ready without {missing}");
            health.ready(missing, "fine");
            assert!(health.is_ready());
            health.not_ready(missing, "gone");
            assert!(!health.is_ready());
            let report = health.report();
            assert_eq!(report["conditions"][missing.as_str()]["detail"], "gone");
            assert_eq!(report["ready"], false);
        }
    }

    #[test]
    fn a_failure_is_final_and_the_first_reason_stays() {
        let health = Health::new();
        assert_eq!(health.dead_because(), None);
        health.fail("disk full");
        health.fail("a consequence");
        Condition::ALL.into_iter().for_each(|condition| health.ready(condition, ""));
        assert!(!health.is_ready());
        assert_eq!(health.dead_because().as_deref(), Some("disk full"));
    }

    #[test]
    fn a_note_is_shown_and_decides_nothing() {
        let health = Health::new();
        Condition::ALL.into_iter().for_each(|condition| health.ready(condition, ""));
        health.note("pause", Some("the store does not answer".into()));
        assert!(health.is_ready());
        assert_eq!(health.report()["notes"]["pause"], "the store does not answer");
        health.note("pause", None);
        assert_eq!(health.report()["notes"].get("pause"), None);
    }
}
