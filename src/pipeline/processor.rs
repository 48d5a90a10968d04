//! The processor: one task that wires the hops and owns every piece of control state.
//!
//! At most one batch is in the lanes and one at the committer; a third waits inside the log, which never stops polling.
//! Batches commit in order, so no out-of-order bookkeeping of offsets exists. Every trouble ends in one recovery path:
//! [`Processor::rewind`].

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::apply::Standing;
use super::breaker::{GuardedSchemas, GuardedStore};
use super::campaigns::CampaignSource;
use super::clock::Clock;
use super::committed::{CommitTrouble, Committed, store_and_commit};
use super::decided::{Decided, LaneWaiting, Tally};
use super::housekeeping::Housekeeping;
use super::lane::{LaneError, LaneParts, LaneWork, Lanes, lane_of};
use super::log::{EventLog, EventOutput, Fetched, Input, LogError, Record, Signal, Start, Want};
use super::owner::{Owner, TakeError, Taken};
use super::ownership::{Assigned, Ownership};
use super::parking::Tiers;
use super::settings::RetrySettings;
use super::watermarks::Watermarks;
use crate::mutant::{Mutant, is};
use crate::telemetry::health::{Condition, Health};
use crate::telemetry::metrics::{Metrics, RewindCause};

/// An owner commits its offsets and renews its fences this often (rule O3).
const RENEWAL_PERIOD: Duration = Duration::from_secs(3_600);

/// Records per user and batch are cut from here, by four each time, when an outbox is full; at one they fit.
const FIRST_RECORDS_PER_USER: usize = 256;

/// Records of a batch after the second failure in a row are half a half of this, and so on down to one.
const FIRST_RECORDS_AFTER_FAILURE: usize = 16_384;
/// The wait before a rewind after the second failure in a row is four times this; it doubles from there.
const FIRST_REWIND_DELAY: Duration = Duration::from_millis(25);
const LONGEST_REWIND_DELAY: Duration = Duration::from_secs(3);
/// So many batches in a row must commit before smaller bounds are lifted.
const LIFT_AFTER: u32 = 16;
/// Names the note about held partitions in the readiness detail.
const HELD_NOTE: &str = "held_partitions";
/// Before partitions that could not be taken are taken again.
const RETAKE_PAUSE: Duration = Duration::from_millis(200);

/// Why the processor ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// An operator must act; the text says how.
    #[error("{0}")]
    Refused(String),
    /// A part of the processor ended.
    #[error("{0}; restart the instance and report this")]
    Broken(&'static str),
}

/// What the processor is made of.
pub struct Parts<L> {
    /// The consumer side.
    pub log: L,
    /// The producer side.
    pub output: Arc<dyn EventOutput>,
    /// The live campaigns.
    pub campaigns: Arc<dyn CampaignSource>,
    /// What the lanes need.
    pub lanes: LaneParts,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Health.
    pub health: Health,
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs until `shutdown`, or until it cannot go on.
///
/// # Errors
///
/// [`PipelineError`] when an operator must act.
pub async fn run<L: EventLog>(parts: Parts<L>, shutdown: CancellationToken) -> Result<(), PipelineError> {
    Processor::new(parts).run(shutdown).await
}

struct Processor<L> {
    log: L,
    output: Arc<dyn EventOutput>,
    campaigns: Arc<dyn CampaignSource>,
    lanes: Lanes,
    store: GuardedStore,
    owner: Arc<Owner>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    health: Health,
    drain_timeout: Duration,
    retry: RetrySettings,

    /// Raised by every rewind and rebalance; batches of an older epoch are dropped.
    epoch: u64,
    /// Cancelled when the epoch ends.
    token: CancellationToken,
    /// Number of the newest batch; never restarts (rule F2).
    batch: u64,
    committed_batch: u64,
    committed_offsets: Arc<BTreeMap<Input, i64>>,
    ownership: Option<Arc<Ownership>>,
    /// The retry topics that may be written to: those configured and assigned (rule O8).
    tiers: Arc<Tiers>,
    watermarks: Watermarks,
    housekeeping: Housekeeping,
    /// What waits, by lane, and the partitions held back because of it (rule P8).
    waiting: BTreeMap<usize, LaneWaiting>,
    held: BTreeSet<i32>,
    renewed: Instant,
    /// Transactions that failed since the last one that committed.
    failures: u32,
    /// Batches to commit until a bound that failures or full outboxes brought down is lifted; `None` without one.
    lift_after: Option<u32>,
    /// Set while outboxes are too full for the configured bound; lifted by the next assignment or renewal, or when
    /// `lift_after` has run down.
    records_per_user: Option<usize>,

