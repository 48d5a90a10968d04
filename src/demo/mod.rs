//! Everything in one process: a broker, a registry, a store, a generator, and the very processor that `run` starts.
//!
//! The sample data holds duplicates and poison, and the generator knows what it made: at the end the sums must add up
//! ([`Summary::disagreements`]). The broker is librdkafka's mock cluster, so the demo shows how campaignd behaves and
//! proves nothing about exactly-once; the tests on real Kafka do that.

mod feed;
mod samples;
mod summary;
mod view;
mod world;

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::generate::GenerateOptions;
use crate::processor;
use crate::telemetry::metrics::Snapshot;

use feed::Feed;
use view::View;
use world::World;

pub use summary::Summary;

/// What the demo is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is generated; the schema id is filled in.
    pub generate: GenerateOptions,
    /// Most records a second; as fast as they are handled when absent.
    pub rate: Option<u32>,
    /// End when everything is handled, instead of waiting for Ctrl-C.
    pub exit: bool,
    /// Draw the live view on standard error.
    pub live: bool,
}

/// How long the end waits for what was produced to be handled and projected.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often progress is looked at and drawn.
const TICK: Duration = Duration::from_millis(100);

/// Runs the demo until it is interrupted, or until everything is handled if it is to exit then.
///
/// # Errors
///
/// When a part does not start or ends by itself.
pub async fn run(options: Options, interrupt: CancellationToken) -> anyhow::Result<Summary> {
    let world = World::start().await.context("the demo's own services do not start")?;
    let mut processor = processor::start(world.config()).await.context("the processor does not start")?;
    let mut view = View::open(options.live, &world, processor.http_address(), options.generate.events);
    // The mock broker waits 3 s before it gives the first assignment; that is not the processor's time.
    while processor.metrics().snapshot().assigned_partitions == 0 && !interrupt.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = interrupt.cancelled() => {}
            error = processor.ended() => return Err(error).context("the processor ended by itself"),
        }
    }
    let started = Instant::now();
    let feed = Feed::start(&world, &options, processor.metrics().clone())?;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = interrupt.cancelled() => break,
            error = processor.ended() => return Err(error).context("the processor ended by itself"),
        }
        let snapshot = processor.metrics().snapshot();
        view.draw(&snapshot, &feed.recent_users(), processor.audit().as_ref()).await;
        if options.exit && feed.has_ended() && is_settled(&snapshot, feed.produced()) {
            break;
        }
    }
    let truth = feed.stop().await?;
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    while !is_settled(&processor.metrics().snapshot(), truth.records) && Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
    }
    let elapsed = started.elapsed();
    view.close();
    let on_topics = world.published().await?;
    let snapshot = processor.metrics().snapshot();
    processor.stop().await?;
    Ok(Summary::new(&truth, &snapshot, on_topics, elapsed))
}

/// Whether every record is handled and every decision is in the audit trail.
fn is_settled(snapshot: &Snapshot, produced: u64) -> bool {
    snapshot.events_total() >= produced && snapshot.projected_rows >= snapshot.decisions.values().sum()
}
