//! A campaign changes while the process runs, and nobody restarts anything.

use super::compare::same_decisions_in_order;
use super::poll::until;
use super::shop::{CAMPAIGNS, Shop, Truth};
use super::stage::Stage;

/// The gold campaign for everybody, without its cap; and one that did not exist before and sees the past at once.
const CHANGED: &[(&str, &str)] = &[
    (
        "gold_purchase.yaml",
        "id: gold_purchase\nstatus: active\ntrigger: purchase\npriority: 60\n\
         group: { name: purchase, when_suppressed: next }\n\
         action: { type: send, channel: email, template: EVERY_PURCHASE }\n",
    ),
    (
        "regular.yaml",
        "id: regular\nstatus: active\ntrigger: [purchase, view]\n\
         when: { history: { event: purchase, fn: count }, op: gte, value: 3 }\n\
         action: { type: send, channel: email, template: REGULAR }\n",
    ),
    (
        "welcome.yaml",
        "id: welcome\nstatus: paused\ntrigger: signup\nlimits:\n  - { once_per: ever }\n\
         action: { type: send, channel: email, template: WELCOME }\n",
    ),
];

/// Decides a stretch with the old campaigns, changes them, and decides another stretch.
pub fn takes_effect_without_restart(stage: &Stage) {
    stage.apply(CAMPAIGNS);
    let mut shop = Shop::new(11, 60, 0.0, stage.schema_id);
    let (before, after) = (shop.take(1_500), shop.take(1_500));
    let mut model = stage.model();
    let mut truth = Truth::default();
    truth.add(&mut model, &before);

    stage.produce(&before);
    let mut process = stage.start();
    stage.await_handled(&mut process, before.len() as u64);

    stage.apply(CHANGED);
    let position = stage.campaigns_position();
    until("the process to hold the changed campaigns", || {
        let held = process.metrics().value("campaignd_campaigns_position", &[]);
        if held.is_some_and(|held| held as i64 >= position) {
            Ok(())
        } else {
            Err(format!("{held:?} of {position}"))
        }
    });
    model.replace_campaigns(&stage.published_campaigns());
    let old = truth.decisions.len();
    truth.add(&mut model, &after);
    let regular = truth.decisions[old..].iter().filter(|d| d.campaign_id == "regular").count();
    let welcome = truth.decisions[old..].iter().filter(|d| d.campaign_id == "welcome").count();
    assert!(regular > 100 && welcome == 0, "worth nothing: {regular} and {welcome}");

    stage.produce(&after);
    stage.await_handled(&mut process, (before.len() + after.len()) as u64);
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
}
