//! The condition of a campaign: one AST for the tree form and, later, the expression form.

use std::fmt;

use super::number::Number;

/// A condition over an event, the user's traits and the user's history.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// TRUE when all are; an empty list is TRUE.
    All(Vec<Condition>),
    /// TRUE when one is; an empty list is FALSE.
    Any(Vec<Condition>),
    /// Kleene negation.
    Not(Box<Condition>),
    /// A comparison of one operand with others.
    Compare(Comparison),
}

/// `left op right`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What is looked at.
    pub left: Operand,
    /// How it is compared.
    pub operator: Operator,
    /// What it is compared with; [`Right::Nothing`] for `exists` and `missing`.
    pub right: Right,
}

/// The left side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A field of the event or a trait of the user.
    Field(Field),
    /// A question about the user's past.
    History(HistoryQuery),
}

/// A field by its dotted name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `event.<property>`.
    Event(String),
    /// `user.<trait>`.
    User(String),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Event(name) => write!(f, "event.{name}"),
            Field::User(name) => write!(f, "user.{name}"),
        }
    }
}

/// The right side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    /// The operator takes no right side.
    Nothing,
    /// One literal.
    Literal(Literal),
    /// A list of literals, for `between` (exactly two, both included), `in`, `not_in`, `any_of`, `all_of`, `none_of`.
    Literals(Vec<Literal>),
    /// Another field.
    Ref(Field),
}

/// A literal of the language.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `true` or `false`.
    Boolean(bool),
    /// An exact number.
    Number(Number),
    /// A text; also a timestamp in RFC 3339 where the other side is a timestamp.
    String(String),
    /// A duration such as `30d`, in milliseconds; compares with `since`.
    DurationMs(i64),
}

/// Comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less than.
    Lt,
    /// Less than or equal.
    Lte,
    /// Greater than.
    Gt,
    /// Greater than or equal.
    Gte,
    /// Between two bounds, both included.
    Between,
    /// One of a list.
    In,
    /// None of a list.
    NotIn,
    /// The field is there and not null.
    Exists,
    /// The field is not there or null.
    Missing,
    /// The text begins with.
    Prefix,
    /// The text ends with.
    Suffix,
    /// The text contains, or the list holds.
    Contains,
    /// The list holds at least one of.
    AnyOf,
    /// The list holds all of.
    AllOf,
    /// The list holds none of.
    NoneOf,
}

/// A question about what is remembered of the user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HistoryQuery {
    /// Event type asked about.
    pub event_type: String,
    /// What is asked.
    pub function: HistoryFunction,
    /// Over which time.
    pub window: Window,
}

/// What is asked of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HistoryFunction {
    /// Whether there is one.
    Exists,
    /// How many.
    Count,
    /// The duration since the latest, in milliseconds; UNKNOWN when there is none.
    Since,
}

/// Over which time a history question looks, half-open: `(t - D, t]`, t being the event's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The last so many milliseconds.
    LastMs(i64),
    /// All time, exact even past what is kept.
    Lifetime,
}

/// Kleene truth, with the reason of UNKNOWN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    /// Holds.
    True,
    /// Does not hold.
    False,
    /// Cannot be told.
    Unknown(Unknown),
}

impl From<bool> for Truth {
    fn from(value: bool) -> Truth {
        if value { Truth::True } else { Truth::False }
    }
}

impl Truth {
    /// Kleene's negation: UNKNOWN stays UNKNOWN.
    #[must_use]
    #[allow(clippy::should_implement_trait)] // `!truth` would read like a boolean's
    pub fn not(self) -> Truth {
        match self {
            Truth::True => Truth::False,
            Truth::False => Truth::True,
            unknown => unknown,
        }
    }

    /// Kleene's conjunction: FALSE if one is, else UNKNOWN if one is, else TRUE. Of several reasons the first by
    /// [`Unknown`]'s order stays, so that the order of the parts never shows. Stops at the first FALSE.
    pub fn all(parts: impl IntoIterator<Item = Truth>) -> Truth {
        Truth::fold(parts, Truth::True, Truth::False)
    }

    /// Kleene's disjunction: TRUE if one is, else UNKNOWN if one is, else FALSE. Stops at the first TRUE.
    pub fn any(parts: impl IntoIterator<Item = Truth>) -> Truth {
        Truth::fold(parts, Truth::False, Truth::True)
    }

    fn fold(parts: impl IntoIterator<Item = Truth>, neutral: Truth, dominant: Truth) -> Truth {
        let mut reason: Option<Unknown> = None;
        for part in parts {
            match part {
                Truth::Unknown(next) => reason = Some(reason.map_or(next, |known| known.min(next))),
                part if part == dominant => return dominant,
                _ => {}
            }
        }
        reason.map_or(neutral, Truth::Unknown)
    }
}

/// Why a truth is UNKNOWN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unknown {
    /// A field is missing or null.
    MissingField,
    /// A field has another type than the comparison needs, or a number is not exact.
    WrongType,
    /// The window reaches before the oldest occurrence kept.
    HistoryTruncated,
}

/// An answer of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryAnswer {
    /// Answer of `exists`.
    Exists(bool),
    /// Answer of `count`.
    Count(u64),
    /// Answer of `since`, milliseconds.
    SinceMs(i64),
    /// Cannot be told.
    Unknown(Unknown),
}

/// What a condition is evaluated against. The decision module implements it over event and user state.
pub trait Scope {
    /// The value of a field; `None` when it is missing.
    fn field(&self, field: &Field) -> Option<&crate::event::Value>;
    /// The answer to a history question, as of the event's time and without the event itself.
    fn history(&self, query: &HistoryQuery) -> HistoryAnswer;
}
