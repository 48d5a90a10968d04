//! What is counted, and what must have been met for the run to be worth something.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The books of one seed.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// What must not be.
    pub violations: Vec<String>,
    /// Happenings.
    pub totals: BTreeMap<String, u64>,
    pub figures: Figures,
}

impl Books {
    pub fn count(&mut self, what: &str, times: u64) {
        match self.totals.get_mut(what) {
            Some(count) => *count += times,
            None => {
                self.totals.insert(what.to_owned(), times);
            }
        }
    }

    /// Adds the books of another seed.
    pub fn add(&mut self, other: &Books) {
        for (what, times) in &other.totals {
            self.count(what, *times);
        }
        self.figures.add(&other.figures);
    }
}

/// Measures that are not counts.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Retry records written for each record that was parked.
    pub rewrites: Vec<u32>,
    /// From the first retry record to the end of the wait, milliseconds of virtual time.
    pub unpark_ms: Vec<u64>,
    /// Retry records written for each record that was parked, for each failure that it waited for.
    pub rotations: Vec<f64>,
    pub largest_cell_bytes: usize,
    pub virtual_ms: u64,
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        self.rewrites.extend(&other.rewrites);
        self.unpark_ms.extend(&other.unpark_ms);
        self.rotations.extend(&other.rotations);
        self.largest_cell_bytes = self.largest_cell_bytes.max(other.largest_cell_bytes);
        self.virtual_ms += other.virtual_ms;
    }
}

/// What the whole run says.
pub fn totals(books: &Books) -> String {
    let mut text = String::new();
    for (what, count) in &books.totals {
        writeln!(text, "  {count:>9}  {what}").expect("a string takes it");
    }
    text
}

/// The figures of the whole run.
pub fn figures(books: &Books) -> String {
    let Figures { rewrites, unpark_ms, largest_cell_bytes, virtual_ms, .. } = &books.figures;
    let mean =
        |values: &mut dyn Iterator<Item = f64>, count: usize| values.sum::<f64>() / (count.max(1) as f64);
    let rewritten = mean(&mut rewrites.iter().map(|n| f64::from(*n)), rewrites.len());
    let mut waits = unpark_ms.clone();
    waits.sort_unstable();
    let quantile =
        |q: f64| waits.get((waits.len() as f64 * q) as usize).copied().unwrap_or(0) as f64 / 1_000.0;
    let mut turns = books.figures.rotations.clone();
    turns.sort_unstable_by(f64::total_cmp);
    let turn = |q: f64| turns.get((turns.len() as f64 * q) as usize).copied().unwrap_or(0.0);
    let most = turns.last().copied().unwrap_or(0.0);

    format!(
        "  rewrites per parked record: {rewritten:.1} on average, {} at most, of {} records; for each failure that it waits for: \
         median {:.1}, 99 % below {:.1}, most {most:.1}\n  time to unpark: median \
         {:.1} s, 99 % below {:.1} s, longest {:.1} s\n  largest cell: {largest_cell_bytes} bytes\n  virtual time: {:.1} h\n",
        rewrites.iter().max().copied().unwrap_or(0),
        rewrites.len(),
        turn(0.5),
        turn(0.99),
        quantile(0.5),
        quantile(0.99),
        waits.last().copied().unwrap_or(0) as f64 / 1_000.0,
        *virtual_ms as f64 / 3_600_000.0,
    )
}

/// What a run of 2,000 seeds must have met at least, or it proves too little: about half of what it meets today.
const FLOORS: &[(&str, u64)] = &[
    ("broker calls that failed", 1900),
    ("cells of zombies that came to stand", 9),
    ("commits found out by asking again", 390),
    ("crashes", 2100),
    ("crashes at abort", 1),
    ("crashes at begin transaction", 380),
    ("crashes at catch up", 25),
    ("crashes at delete consumed", 1),
    ("crashes at end transaction", 170),
    ("crashes at heartbeat", 55),
    ("crashes at identity", 20),
    ("crashes at init producer", 55),
    ("crashes at join", 40),
    ("crashes at load", 70),
    ("crashes at poll", 460),
    ("crashes at produce", 110),
    ("crashes at read fence", 75),
    ("crashes at schema", 45),
    ("crashes at send offsets", 150),
    ("crashes at stands", 100),
    ("crashes at store clock", 25),
    ("crashes at take fence", 55),
    ("crashes at waiting", 200),
    ("crashes at write", 95),
    ("deletions of what was consumed", 2200),
    ("duplicates", 4500),
    ("events decided", 77000),
    ("events ignored", 29800),
    ("events of erased users dropped", 430),
    ("events that an erasure overtook", 1500),
    ("events that became dead letters", 460),
    ("evicted states read again", 7600),
    ("expelled members", 1900),
    ("fenced static members", 9),
    ("fences taken", 10800),
    ("fences that somebody else had taken", 55),
    ("fences that somebody else had taken at the same number", 35),
    ("fences whose taking stayed unknown", 530),
    ("forged retry records", 300),
    ("freezes", 880),
    ("frozen processes replaced", 110),
    ("hanging transactions", 290),
    ("loads that failed", 1100),
    ("offsets of a stale generation", 320),
    ("orderly restarts", 690),
    ("parked records", 27400),
    ("parked records: blocked", 25100),
    ("parked records: state_unavailable", 490),
    ("parked records: unknown_schema", 1800),
    ("partitions held back", 4900),
    ("processes refused for their clock", 140),
    ("reads that stumbled", 150),
    ("rebalances", 5700),
    ("rebalances for no reason", 5000),
    ("registry calls in an outage", 960),
    ("rejoins for a new tier", 1),
    ("replayed records", 7500),
    ("retry topics created in between", 45),
    ("revocations that nobody answered in time", 160),
    ("rewinds", 5200),
    ("stalls", 460),
    ("states loaded", 39800),
    ("states written", 79400),
    ("static members back in time", 420),
    ("store calls in an outage", 1200),
    ("transactions aborted", 1700),
    ("transactions aborted by a newer producer", 760),
    ("transactions committed", 123300),
    ("unexplained replays", 40),
    ("unknown commits that applied", 400),
    ("unknown commits that did not apply", 450),
    ("unknown schemas asked for", 13700),
    ("waits for an open transaction", 200),
    ("writes applied and not heard of", 240),
    ("writes of fenced producers", 30),
    ("writes that lost against a newer one", 140),
    ("writes that timed out", 970),
    ("writes that were lost", 510),
];

/// Holds the totals against the floors, in proportion to the seeds.
pub fn check_floors(books: &Books, seeds: u64) -> Result<(), String> {
    let missed: Vec<String> = FLOORS
        .iter()
        .filter_map(|(what, floor)| {
            let (found, floor) = (books.totals.get(*what).copied().unwrap_or(0), floor * seeds / 2_000);
            (found < floor).then(|| format!("{what}: {found}, at least {floor} expected"))
        })
        .collect();
    if missed.is_empty() { Ok(()) } else { Err(missed.join("; ")) }
}