    /// The newest assignment.
    assigned: Assigned,
    under_way: UnderWay,
    /// Decided, waiting for the committer.
    decided: Option<Decided>,
}

/// What is being worked on; dropping a piece abandons it.
#[derive(Default)]
struct UnderWay {
    taking: Option<Work<Result<Taken, TakeError>>>,
    deciding: Option<Work<Result<Decided, LaneError>>>,
    committing: Option<Work<Result<Committed, CommitTrouble>>>,
    marking: Option<Work<Result<BTreeMap<i32, i64>, TakeError>>>,
}

impl UnderWay {
    /// The next thing that finishes; pending for ever when nothing is under way.
    async fn progress(&mut self) -> Happening {
        tokio::select! {
            biased;
            result = finished(&mut self.taking) => Happening::Taken(result),
            result = finished(&mut self.committing) => Happening::Committed(result),
            result = finished(&mut self.deciding) => Happening::Decided(result),
            result = finished(&mut self.marking) => Happening::Marked(result),
        }
    }
}

/// What woke the processor.
enum Happening {
    Taken(Result<Taken, TakeError>),
    Decided(Result<Decided, LaneError>),
    Committed(Result<Committed, CommitTrouble>),
    Marked(Result<BTreeMap<i32, i64>, TakeError>),
    Signal(Signal),
    /// Something is due that nobody else wakes us for.
    Time,
    Shutdown,
}

impl<L: EventLog> Processor<L> {
    fn new(parts: Parts<L>) -> Processor<L> {
        let Parts { log, output, campaigns, lanes: lane_parts, clock, health } = parts;
        let stands = log.stands();
        let (limits, metrics) = (lane_parts.settings.breaker, &lane_parts.metrics);
        let store = GuardedStore::new(Arc::clone(&lane_parts.store), limits, metrics, &health);
        let schemas = GuardedSchemas::new(Arc::clone(&lane_parts.schemas), limits, metrics, &health);
        let owner = Owner {
            topic: lane_parts.settings.events_topic.clone(),
            store: store.clone(),
            stands: Arc::clone(&stands),
            output: Arc::clone(&output),
            campaigns: Arc::clone(&campaigns),
            clock: Arc::clone(&clock),
            metrics: lane_parts.metrics.clone(),
        };
        Processor {
            log,
            output,
            campaigns,
            lanes: Lanes::start(&lane_parts, &store, &schemas),
            store,
            owner: Arc::new(owner),
            clock,
            metrics: lane_parts.metrics.clone(),
            health,
            drain_timeout: lane_parts.settings.drain_timeout,
            tiers: Arc::new(lane_parts.settings.retry.tiers.limited_to(0)),
            watermarks: Watermarks::new(
                lane_parts.settings.session_timeout + lane_parts.settings.store_write_timeout,
            ),
            housekeeping: Housekeeping::new(stands),
            waiting: BTreeMap::new(),
            held: BTreeSet::new(),
            retry: lane_parts.settings.retry.clone(),
            epoch: 0,
            token: CancellationToken::new(),
            batch: 0,
            committed_batch: 0,
            committed_offsets: Arc::default(),
            ownership: None,
            renewed: Instant::now(),
            failures: 0,
            lift_after: None,
            records_per_user: None,
            assigned: Assigned::default(),
            under_way: UnderWay::default(),
            decided: None,
        }
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), PipelineError> {
        let result = loop {
            self.advance();
            let (want, time) = (self.want(), self.next_time());
            let happening = tokio::select! {
                biased;
                () = shutdown.cancelled() => Happening::Shutdown,
                happening = self.under_way.progress() => happening,
                signal = self.log.next(want) => Happening::Signal(signal),
                () = until(time) => Happening::Time,
            };
            if matches!(happening, Happening::Shutdown) {
                break Ok(());
            }
            if let Err(error) = self.handle(happening).await {
                break Err(error);
            }
        };
        self.shut_down(result.is_ok()).await;
        result
    }

