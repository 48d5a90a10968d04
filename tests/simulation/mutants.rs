//! Rules broken on purpose, one at a time: each must be noticed.

use std::cell::Cell;
use std::fmt::Write;

use campaignd::mutant::{Mutant, choose};

use crate::run::simulate;

/// A rule and what becomes of events without it.
pub struct Broken {
    /// Its name: that of the rule, and what of it.
    pub name: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// What is done instead.
    pub instead: &'static str,
    /// What goes wrong.
    pub harm: &'static str,
    breaks: Breaks,
}

#[derive(Clone, Copy)]
enum Breaks {
    /// A hook in the pipeline.
    Pipeline(Mutant),
    /// The simulated adapter does what the rule forbids the Kafka adapter.
    Adapter(Adapter),
}

/// What the simulated adapter can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// The reader of what waits stops at the last stable offset.
    ReadsToTheStableEnd,
    /// Committed offsets are read while a transaction with offsets is open.
    ReadsUnstableOffsets,
    /// A unsettled transaction is left as it is.
    SettlesNothing,
}

thread_local! {
    static ADAPTER: Cell<Option<Adapter>> = const { Cell::new(None) };
}

/// Whether the adapter does this wrong here and now.
pub fn adapter(wrong: Adapter) -> bool {
    ADAPTER.get() == Some(wrong)
}

const fn broken(mutant: Mutant, rule: &'static str, instead: &'static str, harm: &'static str) -> Broken {
    Broken { name: mutant.name(), rule, instead, harm, breaks: Breaks::Pipeline(mutant) }
}

/// All of them.
pub const ALL: &[Broken] = &[
    broken(
        Mutant::S2,
        "S2",
        "the transaction commits before the cells are written",
        "after a crash a decision is published that no state knows: a cap is exceeded",
    ),
    broken(
        Mutant::S3,
        "S3",
        "a record at or below the applied position publishes nothing",
        "the decisions of a batch that crashed between cell and commit are lost",
    ),
    broken(Mutant::S4, "S4", "the first replayed record publishes the whole outbox", "decisions are doubled"),
    broken(
        Mutant::S5Uncommitted,
        "S5",
        "an entry goes before the batch that published it has committed",
        "a crash loses its decisions",
    ),
    broken(
        Mutant::S5Forwarded,
        "S5",
        "an entry goes by the committed offset alone, though its record waits",
        "a decision is counted and never sent",
    ),
    broken(
        Mutant::S6,
        "S6",
        "a verdict that depends on the time is not recorded",
        "read again it is valid but below the applied position: neither decided nor dead-lettered",
    ),
    broken(Mutant::S7, "S7", "a state is evicted before its write has landed", "an update is lost"),
    broken(Mutant::S8, "S8", "a replay that nothing explains is not counted", "a loss would be silent"),
    broken(Mutant::S9, "S9", "a batch does not end at the outbox bound", "a cell grows beyond its bound"),
    broken(Mutant::K2, "K2", "records below the watermark are skipped", "a cap is used and nothing is sent"),
    broken(Mutant::K3, "K3", "retry records are skipped", "the same through a retry topic"),
    broken(
        Mutant::O2Index,
        "O2",
        "reading begins without the index of what waits",
        "a user's later records overtake those that wait",
    ),
    Broken {
        name: "O2StableEnd",
        rule: "O2",
        instead: "the index is read to the last stable offset",
        harm: "a user who was parked a moment ago is missed",
        breaks: Breaks::Adapter(Adapter::ReadsToTheStableEnd),
    },
    Broken {
        name: "O2Unstable",
        rule: "O2",
        instead: "committed offsets are read while a transaction holds newer ones",
        harm: "a batch is published twice",
        breaks: Breaks::Adapter(Adapter::ReadsUnstableOffsets),
    },
    broken(
        Mutant::O2Campaigns,
        "O2",
        "reading begins although the campaigns reader is behind",
        "campaigns go back in time",
    ),
    broken(
        Mutant::O4,
        "O4",
        "a batch commits with the newest group metadata",
        "a batch of a partition that was revoked meanwhile is published twice",
    ),
    broken(
        Mutant::O5,
        "O5",
        "a revocation is acknowledged with everything still in flight",
        "batches outlive the ownership of their partition",
    ),
    broken(
        Mutant::O8,
        "O8",
        "records go to retry topics that are not assigned",
        "nobody who reads that topic knows of them",
    ),
    broken(
        Mutant::F1Clock,
        "F1",
        "a fence is our clock, whatever stood before",
        "the new owner's writes lose",
    ),
    broken(
        Mutant::F1Token,
        "F1",
        "after a lost race numbers are compared, not tokens",
        "two owners write at the same timestamps",
    ),
    broken(
        Mutant::F2,
        "F2",
        "all batches of a fence write at one timestamp",
        "the larger bytes win, not the newer state",
    ),
    broken(
        Mutant::W1Offsets,
        "W1",
        "a rewind goes to the offsets that we believe committed",
        "a batch whose commit was in flight is doubled",
    ),
    broken(
        Mutant::W1Cache,
        "W1",
        "a rewind keeps the cached states",
        "they say applied of cells that were never written",
    ),
    broken(Mutant::W1Index, "W1", "a rewind keeps the index", "a user waits for ever"),
    Broken {
        name: "W1Settle",
        rule: "W1",
        instead: "the open transaction is not settled before the offsets are read",
        harm: "it commits after them: a batch is doubled",
        breaks: Breaks::Adapter(Adapter::SettlesNothing),
    },
    broken(Mutant::W2, "W2", "a failed write counts as done", "a decision is published that no state knows"),
    broken(
        Mutant::P1,
        "P1",
        "a record that is parked does not enter the index",
        "later records of the user overtake it",
    ),
    broken(Mutant::P2, "P2", "a record is tried although an earlier one waits", "the order is lost"),
    broken(
        Mutant::P3,
        "P3",
        "a record that only waits uses up attempts",
        "a good event becomes a dead letter",
    ),
    broken(
        Mutant::P4Ticks,
        "P4",
        "due times of tier 1 are not rounded",
        "records of a busy user rotate and do not catch up",
    ),
    broken(
        Mutant::P4Order,
        "P4",
        "a batch handles a user's records in the order of the topics",
        "records rotate that could go in one pass",
    ),
    broken(Mutant::P5, "P5", "a state that cannot be read uses up attempts", "an outage makes dead letters"),
    broken(
        Mutant::P7,
        "P7",
        "more is deleted of a retry topic than was consumed",
        "records that wait are lost",
    ),
    broken(Mutant::P8, "P8", "a full index holds nothing back", "it grows without a bound"),
    broken(Mutant::P9Mark, "P9", "events not newer than an erasure are handled", "an erased user comes back"),
    broken(Mutant::P9Outbox, "P9", "an erasure forgets what was not published yet", "decisions are lost"),
    broken(
        Mutant::P10Headers,
        "P10",
        "our headers are believed on `events`",
        "a producer can forge a position",
    ),
    broken(
        Mutant::P10Partition,
        "P10",
        "a retry record goes to another partition",
        "its user has two writers",
    ),
];

