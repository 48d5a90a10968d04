//! Campaigns: definition, condition, check, and the immutable set that events are matched against. Pure.
//!
//! A campaign is authored as YAML ([`yaml`]), checked against the catalog ([`check`]), published as canonical JSON
//! ([`definition::Campaign::to_canonical_json`]) and folded from the `campaigns` topic into a set ([`live`], [`set`]).
//! Nothing in here knows Kafka, a database, a clock or an executor: time and records come in as arguments.

pub mod catalog;
pub mod condition;
pub mod definition;
pub mod duration;
pub mod evaluate;
pub mod number;
pub mod set;
pub mod timestamp;
