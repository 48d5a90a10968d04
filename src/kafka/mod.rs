//! Everything that touches librdkafka.

pub mod broker;
pub mod campaigns;
pub mod client_log;
pub mod dead_letters;
pub mod group_offsets;
pub mod log;
pub mod pace;
pub mod producer;
pub mod raw;
pub mod reader;
pub mod transactions;
