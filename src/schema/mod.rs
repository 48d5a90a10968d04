//! Avro, the Confluent wire format, and where schemas come from.
