//! Waiting between attempts at something that infrastructure refuses.

use std::fmt::Display;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::decoded::Abandoned;

/// First wait; each next one is twice as long.
const FIRST: Duration = Duration::from_millis(50);
/// Longest wait, so that recovery is noticed soon.
const LONGEST: Duration = Duration::from_secs(2);
/// A log line at the first attempt and then each so many, so that an outage does not flood the log.
const LOG_EVERY: u32 = 30;

/// Exponential backoff that ends with its epoch.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next: FIRST, attempts: 0 }
    }
}

impl Backoff {
    /// Waits; [`Abandoned`] as soon as the epoch ends.
    pub async fn wait(&mut self, epoch: &CancellationToken, trouble: &impl Display) -> Result<(), Abandoned> {
        if self.attempts.is_multiple_of(LOG_EVERY) {
            tracing::warn!(attempt = self.attempts + 1, "{trouble}; trying again");
        }
        self.attempts = self.attempts.saturating_add(1);
        let wait = self.next;
        self.next = (self.next * 2).min(LONGEST);
        tokio::select! {
            biased;
            () = epoch.cancelled() => Err(Abandoned),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}
