//! A small shop whose users do things in a known order: the ground truth of the stories, deterministic from a seed.
//!
//! Times mostly go forward; some events come a little out of order, some more than an hour late, some twice, and some
//! records are not events at all.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::kafka::Record;
use super::model::{Expected, Model, Verdict};
use super::wire::frame_event;

/// The campaigns of the shop, as a marketer writes them, by file name.
pub const CAMPAIGNS: &[(&str, &str)] = &[
    ("catalog.yaml", include_str!("shop/catalog.yaml")),
    ("gold_purchase.yaml", include_str!("shop/gold_purchase.yaml")),
    ("first_or_rated.yaml", include_str!("shop/first_or_rated.yaml")),
    ("insufficient_funds.yaml", include_str!("shop/insufficient_funds.yaml")),
    ("browsing.yaml", include_str!("shop/browsing.yaml")),
    ("welcome.yaml", include_str!("shop/welcome.yaml")),
    ("cart_stop.yaml", include_str!("shop/cart_stop.yaml")),
    ("cart_rest.yaml", include_str!("shop/cart_rest.yaml")),
];

const START_MS: i64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z
const MINUTE_MS: i64 = 60_000;

/// A record for `events`, and what it is.
#[derive(Clone, Debug)]
pub struct Item {
    /// What to produce.
    pub record: Record,
    /// The event, or nothing when it is poison.
    pub event: Option<Value>,
}

/// Users of the shop, with all they have done so far.
pub struct Shop {
    random: ChaCha8Rng,
    schema_id: u32,
    next: u64,
    poison: f64,
    users: Vec<User>,
}

struct User {
    id: String,
    now_ms: i64,
    done: Vec<Value>,
}

impl Shop {
    /// A shop with so many users and this share of poison among its records.
    pub fn new(seed: u64, users: usize, poison: f64, schema_id: u32) -> Shop {
        Shop::named(seed, users, poison, schema_id, "user")
    }

    /// The same with another name for its users, for stories with two shops.
    pub fn named(seed: u64, users: usize, poison: f64, schema_id: u32, name: &str) -> Shop {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let users = (0..users)
            .map(|n| User {
                id: format!("{name}-{n:04}"),
                now_ms: START_MS + random.random_range(0..600) * MINUTE_MS,
                done: Vec::new(),
            })
            .collect();
        Shop { random, schema_id, next: 0, poison, users }
    }

    /// The next so many records, in the order in which they are produced.
    pub fn take(&mut self, count: usize) -> Vec<Item> {
        (0..count).map(|_| self.item()).collect()
    }

    /// An event as a user might send it, which nobody sends.
    pub fn peek(&mut self) -> Value {
        let chosen = self.random.random_range(0..self.users.len());
        let (now_ms, done) = (self.users[chosen].now_ms, self.users[chosen].done.len());
        let mut event = self.event(chosen);
        event["event_id"] = json!(format!("never-{}", self.random.random::<u64>()));
        self.users[chosen].now_ms = now_ms;
        self.users[chosen].done.truncate(done);
        event
    }

    fn item(&mut self) -> Item {
        self.next += 1;
        let headers = vec![("n".to_owned(), self.next.to_string().into_bytes())];
        let chosen = self.random.random_range(0..self.users.len());
        if self.random.random_bool(self.poison) {
            let event = self.peek();
            let key = event["user_id"].as_str().map(|user_id| user_id.as_bytes().to_vec());
            let value = Some(self.poisoned(event));
            return Item { record: Record { partition: None, key, value, headers }, event: None };
        }
        let event = self.event(chosen);
        let key = Some(event["user_id"].as_str().expect("a text").as_bytes().to_vec());
        let value = Some(frame_event(self.schema_id, &event));
        Item { record: Record { partition: None, key, value, headers }, event: Some(event) }
    }

