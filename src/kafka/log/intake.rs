//! From which partitions records flow, and from which offset on.
//!
//! Pausing and seeking throw away what librdkafka has read ahead of a partition, so whoever lets a partition flow again
//! positions it behind the last record that was accepted: nothing is lost, and what comes twice is not accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::names::InputNames;
use super::rebalance::Rebalances;
use crate::pipeline::log::Input;

/// How often a seek that answers "Erroneous state" is repeated before the partitions are assigned anew (rule O1).
const SEEK_ATTEMPTS: u32 = 20;
/// Between two such attempts, and the time-out of one.
const SEEK_PAUSE: Duration = Duration::from_millis(50);
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// The partitions of one epoch; none between two of them.
pub(super) struct Intake {
    consumer: Arc<BaseConsumer<Rebalances>>,
    names: Arc<InputNames>,
    /// Lowest offset per partition that has not been accepted yet.
    expected: BTreeMap<Input, i64>,
    flowing: BTreeSet<Input>,
}

impl Intake {
    pub fn new(consumer: Arc<BaseConsumer<Rebalances>>, names: Arc<InputNames>) -> Intake {
        Intake { consumer, names, expected: BTreeMap::new(), flowing: BTreeSet::new() }
    }

    /// Positions all partitions and lets them flow.
    pub fn begin(&mut self, offsets: BTreeMap<Input, i64>) -> Result<(), String> {
        let list = self.names.offsets(&offsets).map_err(|e| e.to_string())?;
        if self.position(&list).is_err() {
            self.assign_anew(&offsets, &list)?;
        }
        self.flowing = offsets.keys().copied().collect();
        self.expected = offsets;
        Ok(())
    }

    /// Stops every partition and forgets them. Else a wait for the store or the coordinator would read the whole log and
    /// throw it away.
    pub fn end(&mut self) {
        if let Ok(list) = self.consumer.assignment()
            && let Err(error) = self.consumer.pause(&list)
        {
            tracing::debug!(%error, "pausing");
        }
        self.expected.clear();
        self.flowing.clear();
    }

    /// Whether the record is the next one of a partition that flows; then it is never accepted again.
    pub fn accept(&mut self, input: Input, offset: i64) -> bool {
        match self.expected.get_mut(&input) {
            Some(next) if offset >= *next && self.flowing.contains(&input) => {
                *next = offset + 1;
                true
            }
            _ => false,
        }
    }

    /// Lets exactly these partitions flow; the others rest, and lose nothing by it.
    pub fn let_flow(&mut self, is_wanted: impl Fn(&Input) -> bool) -> Result<(), String> {
        let wanted: BTreeSet<Input> =
            self.expected.keys().copied().filter(|input| is_wanted(input)).collect();
        let to_pause = self.names.list(self.flowing.difference(&wanted));
        if to_pause.count() > 0 {
            self.consumer.pause(&to_pause).map_err(|e| format!("partitions cannot be paused: {e}"))?;
        }
        let to_resume: BTreeMap<Input, i64> = self
            .expected
            .iter()
            .filter(|(input, _)| wanted.contains(*input) && !self.flowing.contains(*input))
            .map(|(input, next)| (*input, *next))
            .collect();
        self.flowing = wanted;
        if to_resume.is_empty() {
            return Ok(());
        }
        let list = self.names.offsets(&to_resume).map_err(|e| e.to_string())?;
        self.position(&list)
    }

    /// Seeks every partition, checks each one's own result, and resumes.
    fn position(&self, list: &TopicPartitionList) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..SEEK_ATTEMPTS {
            match self.seek(list) {
                Ok(()) => {
                    return self.consumer.resume(list).map_err(|e| format!("partitions do not resume: {e}"));
                }
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(SEEK_PAUSE);
        }
        Err(format!("partitions cannot be positioned: {last}"))
    }

    /// `seek_partitions` answers Ok with the errors of single partitions inside.
    fn seek(&self, list: &TopicPartitionList) -> Result<(), KafkaError> {
        let answered = self.consumer.seek_partitions(list.clone(), SEEK_TIMEOUT)?;
        answered.elements().iter().try_for_each(|element| element.error())
    }

    fn assign_anew(&self, offsets: &BTreeMap<Input, i64>, list: &TopicPartitionList) -> Result<(), String> {
        let assigned = self.consumer.assignment().map_err(|e| e.to_string())?;
        let is_gone =
            |input: &Input| assigned.find_partition(self.names.of(input.topic), input.partition).is_none();
        if offsets.keys().any(is_gone) {
            return Err("a partition is not assigned any more".into());
        }
        self.consumer
            .assign(list)
            .and_then(|()| self.consumer.resume(list))
            .map_err(|e| format!("partitions cannot be positioned: {e}"))
    }
}
