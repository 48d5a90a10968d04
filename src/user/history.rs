//! What a user did: per remembered event type the latest occurrences, and exact numbers for all of them.
//!
//! What always holds:
//!
//! - every occurrence recorded is counted in `count`, `first` and `last` for ever; the latest `at_most` of the last
//!   `for` are kept with their properties, ordered by time;
//! - an occurrence that is not kept (any more) is not newer than one that is, and the newest such time is known. So
//!   every question is answered exactly or, when an occurrence that is not kept could change the answer, with
//!   UNKNOWN and `history_truncated`; never wrongly;
//! - a question is asked as of a time t, the time of the event being decided. Windows are half-open, `(t - D, t]`, and
//!   `since` looks back from t: for them, occurrences after t do not exist. Lifetime `exists` and `count` are about
//!   everything recorded, also what happened after t: a first purchase stays the first when an older one arrives late.
//!
//! The history depends on the events and the catalog only, not on which campaigns exist.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::campaign::condition::{HistoryAnswer, HistoryFunction, HistoryQuery, Unknown, Window};
use crate::event::{Properties, Value};

use super::traits::value_bytes;

/// Occurrences kept of a type at most, whatever the catalog says; 32 bytes each besides their properties.
pub const MAX_KEPT: usize = 4096;

/// Event types remembered of a user at most. Types that the catalog no longer remembers make room first; a type that
/// finds no room is not remembered, and questions about it are answered with `history_truncated`.
pub const MAX_TYPES: usize = 256;

/// Properties kept of an occurrence at most, in the order of the catalog.
pub const MAX_KEPT_PROPERTIES: usize = 16;

/// A kept property is at most this large; a larger value counts as missing.
pub const MAX_KEPT_VALUE_BYTES: usize = 256;

/// Different property names per type; when they run out, those that no occurrence uses any more make room.
const MAX_NAMES: usize = 64;

const OCCURRENCE_BYTES: usize = 32;
const TYPE_BYTES: usize = 192;

/// How an event type is remembered; the catalog says so.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// How long occurrences are kept, milliseconds, counted back from the user's newest event.
    pub for_ms: i64,
    /// How many are kept, at most [`MAX_KEPT`].
    pub at_most: u32,
    /// Which properties are kept with them.
    pub properties: &'a [String],
}

/// One remembered occurrence.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Occurrence {
    pub(super) at_ms: i64,
    /// Kept properties: index into the type's names, and value.
    pub(super) values: Vec<(u16, Value)>,
}

impl Occurrence {
    fn bytes(&self) -> usize {
        self.values.iter().fold(OCCURRENCE_BYTES, |sum, (_, value)| {
            sum.saturating_add(size_of::<(u16, Value)>()).saturating_add(value_bytes(value))
        })
    }
}

/// An occurrence as seen from outside.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    names: &'a [String],
    occurrence: &'a Occurrence,
}

impl<'a> Past<'a> {
    /// When it happened, ms since the Unix epoch.
    pub fn at_ms(&self) -> i64 {
        self.occurrence.at_ms
    }

    /// A kept property.
    pub fn property(&self, name: &str) -> Option<&'a Value> {
        let index = self.names.iter().position(|known| known == name)?;
        let mut values = self.occurrence.values.iter();
        values.find(|(at, _)| usize::from(*at) == index).map(|(_, value)| value)
    }
}

/// What is remembered of one event type.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeHistory {
    pub(super) count: u64,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    /// Newest time of an occurrence that is not kept. No kept occurrence is older.
    pub(super) dropped_ms: Option<i64>,
    pub(super) names: Vec<String>,
    /// By time; those of the same time in order of arrival.
    pub(super) kept: VecDeque<Occurrence>,
    bytes: usize,
}

