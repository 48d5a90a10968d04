//! The breaker as a pure state machine: results of calls and the time go in, what may be done comes out.
//!
//! Closed, it counts results over a sliding window and opens when the share of failures or the number of failures in a
//! row reaches its limit. Open, it lets one probe through at a time, at intervals that grow up to a bound. A probe that
//! gets through closes it; nothing else does.
//!
//! Times are durations since a moment of the caller's choice and never go back. It knows neither what is called nor whose
//! fault a failure is: whoever calls counts only what says something about the dependency as a whole.

use std::collections::VecDeque;
use std::time::Duration;

/// Parts that the window slides by; results are forgotten a part at a time.
const PARTS: u32 = 10;

/// When it opens, and how it tries to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How far back results count.
    pub window: Duration,
    /// Failures of a hundred results in the window at which it opens, if there are `run_length` results at least.
    pub failure_share_percent: u64,
    /// Failures in a row at which it opens.
    pub run_length: u64,
    /// From opening to the first probe, and at least between two.
    pub probe_min: Duration,
    /// At most between two probes.
    pub probe_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            window: Duration::from_secs(10),
            failure_share_percent: 50,
            run_length: 5,
            probe_min: Duration::from_millis(200),
            probe_max: Duration::from_secs(2),
        }
    }
}

/// Whether a call may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Yes, as the probe: nobody else gets through until its end is told.
    Probe,
    /// Not before that time.
    NotBefore(Duration),
    /// A probe is under way; its end will tell.
    ProbeUnderWay,
}

/// What a result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It is open from now on.
    Opened,
    /// It is closed from now on.
    Closed,
}

/// Calls that were answered, and calls that were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Answered, also with a refusal.
    pub answered: u32,
    /// Not answered.
    pub failed: u32,
}

/// One call that was answered.
pub const ANSWERED: Results = Results { answered: 1, failed: 0 };

impl Results {
    fn total(self) -> u64 {
        u64::from(self.answered) + u64::from(self.failed)
    }

    fn add(&mut self, other: Results) {
        self.answered = self.answered.saturating_add(other.answered);
        self.failed = self.failed.saturating_add(other.failed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { probe_at: Duration },
    Probing,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Circuit {
    limits: Limits,
    state: State,
    /// Results by the part of the window they came in, oldest first; at most [`PARTS`] and one.
    parts: VecDeque<(u64, Results)>,
    /// Failures since the last answer.
    run: u64,
    /// Between this probe and the next.
    interval: Duration,
    /// When a probe closed it, if one has.
    closed_at: Option<Duration>,
}

impl Circuit {
    /// A closed one.
    pub fn new(limits: Limits) -> Circuit {
        Circuit {
            limits,
            state: State::Closed,
            parts: VecDeque::new(),
            run: 0,
            interval: limits.probe_min,
            closed_at: None,
        }
    }

    /// Whether calls have to wait.
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Asks for a call. [`Admission::Probe`] takes the probe's place: [`Circuit::probed`] or [`Circuit::give_up`] must
    /// follow.
    pub fn admit(&mut self, now: Duration) -> Admission {
        match self.state {
            State::Closed => Admission::Go,
            State::Open { probe_at } if now >= probe_at => {
                self.state = State::Probing;
                Admission::Probe
            }
            State::Open { probe_at } => Admission::NotBefore(probe_at),
            State::Probing => Admission::ProbeUnderWay,
        }
    }

    /// Counts results of calls that were admitted with [`Admission::Go`]. Open, they are late and change nothing.
    pub fn record(&mut self, now: Duration, results: Results) -> Change {
        if self.state != State::Closed || results.total() == 0 {
            return Change::None;
        }
        let window = self.count(now, results);
        // The order within one call of many reads is not known: an answer among them ends the run.
        self.run = if results.answered == 0 { self.run.saturating_add(u64::from(results.failed)) } else { 0 };
        let too_many = window.total() >= self.limits.run_length
            && results.failed > 0
            && self.is_too_large_a_share(window);
        if too_many || self.run >= self.limits.run_length { self.open(now) } else { Change::None }
    }

    /// Judges a check: calls made only to learn whether the dependency answers at all, after one that failed. However
    /// few, they decide, because a window full of old answers would hide that an outage has just begun. They do not count:
    /// answers to a check would hide writes that fail again and again.
    pub fn check(&mut self, now: Duration, results: Results) -> Change {
        if self.state == State::Closed && self.is_too_large_a_share(results) {
            return self.open(now);
        }
        Change::None
    }

    /// The probe has ended. Only the holder of [`Admission::Probe`] may say so.
    pub fn probed(&mut self, now: Duration, got_through: bool) -> Change {
        if self.state != State::Probing {
            return Change::None;
        }
        if got_through {
            self.state = State::Closed;
            self.closed_at = Some(now);
            self.parts.clear();
            self.run = 0;
            return Change::Closed;
        }
        self.interval = self.longer();
        self.state = State::Open { probe_at: now.saturating_add(self.interval) };
        Change::None
    }

    /// The probe was dropped without an answer; the next caller takes its place at once.
    pub fn give_up(&mut self, now: Duration) {
        if self.state == State::Probing {
            self.state = State::Open { probe_at: now };
        }
    }

    fn open(&mut self, now: Duration) -> Change {
        // What opens again soon after it had closed was not well when its probe got through: it is asked less often.
        let soon = self.closed_at.is_some_and(|at| now.saturating_sub(at) < self.limits.window);
        self.interval = if soon { self.longer() } else { self.limits.probe_min };
        self.state = State::Open { probe_at: now.saturating_add(self.interval) };
        Change::Opened
    }

    fn longer(&self) -> Duration {
        self.interval.saturating_mul(2).min(self.limits.probe_max).max(self.limits.probe_min)
    }

    /// Adds the results and returns what the window holds.
    fn count(&mut self, now: Duration, results: Results) -> Results {
        let part = part_of(now, self.limits.window);
        match self.parts.back_mut() {
            Some((newest, counted)) if *newest >= part => counted.add(results),
            _ => self.parts.push_back((part, results)),
        }
        while self.parts.front().is_some_and(|(oldest, _)| oldest.saturating_add(u64::from(PARTS)) <= part) {
            self.parts.pop_front();
        }
        self.parts.iter().fold(Results::default(), |mut sum, (_, results)| {
            sum.add(*results);
            sum
        })
    }

    fn is_too_large_a_share(&self, results: Results) -> bool {
        results.total() > 0
            && u64::from(results.failed) * 100 >= self.limits.failure_share_percent * results.total()
    }
}

fn part_of(now: Duration, window: Duration) -> u64 {
    let part = (window / PARTS).as_millis().max(1);
    u64::try_from(now.as_millis() / part).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "circuit_tests.rs"]
mod tests;
