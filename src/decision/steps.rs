//! From an event to decisions: the steps of deciding, in their order.
//!
//! Every campaign that matches gets exactly one decision. Its reason is that of the first step that objects, else
//! `allowed`. Campaigns go by priority, high first, the smaller id first on a tie; of a group, the first that is allowed
//! (or that is suppressed and says `when_suppressed: stop`) takes the slot, and the later ones are outranked by it.
//!
//! What always holds: the decisions are a function of the state, the event, the set and `now_ms`; nothing is changed
//! and nothing can panic. Whoever decides folds them into the state afterwards
//! ([`UserState::record`](crate::user::UserState::record)).

use std::collections::BTreeMap;

use crate::campaign::definition::{Campaign, WhenSuppressed};
use crate::campaign::set::{CampaignSet, LiveCampaign};
use crate::event::Event;
use crate::user::UserState;

use super::limits;
use super::matching::{NoMatch, matches};
use super::scope::EventScope;
use super::{DecidedAction, Decision, Outcome, Reason, ReasonCode, decision_id};

/// Decides every campaign of `set` that the event calls for, in order of priority. `now_ms` becomes `decided_at`.
///
/// The event must not be a duplicate; whoever calls has asked [`UserState::is_duplicate`].
pub fn decide(state: &UserState, event: &Event, set: &CampaignSet, now_ms: i64) -> Vec<Decision> {
    decide_observing(state, event, set, now_ms, |_, _| {})
}

/// [`decide`], with a word on each active campaign of the event's type that does not decide about it.
pub fn decide_observing(
    state: &UserState,
    event: &Event,
    set: &CampaignSet,
    now_ms: i64,
    mut unmatched: impl FnMut(&LiveCampaign, NoMatch),
) -> Vec<Decision> {
    let candidates = set.candidates(&event.event_type);
    if candidates.is_empty() {
        return Vec::new();
    }
    let scope = EventScope::new(state, event, set.catalog());
    let mut deciding = Deciding::new(&scope);
    let mut decisions = Vec::new();
    for live in candidates {
        match matches(&live.campaign, &scope) {
            Ok(()) => decisions.push(decision(live, event, deciding.next(&live.campaign), now_ms)),
            Err(no_match) => unmatched(live, no_match),
        }
    }
    decisions
}

/// A step: the reason why the campaign may not, if there is one.
type Step = fn(&Deciding<'_>, &Campaign) -> Option<Reason>;

/// The steps of section 8 of the design, in their order; the first that objects gives the reason.
const STEPS: [Step; 3] = [late_event, outranked, own_limits];

/// Deciding one event: what its campaigns share.
#[derive(Debug)]
pub struct Deciding<'a> {
    scope: &'a EventScope<'a>,
    is_late: bool,
    /// Who has taken the slot of each group.
    slots: BTreeMap<&'a str, &'a str>,
}

impl<'a> Deciding<'a> {
    /// Begins with the event of the scope.
    pub fn new(scope: &'a EventScope<'a>) -> Self {
        let lateness_ms = scope.catalog().allowed_lateness_ms;
        let is_late = scope
            .state()
            .newest_event_ms()
            .is_some_and(|newest_ms| newest_ms.saturating_sub(scope.event().occurred_at_ms) > lateness_ms);
        Self { scope, is_late, slots: BTreeMap::new() }
    }

    /// The reason for the next matching campaign; they must come in order of priority.
    pub fn next(&mut self, campaign: &'a Campaign) -> Reason {
        let objection = STEPS.iter().find_map(|step| step(self, campaign));
        let reason = objection.unwrap_or(Reason::of(ReasonCode::Allowed));
        if let Some(group) = &campaign.group {
            let takes_the_slot = match reason.code.outcome() {
                Outcome::Allow | Outcome::Holdout => true,
                Outcome::Suppress => group.when_suppressed == WhenSuppressed::Stop,
            };
            if takes_the_slot {
                self.slots.entry(&group.name).or_insert(&campaign.id);
            }
        }
        reason
    }
}

fn late_event(deciding: &Deciding<'_>, _: &Campaign) -> Option<Reason> {
    deciding.is_late.then(|| Reason::of(ReasonCode::LateEvent))
}

fn outranked(deciding: &Deciding<'_>, campaign: &Campaign) -> Option<Reason> {
    let group = campaign.group.as_ref()?;
    let winner = deciding.slots.get(group.name.as_str())?;
    Some(Reason { outranked_by: Some((*winner).to_owned()), ..Reason::of(ReasonCode::Outranked) })
}

fn own_limits(deciding: &Deciding<'_>, campaign: &Campaign) -> Option<Reason> {
    if campaign.limits.is_empty() {
        return None;
    }
    let allows = deciding.scope.state().allows().of(&campaign.id);
    let refusal = limits::check(&campaign.limits, allows, deciding.scope.event().occurred_at_ms)?;
    Some(Reason { limit: Some(refusal.limit), ..Reason::of(refusal.code) })
}

fn decision(live: &LiveCampaign, event: &Event, reason: Reason, now_ms: i64) -> Decision {
    let action = &live.campaign.action;
    Decision {
        decision_id: decision_id(&event.user_id, &event.event_id, &live.campaign.id),
        event_id: event.event_id.clone(),
        user_id: event.user_id.clone(),
        campaign_id: live.campaign.id.clone(),
        campaign_version: live.version,
        event_type: event.event_type.clone(),
        occurred_at_ms: event.occurred_at_ms,
        decided_at_ms: now_ms,
        outcome: reason.code.outcome(),
        reason,
        action: DecidedAction {
            kind: action.kind,
            channel: action.channel.clone(),
            template: action.template.clone(),
            variant: None,
            recipient: None,
            params: action.params.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        },
        trace_id: event.trace_id.clone(),
    }
}

#[cfg(test)]
mod tests;
