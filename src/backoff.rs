//! How long to wait between attempts at something that does not answer.

use std::fmt::Display;
use std::time::Duration;

/// A log line at the first attempt and then each so many, so that an outage does not flood the log.
const LOG_EVERY: u32 = 30;

/// Waits that double from one attempt to the next, up to a bound, so that recovery is noticed soon.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    attempts: u32,
}

impl Default for Backoff {
    /// For calls over a network.
    fn default() -> Backoff {
        Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
    }
}

impl Backoff {
    /// Waits from `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { next: first.min(longest), longest, attempts: 0 }
    }

    /// An attempt has failed: how long to wait before the next. It is logged now and then.
    pub fn after(&mut self, trouble: &impl Display) -> Duration {
        if self.attempts.is_multiple_of(LOG_EVERY) {
            tracing::warn!(attempt = self.attempts + 1, "{trouble}; trying again");
        }
        self.attempts = self.attempts.saturating_add(1);
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.longest);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(300));
        let waits: Vec<u128> = (0..6).map(|_| backoff.after(&"trouble").as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 300, 300, 300]);
        assert_eq!(
            Backoff::new(Duration::from_secs(9), Duration::from_secs(1)).after(&""),
            Duration::from_secs(1)
        );
    }
}
