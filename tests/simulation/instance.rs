//! One process: the real pipeline in a vessel that can be struck.
//!
//! The vessel polls [`campaignd::pipeline::run`] and everything else of the process goes through [`Control::gate`], so that
//! nothing of a frozen process runs and nothing of a dead one comes to anything. What was already sent arrives: requests are
//! the world's tasks, not the process's.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use campaignd::pipeline::clock::Clock;
use campaignd::pipeline::{Parts, PipelineError, Settings, run};
use campaignd::telemetry::health::Health;
use campaignd::telemetry::metrics::Metrics;
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::faults::{Hop, Phase, Strike, WRONG_CLOCK_MS};
use crate::witness::Witness;
use crate::world::{World, lock};

/// Session time-out of the group.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// Nothing runs.
    Frozen,
    /// The client's threads run, the processor does not.
    Stalled,
    Dead,
}

/// Which part of a process asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The processor and its lanes.
    Processor,
    /// The threads of the Kafka client.
    Client,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Answered,
    /// It never arrives; the caller gives up after a while.
    Lost,
    /// It arrives and is done, but the caller never hears of it.
    Unheard,
}

/// The way of a request and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Trip {
    pub there: Duration,
    pub back: Duration,
    pub fate: Fate,
    /// How long the caller waits for an answer that does not come.
    pub patience: Duration,
}

impl Trip {
    /// A usual trip: some milliseconds, answered.
    pub fn usual(world: &World) -> Trip {
        Trip {
            there: world.draw_ms(0..4),
            back: world.draw_ms(0..4),
            fate: Fate::Answered,
            patience: Duration::from_secs(1),
        }
    }

    pub fn with(self, fate: Fate) -> Trip {
        Trip { fate, ..self }
    }
}

/// What holds a process, and what its parts ask before they go on.
pub struct Control {
    pub world: Arc<World>,
    /// Which of the instances it is; its ids follow from it.
    pub slot: usize,
    /// Counts the processes of the world, for the log.
    pub process: u64,
    life: Mutex<Life>,
    changed: Notify,
    waker: Mutex<Option<Waker>>,
    tasks: Mutex<Vec<AbortHandle>>,
    /// Somebody else runs under the same ids by now.
    pub replaced: Notify,
    is_replaced: Mutex<bool>,
    pub witness: Mutex<Witness>,
}

impl Control {
    pub fn new(world: &Arc<World>, slot: usize, process: u64) -> Arc<Control> {
        Arc::new(Control {
            world: Arc::clone(world),
            slot,
            process,
            life: Mutex::new(Life::Running),
            changed: Notify::new(),
            waker: Mutex::default(),
            tasks: Mutex::default(),
            replaced: Notify::new(),
            is_replaced: Mutex::default(),
            witness: Mutex::default(),
        })
    }

    fn set(&self, life: Life) {
        let mut current = lock(&self.life);
        if *current == Life::Dead {
            return;
        }
        *current = life;
        drop(current);
        if life == Life::Dead {
            lock(&self.tasks).drain(..).for_each(|task| task.abort());
        }
        self.changed.notify_waiters();
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }

    fn life(&self) -> Life {
        *lock(&self.life)
    }

    pub fn is_dead(&self) -> bool {
        self.life() == Life::Dead
    }

    pub fn is_replaced(&self) -> bool {
        *lock(&self.is_replaced)
    }

    pub fn kill(&self) {
        self.set(Life::Dead);
    }

    /// Runs a part of the process that is a thread in reality.
    pub fn thread(self: &Arc<Self>, body: impl Future<Output = ()> + Send + 'static) {
        lock(&self.tasks).push(tokio::spawn(body).abort_handle());
    }

    /// Returns when the side may run; never when the process is dead.
    pub async fn gate(&self, side: Side) {
        loop {
            let changed = self.changed.notified();
            match (self.life(), side) {
                (Life::Running, _) | (Life::Stalled, Side::Client) => return,
                (Life::Dead, _) => std::future::pending().await,
                _ => changed.await,
            }
        }
    }

    /// The chance of being struck at a place of an operation.
    pub fn lottery(self: &Arc<Self>, hop: Hop, phase: Phase) {
        if self.life() != Life::Running || self.world.is_quiet() {
            return;
        }
        let plan = &self.world.plan;
        for strike in Strike::ALL {
            let everywhere = match strike {
                Strike::Crash => plan.rates.crash,
                Strike::Freeze => plan.rates.freeze,
                Strike::Stall => plan.rates.stall,
            };
            let aimed: f64 = plan
                .targets
                .iter()
                .filter(|t| t.strike == strike && t.hop == hop && t.phase == phase)
                .map(|t| t.chance)
                .sum();
            if self.world.strikes((everywhere + aimed).min(1.0)) {
                self.strike(strike, hop, phase);
                return;
            }
        }
    }

