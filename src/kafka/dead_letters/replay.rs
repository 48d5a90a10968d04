//! Replaying: records back to `events`, each with the position behind it, in one transaction.
//!
//! The order of steps is the proof. The transactional id is taken first: whoever replayed before can commit nothing from
//! now on, and his last transaction is settled. Then the positions are read, so they are final. From then on each
//! transaction holds records and the position behind them; a crash leaves either both or neither.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::log::{Log, Next};
use super::{DeadLetterError, DeadLetterTopic, earlier, unreachable};
use crate::dead_letters::{
    DeadLetter, Left, MAX_TOO_LARGE, Mark, Order, Place, Replayed, Tally, Verdict, headers,
};
use crate::kafka::pace::Pace;
use crate::kafka::reader;
use crate::kafka::transactions::{NewOffsets, NewRecord, Transactions, WriteError};
use crate::pipeline::log::Header;

/// Records in a transaction.
const MAX_RECORDS: usize = 500;
/// Bytes of keys and values after which a transaction takes no more.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Records looked at after which positions are committed although nothing was replayed.
const MAX_PASSED: u64 = 20_000;

/// How a replay is steered from outside.
pub struct Controls<'a> {
    /// Turns true when it is to end.
    pub stop: &'a AtomicBool,
    /// Records a second.
    pub rate: Option<u32>,
    /// Told how many offsets it has passed, and of how many.
    pub progress: &'a dyn Fn(u64, u64),
}

/// What a replay did, or would do.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The counts.
    pub tally: Tally,
    /// Whether it went on where an earlier one had stopped.
    pub resumed: bool,
    /// Whether it came to its end; otherwise it was stopped.
    pub is_complete: bool,
    /// Why it ended early. What is counted has been replayed all the same.
    pub failure: Option<DeadLetterError>,
}

/// Replays. Blocks; what it has replayed when it ends early is told too.
pub fn replay(
    at: &DeadLetterTopic,
    order: &Order,
    controls: &Controls<'_>,
) -> Result<Outcome, DeadLetterError> {
    let transactions = take(at)?;
    let mut work = Work::prepare(at, order)?;
    work.transactions = Some(transactions);
    work.commit_start()?;
    let failure = work.run(controls).err();
    Ok(work.outcome(failure))
}

/// What [`replay`] would do now. Blocks, and changes nothing.
pub fn would_replay(
    at: &DeadLetterTopic,
    order: &Order,
    controls: &Controls<'_>,
) -> Result<Outcome, DeadLetterError> {
    let mut work = Work::prepare(at, order)?;
    let controls = Controls { rate: None, ..*controls };
    work.run(&controls)?;
    Ok(work.outcome(None))
}

/// A record on its way.
struct Item {
    letter: DeadLetter,
    partition: i32,
    headers: Vec<Header>,
}

/// How far a partition has come.
struct Part {
    /// Next offset to look at.
    position: i64,
    /// The offset before which to end.
    end: i64,
    /// Offsets that `events` did not take, now or earlier.
    too_large: BTreeSet<i64>,
}

struct Work<'a> {
    at: &'a DeadLetterTopic,
    order: &'a Order,
    log: Log,
    /// None when nothing is to be changed.
    transactions: Option<Transactions>,
    others: Vec<Replayed>,
    events_count: i32,
    parts: BTreeMap<i32, Part>,
    /// What has been committed, or would be.
    done: Tally,
    resumed: bool,
}

