//! What producers write: events, duplicates, late ones, poison, erasures; and what each record is known to be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use campaignd::partitioner::Partitioner;
use campaignd::pipeline::log::Header;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::campaigns::{QUIET, TICK};
use crate::faults::Plan;
use crate::log::{Data, Topic};
use crate::registry::{GOOD, NEVER};
use crate::wire::frame_event;
use crate::world::{NOON_MS, World, lock};

/// The first id of the schemas that the registry learns of in between.
pub const FIRST_NEW_SCHEMA: u32 = 20;
pub const NEW_SCHEMAS: u32 = 3;
/// How far an event may be ahead: the setting of the processor.
pub const MAX_FUTURE_SKEW: Duration = Duration::from_secs(300);

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// A user's id.
pub fn user_name(number: usize) -> String {
    format!("user-{number}")
}

/// What a record is, to whoever wrote it.
#[derive(Clone, Debug)]
pub enum Nature {
    /// A readable event.
    Event {
        json: Value,
        schema: u32,
        /// So far ahead that it depends on the moment whether it is taken.
        near_future: bool,
    },
    /// It ends as a dead letter under this code.
    Poison(&'static str),
}

/// A record to be written.
#[derive(Clone, Debug)]
pub struct Planned {
    pub at: Duration,
    pub partition: i32,
    pub data: Data,
    pub nature: Nature,
}

/// A record that was written.
#[derive(Clone, Debug)]
pub struct Placed {
    pub partition: i32,
    pub offset: i64,
    pub at: Duration,
    pub data: Data,
    pub nature: Nature,
}

/// A foreign record on a retry topic.
#[derive(Clone, Debug)]
pub struct Forged {
    pub at: Duration,
    pub tier: u8,
    pub partition: i32,
    pub data: Data,
}

/// Everything producers will write.
pub struct Workload {
    pub records: Vec<Planned>,
    pub forged: Vec<Forged>,
}

struct User {
    name: String,
    clock_ms: i64,
    number: usize,
    leaps: usize,
    /// The next event is a week later; this one decides nothing, so only the dedup window knows of it.
    is_leaping: bool,
    may_be_ahead: bool,
    /// Events since the last leap, that a duplicate may repeat.
    recent: Vec<(Value, u32, bool)>,
}

impl Workload {
    /// The workload of a plan.
    pub fn of(plan: &Plan, random: &mut ChaCha8Rng) -> Workload {
        let mut users: Vec<User> = (0..plan.users)
            .map(|number| User {
                name: user_name(number),
                clock_ms: NOON_MS - 25 * DAY_MS + random.random_range(0..DAY_MS),
                number: 0,
                leaps: 0,
                is_leaping: false,
                may_be_ahead: number % 4 == 3,
                recent: Vec::new(),
            })
            .collect();
        let mut times: Vec<Duration> = (0..plan.events)
            .map(|_| Duration::from_secs_f64(random.random_range(0.0..plan.span.as_secs_f64())))
            .collect();
        times.sort_unstable();
        // Some come in bursts.
        if random.random_bool(0.4) {
            for place in 1..times.len() {
                if random.random_bool(0.7) {
                    times[place] = times[place - 1];
                }
            }
        }

        let (mut records, mut chosen) = (Vec::new(), 0);
        for at in times {
            chosen = match chosen {
                leaping if users[leaping].is_leaping && random.random_bool(0.8) => leaping,
                _ if plan.is_hot && random.random_bool(0.6) => 0,
                _ => random.random_range(0..users.len()),
            };
            records.push(record(plan, random, &mut users[chosen], at));
        }
        Workload { records, forged: forged(plan, random) }
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: Some(bytes(value)) }
}

fn headers(random: &mut ChaCha8Rng) -> Vec<Header> {
    let mut headers = Vec::new();
    if random.random_bool(0.2) {
        headers.push(header("x-producer", "shop"));
        headers.push(Header { name: "x-null".into(), value: None });
    }
    if random.random_bool(0.1) {
        headers.push(header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    }
    // Our names count on retry topics only (rule P10).
    if random.random_bool(0.06) {
        headers.push(header("campaignd.original.topic", "events"));
        headers.push(header("campaignd.original.partition", "0"));
        headers.push(header("campaignd.original.offset", "1000000"));
        headers.push(header("campaignd.original.incarnation", "0"));
        headers.push(header("campaignd.retry.attempt", "99"));
        headers.push(header("campaignd.retry.failures", "99"));
        headers.push(header("campaignd.retry.due", "9999999999999"));
    }
    headers
}

fn record(plan: &Plan, random: &mut ChaCha8Rng, user: &mut User, at: Duration) -> Planned {
    let home = Partitioner::Murmur2.partition(user.name.as_bytes(), plan.partitions);
    let headers = headers(random);
    let planned = |partition: i32, key: Option<&str>, value: Option<Vec<u8>>, nature: Nature| Planned {
        at,
        partition,
        data: Data {
            key: key.map(bytes),
            value: value.map(Bytes::from),
            headers: headers.clone(),
            timestamp_ms: 0,
        },
        nature,
    };
    if random.random_bool(plan.poison) {
        return poison(plan, random, user, at, home, &planned);
    }
    let (json, schema, near_future) = if !user.recent.is_empty() && random.random_bool(plan.duplicates) {
        let again = user.recent[random.random_range(0..user.recent.len())].clone();
        if again.2 {
            // Taken in its second turn, it is a leap: what was before is forgotten.
            user.recent.clear();
        }
        again
    } else {
        let made = event(plan, random, user, at);
        user.recent.push(made.clone());
        let keep = user.recent.len().min(6);
        user.recent.drain(..user.recent.len() - keep);
        made
    };
    // Tells which of two records of one event a decision came from.
    let mut json = json;
    json["trace_id"] = json!(format!("trace-{}", random.random::<u64>()));
    let value = frame_event(schema, &json);
    planned(home, Some(&user.name), Some(value), Nature::Event { json, schema, near_future })
}

fn event(plan: &Plan, random: &mut ChaCha8Rng, user: &mut User, at: Duration) -> (Value, u32, bool) {
    user.number += 1;
    user.clock_ms += random.random_range(1..90) * MINUTE_MS;
    if std::mem::take(&mut user.is_leaping) {
        user.recent.clear();
        user.clock_ms += 8 * DAY_MS;
    } else if user.leaps < 2 && random.random_bool(plan.leaps) {
        user.leaps += 1;
        user.is_leaping = true;
    }
    let mut occurred_at = user.clock_ms;
    if random.random_bool(plan.late) {
        occurred_at -= random.random_range(61..300) * MINUTE_MS;
    } else if random.random_bool(0.1) {
        occurred_at -= random.random_range(1..50) * MINUTE_MS;
    }
    let near_future = user.may_be_ahead && random.random_bool(plan.future);
    if near_future {
        user.recent.clear();
        let ahead = i64::try_from((at + MAX_FUTURE_SKEW).as_millis()).expect("short");
        occurred_at = NOON_MS + ahead + random.random_range(-500..4_000);
    }
    let schema = if random.random_bool(plan.new_schemas) {
        FIRST_NEW_SCHEMA + random.random_range(0..NEW_SCHEMAS)
    } else {
        GOOD
    };
    let is_erasure = random.random_bool(plan.erasures);
    let event_type = match random.random_range(0..100) {
        _ if user.is_leaping => "user.updated",
        _ if is_erasure => "user.erased",
        0..45 => "buy",
        45..65 => "view",
        65..85 => QUIET,
        85..95 => TICK,
        _ => "user.updated",
    };
    let mut traits = json!({});
    if event_type == "user.updated" || (event_type == "buy" && random.random_bool(0.2)) {
        traits["tier"] = json!(if random.random_bool(0.5) { "gold" } else { "silver" });
    }
    let json = json!({
        "event_id": format!("{}-{}", user.name, user.number), "user_id": user.name, "type": event_type,
        "occurred_at": occurred_at, "properties": { "n": user.number }, "traits": traits, "trace_id": Value::Null,
    });
    (json, schema, near_future)
}

/// Makes what is planned of partition, key, value and nature.
type Plans<'a> = &'a dyn Fn(i32, Option<&str>, Option<Vec<u8>>, Nature) -> Planned;

fn poison(
    plan: &Plan,
    random: &mut ChaCha8Rng,
    user: &User,
    at: Duration,
    home: i32,
    planned: Plans<'_>,
) -> Planned {
    let key = Some(user.name.as_str());
    let at_ms = NOON_MS + i64::try_from(at.as_millis()).expect("short");
    let event = |user_id: &str, occurred_at: i64| {
        json!({ "event_id": format!("poison-{at_ms}"), "user_id": user_id, "type": "buy", "occurred_at": occurred_at,
            "properties": {}, "traits": {}, "trace_id": Value::Null })
    };
    match random.random_range(0..8) {
        0 => planned(home, key, Some(b"\x01not framed".to_vec()), Nature::Poison("bad_framing")),
        1 => planned(home, key, None, Nature::Poison("bad_framing")),
        2 => {
            let mut value = frame_event(GOOD, &event(&user.name, user.clock_ms));
            value.truncate(value.len() / 2);
            planned(home, key, Some(value), Nature::Poison("bad_avro"))
        }
        3 => planned(
            home,
            key,
            Some(frame_event(GOOD, &event("somebody", user.clock_ms))),
            Nature::Poison("wrong_key"),
        ),
        4 => {
            let value = Some(frame_event(GOOD, &event(&user.name, user.clock_ms)));
            planned(random.random_range(0..plan.partitions), None, value, Nature::Poison("bad_key"))
        }
        5 if plan.partitions > 1 => {
            let elsewhere = (home + random.random_range(1..plan.partitions)) % plan.partitions;
            let value = Some(frame_event(GOOD, &event(&user.name, user.clock_ms)));
            planned(elsewhere, key, value, Nature::Poison("wrong_partition"))
        }
        5 | 6 => {
            let value = Some(frame_event(NEVER, &event(&user.name, user.clock_ms)));
            planned(home, key, value, Nature::Poison("unknown_schema"))
        }
        _ => {
            let value = Some(frame_event(GOOD, &event(&user.name, at_ms + 10 * DAY_MS)));
            planned(home, key, value, Nature::Poison("future_event"))
        }
    }
}

/// Records on retry topics that nobody of ours has written.
fn forged(plan: &Plan, random: &mut ChaCha8Rng) -> Vec<Forged> {
    let tiers = u8::try_from(plan.tiers_at_first).expect("few tiers");
    if tiers == 0 || !random.random_bool(0.15) {
        return Vec::new();
    }
    let one = |random: &mut ChaCha8Rng| {
        let mut headers = vec![
            header("campaignd.original.topic", "events"),
            header("campaignd.original.partition", "0"),
            header("campaignd.original.offset", "3"),
            header("campaignd.original.incarnation", "0"),
            header("campaignd.retry.attempt", "0"),
            header("campaignd.retry.failures", "0"),
            header("campaignd.retry.due", "1"),
        ];
        match random.random_range(0..4) {
            0 => headers.clear(),
            1 => headers[2] = header("campaignd.original.offset", "-3"),
            2 => headers[4] = header("campaignd.retry.attempt", "many"),
            _ => headers[0] = header("campaignd.original.topic", "elsewhere"),
        }
        Forged {
            at: Duration::from_secs_f64(random.random_range(0.0..plan.span.as_secs_f64())),
            tier: random.random_range(1..=tiers),
            partition: random.random_range(0..plan.partitions),
            data: Data {
                key: Some(bytes(&user_name(random.random_range(0..plan.users)))),
                value: Some(bytes("forged")),
                headers,
                timestamp_ms: 0,
            },
        }
    };
    let mut all: Vec<Forged> = (0..random.random_range(1..4)).map(|_| one(random)).collect();
    all.sort_by_key(|forged| forged.at);
    all
}

/// Writes everything at its time.
pub async fn produce(world: Arc<World>, workload: Workload) {
    let Workload { records, forged } = workload;
    let forger = forge(Arc::clone(&world), forged);
    let producer = async {
        for planned in records {
            let Planned { at, partition, mut data, nature } = planned;
            tokio::time::sleep(at.saturating_sub(world.elapsed())).await;
            data.timestamp_ms = world.now_ms();
            let offset = world.broker().partition_mut(Topic::Events, partition).append_plain(data.clone());
            let at = world.elapsed();
            world.say(format_args!("events[{partition}]@{offset} {}", describe(&data, &nature)));
            lock(&world.placed).push(Placed { partition, offset, at, data, nature });
            world.moved.notify_waiters();
        }
    };
    tokio::join!(producer, forger);
}

async fn forge(world: Arc<World>, forged: Vec<Forged>) {
    for Forged { at, tier, partition, mut data } in forged {
        tokio::time::sleep(at.saturating_sub(world.elapsed())).await;
        data.timestamp_ms = world.now_ms();
        let offset = world.broker().partition_mut(Topic::Retry(tier), partition).append_plain(data);
        world.say(format_args!("forged record at retry {tier}[{partition}]@{offset}"));
        world.count("forged retry records");
        lock(&world.forged).push((tier, partition, offset));
        world.moved.notify_waiters();
    }
}

fn describe(data: &Data, nature: &Nature) -> String {
    let key = data.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    match nature {
        Nature::Poison(code) => format!("{key} poison {code}"),
        Nature::Event { json, schema, near_future } => format!(
            "{key} {} {} at {} schema {schema}{}",
            json["event_id"],
            json["type"],
            json["occurred_at"],
            if *near_future { " near future" } else { "" }
        ),
    }
}