    /// Poison behind the key of a user: some of it judged by its bytes alone, some by what the registry, the schema or the
    /// clock says, which campaignd must remember with the user.
    fn poisoned(&mut self, mut event: Value) -> Vec<u8> {
        let good = frame_event(self.schema_id, &event);
        match self.random.random_range(0..5) {
            0 => good[1..].iter().map(|byte| byte | 0x80).collect(),
            1 => good[..self.random.random_range(0..5)].to_vec(),
            2 => good[..self.random.random_range(5..good.len())].to_vec(),
            3 => frame_event(self.random.random_range(1_000_000..2_000_000), &event),
            _ => {
                event["occurred_at"] = json!(9_000_000_000_000_i64);
                // Not a type that nobody cares for: when such an event occurred is nobody's business either.
                event["type"] = json!("purchase");
                frame_event(self.schema_id, &event)
            }
        }
    }

    fn event(&mut self, chosen: usize) -> Value {
        let random = &mut self.random;
        let user = &mut self.users[chosen];
        if user.done.len() > 2 && random.random_bool(0.05) {
            let recent = user.done.len().saturating_sub(10)..user.done.len();
            return user.done[random.random_range(recent)].clone();
        }
        user.now_ms += random.random_range(0..25 * MINUTE_MS);
        let back = match random.random_range(0..100) {
            0..8 => random.random_range(0..60) * MINUTE_MS,
            8..11 => random.random_range(61..300) * MINUTE_MS,
            _ => 0,
        };
        let (event_type, properties) = match random.random_range(0..100) {
            0..5 => ("signup", json!({})),
            5..35 => ("view", json!({ "sku": format!("sku-{}", random.random_range(0..9)) })),
            35..55 => ("cart_add", json!({ "quantity": random.random_range(1..4) })),
            55..80 => {
                let cents: i64 = random.random_range(100..12_000);
                ("purchase", json!({ "amount": cents as f64 / 100.0, "rating": random.random_range(1..6) }))
            }
            80..95 => {
                let reason = ["INSUFFICIENT_FUNDS", "CARD_EXPIRED"][random.random_range(0..2)];
                ("payment_failed", json!({ "failure_reason": reason }))
            }
            _ => ("heartbeat", json!({})),
        };
        let mut traits = json!({});
        if random.random_bool(0.2) {
            traits["tier"] = json!(["gold", "silver"][random.random_range(0..2)]);
        }
        let event = json!({
            "event_id": format!("{}-{}", user.id, user.done.len()), "user_id": user.id, "type": event_type,
            "occurred_at": user.now_ms - back, "properties": properties, "traits": traits,
            "trace_id": format!("trace-{}", self.next),
        });
        user.done.push(event.clone());
        event
    }
}

/// What must become of a list of records.
#[derive(Debug, Default)]
pub struct Truth {
    /// The decisions, in the order in which each user's must be published.
    pub decisions: Vec<Expected>,
    /// The records that must be dead letters.
    pub dead: Vec<Record>,
    /// Events that were there before.
    pub duplicates: u64,
    /// Events with no decision.
    pub ignored: u64,
    /// Events with at least one decision.
    pub decided: u64,
}

impl Truth {
    /// Lets the model handle further records.
    pub fn add(&mut self, model: &mut Model, items: &[Item]) {
        for item in items {
            match item.event.as_ref().map(|event| model.handle(event)) {
                None => self.dead.push(item.record.clone()),
                Some(Verdict::Duplicate) => self.duplicates += 1,
                Some(Verdict::Ignored | Verdict::Erased) => self.ignored += 1,
                Some(Verdict::Decided(decisions)) => {
                    self.decided += 1;
                    self.decisions.extend(decisions);
                }
            }
        }
    }

    /// How often each reason occurs, so that a story can insist that its stream was worth something.
    pub fn reasons(&self) -> std::collections::BTreeMap<&str, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for decision in &self.decisions {
            *counts.entry(decision.reason.as_str()).or_default() += 1;
        }
        counts
    }
}
