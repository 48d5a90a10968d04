//! Campaigns that change while events flow, and what each process has read of them.
//!
//! Every change publishes all campaigns anew, so the version in any decision tells the set it was decided with. One
//! campaign, the probe, decides about every event of its types; of other types a set is known only when something was
//! decided.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use campaignd::campaign::live::LiveCampaigns;
use campaignd::campaign::set::CampaignSet;
use campaignd::pipeline::campaigns::CampaignSource;
use campaignd::pipeline::log::LogError;
use campaignd::schema::OutputCodec;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::faults::{Hop, Plan};
use crate::instance::{Control, Fate, Side, Trip};
use crate::model::Rule;
use crate::world::{World, lock};

/// Ids of the output schemas.
pub const CODEC: OutputCodec = OutputCodec { decision_schema_id: 8, activity_schema_id: 9 };
/// Types that the probe triggers on.
pub const PROBED: [&str; 2] = ["buy", "view"];
/// A type that only some sets care for.
pub const QUIET: &str = "quiet";
/// A type that nobody ever cares for.
pub const TICK: &str = "tick";
/// A type that is never skipped and that no campaign decides about.
pub const ALWAYS_OF_INTEREST: &str = "user.updated";
/// The type that the catalog remembers.
pub const REMEMBERED: &str = "buy";
/// How long a reader may be behind the topic.
pub const LONGEST_LAG: Duration = Duration::from_millis(6_000);

/// What is live between two changes.
pub struct LiveSet {
    pub published: Duration,
    pub set: Arc<CampaignSet>,
    /// The same for the model.
    pub rules: Vec<Rule>,
    /// Versions of its campaigns: this and all below the next set's.
    pub first_version: i64,
}

/// All sets of a run, in order.
pub struct Timeline {
    pub sets: Vec<LiveSet>,
}

impl Timeline {
    /// Sets drawn from the seed.
    pub fn of(plan: &Plan, random: &mut ChaCha8Rng) -> Timeline {
        let mut times: Vec<Duration> = (0..plan.campaign_changes)
            .map(|_| Duration::from_secs_f64(random.random_range(0.0..plan.quiet.as_secs_f64())))
            .collect();
        times.push(Duration::ZERO);
        times.sort_unstable();
        let mut live = LiveCampaigns::default();
        let catalog = json!({ "remember": { REMEMBERED: { "for": "90d" } } }).to_string();
        live.apply(b"catalog", Some(catalog.as_bytes()), 0).expect("a catalog");
        let mut offset = 1;
        let mut publish = |published: Duration, random: &mut ChaCha8Rng| {
            let first_version = offset;
            let campaigns = campaigns(random);
            for campaign in &campaigns {
                let key = format!("campaign:{}", campaign["id"].as_str().expect("an id"));
                live.apply(key.as_bytes(), Some(campaign.to_string().as_bytes()), offset)
                    .expect("a campaign");
                offset += 1;
            }
            let rules = campaigns.iter().map(Rule::from_json).collect();
            LiveSet { published, set: Arc::new(live.snapshot()), rules, first_version }
        };
        Timeline { sets: times.into_iter().map(|at| publish(at, random)).collect() }
    }

    /// The set that a decision's version belongs to.
    pub fn of_version(&self, version: i64) -> usize {
        self.sets.partition_point(|set| set.first_version <= version).saturating_sub(1)
    }

    /// Sets that may have decided about something read after `from` and committed before `until`.
    pub fn within(&self, from: Duration, until: Duration) -> impl Iterator<Item = usize> {
        (0..self.sets.len()).filter(move |&index| {
            let is_begun = self.sets[index].published <= until;
            let is_over = self.sets.get(index + 1).is_some_and(|next| next.published + LONGEST_LAG < from);
            is_begun && !is_over
        })
    }
}

