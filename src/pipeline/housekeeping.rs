//! What may be late and may fail: deleting what was consumed of the retry topics (rule P7).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::log::{Input, InputTopic, StandReader};
use crate::mutant::{Mutant, is};

/// How long consumed records stay at least, so that many are deleted at a time.
const PERIOD: Duration = Duration::from_secs(5);

/// The retry topics have no retention; their owner deletes the consumed prefix.
pub struct Housekeeping {
    log: Arc<dyn StandReader>,
    /// Consumed and not deleted yet: below these offsets.
    consumed: BTreeMap<Input, i64>,
    due: Option<Instant>,
}

impl Housekeeping {
    /// Nothing to do yet.
    pub fn new(log: Arc<dyn StandReader>) -> Housekeeping {
        Housekeeping { log, consumed: BTreeMap::new(), due: None }
    }

    /// These offsets have been committed.
    pub fn committed(&mut self, next_offsets: &BTreeMap<Input, i64>) {
        let retry = next_offsets.iter().filter(|(input, _)| input.topic != InputTopic::Events);
        self.consumed.extend(retry.map(|(input, offset)| (*input, *offset + i64::from(is(Mutant::P7)))));
        if !self.consumed.is_empty() && self.due.is_none() {
            self.due = Some(Instant::now() + PERIOD);
        }
    }

    /// The partitions are another owner's now, or will be read again.
    pub fn forget(&mut self) {
        self.consumed.clear();
        self.due = None;
    }

    /// When there is something to do.
    pub fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Deletes in the background what is due. A failure costs disk space until the next time, nothing else.
    pub fn run(&mut self) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        let (log, below) = (Arc::clone(&self.log), std::mem::take(&mut self.consumed));
        tokio::spawn(async move {
            if let Err(error) = log.delete_consumed(&below).await {
                tracing::warn!("consumed records of the retry topics could not be deleted yet: {error}");
            }
        });
    }
}
