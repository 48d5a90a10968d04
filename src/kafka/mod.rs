//! Everything that touches librdkafka.

pub mod broker;
pub mod campaigns;
pub mod client_log;
pub mod group_offsets;
pub mod log;
pub mod producer;
pub mod raw;
