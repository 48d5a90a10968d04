//! The breaker as lanes and committer share it: the state machine behind a lock, tokio's clock, and who is told.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::circuit::{Admission, Change, Circuit, Limits, Results};
use crate::backoff::Backoff;
use crate::pipeline::decoded::Abandoned;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::{Dependency, Metrics, Waiting};

/// The breaker of one dependency; clones share it.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

struct Shared {
    dependency: Dependency,
    circuit: Mutex<Watched>,
    /// Told whenever a caller that waits should ask again.
    changed: Notify,
    started: Instant,
    metrics: Metrics,
    health: Health,
}

struct Watched {
    circuit: Circuit,
    /// How often it has opened: who was admitted before the latest opening must not judge by the state after it.
    openings: u64,
    opened_at: Duration,
}

/// What one call that is repeated remembers between its attempts.
#[derive(Default)]
pub struct Patience {
    backoff: Backoff,
    /// From the first wait on, so that the gauge of paused work covers all of it.
    waiting: Option<Waiting>,
}

impl Patience {
    fn waits(&mut self, metrics: &Metrics) {
        self.waiting.get_or_insert_with(|| metrics.waiting());
    }
}

/// Leave to make a call. Dropping a probe's leave without telling its end lets the next caller probe.
#[must_use]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    openings: u64,
    probes: bool,
}

impl Breaker {
    /// A closed one.
    pub fn new(dependency: Dependency, limits: Limits, metrics: &Metrics, health: &Health) -> Breaker {
        let watched = Watched { circuit: Circuit::new(limits), openings: 0, opened_at: Duration::ZERO };
        let shared = Shared {
            dependency,
            circuit: Mutex::new(watched),
            changed: Notify::new(),
            started: Instant::now(),
            metrics: metrics.clone(),
            health: health.clone(),
        };
        Breaker { shared: Arc::new(shared) }
    }

    /// Whether calls have to wait.
    pub fn is_open(&self) -> bool {
        self.lock().circuit.is_open()
    }

    /// Waits until a call may be made: at once while it is closed; while it is open, until it is this caller's turn to
    /// probe or a probe of another has got through.
    ///
    /// # Errors
    ///
    /// [`Abandoned`] as soon as the epoch ends.
    pub async fn admit(
        &self,
        epoch: &CancellationToken,
        patience: &mut Patience,
    ) -> Result<Permit<'_>, Abandoned> {
        loop {
            // Made before the question, so that a change right after it is not missed.
            let changed = self.shared.changed.notified();
            let (openings, admission) = {
                let mut watched = self.lock();
                (watched.openings, watched.circuit.admit(self.now()))
            };
            let not_before = match admission {
                Admission::Go => return Ok(Permit { breaker: self, openings, probes: false }),
                Admission::Probe => {
                    self.shared.metrics.breaker_probe(self.shared.dependency);
                    return Ok(Permit { breaker: self, openings, probes: true });
                }
                Admission::NotBefore(at) => Some(self.shared.started + at),
                Admission::ProbeUnderWay => None,
            };
            patience.waits(&self.shared.metrics);
            let turn = async {
                match not_before {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = epoch.cancelled() => return Err(Abandoned),
                () = changed => {}
                () = turn => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.shared.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and tells about it. The lock is held meanwhile, so that gauge and note follow the state in order.
    fn change(&self, reason: &dyn Display, change: impl FnOnce(&mut Circuit, Duration) -> Change) {
        let now = self.now();
        let Shared { dependency, metrics, health, .. } = &*self.shared;
        let mut watched = self.lock();
        match change(&mut watched.circuit, now) {
            Change::None => {}
            Change::Opened => {
                watched.openings += 1;
                watched.opened_at = now;
                metrics.breaker_opened(*dependency);
                health.note(
                    dependency.as_str(),
                    Some(format!("the breaker is open, work waits and nothing is given up: {reason}")),
                );
                tracing::warn!("the breaker of the {dependency} is open, work waits: {reason}");
            }
            Change::Closed => {
                metrics.breaker_closed(*dependency);
                health.note(dependency.as_str(), None);
                let open_ms =
                    u64::try_from(now.saturating_sub(watched.opened_at).as_millis()).unwrap_or(u64::MAX);
                tracing::info!(open_ms, "the {dependency} answers again, work goes on");
            }
        }
        drop(watched);
        self.shared.changed.notify_waiters();
    }
}

impl Permit<'_> {
    /// Whether the call is the probe: everybody else waits for its end.
    pub fn probes(&self) -> bool {
        self.probes
    }

    /// Tells what came of the call; `reason` is why some of it was not answered. A probe has got through when anything
    /// was answered and no more than that failed.
    pub fn ended(mut self, results: Results, reason: &dyn Display) {
        let probed = std::mem::take(&mut self.probes);
        self.breaker.change(reason, |circuit, now| {
            if probed {
                circuit.probed(now, results.answered > results.failed)
            } else {
                circuit.record(now, results)
            }
        });
    }

    /// Tells that the call was not answered, and waits before the next attempt if the breaker leaves that to the caller.
    ///
    /// # Errors
    ///
    /// [`Abandoned`] as soon as the epoch ends.
    pub async fn failed(
        self,
        error: &impl Display,
        patience: &mut Patience,
        epoch: &CancellationToken,
    ) -> Result<(), Abandoned> {
        let breaker = self.breaker;
        patience.waits(&breaker.shared.metrics);
        self.ended(Results { answered: 0, failed: 1 }, error);
        if breaker.is_open() {
            return Ok(());
        }
        unless_ended(epoch, tokio::time::sleep(patience.backoff.after(error))).await
    }

    /// Tells what a check has found, and returns whether the breaker has been closed since this leave was given: then
    /// what failed under it is not an outage.
    pub fn checked(&self, results: Results, reason: &dyn Display) -> bool {
        self.breaker.change(reason, |circuit, now| circuit.check(now, results));
        let watched = self.breaker.lock();
        !watched.circuit.is_open() && watched.openings == self.openings
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probes {
            self.breaker.lock().circuit.give_up(self.breaker.now());
            self.breaker.shared.changed.notify_waiters();
        }
    }
}

/// What the future gives, or [`Abandoned`] as soon as the epoch ends.
pub(in crate::pipeline) async fn unless_ended<T>(
    epoch: &CancellationToken,
    future: impl Future<Output = T>,
) -> Result<T, Abandoned> {
    tokio::select! {
        biased;
        () = epoch.cancelled() => Err(Abandoned),
        value = future => Ok(value),
    }
}
