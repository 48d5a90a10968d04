//! Which input topics exist, as the newest metadata says.
//!
//! The rebalance callback has to return at once, so it asks nobody: it assigns the retry topics that are known here.
//! They are read at the start, by every owner that takes partitions, and before the group is joined again (rules O1, O2
//! and O8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::names::InputNames;
use super::stands::unavailable;
use crate::pipeline::log::LogError;

/// What there is to be assigned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InputTopics {
    /// Partitions of `events`.
    pub partitions: usize,
    /// Tiers 1 to this exist.
    pub tiers: u8,
}

/// The newest reading, shared by the threads of one log.
#[derive(Debug, Default)]
pub(super) struct KnownTopics(ArcSwap<InputTopics>);

impl KnownTopics {
    pub fn get(&self) -> InputTopics {
        **self.0.load()
    }

    /// Asks the broker. Blocks.
    ///
    /// # Errors
    ///
    /// [`LogError::Unavailable`] when it does not answer, [`LogError::Refused`] when a retry topic cannot be used.
    pub fn refresh<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        names: &InputNames,
        timeout: Duration,
    ) -> Result<InputTopics, LogError> {
        // All topics, because asking for one by name creates it where brokers do so by themselves.
        let metadata = consumer.fetch_metadata(None, timeout).map_err(|e| unavailable(&e))?;
        let counts: BTreeMap<&str, usize> =
            metadata.topics().iter().map(|topic| (topic.name(), topic.partitions().len())).collect();
        let topics = judge(names, &counts)?;
        self.0.store(Arc::new(topics));
        Ok(topics)
    }
}

/// The tiers count from 1 without a gap; each needs the partitions of `events`, because whoever owns one of these owns
/// the partition of the same number of every tier.
fn judge(names: &InputNames, counts: &BTreeMap<&str, usize>) -> Result<InputTopics, LogError> {
    let count = |name: &str| counts.get(name).copied().filter(|partitions| *partitions > 0);
    let Some(partitions) = count(names.events()) else {
        // It was there at the start, so a broker that does not know it is more likely than a deletion.
        return Err(LogError::Unavailable(format!(
            "the broker knows no topic {}; if it was deleted, run `campaignd topology apply`",
            names.events()
        )));
    };
    let mut tiers = 0;
    for (tier, name) in names.tiers() {
        match count(name) {
            None => break,
            Some(too_few) if too_few < partitions => {
                return Err(LogError::Refused(format!(
                    "topic {name} has {too_few} partitions and {} has {partitions}; give it at least as many \
                     (kafka-topics.sh --alter --topic {name} --partitions {partitions})",
                    names.events()
                )));
            }
            Some(_) => tiers = tier,
        }
    }
    Ok(InputTopics { partitions, tiers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(counts: &[(&str, usize)]) -> Result<InputTopics, String> {
        let names = InputNames::new("events", &["r.1", "r.2", "r.3"].map(str::to_owned));
        judge(&names, &counts.iter().copied().collect()).map_err(|error| error.to_string())
    }

    /// Rule O1.
    #[test]
    fn tiers_count_from_1_up_to_the_first_that_is_missing() {
        let topics = |partitions, tiers| Ok(InputTopics { partitions, tiers });
        assert_eq!(judged(&[("events", 4)]), topics(4, 0));
        assert_eq!(judged(&[("events", 4), ("r.1", 4), ("r.2", 8)]), topics(4, 2));
        assert_eq!(judged(&[("events", 4), ("r.1", 4), ("r.3", 4)]), topics(4, 1));
    }

    #[test]
    fn a_tier_with_too_few_partitions_is_refused_with_what_to_do() {
        let refused = judged(&[("events", 4), ("r.1", 4), ("r.2", 3)]).unwrap_err();
        assert!(
            refused.contains("topic r.2 has 3 partitions") && refused.contains("--partitions 4"),
            "{refused}"
        );
        assert!(judged(&[("r.1", 4)]).unwrap_err().contains("no topic events"));
    }
}
