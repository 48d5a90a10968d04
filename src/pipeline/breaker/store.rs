//! The store behind its breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::circuit::{ANSWERED, Limits, Results};
use super::handle::{Breaker, Patience, unless_ended};
use crate::mutant::{Mutant, is};
use crate::pipeline::clock::Clock;
use crate::pipeline::decoded::Abandoned;
use crate::pipeline::failure::{Failure, Infrastructure, Reaction, policy};
use crate::store::{Cell, FenceRow, StateStore, StoreError};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::{Dependency, Metrics, StoreOperation};

/// Keys that a check reads: an odd number, so that there is a majority, and more than one, because one key may lie where
/// its replicas are down.
const CHECKED_KEYS: u64 = 3;

/// The store's clock, read between two readings of ours, ms since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Ours before.
    pub before_ms: i64,
    /// The store's, unless it is this machine's own.
    pub theirs_ms: Option<i64>,
    /// Ours after.
    pub after_ms: i64,
}

/// What became of a read: the user's cell if there is one.
pub type Loaded = Result<Option<Bytes>, StoreError>;

/// A store that is waited for.
#[derive(Clone)]
pub struct GuardedStore {
    store: Arc<dyn StateStore>,
    breaker: Breaker,
    metrics: Metrics,
    /// Number of the next key that a check reads.
    next_key: Arc<AtomicU64>,
}

impl GuardedStore {
    /// Puts a store behind a breaker of its own.
    pub fn new(
        store: Arc<dyn StateStore>,
        limits: Limits,
        metrics: &Metrics,
        health: &Health,
    ) -> GuardedStore {
        let breaker = Breaker::new(Dependency::Store, limits, metrics, health);
        GuardedStore { store, breaker, metrics: metrics.clone(), next_key: Arc::default() }
    }

    /// The breaker.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Cells of the users, one answer a user in the order asked. It waits for as long as the store is ill; a user's
    /// [`StoreError::Unavailable`] means that his cell alone cannot be read: other keys could, right after.
    ///
    /// # Errors
    ///
    /// [`Abandoned`] when the epoch ends first.
    pub async fn load(&self, user_ids: &[&str], epoch: &CancellationToken) -> Result<Vec<Loaded>, Abandoned> {
        let mut found: Vec<Option<Loaded>> = user_ids.iter().map(|_| None).collect();
        let mut missing: Vec<usize> = (0..user_ids.len()).collect();
        let mut patience = Patience::default();
        while !missing.is_empty() {
            let permit = self.breaker.admit(epoch, &mut patience).await?;
            if permit.probes() {
                // A kinder question to a store that has just come back than a whole slice of a batch.
                let (results, reason) = self.ask_for_others(epoch).await?;
                permit.ended(results, &reason);
                continue;
            }
            let wanted: Vec<&str> = missing.iter().filter_map(|at| user_ids.get(*at).copied()).collect();
            let answers = unless_ended(epoch, self.store.load(&wanted)).await?;
            let mut results = Results::default();
            let mut unread = Vec::new();
            for (at, answer) in missing.iter().zip(answers) {
                match &answer {
                    Err(error) if is_outage(error) => {
                        results.failed += 1;
                        unread.push(*at);
                    }
                    _ => results.answered += 1,
                }
                if let Some(place) = found.get_mut(*at) {
                    *place = Some(answer);
                }
            }
            missing = unread;
            if missing.is_empty() {
                permit.ended(results, &"");
                break;
            }
            self.metrics.store_retry(StoreOperation::Load);
            let (others, reason) = self.ask_for_others(epoch).await?;
            if permit.checked(others, &reason) {
                // Their own trouble: it says nothing about the store.
                permit.ended(Results { failed: 0, ..results }, &"");
                break;
            }
            permit.ended(results, &reason);
        }
        let lost = || Err(StoreError::Unavailable("the store has not answered for this user".to_owned()));
        Ok(found.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect())
    }

