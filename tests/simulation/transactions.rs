//! Transactions: their coordinator, which fences by producer epoch and sends markers one by one, and the producer of each
//! process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use campaignd::pipeline::log::{
    CommitError, EventOutput, Input, LogError, OutputRecord, OutputTopic, Transaction,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::faults::Hop;
use crate::group::Membership;
use crate::instance::{Control, Fate, Side};
use crate::log::{Data, Topic, broker_trip};
use crate::mutants::{Adapter, adapter};
use crate::world::{World, lock};

/// The coordinator aborts a transaction that is open for longer.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the producer repeats a call before it gives up.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A transactional producer as partitions know it.
pub type ProducerId = usize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Open,
    /// Decided; so many markers are still under way.
    Ending {
        commit: bool,
        markers: usize,
    },
    Ended {
        commit: bool,
    },
}

#[derive(Debug, Default)]
struct Standing {
    epoch: u32,
    state: State,
    /// Which transaction of the epoch it is.
    number: u64,
    partitions: BTreeSet<(Topic, i32)>,
}

/// Why the coordinator refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// A newer producer holds the transactional id.
    Fenced,
    /// The transaction before has not ended yet.
    Concurrent,
    /// There is no such transaction.
    NotOpen,
    /// The group does not take the offsets.
    Group,
}

/// What the coordinator knows of all transactional ids; slots are ids here.
#[derive(Default)]
pub struct Coordinator {
    producers: BTreeMap<ProducerId, Standing>,
}

impl Coordinator {
    /// Whether no transaction is open or ending.
    pub fn is_idle(&self) -> bool {
        self.producers.values().all(|standing| matches!(standing.state, State::Empty | State::Ended { .. }))
    }
}

/// Takes the id over: fences the holder, aborts what it left open. `Concurrent` until that has ended.
fn init(world: &Arc<World>, id: ProducerId) -> Result<u32, Refusal> {
    let mut broker = world.broker();
    let standing = broker.coordinator.producers.entry(id).or_default();
    match standing.state {
        State::Ending { .. } => return Err(Refusal::Concurrent),
        State::Open => {
            standing.epoch += 1;
            drop(broker);
            world.count("transactions aborted by a newer producer");
            finish(world, id, false);
            return Err(Refusal::Concurrent);
        }
        State::Empty | State::Ended { .. } => {}
    }
    standing.epoch += 1;
    standing.state = State::Empty;
    standing.number = 0;
    Ok(standing.epoch)
}

/// Adds partitions to the transaction; the first call opens it.
fn add(world: &Arc<World>, by: Producing, partitions: &[(Topic, i32)]) -> Result<(), Refusal> {
    let mut broker = world.broker();
    let standing = broker.coordinator.producers.entry(by.id).or_default();
    if standing.epoch != by.epoch {
        return Err(Refusal::Fenced);
    }
    match standing.state {
        State::Ending { .. } => return Err(Refusal::Concurrent),
        State::Open if standing.number == by.number => {}
        State::Open => return Err(Refusal::NotOpen),
        State::Empty | State::Ended { .. } if standing.number < by.number => {
            standing.state = State::Open;
            standing.number = by.number;
            standing.partitions.clear();
            expire_later(world, by);
        }
        State::Empty | State::Ended { .. } => return Err(Refusal::NotOpen),
    }
    standing.partitions.extend(partitions);
    Ok(())
}

/// The coordinator's time-out.
fn expire_later(world: &Arc<World>, by: Producing) {
    let world = Arc::clone(world);
    tokio::spawn(async move {
        tokio::time::sleep(TRANSACTION_TIMEOUT).await;
        let mut broker = world.broker();
        let standing = broker.coordinator.producers.entry(by.id).or_default();
        if standing.state == State::Open && standing.epoch == by.epoch && standing.number == by.number {
            standing.epoch += 1;
            drop(broker);
            world.count("hanging transactions");
            world.say(format_args!("the transaction of {} has timed out", by.id));
            finish(&world, by.id, false);
        }
    });
}

/// A transaction and who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Producing {
    id: ProducerId,
    epoch: u32,
    number: u64,
}

impl Producing {
    fn check(self, world: &Arc<World>) -> Result<(), Refusal> {
        let broker = world.broker();
        let Some(standing) = broker.coordinator.producers.get(&self.id) else { return Err(Refusal::NotOpen) };
        if standing.epoch != self.epoch {
            return Err(Refusal::Fenced);
        }
        let is_open = standing.state == State::Open && standing.number == self.number;
        if is_open { Ok(()) } else { Err(Refusal::NotOpen) }
    }
}