impl TypeHistory {
    /// A history from its parts, as the codec stored them; `None` when they contradict each other.
    pub(super) fn from_parts(
        count: u64,
        first_ms: i64,
        last_ms: i64,
        dropped_ms: Option<i64>,
        names: Vec<String>,
        kept: VecDeque<Occurrence>,
    ) -> Option<Self> {
        let in_order = kept.iter().zip(kept.iter().skip(1)).all(|(a, b)| a.at_ms <= b.at_ms);
        let newer = match (dropped_ms, kept.front()) {
            (Some(dropped), Some(oldest)) => dropped <= oldest.at_ms,
            _ => true,
        };
        let named = kept.iter().flat_map(|o| &o.values).all(|(index, _)| usize::from(*index) < names.len());
        let counted = u64::try_from(kept.len()).is_ok_and(|kept| kept <= count) && first_ms <= last_ms;
        if !(in_order && newer && named && counted) {
            return None;
        }
        let bytes = kept.iter().map(Occurrence::bytes).fold(0, usize::saturating_add);
        Some(Self { count, first_ms, last_ms, dropped_ms, names, kept, bytes })
    }

    fn new(at_ms: i64) -> Self {
        Self {
            count: 0,
            first_ms: at_ms,
            last_ms: at_ms,
            dropped_ms: None,
            names: Vec::new(),
            kept: VecDeque::new(),
            bytes: 0,
        }
    }

    /// How many occurrences there ever were.
    pub fn lifetime_count(&self) -> u64 {
        self.count
    }

    /// Time of the earliest occurrence ever, ms since the Unix epoch.
    pub fn first_ms(&self) -> i64 {
        self.first_ms
    }

