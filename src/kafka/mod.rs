//! Everything that touches librdkafka.

pub mod campaigns;
