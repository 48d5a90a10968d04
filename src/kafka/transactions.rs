//! Transactions of the commands: a few records, and perhaps offsets, all at once or not at all.
//!
//! What always holds: whoever takes a transactional id settles what its last holder left, and from then on that one can
//! commit nothing; a transaction that fails is aborted, so that no reader waits for its time-out; an answer that does not
//! come is asked for again on the same producer, which is safe. What it is not: the processor's committer, which is a
//! thread with a life of its own (`kafka::log`).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};

use super::client_log;
use super::raw::{self, GroupMetadata};
use crate::pause::{PausePoint, pause_at};
use crate::pipeline::log::Header;

/// One wait for deliveries; it ends earlier when the last record is delivered.
const FLUSH_SLICE_MS: i32 = 50;
/// One try to abort; it goes on where the one before has stopped.
const ABORT_SLICE: Duration = Duration::from_millis(100);
/// Largest record the producer sends; the brokers' and topics' own limits are what decides.
const MESSAGE_MAX_BYTES: &str = "16777216";

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: &'a [Header],
}

/// Offsets to be committed with the records.
#[derive(Clone, Copy)]
pub struct NewOffsets<'a> {
    /// The offsets.
    pub list: &'a TopicPartitionList,
    /// Their group.
    pub group: &'a GroupMetadata,
}

/// Why nothing was written, or why that is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else has taken the transactional id.
    #[error("somebody else has taken over")]
    Overtaken,
    /// A topic takes no record, or no batch of records, of this size. Nothing was written, and the producer may be stuck:
    /// take the id anew.
    #[error("a record is too large for its topic")]
    TooLarge,
    /// Nothing was written.
    #[error("{0}")]
    NotWritten(String),
    /// Whether it was written is not known; it is, once the transactional id has been taken again.
    #[error("{0}")]
    Unknown(String),
}

/// The holder of a transactional id. Its calls block.
pub struct Transactions {
    producer: BaseProducer<Reports>,
    timeout: Duration,
}

