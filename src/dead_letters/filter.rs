//! Which dead letters are meant.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::letter::DeadLetter;
use crate::event::Limits;
use crate::pipeline::failure::BadRecord;

/// Which dead letters are meant: those that meet every condition given. The default means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// With one of these error codes; empty: with any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub codes: BTreeSet<String>,
    /// With this user id as their key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Written under this schema id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_id: Option<u32>,
    /// Dead-lettered at this time or later, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Dead-lettered before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// In this partition of the dead letter topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// At this offset of the partition or behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_offset: Option<i64>,
    /// At this offset of the partition or before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_offset: Option<i64>,
}

/// Why a filter is refused: no record can meet it, or it says something else than was meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is no such code.
    #[error("there is no error code {code:?}{}; the codes are {}", nearest(code), codes())]
    Code {
        /// What was written.
        code: String,
    },
    /// No record has such a key.
    #[error(
        "a user id has 1 to {max_bytes} bytes, this one has {bytes}; records with other keys are found by their code, bad_key"
    )]
    User {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max_bytes: usize,
    },
    /// The time ends before it begins.
    #[error("--since must be before --until")]
    Time,
    /// Offsets are counted within a partition.
    #[error("offsets count within a partition; say which one with --partition")]
    OffsetsOfNoPartition,
    /// The range is empty.
    #[error("--from-offset {from} lies behind --to-offset {to}")]
    Offsets {
        /// First offset.
        from: i64,
        /// Last offset.
        to: i64,
    },
}

impl Filter {
    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), FilterError> {
        self.codes.iter().try_for_each(|code| check_code(code))?;
        let max_bytes = Limits::DEFAULT.max_id_bytes;
        if let Some(bytes) = self.user.as_ref().map(String::len)
            && !(1..=max_bytes).contains(&bytes)
        {
            return Err(FilterError::User { bytes, max_bytes });
        }
        if let (Some(since), Some(until)) = (self.since_ms, self.until_ms)
            && since >= until
        {
            return Err(FilterError::Time);
        }
        match (self.partition, self.from_offset, self.to_offset) {
            (None, Some(_), _) | (None, _, Some(_)) => Err(FilterError::OffsetsOfNoPartition),
            (_, Some(from), Some(to)) if from > to => Err(FilterError::Offsets { from, to }),
            _ => Ok(()),
        }
    }

    /// Whether it means all dead letters.
    pub fn is_everything(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether it means this one.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let (place, origin) = (letter.place, &letter.origin);
        let code =
            self.codes.is_empty() || origin.code.as_ref().is_some_and(|code| self.codes.contains(code));
        let user = self.user.as_ref().is_none_or(|user| letter.key.as_deref() == Some(user.as_bytes()));
        let schema = self.schema_id.is_none_or(|id| origin.schema_id == Some(id));
        let since = self.since_ms.is_none_or(|since| letter.timestamp_ms.is_some_and(|time| time >= since));
        let until = self.until_ms.is_none_or(|until| letter.timestamp_ms.is_some_and(|time| time < until));
        let stretch = self.stretch(place.partition, 0..i64::MAX);
        let is_there = stretch.is_some_and(|stretch| stretch.contains(&place.offset));
        code && user && schema && since && until && is_there
    }

    /// The part of a partition's log that can hold what is meant; `None` when none can.
    pub fn stretch(&self, partition: i32, log: Range<i64>) -> Option<Range<i64>> {
        if self.partition.is_some_and(|only| only != partition) {
            return None;
        }
        let start = self.from_offset.map_or(log.start, |from| from.max(log.start));
        let end = self.to_offset.map_or(log.end, |to| to.saturating_add(1).min(log.end));
        (start < end).then_some(start..end)
    }
}

/// Refuses a code that no release has written.
pub fn check_code(code: &str) -> Result<(), FilterError> {
    let is_known = BadRecord::ALL.iter().any(|bad| bad.code() == code);
    if is_known { Ok(()) } else { Err(FilterError::Code { code: code.to_owned() }) }
}

fn codes() -> String {
    BadRecord::ALL.map(BadRecord::code).join(", ")
}