    async fn handle(&mut self, happening: Happening) -> Result<(), PipelineError> {
        match happening {
            Happening::Taken(result) => self.taken(result).await,
            Happening::Decided(result) => self.lanes_answered(result).await,
            Happening::Committed(result) => self.committed(result).await,
            Happening::Marked(result) => self.marked(result),
            Happening::Signal(signal) => self.signalled(signal).await,
            Happening::Time | Happening::Shutdown => Ok(()),
        }
    }

    /// When something is due that no signal and no work under way brings about.
    fn next_time(&self) -> Option<Instant> {
        if self.ownership.is_none() || self.under_way.taking.is_some() {
            return None;
        }
        let mark = self.watermarks.next().filter(|_| self.under_way.marking.is_none());
        let renewal = (!self.is_renewal_due()).then(|| self.renewed + RENEWAL_PERIOD);
        [mark, renewal, self.housekeeping.next()].into_iter().flatten().min()
    }

    /// Hands a decided batch to an idle committer, and renews the fences when nothing is in flight and it is time.
    fn advance(&mut self) {
        if self.under_way.committing.is_none()
            && let Some(mut decided) = self.decided.take()
        {
            if let (true, Ok(newest)) = (is(Mutant::O4), self.log.group()) {
                decided.group = newest;
            }
            self.under_way.committing = Some(Box::pin(store_and_commit(
                decided,
                self.store.clone(),
                Arc::clone(&self.output),
                self.token.clone(),
                self.metrics.clone(),
            )));
        }
        if self.lift_after == Some(0) && self.is_idle() {
            self.lift();
        }
        if self.is_renewal_due() && self.is_idle() {
            self.renew();
        }
        self.housekeeping.run();
        self.take_watermarks();
        self.metrics.set_batches_in_flight(self.in_flight());
    }

    fn in_flight(&self) -> usize {
        [self.under_way.deciding.is_some(), self.decided.is_some(), self.under_way.committing.is_some()]
            .iter()
            .filter(|b| **b)
            .count()
    }

    fn is_idle(&self) -> bool {
        self.under_way.taking.is_none() && self.in_flight() == 0
    }

    fn is_renewal_due(&self) -> bool {
        let used_up = self.ownership.as_ref().is_some_and(|ownership| ownership.is_used_up(self.batch));
        self.ownership.is_some() && (used_up || self.renewed.elapsed() >= RENEWAL_PERIOD)
    }

    fn want(&self) -> Want {
        let lanes_busy = self.under_way.deciding.is_some() || self.decided.is_some();
        if self.ownership.is_none()
            || self.under_way.taking.is_some()
            || lanes_busy
            || self.is_renewal_due()
            || self.lift_after == Some(0)
        {
            Want::Nothing
        } else if self.under_way.committing.is_some() {
            Want::Full
        } else {
            Want::Any
        }
    }

    /// Begins to read the ends of the partitions when they are due (rule K2).
    fn take_watermarks(&mut self) {
        let is_due = self.watermarks.next().is_some_and(|due| due <= Instant::now());
        let Some(ownership) = self.ownership.clone().filter(|_| is_due) else { return };
        if self.under_way.taking.is_some() || self.under_way.marking.is_some() {
            return;
        }
        let (owner, token) = (Arc::clone(&self.owner), self.token.clone());
        self.under_way.marking = Some(Box::pin(async move { owner.ends(ownership, token).await }));
    }

    fn marked(&mut self, result: Result<BTreeMap<i32, i64>, TakeError>) -> Result<(), PipelineError> {
        match result {
            Ok(ends) => self.watermarks.taken(ends),
            Err(TakeError::Refused(text)) => return Err(PipelineError::Refused(text)),
            // It is tried again with the next turn; until then nothing is skipped.
            Err(error) => tracing::debug!("the ends of the partitions could not be read: {error}"),
        }
        Ok(())
    }

