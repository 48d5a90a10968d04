//! The pending index: per user the original positions that wait in retry topics, and when they are due (rule P1).
//!
//! It is memory: rebuilt from the retry topics at every assignment and rewind (rule O2).

use std::collections::{BTreeMap, BTreeSet};

use crate::position::Position;

/// What waits, of the users of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Due time in ms since the Unix epoch, by position, by user.
    users: BTreeMap<String, BTreeMap<Position, i64>>,
    /// Records that wait, by partition.
    counts: BTreeMap<i32, usize>,
}

impl Pending {
    /// Notes that the user's record waits until `due_ms`, or until then instead of what was noted before.
    pub fn insert(&mut self, user_id: &str, position: Position, due_ms: i64) {
        let positions = match self.users.get_mut(user_id) {
            Some(positions) => positions,
            None => self.users.entry(user_id.to_owned()).or_default(),
        };
        if positions.insert(position, due_ms).is_none() {
            *self.counts.entry(position.partition).or_insert(0) += 1;
        }
    }

    /// Notes that the user's record waits no more.
    pub fn remove(&mut self, user_id: &str, position: Position) {
        let Some(positions) = self.users.get_mut(user_id) else { return };
        if positions.remove(&position).is_some()
            && let Some(count) = self.counts.get_mut(&position.partition)
        {
            *count = count.saturating_sub(1);
        }
        if positions.is_empty() {
            self.users.remove(user_id);
        }
    }

    /// When the user's smallest waiting record is due, if it stands before `position`: then the record at `position` is
    /// blocked by it (rule P2).
    pub fn blocker(&self, user_id: &str, position: Position) -> Option<i64> {
        let (smallest, due_ms) = self.users.get(user_id)?.first_key_value()?;
        (*smallest < position).then_some(*due_ms)
    }

    /// Whether the user's record at `position` waits.
    pub fn contains(&self, user_id: &str, position: Position) -> bool {
        self.users.get(user_id).is_some_and(|positions| positions.contains_key(&position))
    }

    /// Partitions with a user of whom more than `max` records wait.
    pub fn overfull(&self, max: usize) -> BTreeSet<i32> {
        if self.counts.values().all(|count| *count <= max) {
            return BTreeSet::new();
        }
        let users = self.users.values().filter(|positions| positions.len() > max);
        users
            .filter_map(|positions| positions.keys().next_back())
            .map(|position| position.partition)
            .collect()
    }

    /// Records that wait, by partition.
    pub fn counts(&self) -> &BTreeMap<i32, usize> {
        &self.counts
    }

    /// Users with at least one record waiting.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.users.clear();
        self.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Position {
        Position { incarnation: 0, partition: 3, offset }
    }

    /// Rule P2.
    #[test]
    fn only_a_smaller_position_of_the_same_user_blocks() {
        let mut pending = Pending::default();
        pending.insert("ada", at(20), 1_000);
        pending.insert("ada", at(22), 500);
        assert_eq!(pending.blocker("ada", at(20)), None, "nothing blocks itself");
        assert_eq!(pending.blocker("ada", at(21)), Some(1_000));
        assert_eq!(pending.blocker("ada", at(22)), Some(1_000), "the smallest blocks, not the next");
        assert_eq!(pending.blocker("bob", at(99)), None);
        pending.remove("ada", at(20));
        assert_eq!(pending.blocker("ada", at(22)), None);
    }

    #[test]
    fn counts_follow_what_enters_and_leaves() {
        let mut pending = Pending::default();
        pending.insert("ada", at(20), 1);
        pending.insert("ada", at(20), 2);
        pending.insert("bob", at(21), 1);
        assert_eq!((pending.counts().get(&3), pending.users()), (Some(&2), 2));
        pending.insert("bob", at(22), 1);
        assert_eq!((pending.overfull(1), pending.overfull(2)), ([3].into(), [].into()));
        pending.remove("bob", at(22));
        pending.remove("ada", at(20));
        pending.remove("ada", at(20));
        assert_eq!((pending.counts().get(&3), pending.users()), (Some(&1), 1));
        assert!(!pending.contains("ada", at(20)) && pending.contains("bob", at(21)));
        pending.clear();
        assert_eq!(pending, Pending::default());
    }
}