fn produce(
    world: &Arc<World>,
    by: Producing,
    to: (Topic, i32),
    records: Vec<OutputRecord>,
) -> Result<(), Refusal> {
    by.check(world).inspect_err(|refusal| {
        if *refusal == Refusal::Fenced {
            world.count("writes of fenced producers");
        }
    })?;
    let now_ms = world.now_ms();
    let mut broker = world.broker();
    let log = broker.partition_mut(to.0, to.1);
    for OutputRecord { key, value, headers, .. } in records {
        log.append_open(Data { key, value, headers, timestamp_ms: now_ms }, by.id);
    }
    drop(broker);
    world.moved.notify_waiters();
    Ok(())
}

fn send_offsets(
    world: &Arc<World>,
    by: Producing,
    membership: &Membership,
    offsets: &BTreeMap<Input, i64>,
) -> Result<(), Refusal> {
    by.check(world)?;
    let mut broker = world.broker();
    if let Err(refusal) = broker.group.check(membership) {
        drop(broker);
        world.count("offsets of a stale generation");
        world.say(format_args!("offsets of {membership:?} are refused: {refusal:?}"));
        return Err(Refusal::Group);
    }
    broker.pending.entry(by.id).or_default().extend(offsets);
    Ok(())
}

fn end(world: &Arc<World>, by: Producing, commit: bool) -> Result<(), Refusal> {
    let broker = world.broker();
    let Some(standing) = broker.coordinator.producers.get(&by.id) else { return Err(Refusal::NotOpen) };
    if standing.epoch != by.epoch {
        return Err(Refusal::Fenced);
    }
    let found = match standing.state {
        _ if standing.number != by.number => Err(Refusal::NotOpen),
        State::Empty => Err(Refusal::NotOpen),
        State::Open => Ok(true),
        // The same end again.
        State::Ending { commit: decided, .. } | State::Ended { commit: decided } => {
            if decided == commit {
                Ok(false)
            } else {
                Err(Refusal::NotOpen)
            }
        }
    };
    drop(broker);
    if found? {
        finish(world, by.id, commit);
    }
    Ok(())
}

/// The end is decided: from now on it holds, but each partition learns of it when its marker arrives.
fn finish(world: &Arc<World>, id: ProducerId, commit: bool) {
    world.count(if commit { "transactions committed" } else { "transactions aborted" });
    let mut broker = world.broker();
    let has_offsets = broker.pending.contains_key(&id);
    let standing = broker.coordinator.producers.entry(id).or_default();
    let partitions = std::mem::take(&mut standing.partitions);
    standing.state = State::Ending { commit, markers: partitions.len() + usize::from(has_offsets) };
    if partitions.is_empty() && !has_offsets {
        standing.state = State::Ended { commit };
    }
    drop(broker);
    for (topic, partition) in partitions {
        marker(world, id, commit, move |world| {
            world.broker().partition_mut(topic, partition).end_transaction(id, commit);
        });
    }
    if has_offsets {
        marker(world, id, commit, move |world| {
            let mut broker = world.broker();
            let offsets = broker.pending.remove(&id).unwrap_or_default();
            let back = if commit { broker.commit(offsets, world.elapsed()) } else { Vec::new() };
            drop(broker);
            for input in back {
                world.violation(format_args!("W1: the committed offset of {input} goes back"));
            }
        });
    }
}

/// One marker on its way.
fn marker(
    world: &Arc<World>,
    id: ProducerId,
    commit: bool,
    apply: impl FnOnce(&Arc<World>) + Send + 'static,
) {
    let slowest = if world.is_quiet() { 5 } else { world.plan.slow_markers_ms };
    let slow = world.happens(0.3);
    let delay = world.draw_ms(0..if slow { slowest } else { slowest.min(10) });
    let world = Arc::clone(world);
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        world.mark(1_000 + id as u64);
        apply(&world);
        let mut broker = world.broker();
        let standing = broker.coordinator.producers.entry(id).or_default();
        if let State::Ending { markers, .. } = &mut standing.state {
            *markers -= 1;
            if *markers == 0 {
                standing.state = State::Ended { commit };
            }
        }
        drop(broker);
        world.moved.notify_waiters();
    });
}

enum Command {
    Commit(Transaction, oneshot::Sender<Result<(), CommitError>>),
    Settle(oneshot::Sender<Result<(), LogError>>),
}

/// The producer side of one process.
pub struct SimOutput {
    control: Arc<Control>,
    commands: mpsc::Sender<Command>,
}

