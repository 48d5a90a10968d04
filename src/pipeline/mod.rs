//! The processor: one file per hop of an event, one function that wires them.
//!
//! The path of an event is a sentence in types:
//! [`log::Fetched`] -> [`decoded::Decoded`] -> [`decided::Decided`] -> [`committed::Stored`] ->
//! [`committed::Committed`]; [`processor::run`] wires it.
//!
//! Always holds: the pipeline knows the event log, the state store and the schema source as traits only; nothing in it
//! reads a clock but [`clock::Clock`] and tokio's timers; no result depends on a random hash order.

pub mod apply;
pub mod breaker;
pub mod cache;
pub mod campaigns;
pub mod clock;
pub mod committed;
pub mod decided;
pub mod decoded;
pub mod failure;
pub mod housekeeping;
pub mod lane;
pub mod log;
pub mod outputs;
pub mod owner;
pub mod ownership;
pub mod parking;
pub mod processor;
pub mod settings;
pub mod turn;
pub mod watermarks;

#[cfg(test)]
pub(crate) mod tests;

pub use processor::{Parts, PipelineError, run};
pub use settings::Settings;