    fn strike(self: &Arc<Self>, strike: Strike, hop: Hop, phase: Phase) {
        let world = &self.world;
        world.say(format_args!("{self} {strike:?} at {} {}", hop.name(), phase.name()));
        match strike {
            Strike::Crash => {
                world.count("crashes");
                world.count(&format!("crashes at {}", hop.name()));
                self.set(Life::Dead);
            }
            Strike::Freeze | Strike::Stall => {
                let session_ms = u64::try_from(SESSION_TIMEOUT.as_millis()).expect("short");
                let pause = match world.draw(0..4) {
                    0 => world.draw_ms(10..session_ms / 2),
                    1 | 2 => world.draw_ms(session_ms..session_ms * 3 / 2),
                    _ => world.draw_ms(session_ms * 3 / 2..session_ms * 3),
                };
                let life = if strike == Strike::Freeze { Life::Frozen } else { Life::Stalled };
                world.count(if strike == Strike::Freeze { "freezes" } else { "stalls" });
                if strike == Strike::Freeze && world.strikes(world.plan.rates.replace) {
                    world.count("frozen processes replaced");
                    *lock(&self.is_replaced) = true;
                    self.replaced.notify_one();
                }
                self.pause(life, pause);
            }
        }
    }

    /// Stops the process and lets it go on later; the world's doing, so it happens whatever the process does.
    fn pause(self: &Arc<Self>, life: Life, pause: Duration) {
        self.set(life);
        let control = Arc::clone(self);
        tokio::spawn(async move {
            let quiet = control.world.plan.quiet.saturating_sub(control.world.elapsed());
            tokio::time::sleep(pause.min(quiet)).await;
            control.world.say(format_args!("{control} goes on"));
            control.set(Life::Running);
            if control.is_replaced() {
                // Whoever replaced it kills it, once it notices.
                let while_both = control.world.draw_ms(0..4_000);
                tokio::time::sleep(while_both).await;
                control.kill();
            }
        });
    }

    /// Makes a request: it is the world's once it is sent. `None` when no answer comes.
    pub async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        side: Side,
        hop: Hop,
        trip: Trip,
        apply: impl FnOnce(&Arc<World>) -> T + Send + 'static,
    ) -> Option<T> {
        self.gate(side).await;
        self.lottery(hop, Phase::Before);
        self.gate(side).await;
        let (answer, answered) = oneshot::channel();
        if trip.fate != Fate::Lost {
            let world = Arc::clone(&self.world);
            tokio::spawn(async move {
                tokio::time::sleep(trip.there).await;
                world.mark(hop as u64);
                let done = apply(&world);
                if trip.fate == Fate::Answered {
                    tokio::time::sleep(trip.back).await;
                    let _ = answer.send(done);
                }
            });
        }
        self.lottery(hop, Phase::InFlight);
        let found = match trip.fate {
            Fate::Answered => answered.await.ok(),
            Fate::Lost | Fate::Unheard => {
                tokio::time::sleep(trip.patience).await;
                None
            }
        };
        self.lottery(hop, Phase::After);
        self.gate(side).await;
        found
    }
}

impl std::fmt::Display for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}.{}]", self.slot, self.process)
    }
}

/// The clock of a process.
impl Clock for Control {
    fn now_ms(&self) -> i64 {
        let plan = &self.world.plan;
        let is_wrong = plan.is_clock_wrong(self.slot, self.world.elapsed());
        let offset_ms = if is_wrong { WRONG_CLOCK_MS } else { plan.clock_offsets_ms[self.slot] };
        self.world.now_ms() + offset_ms
    }
}

/// How a process ended.
#[derive(Debug)]
pub enum End {
    /// It was struck.
    Crashed,
    /// By itself.
    Returned(Result<(), PipelineError>),
}

type Running = Pin<Box<dyn Future<Output = Result<(), PipelineError>> + Send>>;

/// Holds the future of the processor.
struct Vessel {
    control: Arc<Control>,
    inner: Option<Running>,
}

impl Future for Vessel {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        *lock(&self.control.waker) = Some(context.waker().clone());
        let control = Arc::clone(&self.control);
        control.lottery(Hop::Poll, Phase::Before);
        if control.life() == Life::Running
            && let Some(inner) = &mut self.inner
            && let Poll::Ready(result) = inner.as_mut().poll(context)
            && !control.is_dead()
        {
            return Poll::Ready(End::Returned(result));
        }
        if control.is_dead() {
            self.inner = None;
            return Poll::Ready(End::Crashed);
        }
        Poll::Pending
    }
}

/// A process that runs.
pub struct Process {
    pub control: Arc<Control>,
    pub shutdown: CancellationToken,
    pub metrics: Metrics,
    pub end: JoinHandle<End>,
}

/// What a slot's processes have in common.
pub fn start(world: &Arc<World>, slot: usize, process: u64, settings: Settings) -> Process {
    let control = Control::new(world, slot, process);
    world.say(format_args!("{control} starts"));
    let metrics = Metrics::new().expect("metrics");
    lock(&control.witness).metrics = Some(metrics.clone());
    let (log, output) = crate::log::open(&control);
    let parts = Parts {
        log,
        output,
        campaigns: Arc::new(crate::campaigns::Reader::new(&control)),
        lanes: campaignd::pipeline::lane::LaneParts {
            store: Arc::new(crate::store::SimStore::new(&control)),
            schemas: Arc::new(crate::registry::Client::new(&control)),
            codec: crate::campaigns::CODEC,
            settings: Arc::new(settings),
            metrics: metrics.clone(),
        },
        clock: Arc::clone(&control) as Arc<dyn Clock>,
        health: Health::new(),
    };
    let shutdown = CancellationToken::new();
    let inner = Box::pin(run(parts, shutdown.clone()));
    let end = tokio::spawn(Vessel { control: Arc::clone(&control), inner: Some(inner) });
    Process { control, shutdown, metrics, end }
}
