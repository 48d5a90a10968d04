//! What the embedded stories show on the mock broker, on real services: change without restart, poison, shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::suite::{Services, Suite};
use crate::support::change::takes_effect_without_restart;
use crate::support::compare::same_decisions_in_order;
use crate::support::model::Expected;
use crate::support::poison::every_record_is_accounted_for;
use crate::support::poll::until;
use crate::support::process::Pause;
use crate::support::shop::{CAMPAIGNS, Item, Shop, Truth};
use crate::support::stage::{Handled, Stage};

pub fn stories(suite: &mut Suite) {
    suite.story("live::a_campaign_change_takes_effect_without_restart", |services| async move {
        takes_effect_without_restart(&stage(&services, "change"));
    });
    suite.story("live::poison_is_accounted_for_and_passed", |services| async move {
        let stage = stage(&services, "poison");
        every_record_is_accounted_for(&stage, 2_500);
        let lag = stage.kafka.lag(&stage.settings.group(), &stage.settings.topic("events"));
        assert_eq!(lag, 0, "the offsets are at the end");
    });
    suite.story("live::sigterm_commits_what_is_in_flight", |services| async move {
        sigterm_commits_what_is_in_flight(&services);
    });
    suite.story("live::a_second_signal_ends_at_once", |services| async move {
        a_second_signal_ends_at_once(&services);
    });
}

fn stage(services: &Services, label: &str) -> Stage {
    Stage::service(&services.kafka, &services.cassandra, &services.registry, label, 4)
}

/// SIGTERM in the middle of the work: exit 0 within the grace time, and what stands on the topics is exactly what the
/// model makes of the records before the committed offsets; the rest comes after a restart.
fn sigterm_commits_what_is_in_flight(services: &Services) {
    let mut stage = stage(services, "sigterm");
    stage.settings.batch_max_records = 100;
    stage.apply(CAMPAIGNS);
    let items = Shop::new(41, 100, 0.01, stage.schema_id).take(6_000);
    stage.produce(&items);
    let mut process = stage.start();
    until("some records to be handled", || match Handled::of(&mut process).total() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    process.terminate();
    let (status, took) = process.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "SIGTERM ended it with {status}");
    assert!(took <= Duration::from_millis(stage.settings.grace_ms), "it took {took:?}");

    let committed = stage.kafka.committed(&stage.settings.group(), &stage.settings.topic("events"));
    let before = handled_before(&stage, &items, &committed);
    println!("SIGTERM after {} of {} records, exit in {took:?}", before.len(), items.len());
    assert!(!before.is_empty() && before.len() < items.len(), "worth nothing: {} records", before.len());
    let mut truth = Truth::default();
    truth.add(&mut stage.model(), &before);
    // Whose record waits in a retry topic, his later ones have been put behind it.
    let parked: BTreeSet<Vec<u8>> = stage.waiting().into_iter().filter_map(|record| record.key).collect();
    let of_others = |mut decisions: Vec<Expected>| {
        decisions.retain(|decision| !parked.contains(decision.user_id.as_bytes()));
        decisions
    };
    same_decisions_in_order(&of_others(truth.decisions), &of_others(stage.decisions())).unwrap();

    let mut process = stage.start();
    stage.await_drained(&mut process, Duration::from_secs(60));
    let mut truth = Truth::default();
    truth.add(&mut stage.model(), &items);
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
    process.terminate();
    let (status, _) = process.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "SIGTERM of an idle process ended it with {status}");
}

/// The records whose offset lies before the committed one of their partition.
fn handled_before(stage: &Stage, items: &[Item], committed: &BTreeMap<i32, i64>) -> Vec<Item> {
    let by_number: BTreeMap<String, &Item> = items
        .iter()
        .map(|item| (String::from_utf8_lossy(&item.record.headers[0].1).into_owned(), item))
        .collect();
    let stored = stage.kafka.read_committed(&stage.settings.topic("events"));
    stored
        .iter()
        .filter(|record| record.offset < committed[&record.partition])
        .map(|record| by_number[&record.header("n").expect("a number")].clone())
        .collect()
}

/// A process that cannot finish, because its commit hangs, ends at the second signal and not at the end of its grace.
fn a_second_signal_ends_at_once(services: &Services) {
    let mut stage = stage(services, "signals");
    stage.settings.grace_ms = 60_000;
    stage.apply(CAMPAIGNS);
    stage.produce(&Shop::new(43, 10, 0.0, stage.schema_id).take(200));
    let file = stage.folder.path().join("paused");
    let mut process = stage.start_pausing(Some(&Pause { point: "before_commit", after: 1, file: &file }));
    until("the process to hang in its commit", || {
        process.must_live();
        if file.exists() { Ok(()) } else { Err("it has not come there".to_owned()) }
    });
    process.terminate();
    until("the process to say that it is ending", || match process.ready() {
        Ok(()) => Err("it is ready".to_owned()),
        Err(_) => Ok(()),
    });
    process.must_live();
    process.terminate();
    let (status, took) = process.wait(Duration::from_secs(20));
    assert!(!status.success(), "work was left undone, yet it ended with {status}");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}
