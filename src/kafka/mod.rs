//! Everything that touches librdkafka.
