//! The ways to run it: all seeds, one seed, all broken rules.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use libtest_mimic::Failed;

use crate::mutants::{self, Broken, Verdict};
use crate::report::{self, Books};
use crate::run::simulate;
use crate::world::lock;

/// Seeds that are told when many fail.
const TOLD: usize = 10;
/// Seeds that are run twice.
const REPLAYED: u64 = 40;

/// Does `work` for each number below `count`, on all processors; the order does not matter.
fn on_all_processors(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// Runs the seeds and prints totals and figures.
pub fn all_seeds(first: u64, seeds: u64, mutant: Option<&str>) -> Result<(), Failed> {
    let started = Instant::now();
    let books = Mutex::new(Books::default());
    let failed = Mutex::new(Vec::new());
    on_all_processors(seeds, |number| {
        let seed = first + number;
        if let Some(name) = mutant {
            mutants::set(name);
        }
        let outcome = simulate(seed, false);
        if let Some(violation) = outcome.books.violations.first() {
            println!("seed {seed}: {violation}");
            lock(&failed).push(seed);
        }
        lock(&books).add(&outcome.books);
    });
    let (books, mut failed) = (lock(&books), lock(&failed).clone());
    failed.sort_unstable();
    println!("{}{}", report::totals(&books), report::figures(&books));
    println!("{seeds} seeds from {first} on in {:.1} s", started.elapsed().as_secs_f64());
    if !failed.is_empty() {
        let told: Vec<String> = failed.iter().take(TOLD).map(u64::to_string).collect();
        return Err(format!(
            "{} of {seeds} seeds failed: {}; `make simulate SEED={}` tells every step",
            failed.len(),
            told.join(", "),
            failed[0]
        )
        .into());
    }
    report::check_floors(&books, seeds).map_err(Failed::from)
}

/// The same seed gives the same run, to the last step.
pub fn replays() -> Result<(), Failed> {
    for seed in 0..REPLAYED {
        let (one, other) = (simulate(seed, false), simulate(seed, false));
        if one.fingerprint != other.fingerprint || one.books.totals != other.books.totals {
            return Err(format!("seed {seed} does not replay: something in it is not from the seed").into());
        }
    }
    Ok(())
}

/// Runs one seed and tells every step.
pub fn replay(seed: u64, mutant: Option<&str>) -> ExitCode {
    if let Some(name) = mutant {
        mutants::set(name);
    }
    let outcome = simulate(seed, true);
    println!("{}{}", report::totals(&outcome.books), report::figures(&outcome.books));
    for violation in &outcome.books.violations {
        println!("{violation}");
    }
    if outcome.books.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdicts(chosen: &[&'static Broken], seeds: u64) -> Vec<Verdict> {
    std::panic::set_hook(Box::new(|_| {}));
    let verdicts = Mutex::new(Vec::new());
    on_all_processors(chosen.len() as u64, |number| {
        let place = usize::try_from(number).expect("few");
        let started = Instant::now();
        let verdict = mutants::hunt(chosen[place], seeds);
        let told = match &verdict.caught {
            Some((seed, what)) => {
                format!("seed {seed}: {}", what.trim_start().chars().take(160).collect::<String>())
            }
            None => "NOT NOTICED".to_owned(),
        };
        println!("{:>14} {:>5.1} s  {told}", verdict.broken.name, started.elapsed().as_secs_f64());
        lock(&verdicts).push((place, verdict));
    });
    let _ = std::panic::take_hook();
    let mut verdicts = std::mem::take(&mut *lock(&verdicts));
    verdicts.sort_by_key(|(place, _)| *place);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

/// Breaks the rules that are named and prints the table.
pub fn hunt(names: &str, seeds: u64) -> ExitCode {
    let chosen: Vec<&Broken> = mutants::ALL
        .iter()
        .filter(|broken| names == "all" || names.split(',').any(|n| n == broken.name))
        .collect();
    let verdicts = verdicts(&chosen, seeds);
    println!("{}", mutants::table(&verdicts));
    let all = !verdicts.is_empty() && verdicts.iter().all(|verdict| verdict.caught.is_some());
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Breaks every rule and insists that a seed notices.
pub fn all_mutants(seeds: u64) -> Result<(), Failed> {
    let chosen: Vec<&Broken> = mutants::ALL.iter().collect();
    let missed: Vec<&str> = verdicts(&chosen, seeds)
        .iter()
        .filter(|verdict| verdict.caught.is_none())
        .map(|verdict| verdict.broken.name)
        .collect();
    if missed.is_empty() { Ok(()) } else { Err(format!("nothing noticed {}", missed.join(", ")).into()) }
}