/// What became of one mutant.
pub struct Verdict {
    pub broken: &'static Broken,
    /// The seed that noticed it and what it noticed; `None` when no seed did.
    pub caught: Option<(u64, String)>,
}

/// Breaks the rule of that name for the rest of the run.
pub fn set(name: &str) {
    let broken =
        ALL.iter().find(|broken| broken.name == name).unwrap_or_else(|| panic!("no mutant is called {name}"));
    match broken.breaks {
        Breaks::Pipeline(mutant) => choose(Some(mutant)),
        Breaks::Adapter(wrong) => ADAPTER.set(Some(wrong)),
    }
}

/// Breaks one rule and looks for a seed that notices.
pub fn hunt(broken: &'static Broken, seeds: u64) -> Verdict {
    set(broken.name);
    let caught = (0..seeds).find_map(|seed| {
        let outcome = std::panic::catch_unwind(|| simulate(seed, false));
        match outcome {
            Ok(outcome) => outcome.books.violations.into_iter().next().map(|violation| (seed, violation)),
            Err(_) => Some((seed, "it panics".to_owned())),
        }
    });
    choose(None);
    ADAPTER.set(None);
    Verdict { broken, caught }
}

/// The table of the documents.
pub fn table(verdicts: &[Verdict]) -> String {
    let mut text = String::from(
        "| rule | mutant | instead | what goes wrong | seeds until caught |\n|---|---|---|---|---|\n",
    );
    for Verdict { broken, caught } in verdicts {
        let seeds = caught.as_ref().map_or("not caught".to_owned(), |(seed, _)| (seed + 1).to_string());
        writeln!(
            text,
            "| {} | `{}` | {} | {} | {seeds} |",
            broken.rule, broken.name, broken.instead, broken.harm
        )
        .expect("a string takes it");
    }
    text
}