fn nearest(code: &str) -> String {
    let distances = BadRecord::ALL.map(|bad| (strsim::damerau_levenshtein(bad.code(), code), bad.code()));
    let nearest = distances.into_iter().min().filter(|(distance, _)| *distance <= 3);
    nearest.map(|(_, code)| format!(" (did you mean {code}?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{letter, letter_of};
    use super::*;

    fn only(change: impl FnOnce(&mut Filter)) -> Filter {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    }

    #[test]
    fn each_condition_must_hold() {
        let dead = letter(2, 10, "bad_avro");
        assert!(Filter::default().matches(&dead));
        let codes = |codes: &[&str]| codes.iter().map(|code| (*code).to_owned()).collect();
        let cases = [
            (only(|f| f.codes = codes(&["bad_avro", "bad_key"])), true),
            (only(|f| f.codes = codes(&["bad_key"])), false),
            (only(|f| f.user = Some("ada".into())), true),
            (only(|f| f.user = Some("ad".into())), false),
            (only(|f| f.schema_id = Some(7)), true),
            (only(|f| f.schema_id = Some(8)), false),
            (only(|f| f.since_ms = Some(10_000)), true),
            (only(|f| f.since_ms = Some(10_001)), false),
            (only(|f| f.until_ms = Some(10_001)), true),
            (only(|f| f.until_ms = Some(10_000)), false),
            (only(|f| f.partition = Some(2)), true),
            (only(|f| f.partition = Some(1)), false),
            (only(|f| (f.partition, f.from_offset, f.to_offset) = (Some(2), Some(10), Some(10))), true),
            (only(|f| (f.partition, f.from_offset) = (Some(2), Some(11))), false),
            (only(|f| (f.partition, f.to_offset) = (Some(2), Some(9))), false),
            (only(|f| (f.user, f.schema_id) = (Some("ada".into()), Some(8))), false),
        ];
        for (filter, expected) in cases {
            assert_eq!(filter.check(), Ok(()), "{filter:?}");
            assert_eq!(filter.matches(&dead), expected, "{filter:?}");
        }
    }

    #[test]
    fn what_a_record_does_not_have_is_not_what_was_asked_for() {
        let mut dead = letter_of(None, 0, 1, "bad_key", 0);
        dead.timestamp_ms = None;
        dead.origin.code = None;
        assert!(!only(|f| f.user = Some("ada".into())).matches(&dead));
        assert!(!only(|f| f.since_ms = Some(0)).matches(&dead));
        assert!(!only(|f| f.until_ms = Some(i64::MAX)).matches(&dead));
        assert!(!only(|f| f.codes = ["bad_key".to_owned()].into()).matches(&dead));
        assert!(Filter::default().matches(&dead));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_sentence() {
        let refused = |change: fn(&mut Filter)| only(change).check().unwrap_err().to_string();
        let code = refused(|f| f.codes = ["unkown_schema".to_owned()].into());
        assert!(code.contains("did you mean unknown_schema?") && code.contains("bad_key, "), "{code}");
        assert!(!refused(|f| f.codes = ["quite_else".to_owned()].into()).contains("did you mean"));
        assert!(refused(|f| f.user = Some(String::new())).contains("1 to 256 bytes"));
        assert!(refused(|f| f.user = Some("x".repeat(257))).contains("this one has 257"));
        assert!(refused(|f| (f.since_ms, f.until_ms) = (Some(5), Some(5))).contains("--since"));
        assert!(refused(|f| f.from_offset = Some(5)).contains("--partition"));
        assert!(refused(|f| f.to_offset = Some(5)).contains("--partition"));
        let offsets = refused(|f| (f.partition, f.from_offset, f.to_offset) = (Some(0), Some(6), Some(5)));
        assert!(offsets.contains("6") && offsets.contains("5"), "{offsets}");
    }

    #[test]
    fn the_known_codes_are_those_that_the_pipeline_writes() {
        let source = include_str!("../pipeline/failure.rs");
        let written: BTreeSet<&str> =
            source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(BadRecord::ALL.map(BadRecord::code).into_iter().collect::<BTreeSet<_>>(), written);
    }

    #[test]
    fn a_stretch_is_what_must_be_read() {
        let filter = only(|f| (f.partition, f.from_offset, f.to_offset) = (Some(1), Some(5), Some(8)));
        assert_eq!(filter.stretch(1, 0..100), Some(5..9));
        assert_eq!(filter.stretch(1, 7..8), Some(7..8));
        assert_eq!(filter.stretch(1, 9..100), None);
        assert_eq!(filter.stretch(0, 0..100), None);
        assert_eq!(Filter::default().stretch(4, 3..9), Some(3..9));
        assert_eq!(Filter::default().stretch(4, 9..9), None);
    }
}