impl Transactions {
    /// Takes the transactional id: whoever held it before can commit nothing from now on, and what it committed can be
    /// read. `timeout` is that of one answer and of a transaction.
    pub fn take(
        mut client: ClientConfig,
        transactional_id: &str,
        timeout: Duration,
    ) -> Result<Transactions, WriteError> {
        client
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("message.max.bytes", MESSAGE_MAX_BYTES);
        let producer: BaseProducer<Reports> =
            client.create_with_context(Reports::default()).map_err(|error| not_written(&error))?;
        producer.init_transactions(timeout).map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => WriteError::NotWritten(format!(
                "{error}: grant the principal WRITE on the transactional id {transactional_id}"
            )),
            _ => not_written(&error),
        })?;
        Ok(Transactions { producer, timeout })
    }

    /// Writes records, and commits offsets if there are any, in one transaction; returns the offset of each record.
    pub fn write(
        &self,
        records: &[NewRecord<'_>],
        offsets: Option<NewOffsets<'_>>,
    ) -> Result<Vec<i64>, WriteError> {
        // What a client answers that was overtaken depends on what it was doing when it found out.
        self.transact(records, offsets).map_err(|error| match self.producer.client().fatal_error() {
            Some((code, _)) if raw::is_fenced(code) => WriteError::Overtaken,
            _ => error,
        })
    }

    fn transact(
        &self,
        records: &[NewRecord<'_>],
        offsets: Option<NewOffsets<'_>>,
    ) -> Result<Vec<i64>, WriteError> {
        *self.noted() = Noted { offsets: vec![-1; records.len()], failure: None };
        self.producer.begin_transaction().map_err(|error| not_written(&error))?;
        let filled = self.fill(records, offsets);
        if let Err(error) = filled {
            self.abort();
            return Err(error);
        }
        pause_at(PausePoint::BeforeCommit);
        self.commit()?;
        pause_at(PausePoint::AfterCommit);
        Ok(std::mem::take(&mut self.noted().offsets))
    }

    fn fill(&self, records: &[NewRecord<'_>], offsets: Option<NewOffsets<'_>>) -> Result<(), WriteError> {
        let deadline = Instant::now() + self.timeout;
        for (number, record) in records.iter().enumerate() {
            self.send(record, number, deadline)?;
        }
        loop {
            let is_empty = raw::flush(&self.producer, FLUSH_SLICE_MS);
            self.producer.poll(Duration::ZERO);
            // The others of a transaction with a failed record are not sent any more.
            let failure = self.noted().failure.take();
            if let Some(error) = failure {
                return Err(not_written(&error));
            }
            if is_empty {
                break;
            }
            if Instant::now() > deadline {
                return Err(WriteError::NotWritten("the records were not delivered in time".to_owned()));
            }
        }
        pause_at(PausePoint::BeforeSendOffsets);
        let Some(NewOffsets { list, group }) = offsets else { return Ok(()) };
        let timeout_ms = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        loop {
            match raw::send_offsets(&self.producer, list, group, timeout_ms) {
                Ok(()) => return Ok(()),
                Err(error) if error.retriable && Instant::now() < deadline => {}
                Err(error) if error.fenced => return Err(WriteError::Overtaken),
                Err(error) => return Err(WriteError::NotWritten(error.text)),
            }
        }
    }

    fn send(&self, record: &NewRecord<'_>, number: usize, deadline: Instant) -> Result<(), WriteError> {
        let mut message: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(record.topic, number).partition(record.partition);
        message.key = record.key;
        message.payload = record.value;
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message.headers = Some(record.headers.iter().fold(headers, |headers, header| {
                headers.insert(KafkaHeader { key: &header.name, value: header.value.as_deref() })
            }));
        }
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    self.producer.poll(Duration::from_millis(1));
                    message = back;
                }
                Err((error, _)) => return Err(not_written(&error)),
            }
        }
    }

    fn commit(&self) -> Result<(), WriteError> {
        let deadline = Instant::now() + self.timeout * 2;
        loop {
            let error = match self.producer.commit_transaction(self.timeout) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let is_fenced = error.rdkafka_error_code().is_some_and(raw::is_fenced);
            match &error {
                _ if is_fenced => return Err(WriteError::Overtaken),
                KafkaError::Transaction(details) if details.txn_requires_abort() => {
                    self.abort();
                    return Err(not_written(&error));
                }
                KafkaError::Transaction(details) if details.is_retriable() && Instant::now() < deadline => {}
                _ => return Err(WriteError::Unknown(error.to_string())),
            }
        }
    }

    /// Readers never see it either way; aborting only frees them from waiting for the time-out.
    fn abort(&self) {
        let deadline = Instant::now() + self.timeout;
        loop {
            // The call waits for the reports of what was under way and does not fetch them itself.
            self.producer.poll(Duration::ZERO);
            match self.producer.abort_transaction(ABORT_SLICE) {
                Ok(()) => return,
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => {
                    tracing::debug!(%error, "the transaction ends by its time-out");
                    return;
                }
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_written(error: &KafkaError) -> WriteError {
    match error.rdkafka_error_code() {
        Some(code) if raw::is_fenced(code) => WriteError::Overtaken,
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => WriteError::TooLarge,
        _ => WriteError::NotWritten(error.to_string()),
    }
}

/// What became of the records of a transaction.
#[derive(Default)]
struct Noted {
    /// Offsets by number.
    offsets: Vec<i64>,
    /// The first failure.
    failure: Option<KafkaError>,
}

/// Takes the delivery reports.
#[derive(Default)]
struct Reports(Mutex<Noted>);

impl ClientContext for Reports {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                if let Some(offset) = noted.offsets.get_mut(number) {
                    *offset = message.offset();
                }
            }
            Err((error, _)) => {
                noted.failure.get_or_insert_with(|| error.clone());
            }
        }
    }
}
