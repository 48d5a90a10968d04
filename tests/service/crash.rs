//! SIGKILL anywhere, and the end is exactly what the sequential model computes.
//!
//! Each round adds records, starts the process and kills it: at a pause point between two effects of a batch, several
//! times each, or at a moment that chance chooses. No round waits for the work to be done, so a backlog is there at each
//! kill. After the last one the process may finish; then the topics and the audit table are held against the model.

use std::fmt::Write;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::audit::audit_rows;
use crate::suite::{Services, Suite};
use crate::support::compare::{same_decisions, same_decisions_in_order};
use crate::support::poll::until;
use crate::support::process::{Campaignd, Pause};
use crate::support::shop::{CAMPAIGNS, Shop, Truth};
use crate::support::stage::{Handled, Stage};

/// The windows between two effects, and the pause point in each.
const WINDOWS: [(&str, &str); 5] = [
    ("before the store write", "before_store_write"),
    ("store to begin", "after_store_write"),
    ("produce to send offsets", "before_send_offsets"),
    ("send offsets to commit", "before_commit"),
    ("after commit", "after_commit"),
];
const KILLS_PER_WINDOW: usize = 3;
const RANDOM_KILLS: usize = 10;
const RECORDS_PER_ROUND: usize = 400;
const USERS: usize = 120;

pub fn stories(suite: &mut Suite) {
    suite.story("crash::no_kill_loses_or_doubles_a_decision", |services| async move {
        no_kill_loses_or_doubles_a_decision(&services);
    });
}

/// One row of the table.
struct Kill {
    place: String,
    passage: Option<u32>,
    produced: usize,
    log_end: i64,
    replayed: Option<f64>,
    lived: Duration,
}