    /// Time of the latest occurrence ever, ms since the Unix epoch.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// The occurrences that are kept, oldest first.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = Past<'_>> {
        self.kept.iter().map(|occurrence| Past { names: &self.names, occurrence })
    }

    fn record(&mut self, at_ms: i64, properties: &Properties, rule: &Rule<'_>, cutoff_ms: i64) {
        self.count = self.count.saturating_add(1);
        self.first_ms = self.first_ms.min(at_ms);
        self.last_ms = self.last_ms.max(at_ms);
        if at_ms < cutoff_ms || self.dropped_ms.is_some_and(|dropped| at_ms < dropped) {
            self.note_dropped(at_ms);
        } else {
            let values = self.kept_values(properties, rule.properties);
            let occurrence = Occurrence { at_ms, values };
            self.bytes = self.bytes.saturating_add(occurrence.bytes());
            let place = self.kept.partition_point(|kept| kept.at_ms <= at_ms);
            self.kept.insert(place, occurrence);
        }
        let at_most = usize::try_from(rule.at_most).unwrap_or(MAX_KEPT).min(MAX_KEPT);
        while self.kept.len() > at_most {
            self.drop_oldest();
        }
    }

    fn forget_before(&mut self, cutoff_ms: i64) {
        while self.kept.front().is_some_and(|oldest| oldest.at_ms < cutoff_ms) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes = self.bytes.saturating_sub(oldest.bytes());
            self.note_dropped(oldest.at_ms);
        }
    }

    fn note_dropped(&mut self, at_ms: i64) {
        self.dropped_ms = self.dropped_ms.max(Some(at_ms));
    }

    fn kept_values(&mut self, properties: &Properties, wanted: &[String]) -> Vec<(u16, Value)> {
        let mut values = Vec::new();
        for name in wanted.iter().take(MAX_KEPT_PROPERTIES) {
            let Some(value) = properties.get(name) else { continue };
            if *value == Value::Null || value_bytes(value) > MAX_KEPT_VALUE_BYTES {
                continue;
            }
            if let Some(index) = self.name_index(name, &mut values) {
                values.push((index, value.clone()));
            }
        }
        values
    }

    /// Index of a name, which is added when it is new. `pending` are values of the occurrence being built; they are
    /// renumbered with the others when names make room.
    fn name_index(&mut self, name: &str, pending: &mut [(u16, Value)]) -> Option<u16> {
        if let Some(index) = self.names.iter().position(|known| known == name) {
            return u16::try_from(index).ok();
        }
        if self.names.len() >= MAX_NAMES {
            self.forget_unused_names(pending);
        }
        if self.names.len() >= MAX_NAMES {
            return None;
        }
        self.names.push(name.to_owned());
        u16::try_from(self.names.len().saturating_sub(1)).ok()
    }

    fn forget_unused_names(&mut self, pending: &mut [(u16, Value)]) {
        let occurrences = self.kept.iter().flat_map(|occurrence| &occurrence.values);
        let used: BTreeSet<u16> = occurrences.chain(pending.iter()).map(|(index, _)| *index).collect();
        let renumbered: BTreeMap<u16, u16> = used.iter().copied().zip(0..).collect();
        let old_names = std::mem::take(&mut self.names);
        let numbered = old_names.into_iter().enumerate();
        self.names = numbered
            .filter(|(index, _)| u16::try_from(*index).is_ok_and(|index| used.contains(&index)))
            .map(|(_, name)| name)
            .collect();
        let values = self.kept.iter_mut().flat_map(|occurrence| &mut occurrence.values);
        for (index, _) in values.chain(pending.iter_mut()) {
            if let Some(new) = renumbered.get(index) {
                *index = *new;
            }
        }
    }

    /// Kept occurrences at or before `at_ms`.
    fn kept_up_to(&self, at_ms: i64) -> usize {
        self.kept.partition_point(|occurrence| occurrence.at_ms <= at_ms)
    }

    /// The latest occurrence at or before `at_ms`: `Ok(None)` when there is certainly none, `Err` when unknown.
    fn latest_up_to(&self, at_ms: i64) -> Result<Option<i64>, Truncated> {
        let latest = self.kept_up_to(at_ms).checked_sub(1).and_then(|index| self.kept.get(index));
        if let Some(latest) = latest {
            return Ok(Some(latest.at_ms));
        }
        match self.dropped_ms {
            Some(dropped) if dropped <= at_ms => Ok(Some(dropped)),
            Some(_) if self.first_ms <= at_ms => Err(Truncated),
            _ => Ok(None),
        }
    }

    fn exists(&self, window: Span) -> Result<bool, Truncated> {
        // The earliest occurrence counts even when it is not kept: it alone can make the answer certain.
        if window.after_ms.is_none() || window.contains(self.first_ms) {
            return Ok(true);
        }
        let latest = self.latest_up_to(window.until_ms)?;
        Ok(latest.is_some_and(|latest| window.contains(latest)))
    }

    fn count(&self, window: Span) -> Result<u64, Truncated> {
        let Some(after_ms) = window.after_ms else { return Ok(self.count) };
        let later = self.kept.len().saturating_sub(self.kept_up_to(window.until_ms));
        let inside = self.kept_up_to(window.until_ms).saturating_sub(self.kept_up_to(after_ms));
        match self.dropped_ms {
            Some(dropped_ms) if window.contains(dropped_ms) && self.first_ms > after_ms => {
                // All there ever was lies inside or is kept and later.
                Ok(self.count.saturating_sub(u64::try_from(later).unwrap_or(u64::MAX)))
            }
            Some(dropped_ms)
                if dropped_ms > after_ms
                    && self.first_ms <= window.until_ms
                    && after_ms < window.until_ms =>
            {
                Err(Truncated)
            }
            _ => Ok(u64::try_from(inside).unwrap_or(u64::MAX)),
        }
    }

    fn since(&self, window: Span) -> Result<Option<i64>, Truncated> {
        let latest = self.latest_up_to(window.until_ms)?;
        Ok(latest.filter(|at| window.contains(*at)).map(|at| window.until_ms.saturating_sub(at)))
    }

    fn approximate_bytes(&self) -> usize {
        let names =
            self.names.iter().fold(0_usize, |sum, name| sum.saturating_add(name.len()).saturating_add(24));
        TYPE_BYTES.saturating_add(names).saturating_add(self.bytes)
    }
}

/// Occurrences that are not kept could change the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Truncated;

/// A window as of a time: after `after_ms` (absent: from the beginning of time), up to and including `until_ms`.
#[derive(Clone, Copy, Debug)]
struct Span {
    after_ms: Option<i64>,
    until_ms: i64,
}

impl Span {
    fn new(window: Window, at_ms: i64) -> Self {
        match window {
            Window::LastMs(length_ms) => {
                Self { after_ms: Some(at_ms.saturating_sub(length_ms.max(0))), until_ms: at_ms }
            }
            Window::Lifetime => Self { after_ms: None, until_ms: at_ms },
        }
    }

