//! Rules of the delivery protocol broken on purpose, one at a time, to prove that the simulation notices.
//!
//! Compiled to nothing without the feature `mutants`, which no released build has. A mutant is chosen per thread, because a
//! simulation is one thread. Each hook is one line where the rule is kept; what goes wrong without the rule is told in
//! `docs/simulation.md`.

macro_rules! mutants {
    ($( $(#[doc = $doc:literal])+ $name:ident, )+) => {
        /// A rule that is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant { $( $(#[doc = $doc])+ $name, )+ }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name),+];

            /// Its name: the rule, and what of it where there are several.
            pub const fn name(self) -> &'static str {
                match self { $( Mutant::$name => stringify!($name), )+ }
            }
        }
    };
}

mutants! {
    /// The transaction commits before the cells are written.
    S2,
    /// A record at or below the applied position publishes nothing.
    S3,
    /// The first replayed record of a user publishes everything that the outbox holds.
    S4,
    /// An entry goes although the batch that published it has not committed.
    S5Uncommitted,
    /// An entry goes by the committed offset alone, also when its record waits in a retry topic.
    S5Forwarded,
    /// A verdict that depends on the time is not recorded in the cell.
    S6,
    /// A state is evicted although a batch that touched it has not committed.
    S7,
    /// A replay that nothing explains is not counted.
    S8,
    /// A batch does not end at the bound of an outbox.
    S9,
    /// Records below the watermark are skipped.
    K2,
    /// Retry records are skipped.
    K3,
    /// Reading begins without the index of what waits.
    O2Index,
    /// Reading begins although the campaigns reader may be behind.
    O2Campaigns,
    /// A batch commits with the newest group metadata.
    O4,
    /// A revocation is acknowledged at once, with everything still in flight.
    O5,
    /// Records go to retry topics that are not assigned.
    O8,
    /// A fence is our clock, whatever stood before.
    F1Clock,
    /// After a lost race the fence's number is compared, not its token.
    F1Token,
    /// All batches of a fence write at one timestamp.
    F2,
    /// A rewind goes to the offsets that we believe committed.
    W1Offsets,
    /// A rewind keeps the cached states.
    W1Cache,
    /// A rewind keeps the index of what waits.
    W1Index,
    /// A failed write counts as done.
    W2,
    /// A record that is appended to a retry topic does not enter the index.
    P1,
    /// A record is tried although an earlier one of its user waits.
    P2,
    /// A record that only waits uses up an attempt.
    P3,
    /// Due times of tier 1 are not rounded.
    P4Ticks,
    /// A batch handles a user's records in the order of the topics.
    P4Order,
    /// A state that cannot be read uses up attempts.
    P5,
    /// More is deleted of a retry topic than was consumed.
    P7,
    /// A full index holds nothing back.
    P8,
    /// Events not newer than an erasure are handled.
    P9Mark,
    /// An erasure forgets what was not published yet.
    P9Outbox,
    /// Headers of ours are believed on `events` too.
    P10Headers,
    /// A retry record goes to the next partition.
    P10Partition,
}

/// Whether this rule is broken here and now.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, is};

#[cfg(feature = "mutants")]
mod chosen {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this rule is broken here and now.
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }

    /// Breaks a rule for everything that runs on this thread; `None` breaks none.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }
}
