//! What one record does to its user's state, and what it publishes: rules S3 to S8 and S10.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::decided::Slice;
use super::decoded::{Decoded, Verdict, judge_time};
use super::failure::BadRecord;
use super::log::Input;
use super::outputs::{self, Why};
use super::ownership::Ownership;
use super::parking::Tiers;
use super::settings::Settings;
use crate::campaign::set::CampaignSet;
use crate::decision::{Decision, Outcome, ReasonCode, decide};
use crate::event::Event;
use crate::mutant::{Mutant, is};
use crate::position::Position;
use crate::schema::OutputCodec;
use crate::user::UserState;
use crate::user::outbox::Output;

/// Everything that stands still while a slice is decided.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Number of the batch.
    pub batch: u64,
    /// Ends with the epoch.
    pub epoch: CancellationToken,
    /// The campaigns that the whole batch is decided with.
    pub campaigns: Arc<CampaignSet>,
    /// Time of the decisions, ms since the Unix epoch.
    pub now_ms: i64,
    /// Last batch known to have committed.
    pub committed_batch: u64,
    /// Next offset to read per partition as committed; entries of a loaded outbox below it are published.
    pub committed_offsets: Arc<BTreeMap<Input, i64>>,
    /// Per partition of `events` the offset from which records may be skipped (rule K2); none while it is missing.
    pub watermarks: Arc<BTreeMap<i32, i64>>,
    /// The retry topics that may be written to (rule O8).
    pub tiers: Arc<Tiers>,
    /// Fences and incarnation.
    pub ownership: Arc<Ownership>,
}

/// Applies records to states. Holds nothing of a user.
pub struct Applier {
    codec: OutputCodec,
    settings: Arc<Settings>,
}

impl Applier {
    /// An applier that encodes its outputs with `codec`.
    pub fn new(codec: OutputCodec, settings: Arc<Settings>) -> Applier {
        Applier { codec, settings }
    }

    /// Whether the state's outbox is over its bound. It is asked between two records of one user in a batch, so an
    /// outbox holds at most the bound and one event's outputs, for each of the two batches in flight.
    pub fn is_full(&self, state: &UserState) -> bool {
        state.outbox().bytes() > self.settings.max_outbox_bytes && !is(Mutant::S9)
    }

    /// Handles one record of the state's user whose turn it is. Returns whether the cell must be written.
    pub fn apply(
        &self,
        state: &mut UserState,
        decoded: &Decoded,
        standing: &Standing,
        slice: &mut Slice,
    ) -> bool {
        let Some(position) = decoded.position() else { return false };
        slice.tally.timestamps_ms.extend(decoded.timestamp_ms());
        // What the batch that published it has committed goes (rule S5a).
        let committed = if is(Mutant::S5Uncommitted) { u64::MAX } else { standing.committed_batch };
        state.outbox_mut().drop_committed(committed);
        if state.applied() >= Some(position) {
            return self.replay(state, decoded, position, standing, slice);
        }
        match &decoded.content {
            Ok(event) => self.handle(state, decoded, position, event, standing, slice),
            Err(verdict) => self.refuse(state, decoded, position, verdict, standing, slice),
        }
    }

    /// At or below the applied position: changes nothing and publishes what the outbox holds for it (rule S3). The
    /// cell is written again under our own fence (rule S4).
    fn replay(
        &self,
        state: &mut UserState,
        decoded: &Decoded,
        position: Position,
        standing: &Standing,
        slice: &mut Slice,
    ) -> bool {
        slice.tally.replayed += 1;
        let entry = state.outbox().get(position).filter(|_| !is(Mutant::S3));
        let outputs = entry.map(|entry| entry.outputs.clone());
        if is(Mutant::S4) {
            let later = state.outbox().entries().filter(|entry| entry.position > position);
            later.for_each(|entry| self.publish(decoded, &entry.outputs, standing, slice));
        }
        match (outputs, &decoded.content) {
            (Some(outputs), _) => {
                self.tally_replayed(&outputs, slice);
                self.publish(decoded, &outputs, standing, slice);
                state.outbox_mut().mark_published(position, standing.batch);
                true
            }
            // An erasure has overtaken it (rule P9).
            (None, Ok(event)) if state.is_erased(position, event.occurred_at_ms) => {
                slice.tally.erased += 1;
                false
            }
            // With a verdict it was applied as something else before: whatever it was, it is not judged twice.
            (None, content) => {
                if let Ok(event) = content
                    && !state.is_duplicate(event)
                    && standing.campaigns.is_of_interest(event)
                    && !is(Mutant::S8)
                {
                    slice.tally.unexplained += 1;
                    tracing::warn!(%position, trace_id = event.trace_id, "a record at or below the applied position is in neither outbox nor dedup window");
                }
                slice.tally.ignored += 1;
                false
            }
        }
    }

