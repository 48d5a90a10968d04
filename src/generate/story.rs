//! What one user of the shop does, plausibly and in order: signs up, looks around, buys, fails to pay, climbs tiers.

use rand::Rng;

use crate::event::{Properties, Value};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

const COUNTRIES: [&str; 6] = ["DE", "FR", "IT", "PL", "SE", "US"];
const TIERS: [&str; 3] = ["bronze", "silver", "gold"];
const SOURCES: [&str; 3] = ["search", "friend", "ad"];
const CATEGORIES: [&str; 5] = ["books", "garden", "music", "shoes", "toys"];
const FAILURES: [&str; 4] = ["INSUFFICIENT_FUNDS", "INSUFFICIENT_FUNDS", "CARD_EXPIRED", "FRAUD_SUSPECTED"];

/// How far a user has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    signed_up: bool,
    tier: u8,
    purchases: u16,
    newest_ms: i64,
    signed_up_ms: i64,
}

/// When the next event may happen.
pub(super) struct Times {
    pub(super) earliest_ms: i64,
    pub(super) latest_ms: i64,
    pub(super) late: bool,
}

/// One event of a story.
pub(super) struct Scene {
    pub(super) event_type: &'static str,
    pub(super) occurred_at_ms: i64,
    pub(super) properties: Properties,
    pub(super) traits: Properties,
    /// It lies before the user's newest event.
    pub(super) late: bool,
    /// The user tries again within minutes.
    pub(super) hurried: bool,
}

impl Story {
    pub(super) fn next(&mut self, user: usize, times: Times, random: &mut impl Rng) -> Scene {
        if !self.signed_up {
            return self.sign_up(user, times.earliest_ms, random);
        }
        let occurred_at_ms = if times.earliest_ms > self.newest_ms {
            times.earliest_ms
        } else {
            let soon = self.newest_ms + random.random_range(MINUTE_MS..5 * MINUTE_MS);
            // Never beyond the end, so that a run that ends now has no events of the future; but in order all the same.
            soon.min(times.latest_ms).max(self.newest_ms + 1)
        };
        let mut scene = match random.random_range(0..100) {
            0..45 => scene("view", [("sku", sku(random)), ("category", pick(&CATEGORIES, random))]),
            45..65 => scene(
                "cart_add",
                [("sku", sku(random)), ("quantity", Value::Long(random.random_range(1..4)))],
            ),
            65..85 => self.purchase(random),
            85..97 => {
                let mut scene = scene(
                    "payment_failed",
                    [("failure_reason", pick(&FAILURES, random)), ("amount", amount(random))],
                );
                scene.hurried = random.random_bool(0.4);
                scene
            }
            _ => scene("refund", [("sku", sku(random)), ("amount", amount(random))]),
        };
        scene.occurred_at_ms = occurred_at_ms;
        let late_ms = occurred_at_ms - random.random_range(2 * HOUR_MS..24 * HOUR_MS);
        if times.late && late_ms > self.signed_up_ms && late_ms < self.newest_ms {
            scene.occurred_at_ms = late_ms;
            scene.late = true;
            scene.hurried = false;
        } else {
            self.newest_ms = occurred_at_ms;
        }
        scene
    }

    fn sign_up(&mut self, user: usize, now_ms: i64, random: &mut impl Rng) -> Scene {
        self.signed_up = true;
        self.newest_ms = now_ms;
        self.signed_up_ms = now_ms;
        self.tier = if random.random_bool(0.15) { 2 } else { 0 };
        let mut scene = scene("signup", [("source", pick(&SOURCES, random))]);
        scene.occurred_at_ms = now_ms;
        scene.traits = properties([
            ("country", pick(&COUNTRIES, random)),
            ("email", text(&format!("user-{user:06}@example.com"))),
            ("marketing_opt_in", Value::Boolean(random.random_bool(0.7))),
            ("tier", self.tier_value()),
        ]);
        scene
    }

    fn purchase(&mut self, random: &mut impl Rng) -> Scene {
        self.purchases = self.purchases.saturating_add(1);
        let items = (0..random.random_range(1..4)).map(|_| sku_text(random)).collect();
        let mut scene = scene("purchase", [("amount", amount(random)), ("items", Value::Strings(items))]);
        if random.random_bool(0.6) {
            scene.properties.insert("rating".into(), Value::Long(random.random_range(1..=5)));
        }
        if random.random_bool(0.2) {
            scene.properties.insert("coupon".into(), Value::Null);
        }
        if self.purchases.is_multiple_of(5) && self.tier < 2 {
            self.tier += 1;
            scene.traits = properties([("tier", self.tier_value())]);
        }
        scene
    }

    fn tier_value(&self) -> Value {
        text(TIERS.get(usize::from(self.tier)).copied().unwrap_or("gold"))
    }
}

fn scene<const N: usize>(event_type: &'static str, values: [(&str, Value); N]) -> Scene {
    let (traits, properties) = (Properties::new(), properties(values));
    Scene { event_type, occurred_at_ms: 0, properties, traits, late: false, hurried: false }
}

fn properties<const N: usize>(values: [(&str, Value); N]) -> Properties {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn pick<const N: usize>(texts: &[&str; N], random: &mut impl Rng) -> Value {
    text(texts.get(random.random_range(0..N)).copied().unwrap_or_default())
}

fn sku_text(random: &mut impl Rng) -> String {
    format!("sku-{:03}", random.random_range(0..500))
}

fn sku(random: &mut impl Rng) -> Value {
    Value::String(sku_text(random))
}

/// 1.00 to 249.99, small sums more often.
fn amount(random: &mut impl Rng) -> Value {
    let most = random.random_range(200..25_000);
    Value::Double(f64::from(random.random_range(100..=most)) / 100.0)
}
