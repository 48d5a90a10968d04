//! Dead letters counted by what they have in common.

use std::collections::BTreeMap;

use super::letter::DeadLetter;
use super::place::Place;

/// Groups kept; further ones are counted together, so that a topic of any size fits into memory.
pub const MAX_GROUPS: usize = 1_000;
const HOUR_MS: i64 = 3_600_000;

/// What records of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Error code.
    Code,
    /// Topic they were read from.
    Topic,
    /// Partition they were read from.
    Partition,
    /// Schema id.
    Schema,
    /// Day, in UTC, on which they became dead letters.
    Day,
    /// Hour in which they did.
    Hour,
}

/// A value in which records of a group agree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// None of them says.
    Absent,
    /// A number.
    Number(i64),
    /// A text of a header.
    Text(String),
    /// Begin of a day or an hour, ms since the Unix epoch.
    Time(i64),
}

/// Records that agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// How many of them have been replayed before.
    pub replayed: u64,
    /// Time and place of the first that became a dead letter; a record without a time counts as older than any.
    pub first: (Option<i64>, Place),
    /// Time and place of the last.
    pub last: (Option<i64>, Place),
}

/// Counts of records by what they have in common.
#[derive(Clone, Debug)]
pub struct Groups {
    by: Vec<By>,
    groups: BTreeMap<Vec<Cell>, Group>,
    total: u64,
    beyond: u64,
}

impl By {
    /// The value of a record.
    fn of(self, letter: &DeadLetter) -> Cell {
        let text = |text: &Option<String>| text.clone().map(Cell::Text);
        let begin = |length_ms| {
            let time_ms: Option<i64> = letter.timestamp_ms;
            time_ms.map(|time_ms| Cell::Time(time_ms.div_euclid(length_ms) * length_ms))
        };
        let cell = match self {
            By::Code => text(&letter.origin.code),
            By::Topic => text(&letter.origin.topic),
            By::Partition => letter.origin.partition.map(|partition| Cell::Number(partition.into())),
            By::Schema => letter.origin.schema_id.map(|id| Cell::Number(id.into())),
            By::Day => begin(24 * HOUR_MS),
            By::Hour => begin(HOUR_MS),
        };
        cell.unwrap_or(Cell::Absent)
    }

    fn is_time(self) -> bool {
        matches!(self, By::Day | By::Hour)
    }
}

impl Groups {
    /// None yet. A repeated `by` counts once.
    pub fn new(by: &[By]) -> Groups {
        let mut once: Vec<By> = Vec::new();
        by.iter().for_each(|by| {
            if !once.contains(by) {
                once.push(*by)
            }
        });
        Groups { by: once, groups: BTreeMap::new(), total: 0, beyond: 0 }
    }

    /// Counts a record.
    pub fn add(&mut self, letter: &DeadLetter) {
        self.total += 1;
        let key: Vec<Cell> = self.by.iter().map(|by| by.of(letter)).collect();
        let seen = (letter.timestamp_ms, letter.place);
        let replayed = u64::from(letter.origin.replays > 0);
        if let Some(group) = self.groups.get_mut(&key) {
            group.count += 1;
            group.replayed += replayed;
            group.first = group.first.min(seen);
            group.last = group.last.max(seen);
        } else if self.groups.len() < MAX_GROUPS {
            self.groups.insert(key, Group { count: 1, replayed, first: seen, last: seen });
        } else {
            self.beyond += 1;
        }
    }

    /// What they are grouped by, in the order of the cells.
    pub fn by(&self) -> &[By] {
        &self.by
    }

    /// How many records were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many of them belong to groups beyond [`MAX_GROUPS`].
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// The groups: in the order of their cells when they tell a time, else the largest first.
    pub fn rows(&self) -> Vec<(&[Cell], &Group)> {
        let mut rows: Vec<(&[Cell], &Group)> =
            self.groups.iter().map(|(key, group)| (key.as_slice(), group)).collect();
        if !self.by.iter().any(|by| by.is_time()) {
            rows.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{letter, letter_of};
    use super::*;

    fn text(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }

    #[test]
    fn records_are_counted_with_their_first_and_last() {
        let mut groups = Groups::new(&[By::Code, By::Schema, By::Code]);
        for letter in [
            letter(1, 20, "bad_avro"),
            letter(0, 5, "bad_key"),
            letter_of(Some("bob"), 3, 10, "bad_avro", 2),
            letter(2, 30, "bad_avro"),
        ] {
            groups.add(&letter);
        }
        assert_eq!((groups.by(), groups.total(), groups.beyond()), (&[By::Code, By::Schema][..], 4, 0));
        let rows = groups.rows();
        let (cells, group) = rows[0];
        assert_eq!(cells, [text("bad_avro"), Cell::Number(7)]);
        assert_eq!((group.count, group.replayed), (3, 1));
        assert_eq!(group.first, (Some(10_000), Place { partition: 3, offset: 10 }));
        assert_eq!(group.last, (Some(30_000), Place { partition: 2, offset: 30 }));
        assert_eq!((rows.len(), rows[1].1.count), (2, 1));
    }

    #[test]
    fn days_and_hours_are_in_order_of_time() {
        let at = |offset, time_ms| {
            let mut letter = letter(0, offset, "bad_avro");
            letter.timestamp_ms = time_ms;
            letter
        };
        let letters = [
            at(0, Some(25 * HOUR_MS + 5)),
            at(1, Some(25 * HOUR_MS)),
            at(2, Some(HOUR_MS - 1)),
            at(3, Some(-1)),
            at(4, None),
        ];
        let cells = |by: By| {
            let mut groups = Groups::new(&[by]);
            letters.iter().for_each(|letter| groups.add(letter));
            let rows = groups.rows().into_iter();
            rows.map(|(cells, group)| (cells[0].clone(), group.count)).collect::<Vec<_>>()
        };
        let time = Cell::Time;
        let absent = Cell::Absent;
        assert_eq!(
            cells(By::Hour),
            [(absent.clone(), 1), (time(-HOUR_MS), 1), (time(0), 1), (time(25 * HOUR_MS), 2)]
        );
        assert_eq!(
            cells(By::Day),
            [(absent, 1), (time(-24 * HOUR_MS), 1), (time(0), 1), (time(24 * HOUR_MS), 2)]
        );
    }

    #[test]
    fn what_a_header_does_not_say_is_a_group_too() {
        let mut letter = letter(0, 0, "bad_avro");
        letter.origin = Default::default();
        let by = [By::Code, By::Topic, By::Partition, By::Schema];
        let mut groups = Groups::new(&by);
        groups.add(&letter);
        assert_eq!(groups.rows()[0].0, vec![Cell::Absent; 4]);
    }

    #[test]
    fn memory_is_bounded_and_nothing_goes_uncounted() {
        let mut groups = Groups::new(&[By::Code]);
        for number in 0..3 * MAX_GROUPS {
            groups.add(&letter(0, 0, &format!("code_{}", number % (2 * MAX_GROUPS))));
        }
        assert_eq!(groups.rows().len(), MAX_GROUPS);
        let counted: u64 = groups.rows().iter().map(|(_, group)| group.count).sum();
        assert_eq!((counted, groups.beyond()), (2 * MAX_GROUPS as u64, MAX_GROUPS as u64));
        assert_eq!(groups.total(), counted + groups.beyond());
    }
}
