//! The frame of the service suite: where the services are, which stories there are, how they run, what is counted.

#![allow(dead_code, reason = "it offers more than the stories of today use")]

use libtest_mimic::{Arguments, Trial};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::{Arc, RwLock, mpsc};
use std::time::Duration;

const KAFKA: &str = "CAMPAIGND_TEST_KAFKA";
const CASSANDRA: &str = "CAMPAIGND_TEST_CASSANDRA";
const REGISTRY: &str = "CAMPAIGND_TEST_REGISTRY";

/// Stories that run at once: the services share two cores with them.
const STORIES_AT_ONCE: usize = 2;

/// A story that takes longer hangs: the slowest kills an instance twenty times and waits for its session to end.
const STORY_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Where the services of this run answer.
#[derive(Debug, Clone)]
pub struct Services {
    /// `host:port` of the broker.
    pub kafka: String,
    /// `host:port` of the CQL port.
    pub cassandra: String,
    /// The base address of the registry's Confluent API, without a slash at the end.
    pub registry: String,
    /// The process of the broker, for stories that stop it (run them alone).
    pub kafka_pid: Option<u32>,
    /// The process of the database, for stories that stop it (run them alone).
    pub cassandra_pid: Option<u32>,
    /// The process of the registry, for stories that stop it (run them alone).
    pub registry_pid: Option<u32>,
}

impl Services {
    /// Reads the addresses; the error names what is not set.
    fn from_environment() -> Result<Self, String> {
        let read = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
        let address = |key: &str| read(key).ok_or_else(|| format!("{key} is not set"));
        let pid = |key: &str| read(&format!("{key}_PID")).and_then(|value| value.parse().ok());
        Ok(Self {
            kafka: address(KAFKA)?,
            cassandra: address(CASSANDRA)?,
            registry: address(REGISTRY)?,
            kafka_pid: pid(KAFKA),
            cassandra_pid: pid(CASSANDRA),
            registry_pid: pid(REGISTRY),
        })
    }
}

/// All stories, and how they are run.
pub struct Suite {
    services: Result<Services, String>,
    /// Held for reading by a story, for writing by one that must be alone.
    alone: Arc<RwLock<()>>,
    trials: Vec<Trial>,
}

impl Suite {
    /// An empty suite for the services that the environment names.
    pub fn from_environment() -> Self {
        Self { services: Services::from_environment(), alone: Arc::default(), trials: Vec::new() }
    }

    /// Adds a story that may run beside another one. It fails by panicking.
    pub fn story<F, Fut>(&mut self, name: &str, body: F)
    where
        F: FnOnce(Services) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let gate = Arc::clone(&self.alone);
        let story = name.to_owned();
        self.add(name, move |services| {
            let _beside = gate.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            within_limit(story, move || block_on(body(services)));
        });
    }

    /// Adds a story that runs while no other does: it measures, or it disturbs a service. It fails by panicking.
    pub fn lone_story<F, Fut>(&mut self, name: &str, body: F)
    where
        F: FnOnce(Services) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let gate = Arc::clone(&self.alone);
        let story = name.to_owned();
        self.add(name, move |services| {
            let _alone = gate.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            within_limit(story, move || block_on(body(services)));
        });
    }

    fn add(&mut self, name: &str, run: impl FnOnce(Services) + Send + 'static) {
        let services = self.services.clone();
        let skipped = services.is_err();
        let trial = Trial::test(name, move || {
            run(services?);
            Ok(())
        });
        self.trials.push(trial.with_ignored_flag(skipped));
    }

    /// Runs what the command line asks for and closes with one line: how many ran, how many were skipped.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert(STORIES_AT_ONCE);
        if arguments.list {
            return libtest_mimic::run(&arguments, self.trials).exit_code();
        }
        if let Err(reason) = &self.services {
            println!("SKIPPED: the service suite needs real services and {reason}. Run `make test`, or");
            println!("SKIPPED: `cargo run --release -p services -- exec -- cargo test --release \\");
            println!("SKIPPED:     --features pause-points --test service`");
        }
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        println!(
            "service tests: {} ran ({} passed, {} failed), {} skipped",
            conclusion.num_passed + conclusion.num_failed,
            conclusion.num_passed,
            conclusion.num_failed,
            conclusion.num_ignored,
        );
        conclusion.exit_code()
    }
}

/// Runs one story on a thread of its own. One that hangs fails, and the thread is left to the end of the process.
fn within_limit(name: String, run: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::sync_channel(1);
    let story = move || {
        let result = catch_unwind(AssertUnwindSafe(run));
        // Nobody listens any more when the story took too long.
        let _ = done.send(result);
    };
    std::thread::Builder::new().name(name).spawn(story).expect("a thread can be started");
    match ended.recv_timeout(STORY_LIMIT) {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => panic!("the story has not ended after {} s", STORY_LIMIT.as_secs()),
    }
}

/// Runs one story on a runtime of its own, so that nothing it leaves behind outlives it.
fn block_on(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(body);
    runtime.shutdown_background();
}
