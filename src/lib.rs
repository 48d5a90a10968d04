//! campaignd: a Kafka stream processor that turns users' events into campaign decisions.
//!
//! It is a consumer group that handles each user's events in order, decides every campaign exactly once per event,
//! and can say why. It is not a rules server: nobody asks it, it answers to events.
//!
//! Start with `ARCHITECTURE.md`; the path of an event is in [`pipeline`].

pub mod api;
pub mod backoff;
pub mod campaign;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod decision;
pub mod demo;
pub mod event;
pub mod generate;
pub mod kafka;
pub mod mutant;
pub mod partitioner;
pub mod pause;
pub mod pipeline;
pub mod position;
pub mod processor;
pub mod projection;
pub mod schema;
pub mod store;
pub mod telemetry;
pub mod topology;
pub mod user;
