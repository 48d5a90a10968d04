//! Avro: the wire format of events and decisions, and the registry that knows the writers' schemas.
//!
//! - [`wire`] is the Confluent framing: a zero byte, the schema id, the Avro body.
//! - [`WriterSchema`] is a schema a producer wrote with, ready for decoding; a [`SchemaSource`] finds it by its id.
//! - [`decode_event`] turns a body into an event; it holds against hostile bytes and hostile schemas.
//! - [`OutputCodec`] writes decisions, always by the schema compiled into this binary.
//! - [`registry`] is the client of a real registry, which keeps what it found in a [`folder`]; [`embedded`] is a registry
//!   inside this process for the demo; [`registration`] puts our schemas there.
//!
//! What always holds: no input panics, and memory stays proportional to the length of the record. What it is not: a
//! general Avro library. Schemas are parsed by `apache-avro`; the bytes are read by [`datum`], because the library
//! takes a record that was cut off for one that ends in nulls, recurses as deep as a recursive schema asks, and
//! reserves memory by counts it has not yet seen the items of.

mod binary;
pub mod datum;
pub mod embedded;
mod event;
mod folder;
mod memory;
#[cfg(test)]
mod outage_tests;
mod output;
pub mod registration;
pub mod registry;
#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;
pub mod wire;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;

pub use datum::DecodeError;
pub use event::{decode_event, encode_event};
pub use memory::InMemorySchemas;
pub use output::{OutputCodec, OutputError, decode_decision, read_decision};
pub use writer::WriterSchema;

/// `schemas/event.avsc`, the value schema of `events`.
pub const EVENT_SCHEMA: &str = include_str!("../../schemas/event.avsc");
/// `schemas/decision.avsc`, the value schema of `decisions`.
pub const DECISION_SCHEMA: &str = include_str!("../../schemas/decision.avsc");
/// `schemas/activity.avsc`, the value schema of `activity`.
pub const ACTIVITY_SCHEMA: &str = include_str!("../../schemas/activity.avsc");

/// Where writers' schemas are found.
#[async_trait]
pub trait SchemaSource: Send + Sync + 'static {
    /// The schema of an id. That it is unknown, or that the registry did not answer, is never remembered: the next call
    /// asks again. That it cannot be used may be remembered for a while.
    async fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError>;

    /// The schema of an id if it is at hand, without waiting.
    fn cached(&self, id: u32) -> Option<Arc<WriterSchema>>;
}

/// Why a writer's schema is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The registry answered that no such schema exists. It may be registered later.
    #[error("the registry knows no schema {id}; register it, or correct the producer")]
    Unknown {
        /// The schema id.
        id: u32,
    },
    /// The registry did not answer, or answered that it cannot or will not now. It says nothing about the schema.
    #[error("the schema registry is unavailable: {reason}")]
    Unavailable {
        /// What was seen.
        reason: String,
    },
    /// The registry gave something that is not an Avro schema within our bounds. Schemas of an id never change, so asking
    /// again cannot help.
    #[error("schema {id} is not usable: {reason}")]
    Invalid {
        /// The schema id.
        id: u32,
        /// What is wrong with it.
        reason: String,
    },
}
