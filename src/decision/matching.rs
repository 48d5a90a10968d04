//! Whether a campaign decides about an event at all.
//!
//! A decision exists only for an active campaign in its schedule whose trigger matches and whose condition is TRUE.
//! [`CampaignSet::candidates`](crate::campaign::set::CampaignSet::candidates) answers for status and trigger; the rest
//! is here. What does not match makes no record: it is a number in the metrics, and explain shows it.

use crate::campaign::condition::{Scope, Truth, Unknown};
use crate::campaign::definition::Campaign;

use super::scope::EventScope;

/// Why an active campaign that the event's type triggers does not decide about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoMatch {
    /// The event's time is outside the campaign's schedule.
    OutOfSchedule,
    /// The condition is FALSE.
    ConditionFalse,
    /// The condition is UNKNOWN.
    Unknown(Unknown),
}

impl NoMatch {
    /// The stable reason code, as explain and the metrics show it.
    pub fn code(self) -> &'static str {
        match self {
            NoMatch::OutOfSchedule => "out_of_schedule",
            NoMatch::ConditionFalse => "condition_false",
            NoMatch::Unknown(Unknown::MissingField) => "missing_field",
            NoMatch::Unknown(Unknown::WrongType) => "wrong_type",
            NoMatch::Unknown(Unknown::HistoryTruncated) => "history_truncated",
        }
    }
}

/// Whether the campaign decides about the event of the scope.
pub fn matches(campaign: &Campaign, scope: &EventScope<'_>) -> Result<(), NoMatch> {
    let at_ms = scope.event().occurred_at_ms;
    if campaign.schedule.is_some_and(|schedule| !schedule.contains(at_ms)) {
        return Err(NoMatch::OutOfSchedule);
    }
    let Some(when) = &campaign.when else { return Ok(()) };
    match when.evaluate(scope as &dyn Scope) {
        Truth::True => Ok(()),
        Truth::False => Err(NoMatch::ConditionFalse),
        Truth::Unknown(unknown) => Err(NoMatch::Unknown(unknown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::condition::{Comparison, Condition, Field, Literal, Operand, Operator, Right};
    use crate::campaign::definition::Schedule;
    use crate::decision::fixtures::{campaign, catalog, event};
    use crate::event::Value;
    use crate::user::UserState;

    fn outcome(campaign: &Campaign, at_ms: i64, tier: Option<Value>) -> Result<(), NoMatch> {
        let (state, catalog) = (UserState::new(), catalog());
        let mut event = event("e", "view", at_ms);
        event.traits = tier.map(|tier| ("tier".to_owned(), tier)).into_iter().collect();
        matches(campaign, &EventScope::new(&state, &event, &catalog))
    }

    #[test]
    fn the_schedule_is_by_the_events_time_and_half_open() {
        let mut campaign = campaign("c");
        campaign.schedule = Some(Schedule { start_ms: Some(10), end_ms: Some(20) });
        assert_eq!(outcome(&campaign, 9, None), Err(NoMatch::OutOfSchedule));
        assert_eq!(outcome(&campaign, 10, None), Ok(()));
        assert_eq!(outcome(&campaign, 19, None), Ok(()));
        assert_eq!(outcome(&campaign, 20, None), Err(NoMatch::OutOfSchedule));
    }

    #[test]
    fn only_true_matches() {
        let mut campaign = campaign("c");
        campaign.when = Some(Condition::Compare(Comparison {
            left: Operand::Field(Field::User("tier".to_owned())),
            operator: Operator::Eq,
            right: Right::Literal(Literal::String("gold".to_owned())),
        }));
        let text = |tier: &str| Some(Value::String(tier.to_owned()));
        assert_eq!(outcome(&campaign, 0, text("gold")), Ok(()));
        assert_eq!(outcome(&campaign, 0, text("silver")), Err(NoMatch::ConditionFalse));
        assert_eq!(outcome(&campaign, 0, None), Err(NoMatch::Unknown(Unknown::MissingField)));
        assert_eq!(
            outcome(&campaign, 0, Some(Value::Boolean(true))),
            Err(NoMatch::Unknown(Unknown::WrongType))
        );
    }

    #[test]
    fn codes_are_the_words_of_the_design() {
        let codes: Vec<_> = [
            NoMatch::OutOfSchedule,
            NoMatch::ConditionFalse,
            NoMatch::Unknown(Unknown::MissingField),
            NoMatch::Unknown(Unknown::WrongType),
            NoMatch::Unknown(Unknown::HistoryTruncated),
        ]
        .into_iter()
        .map(NoMatch::code)
        .collect();
        assert_eq!(
            codes,
            ["out_of_schedule", "condition_false", "missing_field", "wrong_type", "history_truncated"]
        );
    }
}
