//! Which retry topic a record waits in, and until when: rules P3 to P6.

use std::time::Duration;

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

    /// When a record that enters `tier` now is due, ms since the Unix epoch. In tier 1 rounded up to whole ticks of its
    /// delay, so that all records of a user that wait there come due together and go in one pass (rule P4).
    pub fn due_ms(&self, tier: u8, now_ms: i64) -> i64 {
        let Some(delay) = self.delays_ms.get(usize::from(tier.saturating_sub(1))).copied() else {
            return now_ms;
        };
        let due = now_ms.saturating_add(delay);
        if tier > 1 {
            return due;
        }
        match due.rem_euclid(delay) {
            0 => due,
            over => due.saturating_add(delay - over),
        }
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

    #[test]
    fn nothing_is_written_to_a_tier_that_is_not_assigned() {
        let two = tiers().limited_to(2);
        assert_eq!((two.of_attempt(4), two.of_blocked(i64::MAX), two.last()), (2, 2, 2));
    }
}
