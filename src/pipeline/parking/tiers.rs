//! Which retry topic a record waits in, and until when: rules P3 to P6.

use std::time::Duration;

use crate::mutant::{Mutant, is};

/// Most retry topics there can be; a tier is written as one digit or two.
pub const MAX_TIERS: usize = 16;

/// The delays of the retry topics, ascending; tier 1 has the shortest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiers {
    delays_ms: Vec<i64>,
}

impl Tiers {
    /// Tiers with these delays; sorted, so that a longer tier is never a shorter wait. At most [`MAX_TIERS`] count.
    pub fn new(delays: &[Duration]) -> Tiers {
        let mut delays_ms: Vec<i64> = delays
            .iter()
            .take(MAX_TIERS)
            .map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX).max(1))
            .collect();
        delays_ms.sort_unstable();
        Tiers { delays_ms }
    }

    /// How many there are.
    pub fn count(&self) -> u8 {
        u8::try_from(self.delays_ms.len()).unwrap_or(u8::MAX)
    }

    /// The first `count` of them: no member writes to a tier that it has not assigned (rule O8).
    pub fn limited_to(&self, count: u8) -> Tiers {
        Tiers { delays_ms: self.delays_ms.iter().take(usize::from(count)).copied().collect() }
    }

    /// The tier of a record that has failed `attempt` times, from 1; the last one for all attempts beyond it (rule P5).
    pub fn of_attempt(&self, attempt: u32) -> u8 {
        u8::try_from(attempt).unwrap_or(u8::MAX).clamp(1, self.count().max(1))
    }

    /// The last tier.
    pub fn last(&self) -> u8 {
        self.count().max(1)
    }

    /// The tier of a record that only waits for another one: the longest delay that is not longer than the blocker's
    /// remaining wait, tier 1 at least (rule P3).
    pub fn of_blocked(&self, remaining_ms: i64) -> u8 {
        let fitting = self.delays_ms.iter().take_while(|delay| **delay <= remaining_ms).count();
        u8::try_from(fitting).unwrap_or(u8::MAX).max(1)
    }

    /// When a record that has failed and enters `tier` now is due, ms since the Unix epoch. In tier 1 rounded up to whole
    /// ticks of its delay (rule P4).
    pub fn due_ms(&self, tier: u8, now_ms: i64) -> i64 {
        let Some(delay) = self.delays_ms.get(usize::from(tier.saturating_sub(1))).copied() else {
            return now_ms;
        };
        let due = now_ms.saturating_add(delay);
        if tier > 1 || is(Mutant::P4Ticks) { due } else { whole_ticks(due, delay) }
    }

    /// When a record that enters `tier` now is due that only waits for one that is due at `blocker_ms`. In tier 1 it is due
    /// with its blocker, at the next tick at the earliest, so that all records of a user that wait there come due together
    /// and go in one pass (rule P4). A whole delay more for each would never let a user catch up who sends something at
    /// every tick: at tick T those that came since T - 1 would still wait, and block those that come then.
    pub fn due_behind_ms(&self, tier: u8, now_ms: i64, blocker_ms: i64) -> i64 {
        let latest = self.due_ms(tier, now_ms);
        let Some(delay) = self.delays_ms.first().copied().filter(|_| tier == 1 && !is(Mutant::P4Ticks))
        else {
            return latest;
        };
        let next = whole_ticks(now_ms.saturating_add(1), delay);
        whole_ticks(blocker_ms, delay).max(next).min(latest)
    }
}

/// The time, rounded up to whole ticks.
fn whole_ticks(at_ms: i64, tick_ms: i64) -> i64 {
    match at_ms.rem_euclid(tick_ms) {
        0 => at_ms,
        over => at_ms.saturating_add(tick_ms - over),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers() -> Tiers {
        Tiers::new(&[1, 10, 60, 600].map(Duration::from_secs))
    }

    #[test]
    fn each_attempt_has_its_tier_and_the_last_one_stays() {
        let of: Vec<u8> = [0, 1, 2, 4, 5, 1_000].map(|attempt| tiers().of_attempt(attempt)).into();
        assert_eq!(of, [1, 1, 2, 4, 4, 4]);
    }

    /// Rule P3.
    #[test]
    fn a_blocked_record_waits_in_the_longest_tier_that_its_blocker_outlasts() {
        let of: Vec<u8> = [-5, 0, 999, 1_000, 9_999, 10_000, 60_000, 599_999, 600_000, i64::MAX]
            .map(|ms| tiers().of_blocked(ms))
            .into();
        assert_eq!(of, [1, 1, 1, 1, 1, 2, 3, 3, 4, 4]);
    }

    /// Rule P4.
    #[test]
    fn due_times_of_tier_1_are_whole_ticks_of_its_delay() {
        assert_eq!(tiers().due_ms(1, 5_000), 6_000);
        assert_eq!(tiers().due_ms(1, 5_001), 7_000);
        assert_eq!(tiers().due_ms(1, 5_999), 7_000);
        assert_eq!(tiers().due_ms(2, 5_001), 15_001);
    }

    /// Rule P4: found by the simulation, where a user with an event at every tick never caught up.
    #[test]
    fn what_waits_behind_another_is_due_with_it() {
        assert_eq!(tiers().due_behind_ms(1, 5_200, 6_000), 6_000);
        assert_eq!(tiers().due_behind_ms(1, 5_999, 6_000), 6_000);
        assert_eq!(tiers().due_behind_ms(1, 6_000, 6_000), 7_000, "not before the next tick");
        assert_eq!(tiers().due_behind_ms(1, 6_001, 6_000), 7_000);
        assert_eq!(
            tiers().due_behind_ms(1, 5_200, 14_000),
            7_000,
            "others wait behind it: no longer than the tier's delay"
        );
        assert_eq!(tiers().due_behind_ms(2, 5_200, 20_000), 15_200);
    }

    #[test]
    fn nothing_is_written_to_a_tier_that_is_not_assigned() {
        let two = tiers().limited_to(2);
        assert_eq!((two.of_attempt(4), two.of_blocked(i64::MAX), two.last()), (2, 2, 2));
    }
}
