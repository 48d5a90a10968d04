//! Campaigns: definition, condition, check, and the immutable set that events are matched against. Pure.
//!
//! A campaign is authored as YAML ([`yaml`]), checked against the catalog ([`check`]), published as canonical JSON
//! ([`definition::Campaign::to_canonical_json`]) and folded from the `campaigns` topic into a set ([`live`], [`set`]).
//! Nothing in here knows Kafka, a database, a clock or an executor: time and records come in as arguments.

pub mod canonical;
pub mod catalog;
pub mod check;
pub mod condition;
pub mod definition;
pub mod diagnostic;
pub mod duration;
pub mod evaluate;
pub mod folder;
pub mod live;
mod node;
pub mod number;
mod reader;
pub mod release;
mod scalar;
pub mod schema;
pub mod set;
pub mod timestamp;
pub mod yaml;

#[cfg(test)]
pub(crate) mod testing;