    /// Holds back the partitions of `events` of which too much waits, and no others (rule P8).
    fn hold(&mut self) {
        let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
        for (partition, count) in self.waiting.values().flat_map(|waiting| &waiting.counts) {
            *counts.entry(*partition).or_default() += count;
        }
        let overfull = self.waiting.values().flat_map(|waiting| waiting.overfull.iter().copied());
        // A partition that is held stays so until half of it has gone: holding throws away what was read ahead.
        let bound = |partition: &i32| match self.held.contains(partition) {
            true => self.retry.max_pending / 2,
            false => self.retry.max_pending,
        };
        let full = counts.iter().filter(|(partition, count)| **count > 0 && **count >= bound(partition));
        let held: BTreeSet<i32> = full.map(|(partition, _)| *partition).chain(overfull).collect();
        self.metrics.set_pending(counts.values().sum(), held.len());
        if held == self.held {
            return;
        }
        if held.is_empty() {
            tracing::info!("no partition is held back any more");
            self.health.note(HELD_NOTE, None);
        } else {
            let text =
                format!("partitions {held:?} pause: too many of their records wait in the retry topics");
            tracing::error!("{text}; see campaignd_parked_records_total for the reason");
            self.health.note(HELD_NOTE, Some(text));
        }
        let held = if is(Mutant::P8) { BTreeSet::new() } else { held };
        self.held.clone_from(&held);
        self.log.hold(held);
    }

    async fn signalled(&mut self, signal: Signal) -> Result<(), PipelineError> {
        match signal {
            // The log delivers one at a time; a second one would push the first aside, so it is read again.
            Signal::Batch(_) if self.under_way.deciding.is_some() || self.decided.is_some() => {
                tracing::error!("a batch arrived while another was being decided");
                self.rewind(RewindCause::Internal).await
            }
            Signal::Batch(batch) => {
                self.decide(batch);
                Ok(())
            }
            Signal::Assigned { partitions, tiers } => self.assigned(Assigned { partitions, tiers }).await,
            Signal::Revoked { lost, done } => self.revoked(lost, done).await,
            Signal::Stumbled(reason) => {
                tracing::warn!("{reason}");
                self.rewind(RewindCause::Internal).await
            }
            Signal::Fatal(error) => Err(PipelineError::Refused(error.to_string())),
        }
    }

    /// Splits a batch among the lanes.
    fn decide(&mut self, fetched: Fetched) {
        let Some(ownership) = self.ownership.clone() else { return };
        if fetched.epoch != self.epoch || fetched.records.is_empty() {
            return;
        }
        self.batch += 1;
        let mut work: Vec<Vec<Record>> = (0..self.lanes.count()).map(|_| Vec::new()).collect();
        for record in fetched.records {
            let lane = lane_of(record.key.as_deref(), work.len());
            if let Some(slice) = work.get_mut(lane) {
                slice.push(record);
            }
        }
        let standing = Standing {
            batch: self.batch,
            epoch: self.token.clone(),
            campaigns: self.campaigns.current(),
            now_ms: self.clock.now_ms(),
            committed_batch: self.committed_batch,
            committed_offsets: Arc::clone(&self.committed_offsets),
            watermarks: self.watermarks.marks(),
            tiers: Arc::clone(&self.tiers),
            ownership,
        };
        let slices = FuturesUnordered::new();
        for (index, records) in work.into_iter().enumerate().filter(|(_, records)| !records.is_empty()) {
            let Some(sender) = self.lanes.sender(index) else { continue };
            let work = LaneWork { records, standing: standing.clone() };
            slices.push(async move { (index, Lanes::work(sender, work).await) });
        }
        let decided = Decided {
            batch: self.batch,
            cells: Vec::new(),
            outputs: Vec::new(),
            next_offsets: fetched.next_offsets,
            group: fetched.group,
            tally: Tally::default(),
            waiting: BTreeMap::new(),
            started: Instant::now(),
        };
        self.under_way.deciding = Some(Box::pin(gather(decided, slices)));
    }