impl SimOutput {
    /// Starts the committing thread, which takes the transactional id over first.
    pub fn open(control: &Arc<Control>) -> Arc<dyn EventOutput> {
        let (commands, waiting) = mpsc::channel(4);
        let committer = Committer { control: Arc::clone(control), epoch: None, number: 0, open: None };
        control.thread(committer.run(waiting));
        Arc::new(SimOutput { control: Arc::clone(control), commands })
    }
}

impl SimOutput {
    /// Rules that show when a transaction is handed over.
    fn check(&self, transaction: &Transaction) {
        let mut witness = lock(&self.control.witness);
        witness.commits(&self.control.world);
        let membership = transaction.group.0.downcast_ref::<Membership>();
        if membership.is_some() && membership == witness.given_back.as_ref() {
            self.control.world.violation("O5: a batch outlives the revocation that was acknowledged");
        }
    }
}

#[async_trait]
impl EventOutput for SimOutput {
    async fn commit(&self, transaction: Transaction) -> Result<(), CommitError> {
        self.control.gate(Side::Processor).await;
        self.check(&transaction);
        let (answer, waiting) = oneshot::channel();
        let gone = || CommitError::Failed("the committing thread has ended".into());
        self.commands.try_send(Command::Commit(transaction, answer)).map_err(|_| gone())?;
        let answer = waiting.await.map_err(|_| gone());
        self.control.gate(Side::Processor).await;
        answer?
    }

    async fn settle(&self) -> Result<(), LogError> {
        self.control.gate(Side::Processor).await;
        lock(&self.control.witness).settles();
        if adapter(Adapter::SettlesNothing) {
            return Ok(());
        }
        let (answer, waiting) = oneshot::channel();
        let busy = || LogError::Unavailable("the committing thread is busy".into());
        self.commands.try_send(Command::Settle(answer)).map_err(|_| busy())?;
        let answer = waiting.await.map_err(|_| busy());
        self.control.gate(Side::Processor).await;
        answer?
    }
}

/// The committing thread.
struct Committer {
    control: Arc<Control>,
    /// `None` until the id is taken over, and after a failure that only a new producer mends.
    epoch: Option<u32>,
    number: u64,
    /// A transaction that can be aborted.
    open: Option<Producing>,
}

