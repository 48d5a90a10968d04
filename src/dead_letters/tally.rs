//! What a replay did, or would do, in numbers.

use std::collections::BTreeMap;

use super::letter::DeadLetter;
use super::order::Left;
use super::place::Place;

/// Left records named one by one; more are counted only.
const MAX_NAMED: usize = 20;
/// Codes counted one by one. We write fewer; whoever else writes to the topic may write any.
const MAX_CODES: usize = 100;

/// What became of the dead letters that a replay has looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records written to `events`.
    pub replayed: u64,
    /// Records that were asked for and stay, by reason.
    pub left: BTreeMap<Left, u64>,
    /// Records that were not asked for.
    pub not_asked: u64,
    /// Replayed and left by error code; the empty code stands for none and for what is beyond the bound.
    pub by_code: BTreeMap<String, (u64, u64)>,
    /// The first that were left.
    pub named: Vec<(Place, Left)>,
}

impl Tally {
    /// Counts a record that goes to `events`.
    pub fn replay(&mut self, letter: &DeadLetter) {
        self.replayed += 1;
        self.code(letter).0 += 1;
    }

    /// Counts a record that stays.
    pub fn leave(&mut self, letter: &DeadLetter, left: Left) {
        *self.left.entry(left).or_default() += 1;
        self.code(letter).1 += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push((letter.place, left));
        }
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: Tally) {
        self.replayed += other.replayed;
        self.not_asked += other.not_asked;
        for (left, count) in other.left {
            *self.left.entry(left).or_default() += count;
        }
        for (code, (replayed, left)) in other.by_code {
            let row = self.row(code);
            row.0 += replayed;
            row.1 += left;
        }
        self.named.extend(other.named);
        self.named.truncate(MAX_NAMED);
    }

    /// How many stay.
    pub fn left(&self) -> u64 {
        self.left.values().sum()
    }

    fn code(&mut self, letter: &DeadLetter) -> &mut (u64, u64) {
        self.row(letter.origin.code.clone().unwrap_or_default())
    }

    fn row(&mut self, code: String) -> &mut (u64, u64) {
        let is_full = self.by_code.len() >= MAX_CODES && !self.by_code.contains_key(&code);
        self.by_code.entry(if is_full { String::new() } else { code }).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::letter;
    use super::*;

    #[test]
    fn what_is_added_is_counted_as_if_it_had_been_counted_at_once() {
        let (mut whole, mut sum) = (Tally::default(), Tally::default());
        for offset in 0..50 {
            let mut part = Tally::default();
            for tally in [&mut whole, &mut part] {
                tally.replay(&letter(0, offset, "bad_avro"));
                tally.leave(&letter(1, offset, "bad_key"), Left::NoKey);
                tally.not_asked += 2;
            }
            sum.add(part);
        }
        assert_eq!(sum, whole);
        assert_eq!((sum.replayed, sum.left(), sum.not_asked), (50, 50, 100));
    }

    #[test]
    fn everything_is_counted_in_bounded_memory() {
        let mut tally = Tally::default();
        for number in 0..1_000 {
            tally.replay(&letter(0, number, &format!("code_{number}")));
            tally.leave(&letter(0, number, "bad_key"), Left::NoKey);
        }
        assert_eq!((tally.replayed, tally.left(), tally.left[&Left::NoKey]), (1_000, 1_000, 1_000));
        assert!(tally.by_code.len() <= MAX_CODES + 1);
        let sums = tally.by_code.values().fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        assert_eq!(sums, (1_000, 1_000));
        assert_eq!(tally.named.len(), MAX_NAMED);
        assert_eq!(tally.named[0], (Place { partition: 0, offset: 0 }, Left::NoKey));
    }
}