    async fn lanes_answered(&mut self, result: Result<Decided, LaneError>) -> Result<(), PipelineError> {
        match result {
            Ok(mut decided) => {
                self.waiting.append(&mut decided.waiting);
                self.hold();
                self.decided = Some(decided);
                Ok(())
            }
            Err(LaneError::OutboxFull) => {
                let cap = self.records_per_user.unwrap_or(FIRST_RECORDS_PER_USER);
                self.records_per_user = Some((cap / 4).max(1));
                self.rewind(RewindCause::OutboxFull).await
            }
            Err(LaneError::Abandoned) => self.rewind(RewindCause::Abandoned).await,
            Err(LaneError::Stopped(error)) => Err(PipelineError::Refused(error.to_string())),
            Err(LaneError::Gone) => Err(PipelineError::Broken("a lane has ended")),
        }
    }

    async fn committed(&mut self, result: Result<Committed, CommitTrouble>) -> Result<(), PipelineError> {
        match result {
            Ok(committed) => {
                self.note_commit(committed);
                Ok(())
            }
            Err(CommitTrouble::Stopped(error)) => Err(PipelineError::Refused(error.to_string())),
            Err(trouble @ CommitTrouble::Transaction(_)) => {
                tracing::warn!("{trouble}");
                self.failures = self.failures.saturating_add(1);
                self.rewind(RewindCause::Transaction).await
            }
            Err(CommitTrouble::Abandoned) => self.rewind(RewindCause::Abandoned).await,
        }
    }

    fn note_commit(&mut self, committed: Committed) {
        self.committed_batch = committed.batch;
        self.failures = 0;
        self.lift_after = self.lift_after.map(|left| left.saturating_sub(1));
        self.housekeeping.committed(&committed.next_offsets);
        Arc::make_mut(&mut self.committed_offsets).extend(committed.next_offsets);
        committed.tally.publish(&self.metrics, self.clock.now_ms());
        self.metrics.batch();
        self.metrics.batch_seconds(committed.started.elapsed().as_secs_f64());
        self.metrics.commit_seconds(committed.stored.elapsed().as_secs_f64());
    }

    async fn assigned(&mut self, assigned: Assigned) -> Result<(), PipelineError> {
        tracing::info!(partitions = ?assigned.partitions, tiers = assigned.tiers, "assigned");
        self.metrics.set_assigned_partitions(assigned.partitions.len());
        self.health.ready(Condition::Assignment, format!("{} partitions", assigned.partitions.len()));
        self.end_epoch().await?;
        self.ownership = None;
        self.assigned.clone_from(&assigned);
        self.records_per_user = None;
        if assigned.partitions.is_empty() {
            return Ok(());
        }
        let (owner, token, batch) = (Arc::clone(&self.owner), self.token.clone(), self.batch);
        // Captured now, for this generation: the commit at assignment must not carry a later one (rule O4).
        let Ok(group) = self.log.group() else {
            // The member is rejoining already; its next assignment comes by itself.
            return Ok(());
        };
        self.under_way.taking =
            Some(Box::pin(async move { owner.take(assigned, group, batch, token).await }));
        Ok(())
    }

    /// Begins anew without the smaller bounds: what made them necessary has passed, or shows itself again.
    fn lift(&mut self) {
        tracing::info!("batches commit again, so they may grow again");
        self.lift_after = None;
        self.records_per_user = None;
        let Some(ownership) = self.ownership.clone() else { return };
        let (owner, token) = (Arc::clone(&self.owner), self.token.clone());
        self.under_way.taking =
            Some(Box::pin(async move { owner.rewind(ownership, Duration::ZERO, token).await }));
        self.epoch += 1;
        self.log.halt();
    }

