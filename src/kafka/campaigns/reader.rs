//! Keeps the live set up to date while the processor runs.
//!
//! A thread of its own polls the topic and folds its records. What always holds: before the end that the topic had at the
//! start is reached, nothing is published; from then on the set is swapped as a whole, at most every 250 ms, and when
//! [`CampaignsReader::caught_up`] returns, the current set holds every record that stood on the topic when it was called.
//! A bad record is counted and logged, and the last good one stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use tokio::sync::watch;

use super::log::{self, POLL, TopicLog, Watermarks};
use super::{CampaignsError, CampaignsTopic};
use crate::campaign::definition::Status;
use crate::campaign::live::LiveCampaigns;
use crate::campaign::set::CampaignSet;
use crate::telemetry::metrics::Metrics;

/// Shortest time between two swaps of the set: a rebuild costs the more the more campaigns there are.
const COALESCE: Duration = Duration::from_millis(250);
/// How long the topic must be silent before a change is published early: records of one transaction arrive together.
const SILENCE: Duration = Duration::from_millis(10);
/// Shortest time between two log lines about a client that is in trouble.
const COMPLAIN: Duration = Duration::from_secs(10);

/// Reads the `campaigns` topic for as long as it lives.
pub struct CampaignsReader {
    topic: CampaignsTopic,
    current: Arc<ArcSwap<CampaignSet>>,
    progress: watch::Receiver<Progress>,
    watermarks: Watermarks,
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

/// How far the published set goes.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Everything below this offset is in the published set.
    next_offset: i64,
    /// What the client complained about last.
    last_error: Option<String>,
    /// Why the reader has ended.
    ended: Option<String>,
}

/// What others tell the thread.
#[derive(Default)]
struct Signals {
    stop: AtomicBool,
    /// How many wait for the end; while some do, markers without records are followed up at once.
    waiting: AtomicUsize,
}

impl CampaignsReader {
    /// Checks the topic and starts the thread; [`CampaignsReader::caught_up`] says when the first set is there.
    pub async fn start(topic: CampaignsTopic, metrics: Metrics) -> Result<CampaignsReader, CampaignsError> {
        let opening = topic.clone();
        let log = blocking(&topic.topic, move || TopicLog::open(&opening)).await?;
        let current = Arc::new(ArcSwap::from_pointee(CampaignSet::default()));
        let signals = Arc::new(Signals::default());
        let (sender, progress) = watch::channel(Progress::default());
        let watermarks = log.watermarks().clone();
        let worker = Worker {
            log,
            live: LiveCampaigns::default(),
            current: Arc::clone(&current),
            progress: sender,
            signals: Arc::clone(&signals),
            metrics,
            catch_up_timeout: topic.catch_up_timeout,
        };
        let thread = std::thread::Builder::new()
            .name("campaigns-reader".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| ended(&topic.topic, format!("its thread cannot start: {error}")))?;
        Ok(CampaignsReader { topic, current, progress, watermarks, signals, thread: Some(thread) })
    }

    /// The set that is live now; cheap enough for every batch.
    pub fn current(&self) -> Arc<CampaignSet> {
        self.current.load_full()
    }

    /// A handle on the current set for those who do not own the reader.
    pub fn handle(&self) -> Arc<ArcSwap<CampaignSet>> {
        Arc::clone(&self.current)
    }

    /// Waits until the current set holds every record that stands on the topic now.
    ///
    /// Fails when that takes longer than [`CampaignsTopic::catch_up_timeout`], when the broker does not say where the
    /// topic ends, and when the reader has ended.
    pub async fn caught_up(&self) -> Result<(), CampaignsError> {
        let watermarks = self.watermarks.clone();
        let bounds = blocking(&self.topic.topic, move || watermarks.ask()).await?;
        let _waiting = Waiting::new(&self.signals);
        let mut progress = self.progress.clone();
        let reached =
            progress.wait_for(|now| now.next_offset.max(bounds.start) >= bounds.end || now.ended.is_some());
        let outcome = tokio::time::timeout(self.topic.catch_up_timeout, reached)
            .await
            .map(|reached| reached.map(|now| now.ended.clone()));
        match outcome {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(cause))) => Err(ended(&self.topic.topic, cause)),
            Ok(Err(_)) => Err(ended(&self.topic.topic, "its thread is gone".to_owned())),
            Err(_) => {
                let now = self.progress.borrow().clone();
                let (topic, timeout) = (&self.topic.topic, self.topic.catch_up_timeout);
                Err(log::not_caught_up(topic, now.next_offset, bounds.end, timeout, now.last_error))
            }
        }
    }

    /// Ends the thread and waits for it.
    pub async fn stop(mut self) {
        self.signals.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the reader of the campaigns topic did not end well");
            }
        }
    }
}