impl Committer {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while self.renew().await.is_err() {}
        while let Some(command) = commands.recv().await {
            self.control.gate(Side::Client).await;
            // A receiver that is gone has been dropped by a rewind; it settles next.
            match command {
                Command::Commit(transaction, answer) => {
                    let next_offsets = transaction.next_offsets.clone();
                    let result = self.commit(transaction).await;
                    let is_committed = result.is_ok();
                    if answer.send(result).is_ok() && is_committed {
                        lock(&self.control.witness).committed(self.world(), &next_offsets);
                    }
                }
                Command::Settle(answer) => {
                    let _ = answer.send(self.settle().await);
                }
            }
        }
    }

    fn world(&self) -> &Arc<World> {
        &self.control.world
    }

    async fn call<T: Send + 'static>(
        &self,
        hop: Hop,
        failing: f64,
        apply: impl FnOnce(&Arc<World>) -> T + Send + 'static,
    ) -> Option<T> {
        let trip = broker_trip(self.world(), failing);
        self.control.call(Side::Client, hop, trip, apply).await
    }

    async fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        let Some(epoch) = self.epoch else { return Err(CommitError::Failed("the producer is gone".into())) };
        self.number += 1;
        let by = Producing { id: self.control.slot, epoch, number: self.number };
        self.open = Some(by);
        let result = self.transact(by, transaction).await;
        self.world().say(format_args!("{} transaction {by:?}: {result:?}", self.control));
        match &result {
            Ok(()) => self.open = None,
            Err(CommitError::Failed(_)) => {}
            Err(CommitError::Fenced(_) | CommitError::Unknown(_)) => {
                self.open = None;
                self.epoch = None;
            }
        }
        result
    }

    async fn transact(&self, by: Producing, transaction: Transaction) -> Result<(), CommitError> {
        let Transaction { records, next_offsets, group } = transaction;
        let membership = group.0.downcast_ref::<Membership>().cloned().expect("a token of this log");
        let rates = self.world().plan.rates.clone();
        crate::oracle::check_outputs(self.world(), &membership, &records, &next_offsets);
        let mut parts: BTreeMap<(Topic, i32), Vec<OutputRecord>> = BTreeMap::new();
        for record in records {
            parts.entry((record.topic.into(), record.partition)).or_default().push(record);
        }
        self.begin(by, parts.keys().copied().collect()).await?;
        for (to, records) in parts {
            let done = self
                .call(Hop::Produce, rates.produce_fails, move |world| produce(world, by, to, records))
                .await;
            classify(done, "a record was not delivered")?;
        }
        let sent = self
            .call(Hop::SendOffsets, rates.offsets_fail, move |world| {
                send_offsets(world, by, &membership, &next_offsets)
            })
            .await;
        classify(sent, "the offsets were not sent")?;
        self.end(by).await
    }

    async fn begin(&self, by: Producing, partitions: Vec<(Topic, i32)>) -> Result<(), CommitError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let partitions = partitions.clone();
            match self.call(Hop::BeginTransaction, 0.0, move |world| add(world, by, &partitions)).await {
                Some(Err(Refusal::Concurrent)) if Instant::now() < until => {
                    tokio::time::sleep(RETRY_PAUSE).await
                }
                done => return classify(done, "the transaction could not begin"),
            }
        }
    }

    /// Commits; an answer that is lost leaves the outcome unknown, and the same call on the same producer finds it out,
    /// unless the coordinator stays away for too long.
    async fn end(&self, by: Producing) -> Result<(), CommitError> {
        let world = Arc::clone(self.world());
        let rates = &world.plan.rates;
        let trip = broker_trip(&world, 0.0);
        let commit = move |world: &Arc<World>| end(world, by, true);
        let unknown = || CommitError::Unknown("no answer to the end of the transaction".into());
        if world.strikes(rates.end_lost) {
            world.count("unknown commits that did not apply");
            let _ = self.control.call(Side::Client, Hop::EndTransaction, trip.with(Fate::Lost), commit).await;
            return Err(unknown());
        }
        if world.strikes(rates.end_unknown_applied) {
            world.count("unknown commits that applied");
            let _ =
                self.control.call(Side::Client, Hop::EndTransaction, trip.with(Fate::Unheard), commit).await;
            return Err(unknown());
        }
        if world.strikes(rates.end_repeated) {
            world.count("commits found out by asking again");
            let fate = if world.happens(0.5) { Fate::Lost } else { Fate::Unheard };
            let _ = self.control.call(Side::Client, Hop::EndTransaction, trip.with(fate), commit).await;
        }
        match self.call(Hop::EndTransaction, 0.0, commit).await {
            Some(Ok(())) => Ok(()),
            Some(Err(Refusal::Fenced)) => Err(CommitError::Fenced("a newer producer holds the id".into())),
            Some(Err(_)) => Err(CommitError::Failed("the transaction is not open any more".into())),
            None => Err(unknown()),
        }
    }

    async fn settle(&mut self) -> Result<(), LogError> {
        if let Some(by) = self.open {
            let failing = self.world().plan.rates.abort_fails;
            let aborted = self.call(Hop::Abort, failing, move |world| end(world, by, false)).await;
            self.open = None;
            match aborted {
                // Nothing had been begun, or it has ended.
                Some(Ok(()) | Err(Refusal::NotOpen)) => {}
                _ => self.epoch = None,
            }
        }
        if self.epoch.is_some() { Ok(()) } else { self.renew().await }
    }

    /// A new producer under the same id: the coordinator aborts or completes what the old one left.
    async fn renew(&mut self) -> Result<(), LogError> {
        let id = self.control.slot;
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self
                .call(Hop::InitProducer, self.world().plan.rates.abort_fails, move |world| init(world, id));
            match answer.await {
                Some(Ok(epoch)) => {
                    self.epoch = Some(epoch);
                    self.number = 0;
                    return Ok(());
                }
                Some(Err(_)) | None if Instant::now() < until => tokio::time::sleep(RETRY_PAUSE).await,
                _ => return Err(LogError::Unavailable("the transactional id cannot be taken over".into())),
            }
        }
    }
}

/// What an answer means for the transaction.
fn classify(answer: Option<Result<(), Refusal>>, what: &str) -> Result<(), CommitError> {
    match answer {
        Some(Ok(())) => Ok(()),
        Some(Err(Refusal::Fenced)) => {
            Err(CommitError::Fenced(format!("{what}: a newer producer holds the id")))
        }
        Some(Err(refusal)) => Err(CommitError::Failed(format!("{what}: {refusal:?}"))),
        None => Err(CommitError::Failed(format!("{what}: no answer"))),
    }
}

/// Tier of an output, if it is a retry record.
pub fn tier_of(record: &OutputRecord) -> Option<u8> {
    match record.topic {
        OutputTopic::Retry(tier) => Some(tier),
        _ => None,
    }
}