    fn handle(
        &self,
        state: &mut UserState,
        decoded: &Decoded,
        position: Position,
        event: &Event,
        standing: &Standing,
        slice: &mut Slice,
    ) -> bool {
        // Erased before anything else is asked: nothing of the event may be remembered, not even its id.
        if state.is_erased(position, event.occurred_at_ms) && !is(Mutant::P9Mark) {
            slice.tally.erased += 1;
            // A dropped erasure may have overtaken records that wait (rule P9). It changes nothing for them, so the applied
            // position must not pass them either: U@10 waits, the erasure U@8 is sent again as U@12; with 12 applied, U@10
            // would be taken for a replay and be neither decided nor dropped.
            if !event.is_erasure() {
                state.mark_applied(position);
            }
            return !event.is_erasure();
        }
        if !standing.campaigns.is_of_interest(event) {
            // Below the watermark it was not to be skipped; it changes nothing but the applied position, so that what is
            // known of the user does not depend on where the watermark lay (rule K2).
            state.mark_applied(position);
            slice.tally.ignored += 1;
            return true;
        }
        if state.is_duplicate(event) {
            slice.tally.duplicates += 1;
            return false;
        }
        let judged = judge_time(event, standing.now_ms, self.settings.max_future_skew);
        if judged.is_ok() && event.is_erasure() {
            state.erase(position, event.occurred_at_ms);
            state.outbox_mut().retain(|_| !is(Mutant::P9Outbox));
            slice.tally.ignored += 1;
            return true;
        }
        match judged.and_then(|()| self.decide(state, event, standing)) {
            Ok((decisions, outputs)) => {
                state.record(position, event, &decisions, standing.campaigns.catalog());
                tally(&decisions, slice);
                if outputs.is_empty() {
                    slice.tally.ignored += 1;
                } else {
                    self.record_outputs(state, decoded, position, outputs, standing, slice);
                }
                true
            }
            Err(verdict) => self.refuse(state, decoded, position, &verdict, standing, slice),
        }
    }

    /// A dead letter. One that a second reading could judge otherwise moves the applied position and lies in the
    /// outbox (rule S6).
    fn refuse(
        &self,
        state: &mut UserState,
        decoded: &Decoded,
        position: Position,
        verdict: &Verdict,
        standing: &Standing,
        slice: &mut Slice,
    ) -> bool {
        if is(Mutant::S6) {
            self.publish_dead_letter(decoded, verdict.bad.code(), &verdict.text, standing, slice);
            return false;
        }
        state.mark_applied(position);
        let output = Output::DeadLetter { code: verdict.bad.code().to_owned(), text: verdict.text.clone() };
        self.record_outputs(state, decoded, position, vec![output], standing, slice);
        true
    }