    /// Writes all cells, repeated with the same bytes and timestamps until every one is acknowledged (rule W2). The
    /// answer is never [`StoreError::Unavailable`].
    ///
    /// # Errors
    ///
    /// [`Abandoned`] when the epoch ends first.
    pub async fn write(
        &self,
        cells: &[Cell],
        epoch: &CancellationToken,
    ) -> Result<Result<(), StoreError>, Abandoned> {
        if is(Mutant::W2) {
            let _ = unless_ended(epoch, self.store.write(cells)).await?;
            return Ok(Ok(()));
        }
        self.until_answered(StoreOperation::Write, epoch, || self.store.write(cells)).await
    }

    /// [`StateStore::clock_ms`] between two readings of `clock`, repeated until it is answered.
    ///
    /// # Errors
    ///
    /// [`Abandoned`] when the epoch ends first.
    pub async fn read_clock(
        &self,
        clock: &dyn Clock,
        epoch: &CancellationToken,
    ) -> Result<Result<ClockReading, StoreError>, Abandoned> {
        let attempt = || async {
            let before_ms = clock.now_ms();
            let theirs_ms = self.store.clock_ms().await?;
            Ok(ClockReading { before_ms, theirs_ms, after_ms: clock.now_ms() })
        };
        self.until_answered(StoreOperation::Fence, epoch, attempt).await
    }

    /// [`StateStore::read_fence`], repeated until it is answered.
    ///
    /// # Errors
    ///
    /// [`Abandoned`] when the epoch ends first.
    pub async fn read_fence(
        &self,
        topic: &str,
        partition: i32,
        epoch: &CancellationToken,
    ) -> Result<Result<Option<FenceRow>, StoreError>, Abandoned> {
        let attempt = || self.store.read_fence(topic, partition);
        self.until_answered(StoreOperation::Fence, epoch, attempt).await
    }

    /// [`StateStore::replace_fence`], repeated until it is answered.
    ///
    /// # Errors
    ///
    /// [`Abandoned`] when the epoch ends first.
    pub async fn replace_fence(
        &self,
        topic: &str,
        partition: i32,
        expected: Option<&FenceRow>,
        next: &FenceRow,
        epoch: &CancellationToken,
    ) -> Result<Result<(), StoreError>, Abandoned> {
        let attempt = || self.store.replace_fence(topic, partition, expected, next);
        self.until_answered(StoreOperation::Fence, epoch, attempt).await
    }

    async fn until_answered<T, F>(
        &self,
        operation: StoreOperation,
        epoch: &CancellationToken,
        attempt: impl Fn() -> F,
    ) -> Result<Result<T, StoreError>, Abandoned>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut patience = Patience::default();
        loop {
            let permit = self.breaker.admit(epoch, &mut patience).await?;
            match unless_ended(epoch, attempt()).await? {
                Err(error) if is_outage(&error) => {
                    self.metrics.store_retry(operation);
                    // Calls that take their whole time-out to fail would not fail often enough to open the breaker soon.
                    if !permit.probes() {
                        let (others, reason) = self.ask_for_others(epoch).await?;
                        permit.checked(others, &reason);
                    }
                    permit.failed(&error, &mut patience, epoch).await?;
                }
                answer => {
                    permit.ended(ANSWERED, &"");
                    return Ok(answer);
                }
            }
        }
    }

    /// Reads keys that nobody uses, other ones each time.
    async fn ask_for_others(&self, epoch: &CancellationToken) -> Result<(Results, String), Abandoned> {
        let first = self.next_key.fetch_add(CHECKED_KEYS, Ordering::Relaxed);
        let keys: Vec<String> =
            (first..first + CHECKED_KEYS).map(|n| format!("campaignd:probe:{n}")).collect();
        let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut results = Results::default();
        let mut reason = String::new();
        for answer in unless_ended(epoch, self.store.load(&asked)).await? {
            match answer {
                Err(error) if is_outage(&error) => {
                    results.failed += 1;
                    reason = error.to_string();
                }
                _ => results.answered += 1,
            }
        }
        Ok((results, reason))
    }
}

/// Whether it is no answer.
fn is_outage(error: &StoreError) -> bool {
    policy(&Failure::Infrastructure(Infrastructure::Store(error))) == Reaction::Wait
}
