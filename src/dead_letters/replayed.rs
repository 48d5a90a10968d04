//! What earlier replays have left behind: how far each has come, and what it was told.
//!
//! A replay commits its position with the records it writes, in one transaction. Beside each position stands a [`Mark`]:
//! the order, and where the replay means to end. So a later replay with another filter knows which records are on
//! `events` already, and a purge knows which are still to go there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::letter::DeadLetter;
use super::order::{Order, Verdict};

/// What stands beside a committed position, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// What the replay was told.
    pub order: Order,
    /// The offset before which it means to end.
    pub end: i64,
    /// Offsets that were asked for and are not on `events`, because it takes no record of their size.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub too_large: BTreeSet<i64>,
}

/// How many offsets a mark may name, so that it fits beside an offset.
pub const MAX_TOO_LARGE: usize = 64;

impl Mark {
    /// As text.
    pub fn to_text(&self) -> String {
        // A struct of texts and numbers always has a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From text; `None` when this release did not write it.
    pub fn from_text(text: &str) -> Option<Mark> {
        serde_json::from_str(text).ok()
    }
}

/// How far a replay has come in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Next offset it will look at.
    pub position: i64,
    /// The offset before which it means to end; `None` when it cannot be known.
    pub end: Option<i64>,
    /// Offsets that `events` did not take.
    pub too_large: BTreeSet<i64>,
}

/// A replay that was started at some time, by its consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The group.
    pub group_id: String,
    /// What it was told; `None` when another release wrote it down.
    pub order: Option<Order>,
    /// How far it has come, by partition.
    pub stands: BTreeMap<i32, Stand>,
}

impl Replayed {
    /// A replay as its group's offsets tell it: partition, position, text beside it.
    pub fn of(group_id: String, offsets: impl IntoIterator<Item = (i32, i64, String)>) -> Replayed {
        let mut replayed = Replayed { group_id, order: None, stands: BTreeMap::new() };
        for (partition, position, text) in offsets {
            let mark = Mark::from_text(&text);
            let (order, end, too_large) = match mark {
                Some(Mark { order, end, too_large }) => (Some(order), Some(end), too_large),
                None => (None, None, BTreeSet::new()),
            };
            replayed.stands.insert(partition, Stand { position, end, too_large });
            replayed.order = replayed.order.or(order);
        }
        replayed
    }

    /// Whether it, or one before it, has written this record to `events`.
    pub fn has_replayed(&self, letter: &DeadLetter) -> bool {
        let offset = letter.place.offset;
        self.stand(letter).is_some_and(|stand| offset < stand.position && !stand.too_large.contains(&offset))
            && self.order.as_ref().is_some_and(|order| is_replay(order, letter))
    }

    /// Whether it will write this record to `events` when it goes on. If that cannot be known, yes.
    pub fn is_still_to_replay(&self, letter: &DeadLetter) -> bool {
        self.stand(letter).is_some_and(|stand| {
            let open = stand.position..stand.end.unwrap_or(i64::MAX);
            open.contains(&letter.place.offset)
        }) && self.order.as_ref().is_none_or(|order| is_replay(order, letter))
    }

    /// Whether nothing of what it read or meant to read is left on the topic, whose partitions begin at these offsets.
    pub fn is_over(&self, starts: &BTreeMap<i32, i64>) -> bool {
        self.stands.iter().all(|(partition, stand)| {
            let is_behind = |offset| starts.get(partition).is_some_and(|start| offset <= *start);
            is_behind(stand.position) && stand.end.is_some_and(is_behind)
        })
    }

    fn stand(&self, letter: &DeadLetter) -> Option<&Stand> {
        self.stands.get(&letter.place.partition)
    }
}

fn is_replay(order: &Order, letter: &DeadLetter) -> bool {
    matches!(order.verdict(letter), Verdict::Replay { .. })
}

#[cfg(test)]
mod tests {
    use super::super::filter::Filter;
    use super::super::testing::{letter, letter_of};
    use super::*;

