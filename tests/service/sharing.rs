//! Two instances share the partitions; one is killed; the other takes over and nothing is lost or doubled.

use std::time::Duration;

use crate::audit::audit_rows;
use crate::suite::{Services, Suite};
use crate::support::compare::{same_decisions, same_decisions_in_order};
use crate::support::poll::until;
use crate::support::process::Campaignd;
use crate::support::settings::free_port;
use crate::support::shop::{CAMPAIGNS, Shop, Truth};
use crate::support::stage::{Handled, Stage};

const PARTITIONS: i32 = 6;

pub fn stories(suite: &mut Suite) {
    suite.story("sharing::one_of_two_instances_is_killed", |services| async move {
        one_of_two_instances_is_killed(&services);
    });
}

fn one_of_two_instances_is_killed(services: &Services) {
    let mut stage =
        Stage::service(&services.kafka, &services.cassandra, &services.registry, "sharing", PARTITIONS);
    stage.settings.batch_max_records = 50;
    stage.apply(CAMPAIGNS);
    let mut shop = Shop::new(37, 150, 0.02, stage.schema_id);
    let mut model = stage.model();
    let mut truth = Truth::default();
    let mut produce = |count: usize| {
        let items = shop.take(count);
        truth.add(&mut model, &items);
        stage.produce(&items);
    };

    // The survivor-to-be has handled users of every partition before it gives half of them away: what it remembers of them
    // must not be believed when they come back.
    let mut other = stage.settings.clone();
    other.instance = "b".to_owned();
    other.http_port = free_port();
    let mut second = stage.start_another(&other);
    produce(1_500);
    stage.await_handled(&mut second, 1_500);
    let mut first = stage.start();
    until("both to have partitions", || {
        let (a, b) = (assigned(&mut first), assigned(&mut second));
        if a > 0 && b > 0 && a + b == i64::from(PARTITIONS) { Ok(()) } else { Err(format!("{a} and {b}")) }
    });
    produce(1_500);
    until("both to handle records", || {
        let (a, b) = (Handled::of(&mut first).total(), Handled::of(&mut second).total());
        if a > 0 && b > 1_500 { Ok(()) } else { Err(format!("{a} and {b}")) }
    });
    produce(3_000);
    first.kill();
    produce(500);
    until("the survivor to have all partitions", || match assigned(&mut second) {
        all if all == i64::from(PARTITIONS) => Ok(()),
        some => Err(format!("{some}")),
    });
    stage.await_drained(&mut second, Duration::from_secs(60));
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
    same_decisions(&truth.decisions, &audit_rows(services, &stage)).unwrap();
    assert_eq!(stage.dead_letters().len(), truth.dead.len());
}

fn assigned(process: &mut Campaignd) -> i64 {
    process.metrics().value("campaignd_assigned_partitions", &[]).unwrap_or_default() as i64
}