    fn renew(&mut self) {
        let Some(ownership) = self.ownership.clone() else { return };
        let (owner, token, batch) = (Arc::clone(&self.owner), self.token.clone(), self.batch);
        // While the member rejoins there is nothing to renew; it is asked again.
        let Ok(group) = self.log.group() else { return };
        self.under_way.taking =
            Some(Box::pin(async move { owner.renew(ownership, group, batch, token).await }));
        self.records_per_user = None;
        // The offsets do not move, but starting anew is the one way to begin reading.
        self.epoch += 1;
        self.log.halt();
    }

    async fn taken(&mut self, result: Result<Taken, TakeError>) -> Result<(), PipelineError> {
        match result {
            Ok(taken) => self.begin(taken).await,
            Err(TakeError::Refused(text)) => Err(PipelineError::Refused(text)),
            Err(TakeError::Zombie(partition)) => {
                tracing::warn!("another instance owns {partition}; asking the group whether we still do");
                self.health.not_ready(Condition::Assignment, format!("another instance owns {partition}"));
                // If the group still counts us in, we are the owner after all, and taking the partitions again shows it.
                self.retake().await
            }
            Err(TakeError::Commit(error)) => {
                // The group has moved on, or the broker is ill: what we hold is told by the next signal or attempt.
                tracing::warn!("the offsets could not be committed: {error}");
                self.retake().await
            }
            Err(TakeError::NewTier) => {
                tracing::info!("a retry topic is new; joining the group again to be assigned it");
                self.log.halt();
                self.ownership = None;
                self.log.rejoin();
                Ok(())
            }
            Err(TakeError::Abandoned) => Ok(()),
        }
    }

    /// Begins to read what has been taken.
    async fn begin(&mut self, taken: Taken) -> Result<(), PipelineError> {
        let tiers = if is(Mutant::O8) { u8::MAX } else { taken.ownership.tiers };
        self.tiers = Arc::new(self.retry.tiers.limited_to(tiers));
        let mut taken = taken;
        if is(Mutant::W1Offsets) && !taken.fenced {
            taken.next_offsets = BTreeMap::clone(&self.committed_offsets);
        }
        if taken.fenced {
            self.watermarks.fenced();
        } else {
            self.watermarks.rewound(taken.ends);
        }
        // A renewal ends no epoch, so its lanes still hold states and index: both are made anew, as everywhere.
        self.reset_lanes().await?;
        self.waiting =
            self.lanes.rebuild(taken.waiting).await.map_err(|_| PipelineError::Broken("a lane has ended"))?;
        self.log.start(Start {
            epoch: self.epoch,
            next_offsets: taken.next_offsets.clone(),
            max_records_per_user: self.records_per_user,
            max_records: self.records_after_failures(),
        });
        let is_bounded = self.records_per_user.is_some() || self.records_after_failures().is_some();
        self.lift_after = is_bounded.then_some(LIFT_AFTER);
        self.held.clear();
        self.hold();
        self.renewed = Instant::now();
        self.ownership = Some(taken.ownership);
        self.committed_offsets = Arc::new(taken.next_offsets);
        Ok(())
    }

    /// Takes the same partitions again after a commit of offsets that failed.
    async fn retake(&mut self) -> Result<(), PipelineError> {
        self.log.halt();
        self.ownership = None;
        tokio::time::sleep(RETAKE_PAUSE).await;
        let assigned = self.assigned.clone();
        self.assigned(assigned).await
    }

    /// Gives partitions back: what is in flight gets `drain_timeout` to commit, the rest is aborted and dropped before
    /// the group is answered (rule O5).
    async fn revoked(&mut self, lost: bool, done: oneshot::Sender<()>) -> Result<(), PipelineError> {
        tracing::info!(lost, "revoked");
        if is(Mutant::O5) {
            let _ = done.send(());
            return Ok(());
        }
        self.log.halt();
        self.under_way.taking = None;
        let drained = !lost && self.drain().await;
        if !drained {
            self.metrics.rewind(if lost { RewindCause::Assignment } else { RewindCause::Abandoned });
        }
        self.end_epoch().await?;
        self.ownership = None;
        self.assigned = Assigned::default();
        self.metrics.set_assigned_partitions(0);
        if !drained && tokio::time::timeout(self.drain_timeout, self.output.settle()).await.is_err() {
            tracing::warn!("the open transaction is not settled yet; the broker's fencing covers it");
        }
        // The group may have given up waiting; it fences the generation then.
        let _ = done.send(());
        Ok(())
    }