impl Drop for CampaignsReader {
    /// Tells the thread to end, without waiting.
    fn drop(&mut self) {
        self.signals.stop.store(true, Ordering::Release);
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a Signals);

impl<'a> Waiting<'a> {
    fn new(signals: &'a Signals) -> Waiting<'a> {
        signals.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(signals)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn ended(topic: &str, cause: String) -> CampaignsError {
    CampaignsError::Ended { topic: topic.to_owned(), cause }
}

/// Runs a blocking call of the client outside the executor's threads.
async fn blocking<T: Send + 'static>(
    topic: &str,
    call: impl FnOnce() -> Result<T, CampaignsError> + Send + 'static,
) -> Result<T, CampaignsError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(ended(topic, error.to_string())),
    }
}

/// The thread's side.
struct Worker {
    log: TopicLog,
    live: LiveCampaigns,
    current: Arc<ArcSwap<CampaignSet>>,
    progress: watch::Sender<Progress>,
    signals: Arc<Signals>,
    metrics: Metrics,
    catch_up_timeout: Duration,
}

/// What the thread remembers between two polls.
struct Pace {
    /// The end that must be reached before anything is published.
    hidden_until: Option<i64>,
    /// Since when records have been folded in that are not published yet.
    dirty_since: Option<Instant>,
    /// Whether reading has begun anew and nothing has come since: the client's position may still be the old one.
    rewound: bool,
    last_swap: Option<Instant>,
    last_complaint: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        let cause = match self.read() {
            Ok(()) => "it was told to stop".to_owned(),
            Err(cause) => {
                tracing::error!(%cause, "the campaigns topic is not read any more; the last set stays");
                cause
            }
        };
        self.progress.send_modify(|progress| progress.ended = Some(cause));
    }

    /// Reads until told to stop; the error is one that no waiting mends.
    fn read(&mut self) -> Result<(), String> {
        let mut pace = Pace {
            hidden_until: Some(self.end()?),
            dirty_since: Some(Instant::now()),
            rewound: false,
            last_swap: None,
            last_complaint: None,
        };
        while !self.signals.stop.load(Ordering::Acquire) {
            let wait = if pace.dirty_since.is_some() || self.signals.waiting.load(Ordering::Acquire) > 0 {
                SILENCE
            } else {
                POLL
            };
            let polled = self.log.poll(wait);
            let silent = polled.is_none();
            match polled {
                None => {}
                Some(Ok(message)) => {
                    if message.offset() <= self.live.position() {
                        tracing::warn!(
                            offset = message.offset(),
                            position = self.live.position(),
                            "the campaigns topic has begun anew; it is read from its beginning"
                        );
                        self.live = LiveCampaigns::default();
                        drop(message);
                        self.begin_anew(&mut pace)?;
                        continue;
                    }
                    pace.rewound = false;
                    // Whatever the record does, the position moves, and the position is part of the set.
                    pace.dirty_since = pace.dirty_since.or_else(|| Some(Instant::now()));
                    if let Err(rejected) = log::fold(&mut self.live, &message) {
                        self.metrics.campaign_record_rejected();
                        tracing::warn!(%rejected, "a record of the campaigns topic is left out");
                    }
                }
                Some(Err(error)) => self.complain(&error, &mut pace)?,
            }
            self.publish_when_due(silent, &mut pace);
        }
        Ok(())
    }

    fn end(&self) -> Result<i64, String> {
        let begin = Instant::now();
        loop {
            match self.log.watermarks().ask() {
                Ok(bounds) if bounds.start >= bounds.end => return Ok(0),
                Ok(bounds) => return Ok(bounds.end),
                Err(error) if begin.elapsed() > self.catch_up_timeout => return Err(error.to_string()),
                Err(_) if self.signals.stop.load(Ordering::Acquire) => return Ok(0),
                Err(error) => {
                    tracing::warn!(%error, "asking again");
                    std::thread::sleep(POLL);
                }
            }
        }
    }

    /// Nothing is published until what stands on the new log has been read.
    fn begin_anew(&mut self, pace: &mut Pace) -> Result<(), String> {
        pace.hidden_until = Some(self.end()?);
        pace.dirty_since = Some(Instant::now());
        pace.rewound = true;
        self.log.rewind().map_err(|error| error.to_string())
    }

    fn complain(&mut self, error: &KafkaError, pace: &mut Pace) -> Result<(), String> {
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Err(error.to_string());
        }
        let text = error.to_string();
        if pace.last_complaint.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            tracing::warn!(error = %text, "the campaigns topic cannot be read for now; the last set stays");
            pace.last_complaint = Some(Instant::now());
        }
        self.progress.send_modify(|progress| progress.last_error = Some(text));
        Ok(())
    }

    fn publish_when_due(&mut self, silent: bool, pace: &mut Pace) {
        let rested = pace.last_swap.is_none_or(|last| last.elapsed() >= COALESCE);
        let due = pace.dirty_since.is_some_and(|since| rested && (silent || since.elapsed() >= COALESCE));
        // Asking for the position allocates, so a stream of records is not followed one by one.
        if !silent && !due {
            return;
        }
        let position = if pace.rewound { 0 } else { self.log.position() };
        if let Some(end) = pace.hidden_until {
            if position < end {
                return;
            }
            pace.hidden_until = None;
        }
        if pace.dirty_since.is_some() {
            if !due {
                return;
            }
            let set = self.live.snapshot();
            let active =
                set.campaigns().filter(|live| live.campaign.effective_status() == Status::Active).count();
            self.metrics.set_campaigns(active, set.position());
            self.current.store(Arc::new(set));
            pace.dirty_since = None;
            pace.last_swap = Some(Instant::now());
        }
        self.progress.send_if_modified(|progress| {
            let moved = progress.next_offset != position;
            progress.next_offset = position;
            moved
        });
    }
}