    fn contains(&self, at_ms: i64) -> bool {
        at_ms <= self.until_ms && self.after_ms.is_none_or(|after| at_ms > after)
    }
}

/// What is remembered of a user's events, by type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub(super) types: BTreeMap<String, TypeHistory>,
    /// A type found no room: types that are not here may have occurred.
    pub(super) overflowed: bool,
}

impl History {
    /// Answers a question as of `at_ms`, the time of an event that is itself not recorded yet. A type that never
    /// occurred is answered as such; whether the catalog remembers it is for the caller to know.
    pub fn answer(&self, query: &HistoryQuery, at_ms: i64) -> HistoryAnswer {
        let span = Span::new(query.window, at_ms);
        let Some(history) = self.types.get(&query.event_type) else {
            return if self.overflowed {
                HistoryAnswer::Unknown(Unknown::HistoryTruncated)
            } else {
                match query.function {
                    HistoryFunction::Exists => HistoryAnswer::Exists(false),
                    HistoryFunction::Count => HistoryAnswer::Count(0),
                    HistoryFunction::Since => HistoryAnswer::Unknown(Unknown::MissingField),
                }
            };
        };
        let answer = match query.function {
            HistoryFunction::Exists => history.exists(span).map(HistoryAnswer::Exists),
            HistoryFunction::Count => history.count(span).map(HistoryAnswer::Count),
            HistoryFunction::Since => history.since(span).map(|since| {
                since.map_or(HistoryAnswer::Unknown(Unknown::MissingField), HistoryAnswer::SinceMs)
            }),
        };
        answer.unwrap_or(HistoryAnswer::Unknown(Unknown::HistoryTruncated))
    }

    /// What is remembered of one type.
    pub fn of_type(&self, event_type: &str) -> Option<&TypeHistory> {
        self.types.get(event_type)
    }

    /// The remembered types, in name order.
    pub fn types(&self) -> impl Iterator<Item = (&str, &TypeHistory)> {
        self.types.iter().map(|(name, history)| (name.as_str(), history))
    }

    /// Remembers an occurrence at `at_ms`. `newest_ms` is the user's newest event time, this event included;
    /// `lateness_ms` is kept on top of each type's time, so that a late event finds its whole window.
    pub(super) fn record<'a>(
        &mut self,
        event_type: &str,
        at_ms: i64,
        newest_ms: i64,
        lateness_ms: i64,
        properties: &Properties,
        rule_of: impl Fn(&str) -> Option<Rule<'a>>,
    ) {
        let cutoff = |rule: &Rule<'_>| newest_ms.saturating_sub(rule.for_ms).saturating_sub(lateness_ms);
        if let Some(rule) = rule_of(event_type)
            && self.make_room(event_type, &rule_of)
        {
            let history = self.types.entry(event_type.to_owned()).or_insert_with(|| TypeHistory::new(at_ms));
            history.record(at_ms, properties, &rule, cutoff(&rule));
        }
        for (name, history) in &mut self.types {
            if let Some(rule) = rule_of(name) {
                history.forget_before(cutoff(&rule));
            }
        }
    }

    /// Whether there is room for a type; of the types that the catalog no longer remembers, the one whose latest
    /// occurrence is the oldest goes.
    fn make_room<'a>(&mut self, event_type: &str, rule_of: impl Fn(&str) -> Option<Rule<'a>>) -> bool {
        if self.types.len() < MAX_TYPES || self.types.contains_key(event_type) {
            return true;
        }
        self.overflowed = true;
        let unlisted = self.types.iter().filter(|(name, _)| rule_of(name).is_none());
        let Some(oldest) = unlisted.min_by_key(|(_, history)| history.last_ms).map(|(name, _)| name.clone())
        else {
            return false;
        };
        self.types.remove(&oldest);
        true
    }

    pub(super) fn approximate_bytes(&self) -> usize {
        self.types.iter().fold(0, |sum, (name, history)| {
            sum.saturating_add(name.len()).saturating_add(history.approximate_bytes())
        })
    }
}

#[cfg(test)]
mod tests;
