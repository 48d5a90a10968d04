//! What an operator does when something cannot mend itself.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::suite::{Services, Suite};
use crate::support::compare::same_decisions_in_order;
use crate::support::poll::until;
use crate::support::process::{campaignd, must_succeed};
use crate::support::registry;
use crate::support::shop::{CAMPAIGNS, Shop, Truth};
use crate::support::stage::Stage;
use crate::support::wire::frame_event;

const PARTITIONS: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn stories(suite: &mut Suite) {
    suite.story("operators::a_topic_made_anew_is_a_new_incarnation", |services| async move {
        // It makes a topic, and so runs a runtime of its own.
        let story = move || a_topic_made_anew_is_a_new_incarnation(&services);
        tokio::task::spawn_blocking(story).await.unwrap();
    });
    suite.story("operators::what_a_user_waits_with_can_be_let_go", |services| async move {
        what_a_user_waits_with_can_be_let_go(&services);
    });
}

/// The states go on where they were, though the offsets begin again: what the users did before still counts.
fn a_topic_made_anew_is_a_new_incarnation(services: &Services) {
    let stage =
        Stage::service(&services.kafka, &services.cassandra, &services.registry, "rebase", PARTITIONS);
    stage.apply(CAMPAIGNS);
    let mut shop = Shop::new(101, 40, 0.0, stage.schema_id);
    let mut all = shop.take(800);
    stage.produce(&all);
    let mut process = stage.start();
    stage.await_drained(&mut process, PATIENCE);
    process.terminate();
    process.wait(PATIENCE);
    let first = stage.decisions();

    let events = stage.settings.topic("events");
    stage.kafka.delete_topic(&events);
    stage.kafka.create_topics(&[(&events, PARTITIONS, "delete")]);
    let more = shop.take(400);
    stage.produce(&more);
    all.extend(more);
    let mut refused = stage.start();
    let (status, _) = refused.wait(PATIENCE);
    assert!(!status.success() && refused.log().contains("topology rebase"), "{}", refused.log());

    let config = stage.config();
    let rebase = ["topology", "rebase", "--config", &config, "--output", "json"];
    let asked = campaignd(&rebase, stage.folder.path());
    assert_eq!(asked.status.code(), Some(2), "{}", String::from_utf8_lossy(&asked.stderr));
    let done = must_succeed(&[&rebase[..], &["--yes"]].concat(), stage.folder.path());
    let rows: Vec<Value> = done.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3, "{done}");
    assert!(rows[..2].iter().all(|row| row["incarnation"] == 1 && row["next_offset"] == 0), "{done}");

    let mut process = stage.start();
    stage.await_drained(&mut process, PATIENCE);
    let mut truth = Truth::default();
    truth.add(&mut stage.model(), &all);
    let decisions = stage.decisions();
    same_decisions_in_order(&truth.decisions, &decisions).unwrap();
    assert!(decisions.len() > first.len() && !first.is_empty());
    assert_eq!(stage.dead_letters(), []);

    // While an instance runs the command is refused.
    let busy = campaignd(&rebase, stage.folder.path());
    let said = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(busy.status.code() == Some(1) && said.contains("stop every instance"), "{said}");
}

fn what_a_user_waits_with_can_be_let_go(services: &Services) {
    let mut stage =
        Stage::service(&services.kafka, &services.cassandra, &registry::start(), "release", PARTITIONS);
    stage.settings.retry_delays_ms = vec![200, 500];
    stage.settings.retry_max_attempts = 1_000_000;
    must_succeed(&["topology", "apply", "--config", &stage.config()], stage.folder.path());
    stage.apply(CAMPAIGNS);
    let mut items = Shop::new(103, 20, 0.0, stage.schema_id).take(400);
    let user = items[0].event.as_ref().unwrap()["user_id"].as_str().unwrap().to_owned();
    let of_user = |event: &Value| event["user_id"] == user.as_str();
    for item in &mut items {
        let event = item.event.as_ref().expect("this shop has no poison");
        if of_user(event) {
            item.record.value = Some(frame_event(stage.schema_id + 10, event));
        }
    }
    stage.produce(&items);
    let mut process = stage.start();
    let waits = items.iter().filter(|item| of_user(item.event.as_ref().unwrap())).count();
    let config = stage.config();
    let list = ["parked", "list", "--config", &config, "--output", "json"];
    until("the user to wait", || {
        process.must_live();
        let listed = must_succeed(&list, stage.folder.path());
        let first: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        let is_there = first["user_id"] == user.as_str()
            && first["records"] == waits
            && first["code"] == "unknown_schema";
        if is_there { Ok(()) } else { Err(listed) }
    });
    let unsure = campaignd(&["parked", "release", &user, "--config", &config], stage.folder.path());
    assert_eq!(unsure.status.code(), Some(64));
    must_succeed(&["parked", "release", &user, "--yes", "--config", &config], stage.folder.path());
    stage.await_drained(&mut process, PATIENCE);
    let dead = stage.dead_letters();
    assert_eq!(dead.len(), waits);
    assert!(dead.iter().all(|record| record.header("campaignd.error.code").as_deref() == Some("released")));
    let offsets: Vec<i64> = dead
        .iter()
        .map(|record| record.header("campaignd.original.offset").unwrap().parse().unwrap())
        .collect();
    assert!(offsets.is_sorted(), "in order: {offsets:?}");
    assert!(must_succeed(&list, stage.folder.path()).contains(r#""users":0"#));
    let others: BTreeSet<String> = stage.decisions().into_iter().map(|decision| decision.user_id).collect();
    assert!(!others.is_empty() && !others.contains(&user));
}
