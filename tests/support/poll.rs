//! Waiting for observable facts, never for time to pass.

use std::time::{Duration, Instant};

/// How long a fact may take before the story fails; far above what any machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer; fails, naming what was awaited and what stood there last, when there is none in time.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, &mut ask)
}

/// The same with another deadline.
pub fn until_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(state) if Instant::now() > deadline => {
                panic!("waited {patience:?} for {what}; last seen: {state}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