impl<'a> Work<'a> {
    fn prepare(at: &'a DeadLetterTopic, order: &'a Order) -> Result<Work<'a>, DeadLetterError> {
        let group_id = order.group_id(&at.group_id);
        let log = Log::open(at, &group_id)?;
        let (mine, others) = split(at, &log, &group_id)?;
        let mut parts = BTreeMap::new();
        for (partition, stretch) in log.stretches(&order.filter)? {
            let stand = mine.as_ref().and_then(|mine| mine.stands.get(&partition));
            let log_end = log.bounds().get(&partition).map_or(stretch.end, |bounds| bounds.end);
            let position = stand.map_or(0, |stand| stand.position);
            if position > log_end {
                let topic = at.topic.clone();
                return Err(DeadLetterError::OtherLog {
                    topic,
                    group: group_id,
                    partition,
                    position,
                    end: log_end,
                });
            }
            let too_large = stand.map(|stand| stand.too_large.clone()).unwrap_or_default();
            let position = position.max(stretch.start).min(stretch.end);
            parts.insert(partition, Part { position, end: stretch.end, too_large });
        }
        let events_count = count_partitions(at)?;
        let resumed = mine.is_some_and(|mine| !mine.stands.is_empty());
        Ok(Work {
            at,
            order,
            log,
            transactions: None,
            others,
            events_count,
            parts,
            done: Tally::default(),
            resumed,
        })
    }

    fn run(&mut self, controls: &Controls<'_>) -> Result<(), DeadLetterError> {
        let pace = Pace::new(controls.rate);
        // A small rate makes small transactions: what is written shows at once.
        let max_records = controls.rate.map_or(MAX_RECORDS, |rate| {
            usize::try_from(rate / 4).unwrap_or(MAX_RECORDS).clamp(1, MAX_RECORDS)
        });
        let total: u64 = self.parts.values().map(|part| length(&(part.position..part.end))).sum();
        self.log.read(self.parts.iter().map(|(p, part)| (*p, part.position..part.end)).collect())?;
        let mut batch: Vec<Item> = Vec::new();
        let (mut bytes, mut passed) = (0, 0);
        let mut tally = Tally::default();
        loop {
            let next = self.log.poll()?;
            let is_idle = !matches!(next, Next::Letter(_));
            let is_end = matches!(next, Next::End);
            if let Next::Letter(letter) = next {
                passed += 1;
                if let Some(item) = self.judge(*letter, &mut tally) {
                    bytes += size(&item.letter);
                    batch.push(item);
                }
            }
            let is_full = batch.len() >= max_records || bytes >= MAX_BYTES || passed >= MAX_PASSED;
            if is_full || (is_idle && passed > 0) || is_end {
                pace.wait(self.done.replayed + batch.len() as u64, controls.stop, std::thread::sleep);
                if controls.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let positions = self.positions();
                self.commit(std::mem::take(&mut batch), &positions, &mut tally)?;
                self.move_to(&positions);
                self.done.add(std::mem::take(&mut tally));
                (bytes, passed) = (0, 0);
                let left: u64 = self.parts.values().map(|part| length(&(part.position..part.end))).sum();
                (controls.progress)(total - left, total);
            }
            if is_end || controls.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// What is to be written for a record, if anything.
    fn judge(&self, letter: DeadLetter, tally: &mut Tally) -> Option<Item> {
        let replays = match self.order.verdict(&letter) {
            Verdict::NotAsked => {
                tally.not_asked += 1;
                return None;
            }
            Verdict::Left(left) => {
                tally.leave(&letter, left);
                return None;
            }
            Verdict::Replay { .. } if self.others.iter().any(|other| other.has_replayed(&letter)) => {
                tally.leave(&letter, Left::AlreadyReplayed);
                return None;
            }
            Verdict::Replay { replays } => replays,
        };
        let key = letter.key.as_deref().unwrap_or_default();
        let partition = self.at.partitioner.partition(key, self.events_count);
        let headers = headers(&letter, replays);
        Some(Item { letter, partition, headers })
    }

    /// How far reading has come.
    fn positions(&self) -> BTreeMap<i32, i64> {
        let open = self.log.open_parts();
        let position = |(partition, part): (&i32, &Part)| {
            (*partition, open.get(partition).map_or(part.end, |stretch| stretch.start))
        };
        self.parts.iter().map(position).collect()
    }

    fn move_to(&mut self, positions: &BTreeMap<i32, i64>) {
        for (partition, part) in &mut self.parts {
            part.position = positions.get(partition).copied().unwrap_or(part.position);
        }
    }

    /// Makes it known that this replay has begun and where it means to end, before the first record goes out: what it has
    /// not reached is not purged from now on.
    fn commit_start(&self) -> Result<(), DeadLetterError> {
        let positions = self.parts.iter().map(|(partition, part)| (*partition, part.position)).collect();
        if self.parts.is_empty() {
            return Ok(());
        }
        Ok(self.write(&[], &positions)?)
    }

    /// Writes a batch with the positions behind it. Of a batch that `events` does not take because of its size, the largest
    /// record goes alone; if it is not taken alone, it is left.
    fn commit(
        &mut self,
        batch: Vec<Item>,
        positions: &BTreeMap<i32, i64>,
        tally: &mut Tally,
    ) -> Result<(), DeadLetterError> {
        // The last first.
        let mut stretches = vec![batch];
        while let Some(mut items) = stretches.pop() {
            let behind = if stretches.is_empty() { positions.clone() } else { self.behind(&items) };
            match self.write(&items, &behind) {
                Ok(()) => {}
                Err(WriteError::TooLarge) if items.len() > 1 => {
                    self.take_anew()?;
                    stretches.extend(around_largest(items));
                    continue;
                }
                Err(WriteError::TooLarge) => {
                    self.take_anew()?;
                    for item in items.drain(..) {
                        self.leave_too_large(&item.letter)?;
                        tally.leave(&item.letter, Left::TooLarge);
                    }
                    self.write(&[], &behind)?;
                }
                Err(error) => return Err(error.into()),
            }
            items.iter().for_each(|item| tally.replay(&item.letter));
            if !stretches.is_empty() {
                self.move_to(&behind);
                self.done.add(std::mem::take(tally));
            }
        }
        Ok(())
    }

    /// The positions behind these records, which are the first that are left.
    fn behind(&self, items: &[Item]) -> BTreeMap<i32, i64> {
        let mut positions: BTreeMap<i32, i64> =
            self.parts.iter().map(|(partition, part)| (*partition, part.position)).collect();
        for Item { letter, .. } in items {
            positions.insert(letter.place.partition, letter.place.offset.saturating_add(1));
        }
        positions
    }

    /// A new producer, because the client may be stuck in the one whose record was too large. Taking the id anew would end
    /// somebody who took it meanwhile, without knowing what he has replayed; so we end instead if anything has moved.
    fn take_anew(&mut self) -> Result<(), DeadLetterError> {
        self.transactions = Some(take(self.at)?);
        let (mine, others) = split(self.at, &self.log, &self.order.group_id(&self.at.group_id))?;
        let stands = mine.map(|mine| mine.stands).unwrap_or_default();
        let is_ours = self.parts.iter().all(|(partition, part)| {
            stands.get(partition).is_some_and(|stand| stand.position == part.position)
        });
        if is_ours && others == self.others { Ok(()) } else { Err(DeadLetterError::Overtaken) }
    }

    fn leave_too_large(&mut self, letter: &DeadLetter) -> Result<(), DeadLetterError> {
        let Place { partition, offset } = letter.place;
        let Some(part) = self.parts.get_mut(&partition) else { return Ok(()) };
        part.too_large.insert(offset);
        if part.too_large.len() > MAX_TOO_LARGE {
            return Err(DeadLetterError::TooManyTooLarge { partition, bound: MAX_TOO_LARGE });
        }
        Ok(())
    }

    fn write(&self, items: &[Item], positions: &BTreeMap<i32, i64>) -> Result<(), WriteError> {
        let Some(transactions) = &self.transactions else { return Ok(()) };
        let records: Vec<NewRecord<'_>> = items
            .iter()
            .map(|item| NewRecord {
                topic: &self.at.events,
                partition: item.partition,
                key: item.letter.key.as_deref(),
                value: item.letter.value.as_deref(),
                headers: &item.headers,
            })
            .collect();
        let list = self.offsets(positions).map_err(|error| WriteError::NotWritten(error.to_string()))?;
        let group =
            self.log.group().ok_or_else(|| WriteError::NotWritten("the client has no group".into()))?;
        transactions.write(&records, Some(NewOffsets { list: &list, group: &group }))?;
        Ok(())
    }

    fn offsets(&self, positions: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, position) in positions {
            let Some(part) = self.parts.get(partition) else { continue };
            let mark = Mark { order: self.order.clone(), end: part.end, too_large: part.too_large.clone() };
            let mut element = list.add_partition(&self.at.topic, *partition);
            element.set_offset(Offset::Offset(*position))?;
            element.set_metadata(mark.to_text());
        }
        Ok(list)
    }

    fn outcome(self, failure: Option<DeadLetterError>) -> Outcome {
        let is_complete = failure.is_none() && self.parts.values().all(|part| part.position >= part.end);
        Outcome { tally: self.done, resumed: self.resumed, is_complete, failure }
    }
}

