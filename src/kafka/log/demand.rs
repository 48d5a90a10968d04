//! What the processor wants of the poller, so that no more than one batch is ever on its way.
//!
//! A want counts for the batches received when it was said. Without that, a want that is repeated while a batch is still
//! in the channel asks for a second one, which would push the first aside.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pipeline::log::Want;

/// Bits that hold the want; the rest counts received batches.
const WANT_BITS: u32 = 2;

/// The processor's side says, the poller's side asks.
#[derive(Debug, Default)]
pub(super) struct Demand(AtomicU64);

impl Demand {
    /// The processor wants this, having received so many batches.
    pub fn say(&self, want: Want, received: u64) {
        let want = match want {
            Want::Nothing => 0,
            Want::Full => 1,
            Want::Any => 2,
        };
        self.0.store(received << WANT_BITS | want, Ordering::Release);
    }

    /// What is wanted of a poller that has delivered so many batches; nothing while one is on its way.
    pub fn of(&self, delivered: u64) -> Want {
        let word = self.0.load(Ordering::Acquire);
        match (word >> WANT_BITS == delivered, word & 0b11) {
            (true, 1) => Want::Full,
            (true, 2) => Want::Any,
            _ => Want::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_repeated_while_a_batch_is_on_its_way_asks_for_nothing() {
        let demand = Demand::default();
        assert_eq!(demand.of(0), Want::Nothing);
        demand.say(Want::Full, 0);
        assert_eq!(demand.of(0), Want::Full);
        // The poller has delivered; the processor has not received and repeats itself.
        demand.say(Want::Any, 0);
        assert_eq!(demand.of(1), Want::Nothing);
        demand.say(Want::Nothing, 1);
        assert_eq!(demand.of(1), Want::Nothing);
        demand.say(Want::Any, 1);
        assert_eq!(demand.of(1), Want::Any);
    }
}
