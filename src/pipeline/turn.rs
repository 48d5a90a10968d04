//! What a record's turn is, before its user's state is looked at: rules K1 to K3, P2, P5 and P9 as one function of values.

use std::collections::BTreeMap;

use super::apply::Standing;
use super::decoded::{Decoded, Verdict};
use super::failure::{BadRecord, Failure, ParkIn, Reaction, policy};
use super::log::InputTopic;
use super::outputs;
use super::parking::{Origin, Pending};
use super::settings::RetrySettings;
use crate::mutant::{Mutant, is};
use crate::position::Position;
use crate::store::StoreError;
use crate::user::CodecError;

/// Why a user's state is not at hand.
#[derive(Clone, Debug)]
pub enum Unreadable {
    /// The store does not answer for this user.
    Unavailable(StoreError),
    /// His cell does not decode.
    Corrupt(CodecError),
}

/// What is done with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A dead letter that no cell records: the verdict is a function of the record's bytes alone.
    DeadLetter(Verdict),
    /// Nobody cares for it: neither loaded nor written.
    Skip,
    /// An earlier record of the user waits until then, ms since the Unix epoch.
    Blocked(i64),
    /// It fails for a reason that time may mend.
    Park(Parking),
    /// It is handled with its user's state.
    Apply,
}

/// How a record is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parking {
    /// Stable code of the reason.
    pub code: &'static str,
    /// Bounded text.
    pub text: String,
    /// The retry topic.
    pub tier: u8,
    /// Attempts that failed by the record's own fault, this one included.
    pub attempt: u32,
    /// All attempts that failed, this one included.
    pub failures: u32,
}

/// Code of a record whose user's state cannot be read now.
pub const STATE_UNAVAILABLE: &str = "state_unavailable";

/// Says what a record's turn is.
pub fn turn(
    decoded: &Decoded,
    pending: &Pending,
    unreadable: &BTreeMap<String, Unreadable>,
    standing: &Standing,
    retry: &RetrySettings,
) -> Turn {
    if let Err(verdict) = &decoded.content
        && !verdict.recorded()
    {
        return Turn::DeadLetter(verdict.clone());
    }
    let (Some(origin), Some(user_id)) = (&decoded.origin, &decoded.user_id) else {
        return Turn::DeadLetter(Verdict::new(BadRecord::BadKey, "the record has no user"));
    };
    if can_be_skipped(decoded, origin.position, standing) {
        return Turn::Skip;
    }
    // An erasure needs nothing that waits, and what waits is dropped as not newer (rule P9).
    if let Some(due_ms) = pending.blocker(user_id, origin.position)
        && !overtakes(decoded, standing.now_ms)
        && !is(Mutant::P2)
    {
        return if outputs::can_be_parked(&decoded.record) { Turn::Blocked(due_ms) } else { too_large() };
    }
    let failure = match (unreadable.get(user_id), &decoded.content) {
        // There is nothing to keep of a cell that does not decode.
        (Some(Unreadable::Corrupt(_)), Ok(event)) if event.is_erasure() => return Turn::Apply,
        (Some(Unreadable::Corrupt(error)), _) => {
            Some((Failure::Bad(BadRecord::StateCorrupt), BadRecord::StateCorrupt.code(), error.to_string()))
        }
        (Some(Unreadable::Unavailable(error)), _) => {
            Some((Failure::UnreadableState(error), STATE_UNAVAILABLE, error.to_string()))
        }
        (None, Err(verdict)) => Some((Failure::Bad(verdict.bad), verdict.bad.code(), verdict.text.clone())),
        (None, Ok(_)) => None,
    };
    let Some((failure, code, text)) = failure else { return Turn::Apply };
    match policy(&failure) {
        Reaction::Park { tier, runs_out } => {
            park(decoded, origin, code, text, tier, runs_out, standing, retry).unwrap_or(Turn::Apply)
        }
        _ => Turn::Apply,
    }
}

/// Whether the record need not wait for those before it. An erasure ahead of our clock waits: it may end as a dead letter
/// for its time, which moves the applied position, and what waits before it must not be passed by that.
fn overtakes(decoded: &Decoded, now_ms: i64) -> bool {
    decoded.content.as_ref().is_ok_and(|event| event.is_erasure() && event.occurred_at_ms <= now_ms)
}

/// `None` when the attempts have run out: the record is a recorded dead letter then.
#[allow(clippy::too_many_arguments)] // the parts of one decision, none of which means anything without the others
fn park(
    decoded: &Decoded,
    origin: &Origin,
    code: &'static str,
    text: String,
    tier: ParkIn,
    runs_out: bool,
    standing: &Standing,
    retry: &RetrySettings,
) -> Option<Turn> {
    if !outputs::can_be_parked(&decoded.record) {
        return Some(too_large());
    }
    // Only in the place of waiting once more, so in order: what can be handled is handled.
    let user_id = decoded.user_id.as_deref().unwrap_or_default();
    if decoded.is_retry() && standing.campaigns.is_released(user_id, origin.timestamp_ms) {
        let text = format!("an operator let it go; it waited because of {code}: {text}");
        return Some(Turn::DeadLetter(Verdict::new(BadRecord::Released, text)));
    }
    let runs_out = runs_out || is(Mutant::P5);
    let attempt = origin.attempt.saturating_add(u32::from(runs_out));
    if runs_out && attempt >= retry.max_attempts {
        return None;
    }
    let failures = origin.failures.saturating_add(1);
    let tier = match tier {
        ParkIn::TierOfAttempt => standing.tiers.of_attempt(failures),
        ParkIn::LastTier => standing.tiers.last(),
    };
    Some(Turn::Park(Parking { code, text, tier, attempt, failures }))
}

/// Rule K1, with K2 and K3: a record of `events` at or above the partition's watermark that can change nothing.
fn can_be_skipped(decoded: &Decoded, position: Position, standing: &Standing) -> bool {
    let Ok(event) = &decoded.content else { return false };
    let watermark = standing.watermarks.get(&position.partition);
    let may_be = match decoded.record.topic {
        InputTopic::Events => watermark.is_some_and(|mark| position.offset >= *mark) || is(Mutant::K2),
        InputTopic::Retry(_) => is(Mutant::K3),
    };
    may_be && !standing.campaigns.is_of_interest(event)
}

fn too_large() -> Turn {
    Turn::DeadLetter(Verdict::new(BadRecord::TooLarge, "the record is too large to wait in a retry topic"))
}