/// One publication of all campaigns.
fn campaigns(random: &mut ChaCha8Rng) -> Vec<Value> {
    let mut all = vec![
        json!({ "id": "probe", "trigger": PROBED, "action": { "type": "alert" } }),
        json!({ "id": "ever", "trigger": ["buy"], "limits": [{ "once_per": "ever" }] }),
        json!({ "id": "roll", "trigger": ["buy", "view"], "limits": [{ "at_most": 2, "per": "6h" }] }),
        json!({ "id": "day", "trigger": ["view"], "limits": [{ "once_per": "calendar_day" }] }),
        json!({ "id": "first", "trigger": ["buy"], "limits": [{ "at_most": 1, "per": "2h" }],
            "group": { "name": "g", "when_suppressed": if random.random_bool(0.5) { "next" } else { "stop" } } }),
        json!({ "id": "second", "trigger": ["buy", "view"],
            "group": { "name": "g", "when_suppressed": "next" } }),
        json!({ "id": "habit", "trigger": ["buy"],
            "when": { "history": { "event": "buy", "fn": "count", "last": "12h" }, "op": "gte", "value": 2 } }),
        json!({ "id": "gold", "trigger": ["buy", "view"], "limits": [{ "at_most": 3, "per": "1d" }],
            "when": { "field": "user.tier", "op": "eq", "value": "gold" } }),
        json!({ "id": "hush", "trigger": [QUIET], "limits": [
            if random.random_bool(0.5) { json!({ "once_per": "ever" }) } else { json!({ "at_most": 1, "per": "1d" }) }
        ] }),
    ];
    for campaign in &mut all {
        let id = campaign["id"].as_str().expect("an id").to_owned();
        let paused = match id.as_str() {
            "probe" => 0.0,
            "hush" => 0.5,
            _ => 0.2,
        };
        campaign["status"] = json!(if random.random_bool(paused) { "paused" } else { "active" });
        campaign["priority"] = json!(random.random_range(-2..3));
        if campaign.get("action").is_none() {
            campaign["action"] = json!({ "type": "send", "channel": "email", "template": "T" });
        }
    }
    all
}

/// The campaigns as one process has read them.
pub struct Reader {
    control: Arc<Control>,
    /// When each set arrives here.
    arrivals: Vec<Duration>,
    seen: Mutex<usize>,
}

impl Reader {
    pub fn new(control: &Arc<Control>) -> Reader {
        let world = &control.world;
        let lag_ms = u64::try_from(LONGEST_LAG.as_millis()).expect("short");
        let lag = || if world.happens(0.3) { world.draw_ms(0..lag_ms) } else { world.draw_ms(0..100) };
        let arrivals = world.timeline.sets.iter().map(|set| set.published + lag()).collect();
        let reader = Reader { control: Arc::clone(control), arrivals, seen: Mutex::default() };
        // A process starts when it has read the topic once.
        *lock(&reader.seen) = reader.published();
        reader
    }

    /// The newest set on the topic.
    fn published(&self) -> usize {
        let now = self.control.world.elapsed();
        self.control.world.timeline.sets.partition_point(|set| set.published <= now).saturating_sub(1)
    }
}

#[async_trait]
impl CampaignSource for Reader {
    fn current(&self) -> Arc<CampaignSet> {
        let now = self.control.world.elapsed();
        let arrived = self.arrivals.iter().rposition(|arrival| *arrival <= now).unwrap_or(0);
        let mut seen = lock(&self.seen);
        *seen = (*seen).max(arrived);
        Arc::clone(&self.control.world.timeline.sets[*seen].set)
    }

    async fn caught_up(&self) -> Result<(), LogError> {
        let asked = self.published();
        let world = &self.control.world;
        let fate = if world.strikes(world.plan.rates.catch_up_fails) { Fate::Lost } else { Fate::Answered };
        let slow = if world.happens(0.1) { world.draw_ms(0..800) } else { Duration::ZERO };
        let usual = Trip::usual(world);
        let trip = Trip { there: usual.there + slow, ..usual }.with(fate);
        let answer = self.control.call(Side::Processor, Hop::CatchUp, trip, |_: &Arc<World>| ()).await;
        answer.ok_or_else(|| LogError::Unavailable("the campaigns cannot be read now".into()))?;
        let mut seen = lock(&self.seen);
        *seen = (*seen).max(asked);
        Ok(())
    }
}
