//! What the embedded and the service suite share: names that no other test uses.
//!
//! It holds no story of its own, and nothing here waits for a time to pass.

#![allow(dead_code, reason = "each suite uses its own part")]

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
