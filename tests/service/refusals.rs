//! What cannot work is refused at the start, with exit 64 and a sentence that says what to change.

use std::time::Duration;

use crate::suite::{Services, Suite};
use crate::support::poll::until;
use crate::support::process::{Campaignd, must_succeed};
use crate::support::settings::{Settings, Store, free_port};
use crate::support::shop::{CAMPAIGNS, Shop};
use crate::support::stage::Stage;

const PARTITIONS: i32 = 2;

pub fn stories(suite: &mut Suite) {
    suite.story("refusals::an_embedded_store_serves_one_process_and_one_member", |services| async move {
        an_embedded_store_serves_one_process_and_one_member(&services);
    });
    suite.story("refusals::changed_and_too_few_partitions", |services| async move {
        changed_and_too_few_partitions(&services);
    });
}

fn stage(services: &Services, label: &str) -> Stage {
    Stage::service(&services.kafka, &services.cassandra, &services.registry, label, PARTITIONS)
}

/// Runs until it ends by itself, which it must do with 64, saying all of this.
fn must_refuse(stage: &Stage, settings: &Settings, parts: &[&str]) {
    let mut process = stage.start_another(settings);
    let (status, _) = process.wait(Duration::from_secs(60));
    let log = process.log();
    assert_eq!(status.code(), Some(64), "{log}");
    for part in parts {
        assert!(log.contains(part), "the log does not say {part:?}:\n{log}");
    }
}

fn until_ready(process: &mut Campaignd) {
    until("the process to be ready", || process.ready());
}

fn an_embedded_store_serves_one_process_and_one_member(services: &Services) {
    let mut stage = stage(services, "alone");
    let folder = |name: &str| Store::Embedded(stage.folder.path().join(name));
    let (first, second) = (folder("first"), folder("second"));
    stage.settings.store = first.clone();
    stage.settings.static_membership = false;
    stage.apply(CAMPAIGNS);
    let mut process = stage.start();
    until_ready(&mut process);

    let mut other = stage.settings.clone();
    other.instance = "b".to_owned();
    other.http_port = free_port();
    must_refuse(&stage, &other, &["another process uses the embedded store", "store.embedded.path"]);
    other.store = second;
    must_refuse(
        &stage,
        &other,
        &["the embedded store serves one instance", "another one is in the consumer group", "store.kind"],
    );
    process.must_live();
    stage.produce(&Shop::new(91, 10, 0.0, stage.schema_id).take(100));
    stage.await_handled(&mut process, 100);

    // A member that was killed is a member until its session ends; whoever comes back waits for that and goes on.
    process.kill();
    let mut process = stage.start();
    stage.produce(&Shop::named(93, 10, 0.0, stage.schema_id, "late").take(100));
    stage.await_drained(&mut process, Duration::from_secs(60));
}

fn changed_and_too_few_partitions(services: &Services) {
    let stage = stage(services, "counts");
    stage.apply(CAMPAIGNS);
    stage.produce(&Shop::new(97, 10, 0.0, stage.schema_id).take(100));
    let mut process = stage.start();
    stage.await_drained(&mut process, Duration::from_secs(60));
    process.terminate();
    process.wait(Duration::from_secs(20));

    let topic = |name: &str| stage.settings.topic(name);
    stage.kafka.grow(&topic("events"), 4);
    let retry = &stage.settings.retry_topics();
    must_refuse(
        &stage,
        &stage.settings,
        &[&format!("topic {} has 2 partitions; it must have at least 4", retry[0]), &topic("decisions")],
    );
    for name in ["decisions", "activity", "events.dlq"] {
        stage.kafka.grow(&topic(name), 4);
    }
    retry.iter().for_each(|name| stage.kafka.grow(name, 4));
    let expected = format!("{} has 4 partitions, the states were made with 2", topic("events"));
    must_refuse(&stage, &stage.settings, &[&expected, "topology rebase"]);
    // What is only missing is made, and said of what is there.
    let listed = must_succeed(&["topology", "apply", "--config", &stage.config()], stage.folder.path());
    assert!(listed.contains("0 created, 7 unchanged, 0 different"), "{listed}");
}