    /// Decides and encodes. A panic leaves the state as before, because deciding does not change it (rule S10).
    fn decide(
        &self,
        state: &UserState,
        event: &Event,
        standing: &Standing,
    ) -> Result<(Vec<Decision>, Vec<Output>), Verdict> {
        let mut decisions = guarded(|| decide(state, event, &standing.campaigns, standing.now_ms))
            .inspect_err(|verdict| tracing::error!(trace_id = event.trace_id, "{}", verdict.text))?;
        if decisions.len() > self.settings.max_decisions_per_event {
            let text = format!(
                "{} campaigns decide on this event, allowed are {}",
                decisions.len(),
                self.settings.max_decisions_per_event
            );
            return Err(Verdict::new(BadRecord::TooManyDecisions, text));
        }
        let outputs: Vec<Output> = decisions.iter_mut().map(|decision| self.encode(decision)).collect();
        let bytes: usize = outputs.iter().map(Output::approximate_bytes).sum();
        if bytes > self.settings.max_outbox_bytes {
            let allowed = self.settings.max_outbox_bytes;
            let text = format!("the decisions on this event take {bytes} bytes, allowed are {allowed}");
            return Err(Verdict::new(BadRecord::TooManyDecisions, text));
        }
        Ok((decisions, outputs))
    }

    /// Encodes a decision; one that is too large is suppressed before it counts anywhere (rule S9).
    fn encode(&self, decision: &mut Decision) -> Output {
        let mut bytes = self.codec.encode_decision(decision);
        if bytes.len() > self.settings.max_decision_bytes {
            decision.outcome = Outcome::Suppress;
            decision.reason.code = ReasonCode::TooLarge;
            decision.action.params.clear();
            bytes = self.codec.encode_decision(decision);
        }
        Output::Decision { outcome: decision.outcome, bytes }
    }

    fn record_outputs(
        &self,
        state: &mut UserState,
        decoded: &Decoded,
        position: Position,
        outputs: Vec<Output>,
        standing: &Standing,
        slice: &mut Slice,
    ) {
        self.publish(decoded, &outputs, standing, slice);
        state.outbox_mut().push(position, outputs);
        state.outbox_mut().mark_published(position, standing.batch);
    }

    fn publish(&self, decoded: &Decoded, outputs: &[Output], standing: &Standing, slice: &mut Slice) {
        let record = &decoded.record;
        for output in outputs {
            match output {
                Output::Decision { outcome, bytes } => {
                    slice.outputs.push(outputs::decision(record, *outcome, Bytes::from(bytes.clone())));
                }
                Output::Activity { bytes } => {
                    slice.outputs.push(outputs::activity(record, Bytes::from(bytes.clone())));
                }
                Output::DeadLetter { code, text } => {
                    self.publish_dead_letter(decoded, code, text, standing, slice);
                }
            }
        }
    }

    /// Counts what the outbox held: the reasons are inside the encoded decisions.
    fn tally_replayed(&self, outputs: &[Output], slice: &mut Slice) {
        let decisions: Vec<Decision> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Decision { bytes, .. } => self.codec.decode_decision(bytes).ok(),
                _ => None,
            })
            .collect();
        tally(&decisions, slice);
    }

    /// Publishes the record as a dead letter.
    pub fn publish_dead_letter(
        &self,
        decoded: &Decoded,
        code: &str,
        text: &str,
        standing: &Standing,
        slice: &mut Slice,
    ) {
        *slice.tally.dead_letters.entry(code.to_owned()).or_default() += 1;
        let why = Why { code: Some(code), text, campaigns_position: standing.campaigns.position() };
        let record = outputs::dead_letter(&decoded.record, decoded.origin.as_ref(), &self.settings, why);
        slice.outputs.push(record);
    }
}

/// A panic becomes a verdict; what was only read stays as it was (rule S10).
fn guarded<T>(decide: impl FnOnce() -> T) -> Result<T, Verdict> {
    catch_unwind(AssertUnwindSafe(decide))
        .map_err(|_| Verdict::new(BadRecord::DecidePanicked, "deciding panicked; please report this"))
}

fn tally(decisions: &[Decision], slice: &mut Slice) {
    slice.tally.decided += u64::from(!decisions.is_empty());
    for decision in decisions {
        *slice.tally.decisions.entry((decision.outcome, decision.reason.code)).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule S10.
    #[test]
    fn a_panic_while_deciding_is_a_recorded_dead_letter() {
        let verdict = guarded(|| -> u32 { panic!("a bug") }).unwrap_err();
        assert_eq!(verdict.bad, BadRecord::DecidePanicked);
        assert!(verdict.recorded(), "another release may decide the event");
        assert_eq!(guarded(|| 7), Ok(7));
    }
}
