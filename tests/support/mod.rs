//! What the embedded and the service suite share: the model, brokers, processes, and the comparison of what came out
//! with what must come out.
//!
//! It holds no story of its own, and nothing here waits for a time to pass. Nothing here knows how campaignd works
//! inside either: it is started as a process with a configuration file, fed through Kafka, and judged by what stands on
//! the topics, in the audit table and on `/metrics`.

#![allow(dead_code, reason = "each suite uses its own part")]

pub mod change;
pub mod compare;
pub mod kafka;
pub mod mock;
pub mod model;
pub mod poison;
pub mod poll;
pub mod process;
pub mod registry;
pub mod settings;
pub mod shop;
pub mod stage;
pub mod wire;

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A name no other test, run or process uses, for topics, groups, keyspaces and users.
///
/// It is `<label>_<time><process>_<number>` in lower case letters, digits and underscores; with a label of at most 16
/// bytes it stays below the 48 bytes that a keyspace may have.
pub fn unique(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    format!("{label}_{:x}{:x}_{number}", since_epoch.as_secs(), std::process::id())
}

/// Runs a future to its end on a thread and a runtime of its own, wherever the caller runs.
pub fn blocking<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future)
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(answer) => answer,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
