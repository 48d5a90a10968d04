//! The three kinds of failure, and the one place that says what happens on each.
//!
//! They are three types and never mix: [`BadRecord`] is the record's own fault, [`Infrastructure`] is nobody's the
//! record knows of. The third, backpressure, is no value at all: the log asks how much is wanted and waits.
//! [`policy`] is section 6 of the design as a match.

use crate::store::StoreError;

/// What is wrong with a record; the code is stable and goes into the dead letter's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BadRecord {
    /// No key, or one that is not UTF-8 or too long for a user id.
    BadKey,
    /// The record stands on another partition than its key's.
    WrongPartition,
    /// Larger than `pipeline.max_record_bytes`.
    TooLarge,
    /// It stands on a retry topic, but not because we put it there: a header of ours is missing or wrong.
    BadRetryRecord,
    /// It waited, and an operator let it go.
    Released,
    /// No Confluent framing.
    BadFraming,
    /// The registry knows no schema of this id.
    UnknownSchema,
    /// The schema itself cannot be used.
    BadSchema,
    /// The body does not decode.
    BadAvro,
    /// The key is not the event's user id.
    WrongKey,
    /// Too many or too large ids, properties or values.
    LimitsExceeded,
    /// Too far ahead of now.
    FutureEvent,
    /// The user's cell does not decode.
    StateCorrupt,
    /// More decisions than one event may have, or larger ones together than an outbox holds.
    TooManyDecisions,
    /// Deciding panicked: a bug of ours, reported with the event kept.
    DecidePanicked,
}

impl BadRecord {
    /// All of them.
    pub const ALL: [BadRecord; 15] = [
        BadRecord::BadKey,
        BadRecord::WrongPartition,
        BadRecord::TooLarge,
        BadRecord::BadRetryRecord,
        BadRecord::Released,
        BadRecord::BadFraming,
        BadRecord::UnknownSchema,
        BadRecord::BadSchema,
        BadRecord::BadAvro,
        BadRecord::WrongKey,
        BadRecord::LimitsExceeded,
        BadRecord::FutureEvent,
        BadRecord::StateCorrupt,
        BadRecord::TooManyDecisions,
        BadRecord::DecidePanicked,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            BadRecord::BadKey => "bad_key",
            BadRecord::WrongPartition => "wrong_partition",
            BadRecord::TooLarge => "too_large",
            BadRecord::BadRetryRecord => "bad_retry_record",
            BadRecord::Released => "released",
            BadRecord::BadFraming => "bad_framing",
            BadRecord::UnknownSchema => "unknown_schema",
            BadRecord::BadSchema => "bad_schema",
            BadRecord::BadAvro => "bad_avro",
            BadRecord::WrongKey => "wrong_key",
            BadRecord::LimitsExceeded => "limits_exceeded",
            BadRecord::FutureEvent => "future_event",
            BadRecord::StateCorrupt => "state_corrupt",
            BadRecord::TooManyDecisions => "too_many_decisions",
            BadRecord::DecidePanicked => "decide_panicked",
        }
    }
}

/// What is wrong around the records.
#[derive(Clone, Copy, Debug)]
pub enum Infrastructure<'a> {
    /// A read or write of the store failed.
    Store(&'a StoreError),
    /// The schema registry does not answer, or answers that it cannot or will not.
    RegistryUnavailable,
}

/// A failure of either kind.
#[derive(Clone, Copy, Debug)]
pub enum Failure<'a> {
    /// The record's own fault.
    Bad(BadRecord),
    /// This user's state cannot be read, though the store answers others.
    UnreadableState(&'a StoreError),
    /// Not the record's fault.
    Infrastructure(Infrastructure<'a>),
}

/// What happens on a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Dead letter. `recorded`: a second reading could judge otherwise, so the verdict is an output like any other: it
    /// moves the applied position and lies in the outbox (rule S6).
    DeadLetter {
        /// Whether the verdict goes through the user's cell.
        recorded: bool,
    },
    /// The user waits in the retry topics, and his later records behind this one.
    Park {
        /// In which of them.
        tier: ParkIn,
        /// Whether attempts run out; then the record is a recorded dead letter (rule P5).
        runs_out: bool,
    },
    /// Wait behind the breaker and try the same again; polling goes on, nothing is parked or dead-lettered.
    Wait,
    /// Somebody else owns the partition: stop writing for it.
    GiveUpPartition,
    /// Stop the process with the error: an operator must act.
    Stop,
}

/// Which retry topic a failed record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkIn {
    /// That of its attempt: the more failed, the longer the delay.
    TierOfAttempt,
    /// The last one: only an operator mends it.
    LastTier,
}

/// Section 6 of the design.
pub fn policy(failure: &Failure<'_>) -> Reaction {
    match failure {
        // Pure functions of the record's bytes: any reading judges the same. A wrong partition is among them because
        // the cell of its user has its writer elsewhere; a released one, because its user's cell may not be readable.
        Failure::Bad(
            BadRecord::BadKey
            | BadRecord::WrongPartition
            | BadRecord::BadRetryRecord
            | BadRecord::Released
            | BadRecord::BadFraming,
        ) => Reaction::DeadLetter { recorded: false },
        // The registry may learn of it: a producer may be ahead of its replication.
        Failure::Bad(BadRecord::UnknownSchema) => {
            Reaction::Park { tier: ParkIn::TierOfAttempt, runs_out: true }
        }
        // Store and key failures are nothing that a record could run out of attempts for.
        Failure::UnreadableState(StoreError::Unavailable(_) | StoreError::Fenced { .. }) => {
            Reaction::Park { tier: ParkIn::TierOfAttempt, runs_out: false }
        }
        Failure::UnreadableState(StoreError::Refused(_)) => Reaction::Stop,
        Failure::Bad(BadRecord::StateCorrupt) => Reaction::Park { tier: ParkIn::LastTier, runs_out: false },
        // These depend on the registry, the configuration, the campaigns or the time.
        Failure::Bad(
            BadRecord::TooLarge
            | BadRecord::BadSchema
            | BadRecord::BadAvro
            | BadRecord::WrongKey
            | BadRecord::LimitsExceeded
            | BadRecord::FutureEvent
            | BadRecord::TooManyDecisions
            | BadRecord::DecidePanicked,
        ) => Reaction::DeadLetter { recorded: true },
        Failure::Infrastructure(Infrastructure::RegistryUnavailable) => Reaction::Wait,
        Failure::Infrastructure(Infrastructure::Store(StoreError::Unavailable(_))) => Reaction::Wait,
        Failure::Infrastructure(Infrastructure::Store(StoreError::Fenced { .. })) => {
            Reaction::GiveUpPartition
        }
        Failure::Infrastructure(Infrastructure::Store(StoreError::Refused(_))) => Reaction::Stop,
    }
}