fn take(at: &DeadLetterTopic) -> Result<Transactions, WriteError> {
    Transactions::take(at.client.clone(), &at.transactional_id(), at.transaction_timeout)
}

/// How far the replay of this group has come, if it was begun before, and all others.
fn split(
    at: &DeadLetterTopic,
    log: &Log,
    group_id: &str,
) -> Result<(Option<Replayed>, Vec<Replayed>), DeadLetterError> {
    let partitions: Vec<i32> = log.bounds().keys().copied().collect();
    let (mine, others): (Vec<Replayed>, Vec<Replayed>) =
        earlier(at, &partitions)?.into_iter().partition(|replayed| replayed.group_id == group_id);
    Ok((mine.into_iter().next(), others))
}

fn length(range: &Range<i64>) -> u64 {
    u64::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)
}

fn size(letter: &DeadLetter) -> usize {
    let length = |bytes: Option<&bytes::Bytes>| bytes.map_or(0, bytes::Bytes::len);
    length(letter.key.as_ref()) + length(letter.value.as_ref())
}

/// The records in three parts, the last first: those behind the largest, the largest, those before it.
fn around_largest(mut items: Vec<Item>) -> impl Iterator<Item = Vec<Item>> {
    let largest = (0..).zip(&items).max_by_key(|(_, item)| size(&item.letter)).map_or(0, |(at, _)| at);
    let mut one = items.split_off(largest);
    let behind = one.split_off(one.len().min(1));
    [behind, one, items].into_iter().filter(|part| !part.is_empty())
}

