//! Pause points for crash tests: a process stops dead at a chosen place so that a test can kill it there.
//!
//! Compiled to nothing without the feature `pause-points`, which no released build has. Steered by the environment:
//! `CAMPAIGND_PAUSE_POINT` names the place, `CAMPAIGND_PAUSE_AFTER` says at which passage (1 is the first, the
//! default), `CAMPAIGND_PAUSE_FILE` is written with the place's name once it is reached.

/// A place between two effects of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PausePoint {
    /// The batch is decided, no cell is written.
    BeforeStoreWrite,
    /// Every cell is acknowledged, no transaction has begun.
    AfterStoreWrite,
    /// The output records are delivered, the offsets are not in the transaction.
    BeforeSendOffsets,
    /// The offsets are in the transaction, it is not committed.
    BeforeCommit,
    /// The transaction is committed, the pipeline does not know it yet.
    AfterCommit,
}

impl PausePoint {
    /// The name used in `CAMPAIGND_PAUSE_POINT`.
    pub fn name(self) -> &'static str {
        match self {
            PausePoint::BeforeStoreWrite => "before_store_write",
            PausePoint::AfterStoreWrite => "after_store_write",
            PausePoint::BeforeSendOffsets => "before_send_offsets",
            PausePoint::BeforeCommit => "before_commit",
            PausePoint::AfterCommit => "after_commit",
        }
    }
}

/// Stops this thread for ever if the environment names this place and its passage has come.
#[cfg(not(feature = "pause-points"))]
#[inline(always)]
pub fn pause_at(_point: PausePoint) {}

/// Stops this thread for ever if the environment names this place and its passage has come.
#[cfg(feature = "pause-points")]
pub fn pause_at(point: PausePoint) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSAGES: AtomicU64 = AtomicU64::new(0);
    if std::env::var("CAMPAIGND_PAUSE_POINT").as_deref() != Ok(point.name()) {
        return;
    }
    let after = std::env::var("CAMPAIGND_PAUSE_AFTER").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    if PASSAGES.fetch_add(1, Ordering::SeqCst) + 1 < after {
        return;
    }
    if let Ok(path) = std::env::var("CAMPAIGND_PAUSE_FILE") {
        // A test waits for this file; a failure to write it shows as the test's time-out.
        let _ = std::fs::write(path, point.name());
    }
    loop {
        std::thread::park();
    }
}