fn no_kill_loses_or_doubles_a_decision(services: &Services) {
    let mut stage = Stage::service(&services.kafka, &services.cassandra, &services.registry, "crash", 3);
    stage.settings.batch_max_records = 60;
    stage.apply(CAMPAIGNS);
    let mut random = ChaCha8Rng::seed_from_u64(0xc4a5);
    let mut shop = Shop::new(31, USERS, 0.05, stage.schema_id);
    let mut model = stage.model();
    let mut truth = Truth::default();
    let mut produced = 0;
    let mut kills = Vec::new();
    let mut more = |stage: &Stage| {
        let items = shop.take(RECORDS_PER_ROUND);
        truth.add(&mut model, &items);
        stage.produce(&items);
        produced += items.len();
        produced
    };

    for round in 0..WINDOWS.len() * KILLS_PER_WINDOW {
        let (place, point) = WINDOWS[round % WINDOWS.len()];
        let passage = 1 + (round / WINDOWS.len()) as u32;
        // The first transaction of a process commits offsets alone, when it gets its partitions.
        let of_assignment = passage == 1 && !point.ends_with("store_write");
        let place = if of_assignment { format!("{place}, at assignment") } else { place.to_owned() };
        let produced = more(&stage);
        let file = stage.folder.path().join("paused");
        let pause = Pause { point, after: passage, file: &file };
        let start = Instant::now();
        let mut process = stage.start_pausing(Some(&pause));
        until(&format!("the process to reach {point}"), || {
            process.must_live();
            match std::fs::read_to_string(&file) {
                Ok(name) if name == point => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        kills.push(kill(&stage, process, place, Some(passage), produced, start));
    }
    for round in 0..RANDOM_KILLS {
        let produced = more(&stage);
        let launched = Instant::now();
        let mut from = launched;
        let mut process = stage.start();
        // Not a synchronisation but the moment of the fault: in the start, just ready, or in full flight.
        let (place, longest_ms) = match round % 4 {
            0 => ("at random, in the start", 1_500),
            1 => {
                until("the process to be ready", || process.ready());
                from = Instant::now();
                ("at random, just ready", 500)
            }
            _ => {
                until("the process to commit records", || match Handled::of(&mut process).total() {
                    0 => Err("none".to_owned()),
                    _ => Ok(()),
                });
                from = Instant::now();
                ("at random, at work", 600)
            }
        };
        let moment = Duration::from_millis(random.random_range(1..longest_ms));
        while from.elapsed() < moment {
            std::thread::sleep(Duration::from_millis(1));
        }
        process.must_live();
        kills.push(kill(&stage, process, place.to_owned(), None, produced, launched));
    }

    let mut process = stage.start();
    let recovery = Instant::now();
    stage.await_drained(&mut process, Duration::from_secs(90));
    let recovery = recovery.elapsed();
    let unexplained = process.metrics().sum("campaignd_unexplained_replays_total", &[]);
    process.terminate();
    let (status, _) = process.wait(Duration::from_secs(20));
    print!("{}", table(&kills, recovery, &truth));

    assert!(status.success(), "SIGTERM ended it with {status}");
    assert_eq!(unexplained, 0, "every replayed record is explained");
    let reasons = truth.reasons();
    for reason in ["allowed", "late_event", "outranked", "once_ever", "calendar_limit", "rolling_limit"] {
        assert!(reasons.get(reason).is_some_and(|count| *count >= 20), "worth nothing: {reasons:?}");
    }
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
    same_decisions(&truth.decisions, &audit_rows(services, &stage)).unwrap();
    let mut dead: Vec<_> =
        stage.dead_letters().iter().map(|letter| (number(&letter.headers), letter.value.clone())).collect();
    let mut expected: Vec<_> =
        truth.dead.iter().map(|record| (number(&record.headers), record.value.clone())).collect();
    dead.sort();
    expected.sort();
    let lost: Vec<_> = expected.iter().filter(|letter| !dead.contains(letter)).collect();
    assert!(dead == expected, "{} dead letters of {}, lost are {lost:?}", dead.len(), expected.len());
}

/// The number that the story gave a record.
fn number(headers: &[(String, Vec<u8>)]) -> String {
    let (_, number) = headers.iter().find(|(name, _)| name == "n").expect("every record has a number");
    String::from_utf8_lossy(number).into_owned()
}

fn kill(
    stage: &Stage,
    mut process: Campaignd,
    place: String,
    passage: Option<u32>,
    produced: usize,
    start: Instant,
) -> Kill {
    let replayed = process.metrics().value("campaignd_replayed_records_total", &[]);
    let lived = start.elapsed();
    process.kill();
    // Not the committed offsets: asking for them waits until the transaction that was left open is settled, and the next
    // process is to find it open.
    let log_end = stage.kafka.ends(&stage.settings.topic("decisions")).values().sum();
    Kill { place, passage, produced, log_end, replayed, lived }
}

fn table(kills: &[Kill], recovery: Duration, truth: &Truth) -> String {
    let mut text = String::from(
        "\nkill  where                                    passage  records produced  decisions' log end  published again  lived s\n",
    );
    for (number, kill) in kills.iter().enumerate() {
        let passage = kill.passage.map_or_else(|| "-".to_owned(), |passage| passage.to_string());
        let replayed = kill.replayed.map_or_else(|| "-".to_owned(), |replayed| replayed.to_string());
        writeln!(
            text,
            "{:>4}  {:<39}  {:>7}  {:>16}  {:>18}  {:>15}  {:>7.2}",
            number + 1,
            kill.place,
            passage,
            kill.produced,
            kill.log_end,
            replayed,
            kill.lived.as_secs_f64()
        )
        .expect("a string takes it");
    }
    writeln!(
        text,
        "{} kills, then drained in {:.1} s: {} decisions, {} dead letters, {} duplicates, {} ignored, by reason {:?}\n",
        kills.len(),
        recovery.as_secs_f64(),
        truth.decisions.len(),
        truth.dead.len(),
        truth.duplicates,
        truth.ignored,
        truth.reasons()
    )
    .expect("a string takes it");
    text
}
