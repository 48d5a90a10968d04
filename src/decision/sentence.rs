//! One decision as an English sentence, for people who watch.
//!
//! It is not parsed by anything, and it may change. Ids come from producers: control characters are replaced, so that a
//! user id can not steer the reader's terminal.

use std::fmt::{self, Display};

use jiff::Timestamp;

use super::{ActionKind, Decision, Outcome, Reason, ReasonCode};

/// Shows a decision as a sentence.
#[derive(Clone, Copy, Debug)]
pub struct Sentence<'a>(pub &'a Decision);

impl Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decision = self.0;
        let user = Clean(&decision.user_id);
        let what = What(decision);
        match decision.outcome {
            Outcome::Allow => write!(f, "{user} gets {what}")?,
            Outcome::Holdout => write!(f, "{user} would get {what}, but is in the control group")?,
            Outcome::Suppress => write!(f, "{user} does not get {what}")?,
        }
        write!(
            f,
            ": {} on {} at {}",
            Clean(&decision.campaign_id),
            Clean(&decision.event_type),
            At(decision.occurred_at_ms)
        )?;
        match decision.outcome {
            Outcome::Suppress => write!(f, ", because {}", Why(&decision.reason)),
            Outcome::Allow | Outcome::Holdout => Ok(()),
        }
    }
}

/// `email GOLD_THANKS`, `an alert`.
struct What<'a>(&'a Decision);

impl Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = &self.0.action;
        match action.kind {
            ActionKind::Send => {
                f.write_str(action.channel.as_deref().map_or("a message", |channel| channel))?
            }
            ActionKind::Alert => f.write_str("an alert")?,
        }
        match &action.template {
            Some(template) => write!(f, " {}", Clean(template)),
            None => Ok(()),
        }
    }
}

struct Why<'a>(&'a Reason);

impl Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.code {
            ReasonCode::Allowed => f.write_str("nothing objects"),
            ReasonCode::LateEvent => f.write_str("the event came too late"),
            ReasonCode::Outranked => match &self.0.outranked_by {
                Some(winner) => write!(f, "{} of the same group comes first", Clean(winner)),
                None => f.write_str("another campaign of the same group comes first"),
            },
            ReasonCode::OnceEver | ReasonCode::CalendarLimit | ReasonCode::RollingLimit => {
                write!(f, "{} is used up", LimitOf(self.0))
            }
            ReasonCode::CapHistoryTruncated => {
                write!(f, "more was sent than is remembered, so {} counts as used up", LimitOf(self.0))
            }
            ReasonCode::TooLarge => f.write_str("the decision would be larger than a record may be"),
        }?;
        match &self.0.limit {
            Some(limit) => match limit.reopens_at_ms {
                Some(reopens_at_ms) => write!(f, " until {}", At(reopens_at_ms)),
                None => f.write_str(" for good"),
            },
            None => Ok(()),
        }
    }
}

/// `at_most 3 per 7d (3 of 3)`.
struct LimitOf<'a>(&'a Reason);

impl Display for LimitOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.limit {
            Some(limit) => write!(f, "{} ({} of {})", Clean(&limit.limit), limit.used, limit.allowed),
            None => f.write_str("a limit"),
        }
    }
}

/// `2026-01-15 10:30:00 UTC`.
struct At(i64);

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{} UTC", time.strftime("%Y-%m-%d %H:%M:%S")),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// A text without control characters.
struct Clean<'a>(&'a str);

impl Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replaced = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        self.0.chars().try_for_each(|c| fmt::Write::write_char(f, replaced(c)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::fixtures::{campaign, event, set};
    use crate::decision::{LimitReason, decide};
    use crate::user::UserState;

    fn example() -> Decision {
        let set = set(vec![campaign("gold_purchase")]);
        decide(&UserState::new(), &event("e1", "view", 1_768_473_000_250), &set, 0).remove(0)
    }

    fn suppressed(code: ReasonCode, limit: Option<LimitReason>, outranked_by: Option<&str>) -> String {
        let reason = Reason { code, limit, outranked_by: outranked_by.map(str::to_owned) };
        Sentence(&Decision { outcome: Outcome::Suppress, reason, ..example() }).to_string()
    }

    fn limit(limit: &str, used: u32, allowed: u32, reopens_at_ms: Option<i64>) -> Option<LimitReason> {
        Some(LimitReason { limit: limit.to_owned(), used, allowed, reopens_at_ms })
    }

    #[test]
    fn a_yes_says_what_and_why() {
        let mut decision = example();
        let sentence = "u1 gets email HELLO: gold_purchase on view at 2026-01-15 10:30:00 UTC";
        assert_eq!(Sentence(&decision).to_string(), sentence);
        decision.action.kind = ActionKind::Alert;
        decision.action.template = None;
        assert!(Sentence(&decision).to_string().starts_with("u1 gets an alert: gold_purchase"));
        decision.action.kind = ActionKind::Send;
        decision.action.channel = None;
        decision.outcome = Outcome::Holdout;
        assert_eq!(
            Sentence(&decision).to_string(),
            "u1 would get a message, but is in the control group: gold_purchase on view at 2026-01-15 10:30:00 UTC"
        );
    }

    #[test]
    fn a_no_says_why() {
        let head = "u1 does not get email HELLO: gold_purchase on view at 2026-01-15 10:30:00 UTC, because ";
        let says = |sentence: String, why: &str| assert_eq!(sentence, format!("{head}{why}"));
        says(suppressed(ReasonCode::LateEvent, None, None), "the event came too late");
        says(suppressed(ReasonCode::Outranked, None, Some("b")), "b of the same group comes first");
        says(suppressed(ReasonCode::Outranked, None, None), "another campaign of the same group comes first");
        says(
            suppressed(ReasonCode::OnceEver, limit("once_per ever", 1, 1, None), None),
            "once_per ever (1 of 1) is used up for good",
        );
        says(
            suppressed(ReasonCode::RollingLimit, limit("at_most 3 per 7d", 3, 3, Some(0)), None),
            "at_most 3 per 7d (3 of 3) is used up until 1970-01-01 00:00:00 UTC",
        );
        says(
            suppressed(ReasonCode::CapHistoryTruncated, limit("at_most 99 per 7d", 65, 99, Some(0)), None),
            "more was sent than is remembered, so at_most 99 per 7d (65 of 99) counts as used up until \
             1970-01-01 00:00:00 UTC",
        );
        says(suppressed(ReasonCode::CalendarLimit, None, None), "a limit is used up");
        says(
            suppressed(ReasonCode::TooLarge, None, None),
            "the decision would be larger than a record may be",
        );
        says(suppressed(ReasonCode::Allowed, None, None), "nothing objects");
    }

    #[test]
    fn ids_cannot_steer_the_terminal() {
        let mut decision = example();
        decision.user_id = "\u{1b}[2Ju\n1".to_owned();
        decision.occurred_at_ms = i64::MAX;
        let sentence = Sentence(&decision).to_string();
        assert!(sentence.starts_with("\u{fffd}[2Ju\u{fffd}1 gets"), "{sentence}");
        assert!(sentence.ends_with("at 9223372036854775807 ms"), "{sentence}");
    }
}
