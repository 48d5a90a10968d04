//! Keeping to a rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a wait lasts before the stop is looked at.
const SLICE: Duration = Duration::from_millis(100);

/// Keeps to a rate by the clock, so that a slow moment is made up for.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Instant,
    rate: Option<u32>,
}

impl Pace {
    /// From now on so many a second; without a rate as fast as it goes.
    pub fn new(rate: Option<u32>) -> Pace {
        Pace { start: Instant::now(), rate }
    }

    /// Waits until the next may follow `sent` others, or until the stop. `pause` passes the time.
    pub fn wait(&self, sent: u64, stop: &AtomicBool, pause: impl Fn(Duration)) {
        let Some(rate) = self.rate else { return };
        let due = self.start + Duration::from_secs_f64(sent as f64 / f64::from(rate));
        while !stop.load(Ordering::Relaxed)
            && let left = due.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            pause(left.min(SLICE));
        }
    }
}
