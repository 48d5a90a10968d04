//! A campaign as defined by its author.
//!
//! The same value comes from a YAML file and from the canonical JSON on the `campaigns` topic. It says nothing about
//! where it is live: the version belongs to [`super::set::LiveCampaign`].

use std::collections::BTreeMap;
use std::fmt;

use super::condition::Condition;
use super::duration::DisplayMs;
pub use crate::decision::ActionKind;
use crate::event::Value;

/// A versioned rule: trigger, condition, limits, action.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    /// Unique name: letters, digits, `_`, `-` and `.`.
    pub id: String,
    /// What it is for, in the author's words.
    pub description: Option<String>,
    /// Where it is in its life; `None` in a file that leaves the live status alone.
    pub status: Option<Status>,
    /// When it runs, by event time; always when absent.
    pub schedule: Option<Schedule>,
    /// Event types that set it off: at least one, in name order, without duplicates.
    pub trigger: Vec<String>,
    /// What must hold; `None` always holds.
    pub when: Option<Condition>,
    /// Higher goes first; on a tie the smaller id.
    pub priority: i32,
    /// Group of which one campaign per event gets through.
    pub group: Option<Group>,
    /// Labels, in name order, without duplicates.
    pub tags: Vec<String>,
    /// All must hold; they count this campaign's own allows.
    pub limits: Vec<Limit>,
    /// What an allow asks for.
    pub action: Action,
}

impl Campaign {
    /// The status with its default: a campaign that never said otherwise is active.
    pub fn effective_status(&self) -> Status {
        self.status.unwrap_or(Status::Active)
    }
}

/// Where a campaign is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Not yet to be used.
    Draft,
    /// Decides.
    Active,
    /// Does not decide for now.
    Paused,
    /// Will not decide again.
    Ended,
}

impl Status {
    /// All statuses, in the order of a campaign's life.
    pub const ALL: [Status; 4] = [Status::Draft, Status::Active, Status::Paused, Status::Ended];

    /// The word in files and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Draft => "draft",
            Status::Active => "active",
            Status::Paused => "paused",
            Status::Ended => "ended",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A half-open span of event time: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// First instant that is in, ms since the Unix epoch; open when absent.
    pub start_ms: Option<i64>,
    /// First instant that is out again, ms since the Unix epoch; open when absent.
    pub end_ms: Option<i64>,
}

impl Schedule {
    /// Whether an event at this time is within the schedule.
    pub fn contains(&self, occurred_at_ms: i64) -> bool {
        self.start_ms.is_none_or(|start| start <= occurred_at_ms)
            && self.end_ms.is_none_or(|end| occurred_at_ms < end)
    }
}

/// A group of campaigns that compete for one slot per event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Name of the group.
    pub name: String,
    /// Who decides when this campaign matches and is suppressed.
    pub when_suppressed: WhenSuppressed,
}

/// What a suppressed campaign does with its group's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenSuppressed {
    /// Leaves it to the next campaign.
    #[default]
    Next,
    /// Takes it: the first match decides, even when it may not send.
    Stop,
}

impl WhenSuppressed {
    /// The word in files and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            WhenSuppressed::Next => "next",
            WhenSuppressed::Stop => "stop",
        }
    }
}

/// A limit on a campaign's own allows for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Once in a user's life.
    OncePerEver,
    /// Once per calendar day of the event's time, UTC.
    OncePerCalendarDay,
    /// Fewer than `n` others in `(t - D, t]`.
    AtMost {
        /// Allows permitted, at least 1.
        n: u32,
        /// D in milliseconds.
        per_ms: i64,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::OncePerEver => f.write_str("once_per ever"),
            Limit::OncePerCalendarDay => f.write_str("once_per calendar_day"),
            Limit::AtMost { n, per_ms } => write!(f, "at_most {n} per {}", DisplayMs(*per_ms)),
        }
    }
}

/// What an allow asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// `send` or `alert`.
    pub kind: ActionKind,
    /// Channel such as `email`; a `send` has one.
    pub channel: Option<String>,
    /// Template to render; a `send` has one.
    pub template: Option<String>,
    /// Parameters of the template. No null, no NaN, no infinity.
    pub params: BTreeMap<String, Value>,
}
