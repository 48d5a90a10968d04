//! Stories on real Kafka, Cassandra and Apicurio.
//!
//! `make test` runs them through `services exec`, which starts the three and says in the environment where they are.
//! Without these variables every story is skipped: it is listed as ignored, the closing line counts it, and a loud line
//! says why. Stories share the services and nothing else: every topic, group and keyspace has a [`support::unique`] name.
//!
//! To add one: a module with `pub fn stories(suite: &mut Suite)`, called in `main`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod audit;
mod campaigns;
mod crash;
mod dead_letters;
mod live;
mod operators;
mod parking;
mod parts;
mod projection;
mod quickstart;
mod refusals;
mod schemas;
mod sharing;
mod store;
mod suite;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use suite::Suite;

fn main() -> ExitCode {
    let mut suite = Suite::from_environment();
    campaigns::stories(&mut suite);
    parts::stories(&mut suite);
    projection::stories(&mut suite);
    schemas::stories(&mut suite);
    store::stories(&mut suite);
    live::stories(&mut suite);
    dead_letters::stories(&mut suite);
    sharing::stories(&mut suite);
    parking::stories(&mut suite);
    refusals::stories(&mut suite);
    operators::stories(&mut suite);
    quickstart::stories(&mut suite);
    crash::stories(&mut suite);
    suite.run()
}