    fn order(code: &str) -> Order {
        let filter = Filter { codes: [code.to_owned()].into(), ..Filter::default() };
        Order { filter, max_replays: 3, events: "events".into() }
    }

    fn replayed(code: &str, position: i64, end: i64) -> Replayed {
        let mark = Mark { order: order(code), end, too_large: [3].into() };
        Replayed::of("g".into(), [(0, position, mark.to_text())])
    }

    #[test]
    fn what_lies_behind_its_position_has_been_replayed_if_it_was_asked_for() {
        let replayed = replayed("bad_avro", 10, 20);
        assert!(replayed.has_replayed(&letter(0, 9, "bad_avro")));
        assert!(!replayed.has_replayed(&letter(0, 10, "bad_avro")));
        assert!(!replayed.has_replayed(&letter(0, 9, "bad_key")), "it was told of another code");
        assert!(!replayed.has_replayed(&letter(0, 3, "bad_avro")), "events did not take it");
        assert!(!replayed.has_replayed(&letter(1, 9, "bad_avro")), "it was not in this partition");
        assert!(!replayed.has_replayed(&letter_of(None, 0, 9, "bad_avro", 0)), "it has left it");
        assert!(!replayed.has_replayed(&letter_of(Some("ada"), 0, 9, "bad_avro", 3)), "it has left it");
    }

    #[test]
    fn what_lies_before_its_end_is_still_to_be_replayed() {
        let replayed = replayed("bad_avro", 10, 20);
        let is_open = |letter: &DeadLetter| replayed.is_still_to_replay(letter);
        assert!(is_open(&letter(0, 10, "bad_avro")) && is_open(&letter(0, 19, "bad_avro")));
        assert!(!is_open(&letter(0, 9, "bad_avro")), "it is done");
        assert!(!is_open(&letter(0, 20, "bad_avro")), "it was not there yet");
        assert!(!is_open(&letter(0, 15, "bad_key")));
        assert!(!is_open(&letter(1, 15, "bad_avro")));
    }

    #[test]
    fn an_unreadable_mark_keeps_records_from_being_purged_and_none_from_being_replayed() {
        let replayed = Replayed::of("g".into(), [(0, 10, "{\"version\":9}".to_owned())]);
        assert_eq!(replayed.order, None);
        assert!(replayed.is_still_to_replay(&letter(0, 10, "bad_avro")));
        assert!(!replayed.is_still_to_replay(&letter(0, 9, "bad_avro")));
        assert!(!replayed.has_replayed(&letter(0, 9, "bad_avro")));
        assert!(!replayed.is_over(&[(0, 100)].into()));
    }

    #[test]
    fn it_is_over_when_the_log_begins_behind_its_end() {
        let replayed = replayed("bad_avro", 20, 20);
        assert!(replayed.is_over(&[(0, 20)].into()));
        assert!(!replayed.is_over(&[(0, 19)].into()));
        assert!(!replayed.is_over(&[(1, 100)].into()));
        assert!(!self::replayed("bad_avro", 10, 20).is_over(&[(0, 15)].into()));
    }

    #[test]
    fn the_largest_mark_fits_beside_an_offset() {
        let filter = Filter {
            codes: crate::pipeline::failure::BadRecord::ALL.map(|bad| bad.code().to_owned()).into(),
            user: Some("\u{1}".repeat(256)),
            schema_id: Some(u32::MAX),
            since_ms: Some(i64::MIN),
            until_ms: Some(i64::MAX),
            partition: Some(i32::MAX),
            from_offset: Some(i64::MAX - 1),
            to_offset: Some(i64::MAX),
        };
        filter.check().unwrap();
        let mark = Mark {
            order: Order { filter, max_replays: u32::MAX, events: "x".repeat(249) },
            end: i64::MAX,
            too_large: (0..MAX_TOO_LARGE as i64).map(|number| 1_000_000_000_000 + number).collect(),
        };
        let text = mark.to_text();
        // The broker's `offset.metadata.max.bytes`.
        assert!(text.len() <= 4_096, "{} bytes", text.len());
        assert_eq!(Mark::from_text(&text), Some(mark));
    }
}
