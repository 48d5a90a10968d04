//! The wish to stop: SIGINT, SIGTERM or SIGHUP, seen by every wait of the tool.

use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Says whether, and by which signal, the tool was asked to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// From now on these signals end no process by themselves; they are noted here.
    pub fn on_signals() -> anyhow::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), usize::try_from(number)?)
                .context("cannot listen for signals")?;
        }
        Ok(Self { signal })
    }

    /// The signal that asked for the end.
    pub fn requested(&self) -> Option<i32> {
        i32::try_from(self.signal.load(Ordering::SeqCst)).ok().filter(|signal| *signal != 0)
    }

    /// An error once the end was asked for: to leave a start or a download.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.requested().is_some() {
            bail!("stopped by a signal");
        }
        Ok(())
    }
}
