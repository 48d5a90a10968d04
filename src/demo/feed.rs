//! The generator's thread: produces sample events, never far ahead of the processor.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use super::Options;
use super::world::World;
use crate::generate::{GenerateOptions, Generated, Generator, GroundTruth};
use crate::kafka::producer::{EventProducer, NewRecord};
use crate::partitioner::Partitioner;
use crate::telemetry::metrics::Metrics;

/// The mock broker silently drops what goes beyond about 5 MiB a partition; all partitions together stay under this.
const MAX_BYTES_AHEAD: usize = 2 * 1024 * 1024;
/// Decisions that may wait for the audit projection; they stand on the same broker.
const MAX_DECISIONS_AHEAD: u64 = 4_000;
/// Records between two looks at how far the processor is.
const LOOK_EVERY: u64 = 64;
/// Users remembered for the view.
const RECENT_USERS: usize = 8;

#[derive(Default)]
struct Shared {
    produced: AtomicU64,
    has_ended: AtomicBool,
    stop: AtomicBool,
    recent_users: Mutex<VecDeque<String>>,
}

/// The running generator.
pub(super) struct Feed {
    shared: Arc<Shared>,
    thread: JoinHandle<anyhow::Result<GroundTruth>>,
}

impl Feed {
    /// Starts to produce.
    pub fn start(world: &World, options: &Options, metrics: Metrics) -> anyhow::Result<Feed> {
        let generate = GenerateOptions {
            schema_id: world.event_schema_id(),
            wrong_partitions: true,
            ..options.generate.clone()
        };
        let generator = Generator::new(generate)?;
        let config = world.config();
        let partitioner = Partitioner::from(config.pipeline.events_partitioner);
        let producer = EventProducer::connect(config.client_config(), &config.topics.events, partitioner)?;
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            generator,
            producer,
            schema_id: world.event_schema_id(),
            rate: options.rate,
            metrics,
            shared: Arc::clone(&shared),
            unhandled: VecDeque::new(),
            bytes_ahead: 0,
        };
        let thread = std::thread::Builder::new().name("generator".into()).spawn(move || worker.run())?;
        Ok(Feed { shared, thread })
    }

    /// Records produced so far.
    pub fn produced(&self) -> u64 {
        self.shared.produced.load(Ordering::Acquire)
    }

    /// Whether nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.shared.has_ended.load(Ordering::Acquire)
    }

    /// Users of the last events.
    pub fn recent_users(&self) -> Vec<String> {
        let users = self.shared.recent_users.lock().unwrap_or_else(PoisonError::into_inner);
        users.iter().cloned().collect()
    }

    /// Stops it and returns what it knows of what it made.
    pub async fn stop(self) -> anyhow::Result<GroundTruth> {
        self.shared.stop.store(true, Ordering::Release);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        joined.map_err(|_| anyhow!("the generator panicked"))?.context("the generator failed")
    }
}

struct Worker {
    generator: Generator,
    producer: EventProducer,
    schema_id: u32,
    rate: Option<u32>,
    metrics: Metrics,
    shared: Arc<Shared>,
    /// Sizes of the records that may not be handled yet, oldest first.
    unhandled: VecDeque<usize>,
    bytes_ahead: usize,
}

impl Worker {
    fn run(mut self) -> anyhow::Result<GroundTruth> {
        let result = self.produce();
        self.shared.has_ended.store(true, Ordering::Release);
        result?;
        let truth = self.generator.truth().clone();
        let deliveries = self.producer.finish();
        if let Some(failure) = deliveries.failures.first() {
            bail!("record {} was not delivered: {}", failure.number, failure.reason);
        }
        Ok(truth)
    }

    fn produce(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut number = 0;
        while !self.shared.stop.load(Ordering::Acquire) {
            if number % LOOK_EVERY == 0 && !self.wait_for_room(number) {
                return Ok(());
            }
            self.pace(started, number);
            let Some(generated) = self.generator.next() else { return Ok(()) };
            self.send(number, &generated)?;
            number += 1;
            self.shared.produced.store(number, Ordering::Release);
        }
        Ok(())
    }

    fn send(&mut self, number: u64, generated: &Generated) -> anyhow::Result<()> {
        let value = generated.value(self.schema_id);
        let size = value.len() + generated.key().map_or(0, <[u8]>::len);
        self.producer.send(NewRecord {
            number,
            key: generated.key(),
            value: &value,
            wrong_partition: generated.wants_wrong_partition(),
        })?;
        self.unhandled.push_back(size);
        self.bytes_ahead += size;
        let mut users = self.shared.recent_users.lock().unwrap_or_else(PoisonError::into_inner);
        users.push_back(generated.user_id.clone());
        if users.len() > RECENT_USERS {
            users.pop_front();
        }
        Ok(())
    }

    /// Waits until the processor and the projection have come near. False when it is told to stop.
    fn wait_for_room(&mut self, produced: u64) -> bool {
        while !self.shared.stop.load(Ordering::Acquire) {
            let snapshot = self.metrics.snapshot();
            let unhandled = produced.saturating_sub(snapshot.events_total());
            while u64::try_from(self.unhandled.len()).unwrap_or(u64::MAX) > unhandled {
                self.bytes_ahead -= self.unhandled.pop_front().unwrap_or(0);
            }
            let decided: u64 = snapshot.decisions.values().sum();
            let is_near = self.bytes_ahead < MAX_BYTES_AHEAD
                && decided.saturating_sub(snapshot.projected_rows) < MAX_DECISIONS_AHEAD;
            if is_near {
                return true;
            }
            self.producer.wait(Duration::from_millis(5));
        }
        false
    }

    /// Keeps to the rate.
    fn pace(&self, started: Instant, number: u64) {
        let Some(rate) = self.rate else { return };
        let due = started + Duration::from_secs_f64(number as f64 / f64::from(rate.max(1)));
        let ahead = due.saturating_duration_since(Instant::now());
        // Less than a millisecond is made up for by the next records.
        if ahead > Duration::from_millis(1) {
            self.producer.wait(ahead.min(Duration::from_millis(100)));
        }
    }
}
