//! The real pipeline over a simulated log, store and registry: one thread, virtual time, every fault from one seed.
//!
//! Without more it runs 2,000 seeds, replays some of them, and breaks the rules one by one. From the environment:
//!
//! - `SEEDS=n`: so many seeds, from `FIRST` on;
//! - `SEED=n`: replays one seed and tells every step;
//! - `MUTANT=name`: does either under a broken rule;
//! - `MUTANTS=all` or names with commas: looks for a seed that notices each, among `SEEDS`, and prints the table of
//!   `docs/simulation.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod campaigns;
mod faults;
mod group;
mod instance;
mod log;
mod mutants;
mod oracle;
mod registry;
mod report;
mod run;
mod state;
mod store;
mod suite;
mod transactions;
mod witness;
mod workload;
mod world;

#[path = "../support/compare.rs"]
#[allow(dead_code, reason = "each suite uses its own part")]
mod compare;
#[path = "../support/model.rs"]
#[allow(dead_code, reason = "each suite uses its own part")]
mod model;
#[path = "../support/wire.rs"]
#[allow(dead_code, reason = "each suite uses its own part")]
mod wire;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Seeds of a usual run.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn main() -> ExitCode {
    let (seeds, first) = (number("SEEDS").unwrap_or(SEEDS), number("FIRST").unwrap_or(0));
    let mutant = std::env::var("MUTANT").ok();
    if let Some(seed) = number("SEED") {
        return suite::replay(seed, mutant.as_deref());
    }
    if let Ok(names) = std::env::var("MUTANTS") {
        return suite::hunt(&names, seeds);
    }
    let mut arguments = Arguments::from_args();
    // Each prints what it has found, and each uses all processors by itself.
    arguments.test_threads = Some(1);
    let trials = vec![
        Trial::test("every_seed_ends_as_the_model_says", move || {
            suite::all_seeds(first, seeds, mutant.as_deref())
        }),
        Trial::test("a_seed_replays_exactly", suite::replays),
        Trial::test("every_broken_rule_is_noticed", move || suite::all_mutants(seeds)),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
