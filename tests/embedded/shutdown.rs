//! SIGTERM ends the process with 0 within its grace time, busy or idle. That nothing is lost or doubled by it needs a
//! broker that stores transactional offsets: `tests/service/live.rs`.

use std::time::Duration;

use crate::support::poll::until;
use crate::support::shop::{CAMPAIGNS, Shop, Truth};
use crate::support::stage::{Handled, Stage};

#[test]
fn sigterm_in_the_middle_of_the_work_ends_with_0() {
    let mut stage = Stage::embedded("sigterm", 4);
    stage.settings.batch_max_records = 50;
    stage.apply(CAMPAIGNS);
    let items = Shop::new(3, 50, 0.0, stage.schema_id).take(5_000);
    stage.produce(&items);
    let mut process = stage.start();
    until("some records to be handled", || match Handled::of(&mut process).total() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    process.terminate();
    let (status, took) = process.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took <= Duration::from_millis(stage.settings.grace_ms), "it took {took:?}");

    let mut truth = Truth::default();
    truth.add(&mut stage.model(), &items);
    let found = stage.decisions();
    assert!(!found.is_empty() && found.len() <= truth.decisions.len());
    // Each user's decisions are a beginning of what the model says.
    for decision in &found {
        let user = &decision.user_id;
        let of_user = |list: &'_ [_]| -> Vec<_> {
            list.iter().filter(|d: &&crate::support::model::Expected| d.user_id == *user).cloned().collect()
        };
        let (expected, found) = (of_user(&truth.decisions), of_user(&found));
        assert!(expected.starts_with(&found), "the decisions of {user} are not a beginning of the model's");
    }
}

#[test]
fn sigterm_of_an_idle_process_ends_with_0() {
    let stage = Stage::embedded("idle", 1);
    stage.apply(CAMPAIGNS);
    let mut process = stage.start();
    until("the process to be ready", || process.ready());
    process.terminate();
    let (status, _) = process.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{status}");
}
