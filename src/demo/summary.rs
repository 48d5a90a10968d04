//! What came of a demo, and whether it is what the generator knows must come of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::world::OnTopics;
use crate::decision::Outcome;
use crate::generate::GroundTruth;
use crate::telemetry::metrics::{EventResult, Snapshot};

/// The sums at the end of a demo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Records read from `events`.
    pub events_in: u64,
    /// Events with at least one decision.
    pub decided: u64,
    /// Events without one.
    pub ignored: u64,
    /// Events whose id had been seen.
    pub duplicates: u64,
    /// Records on the dead letter topic.
    pub dead_letters: u64,
    /// Dead letters by code.
    pub dead_letters_by_code: BTreeMap<String, u64>,
    /// Decisions by outcome.
    pub decisions: BTreeMap<&'static str, u64>,
    /// Rows in the audit trail.
    pub audit_rows: u64,
    /// From the first event to the last commit, milliseconds.
    pub elapsed_ms: u64,
    /// Records handled a second.
    pub events_per_second: u64,
    /// From record timestamp to commit, median, milliseconds.
    pub latency_p50_ms: f64,
    /// The same, 99th percentile.
    pub latency_p99_ms: f64,
    /// What the generator made.
    pub expected: GroundTruth,
    /// Sums that do not add up; empty when all is well.
    pub disagreements: Vec<String>,
}

impl Summary {
    pub(super) fn new(
        truth: &GroundTruth,
        snapshot: &Snapshot,
        on_topics: OnTopics,
        elapsed: Duration,
    ) -> Summary {
        let quantile = |q| (snapshot.event_latency.quantile(q).unwrap_or(0.0) * 10_000.0).round() / 10.0;
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let outcomes =
            [("allow", Outcome::Allow), ("suppress", Outcome::Suppress), ("holdout", Outcome::Holdout)];
        let mut summary = Summary {
            events_in: snapshot.events_total(),
            decided: snapshot.events(EventResult::Decided),
            ignored: snapshot.events(EventResult::Ignored),
            duplicates: snapshot.events(EventResult::Duplicate),
            dead_letters: snapshot.events(EventResult::DeadLetter),
            dead_letters_by_code: snapshot.dead_letters.clone(),
            decisions: outcomes.map(|(name, outcome)| (name, snapshot.decisions(outcome))).into(),
            audit_rows: snapshot.projected_rows,
            elapsed_ms,
            events_per_second: snapshot.events_total().saturating_mul(1_000) / elapsed_ms,
            latency_p50_ms: quantile(0.5),
            latency_p99_ms: quantile(0.99),
            expected: truth.clone(),
            disagreements: Vec::new(),
        };
        summary.disagreements = summary.compare(on_topics);
        summary
    }

    /// Every sum against what it must be.
    fn compare(&self, on_topics: OnTopics) -> Vec<String> {
        let truth = &self.expected;
        let decisions: u64 = self.decisions.values().sum();
        let sums = [
            ("records read", self.events_in, "records generated", truth.records),
            (
                "events decided or ignored",
                self.decided + self.ignored,
                "different events generated",
                truth.events,
            ),
            ("duplicates dropped", self.duplicates, "duplicates generated", truth.duplicates),
            ("dead letters", self.dead_letters, "poison generated", truth.dead_letters()),
            (
                "records on the dead letter topic",
                on_topics.dead_letters,
                "poison generated",
                truth.dead_letters(),
            ),
            ("records on decisions", on_topics.decisions, "decisions counted", decisions),
            ("audit rows", self.audit_rows, "decisions counted", decisions),
        ];
        sums.iter()
            .filter(|(_, found, _, expected)| found != expected)
            .map(|(what, found, of, expected)| format!("{what}: {found}, but {of}: {expected}"))
            .collect()
    }

    /// Whether all sums add up.
    pub fn agrees(&self) -> bool {
        self.disagreements.is_empty()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: u64| writeln!(f, "{name:<20}{value:>12}");
        row(f, "events in", self.events_in)?;
        row(f, "  decided", self.decided)?;
        row(f, "  ignored", self.ignored)?;
        row(f, "  duplicates dropped", self.duplicates)?;
        row(f, "  dead letters", self.dead_letters)?;
        row(f, "decisions", self.decisions.values().sum())?;
        for (outcome, count) in &self.decisions {
            row(f, &format!("  {outcome}"), *count)?;
        }
        row(f, "audit rows", self.audit_rows)?;
        writeln!(f, "{:<20}{:>11.1}s", "elapsed", Duration::from_millis(self.elapsed_ms).as_secs_f64())?;
        row(f, "events a second", self.events_per_second)?;
        writeln!(
            f,
            "{:<20}{:>5.1} ms and {:.1} ms",
            "latency p50, p99", self.latency_p50_ms, self.latency_p99_ms
        )?;
        if self.agrees() {
            write!(f, "The sums agree with what the generator made.")
        } else {
            write!(f, "THE SUMS DO NOT ADD UP:\n  {}", self.disagreements.join("\n  "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::ReasonCode;
    use crate::telemetry::metrics::Metrics;

    fn truth() -> GroundTruth {
        GroundTruth { records: 10, events: 7, duplicates: 3, ..GroundTruth::default() }
    }

    fn metrics() -> Metrics {
        let metrics = Metrics::new().unwrap();
        metrics.events(EventResult::Decided, 5);
        metrics.events(EventResult::Ignored, 2);
        metrics.events(EventResult::Duplicate, 3);
        metrics.decisions(Outcome::Allow, ReasonCode::Allowed, 6);
        metrics.projected_rows(6);
        metrics
    }

    #[test]
    fn sums_that_add_up_agree() {
        let on_topics = OnTopics { decisions: 6, dead_letters: 0 };
        let summary = Summary::new(&truth(), &metrics().snapshot(), on_topics, Duration::from_secs(2));
        assert!(summary.agrees(), "{:?}", summary.disagreements);
        assert_eq!(summary.events_per_second, 5);
    }

    #[test]
    fn each_sum_that_is_off_is_named() {
        let metrics = metrics();
        metrics.events(EventResult::Duplicate, 1);
        let on_topics = OnTopics { decisions: 5, dead_letters: 1 };
        let summary = Summary::new(&truth(), &metrics.snapshot(), on_topics, Duration::from_secs(2));
        let text = summary.to_string();
        assert_eq!(summary.disagreements.len(), 4, "{text}");
        assert!(text.contains("duplicates dropped: 4, but duplicates generated: 3"), "{text}");
    }
}