    /// Lets what is in flight commit. True when nothing is left.
    async fn drain(&mut self) -> bool {
        let deadline = Instant::now() + self.drain_timeout;
        loop {
            if self.under_way.committing.is_none() && self.decided.is_some() {
                self.advance();
            }
            if self.in_flight() == 0 {
                return true;
            }
            let Ok(happening) = tokio::time::timeout_at(deadline, self.under_way.progress()).await else {
                return false;
            };
            match happening {
                Happening::Decided(Ok(decided)) => self.decided = Some(decided),
                Happening::Committed(Ok(committed)) => self.note_commit(committed),
                Happening::Decided(Err(_)) | Happening::Committed(Err(_)) => return false,
                Happening::Taken(_)
                | Happening::Marked(_)
                | Happening::Signal(_)
                | Happening::Time
                | Happening::Shutdown => {}
            }
        }
    }

    /// A batch that fails again and again may be more than one transaction can take: each time half as much is tried.
    fn records_after_failures(&self) -> Option<usize> {
        (self.failures > 1).then(|| (FIRST_RECORDS_AFTER_FAILURE >> self.failures.min(16)).max(1))
    }

    /// Goes back to the committed offsets: the one recovery path (rule W1).
    async fn rewind(&mut self, cause: RewindCause) -> Result<(), PipelineError> {
        tracing::warn!(cause = cause.as_str(), "rewinding to the committed offsets");
        self.metrics.rewind(cause);
        self.log.halt();
        self.end_epoch().await?;
        let Some(ownership) = self.ownership.clone() else { return self.retake().await };
        let (owner, token) = (Arc::clone(&self.owner), self.token.clone());
        let delay = match self.failures {
            0 | 1 => Duration::ZERO,
            more => (FIRST_REWIND_DELAY * (1 << more.min(7))).min(LONGEST_REWIND_DELAY),
        };
        self.under_way.taking = Some(Box::pin(async move { owner.rewind(ownership, delay, token).await }));
        Ok(())
    }

    /// Drops everything that belongs to the epoch: what is under way, and every cached state.
    async fn end_epoch(&mut self) -> Result<(), PipelineError> {
        self.token.cancel();
        self.token = CancellationToken::new();
        self.epoch += 1;
        self.under_way = UnderWay::default();
        self.decided = None;
        self.waiting.clear();
        self.housekeeping.forget();
        self.reset_lanes().await
    }

    async fn reset_lanes(&mut self) -> Result<(), PipelineError> {
        self.lanes.reset().await.map_err(|_| PipelineError::Broken("a lane has ended"))
    }

    /// Commits what is in flight if that is still possible, settles, leaves the group.
    async fn shut_down(&mut self, orderly: bool) {
        self.log.halt();
        self.under_way.taking = None;
        if !(orderly && self.drain().await) {
            self.token.cancel();
            self.under_way.committing = None;
            let _ = tokio::time::timeout(self.drain_timeout, self.output.settle()).await;
        }
        self.log.close().await;
    }
}

/// Resolves when the work does, and takes it away; never when there is none.
async fn finished<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(future) => {
            let result = future.await;
            *work = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// Waits for every lane; the answers are joined in the lanes' order, so that the result does not depend on who was
/// first.
async fn gather(
    mut decided: Decided,
    mut slices: FuturesUnordered<impl Future<Output = (usize, Result<super::decided::Slice, LaneError>)>>,
) -> Result<Decided, LaneError> {
    let mut answers = BTreeMap::new();
    let mut failure = None;
    while let Some((index, result)) = slices.next().await {
        match result {
            Ok(slice) => {
                answers.insert(index, slice);
            }
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    answers.into_iter().for_each(|(lane, slice)| decided.add(lane, slice));
    Ok(decided)
}

/// Waits until then; for ever without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl From<LogError> for PipelineError {
    fn from(error: LogError) -> PipelineError {
        PipelineError::Refused(error.to_string())
    }
}
