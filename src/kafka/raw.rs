//! The calls into librdkafka that the safe wrapper lacks; the only module with `unsafe` in it.
//!
//! Each function says what the wrapper does instead and why that will not do. Nothing here keeps a pointer longer than
//! the object it came from.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr::NonNull;

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::bindings as rdsys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use crate::pipeline::log::Header;

/// Waits until no message is in flight or `timeout_ms` has passed; true when none is left.
///
/// `Producer::flush`, and so `commit_transaction`, looks only every 100 ms, which would make every transaction cost
/// that much; the native call wakes as soon as the last message is delivered (measured: facts in ARCHITECTURE.md).
pub fn flush<C: ProducerContext>(producer: &BaseProducer<C>, timeout_ms: i32) -> bool {
    // SAFETY: the pointer is valid while `producer` lives, and rd_kafka_flush is thread safe.
    let code = unsafe { rdsys::rd_kafka_flush(producer.client().native_ptr(), timeout_ms) };
    code == rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Group metadata with its generation readable.
///
/// The wrapper's own type hides the generation, and committing with a negative one may not be checked by the broker at
/// all (rule O4).
pub struct GroupMetadata(NonNull<rdsys::rd_kafka_consumer_group_metadata_t>);

// SAFETY: librdkafka's metadata is a plain immutable value once created; it is only read and, once, destroyed.
unsafe impl Send for GroupMetadata {}
// SAFETY: as above; all access through a shared reference is read only.
unsafe impl Sync for GroupMetadata {}

impl GroupMetadata {
    /// The consumer's metadata now; `None` when it has no group.
    pub fn capture<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<GroupMetadata> {
        // SAFETY: the pointer is valid while `consumer` lives; the result is ours to destroy.
        NonNull::new(unsafe { rdsys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) })
            .map(GroupMetadata)
    }

    /// Generation of the group; negative while the member is rejoining.
    pub fn generation(&self) -> i32 {
        // SAFETY: the pointer is valid until drop.
        unsafe { rdsys::rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr()) }
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: created by capture, destroyed once.
        unsafe { rdsys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

/// An error of a transactional call, with the three properties that decide what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct TransactionError {
    /// What happened.
    pub text: String,
    /// The producer instance can do nothing any more.
    pub fatal: bool,
    /// The same call may be repeated on the same producer.
    pub retriable: bool,
    /// A newer producer holds the transactional id.
    pub fenced: bool,
}

/// Whether the code says that a newer producer holds the transactional id.
pub fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

/// Adds offsets to the open transaction under the captured metadata.
pub fn send_offsets<C: ProducerContext>(
    producer: &BaseProducer<C>,
    offsets: &TopicPartitionList,
    group: &GroupMetadata,
    timeout_ms: i32,
) -> Result<(), TransactionError> {
    // SAFETY: all three pointers are valid for the call; the error, if any, is ours to destroy.
    unsafe {
        let error = rdsys::rd_kafka_send_offsets_to_transaction(
            producer.client().native_ptr(),
            offsets.ptr(),
            group.0.as_ptr(),
            timeout_ms,
        );
        if error.is_null() {
            return Ok(());
        }
        let result = TransactionError {
            text: CStr::from_ptr(rdsys::rd_kafka_error_string(error)).to_string_lossy().into_owned(),
            fatal: rdsys::rd_kafka_error_is_fatal(error) != 0,
            retriable: rdsys::rd_kafka_error_is_retriable(error) != 0,
            fenced: is_fenced(RDKafkaErrorCode::from(rdsys::rd_kafka_error_code(error))),
        };
        rdsys::rd_kafka_error_destroy(error);
        Err(result)
    }
}

/// The headers of a message.
///
/// The wrapper panics on a header name that is not UTF-8, and a producer can write one.
pub fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let Some(borrowed) = message.headers() else { return Vec::new() };
    // The wrapper's BorrowedHeaders is an opaque view: its address is the native header list's.
    let native = std::ptr::from_ref::<BorrowedHeaders>(borrowed).cast::<rdsys::rd_kafka_headers_t>();
    let mut headers = Vec::new();
    // SAFETY: `native` lives as long as `message`; name and value are copied before the next call.
    unsafe {
        for index in 0..rdsys::rd_kafka_header_cnt(native) {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            let code = rdsys::rd_kafka_header_get_all(native, index, &mut name, &mut value, &mut size);
            if code != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            let name = CStr::from_ptr(name).to_string_lossy().into_owned();
            let value = (!value.is_null())
                .then(|| Bytes::copy_from_slice(std::slice::from_raw_parts(value.cast::<u8>(), size)));
            headers.push(Header { name, value });
        }
    }
    headers
}