/// How many partitions `events` has.
fn count_partitions(at: &DeadLetterTopic) -> Result<i32, DeadLetterError> {
    let failed = |error: KafkaError| unreachable(&at.events, &error);
    let consumer = reader::consumer(at.client.clone(), &at.transactional_id()).map_err(failed)?;
    let metadata = reader::partitions(&consumer, &at.events, at.request_timeout).map_err(failed)?;
    match i32::try_from(metadata.len()) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(DeadLetterError::NoTopic(at.events.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::testing::letter;

    #[test]
    fn the_largest_record_is_set_apart_and_the_order_stays() {
        let parts = |sizes: &[usize]| -> Vec<Vec<usize>> {
            let items = sizes.iter().map(|size| {
                let mut letter = letter(0, 0, "bad_avro");
                letter.value = Some(vec![0; *size].into());
                Item { letter, partition: 0, headers: Vec::new() }
            });
            let parts = around_largest(items.collect());
            let length = |item: &Item| item.letter.value.as_ref().unwrap().len();
            parts.map(|part| part.iter().map(length).collect()).collect()
        };
        assert_eq!(parts(&[1, 9, 2, 3]), [vec![2, 3], vec![9], vec![1]]);
        assert_eq!(parts(&[9, 1]), [vec![1], vec![9]]);
        assert_eq!(parts(&[1, 9]), [vec![9], vec![1]]);
    }
}
