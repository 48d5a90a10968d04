//! What must come out, computed the slow and obvious way.
//!
//! The model is written from the design's text alone. It reads campaigns and events as JSON, keeps everything a user
//! ever did in plain lists, and searches them anew for each question. It imports nothing of campaignd, so a mistake of
//! the product cannot hide in it. It is not fast, it knows no bounds, and it does not know Kafka: whoever feeds it gives
//! the events in the order of the topic.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use uuid::Uuid;

/// Namespace of decision ids, as README and design state it.
const DECISION_NAMESPACE: Uuid = Uuid::from_u128(0x8c5d_1b7e_42f0_4a6b_9e3a_6d0f_51c2_a7e4);

const DAY_MS: i64 = 86_400_000;

/// A campaign as the model sees it.
#[derive(Clone, Debug)]
pub struct Rule {
    id: String,
    triggers: Vec<String>,
    when: Option<Value>,
    priority: i64,
    group: Option<String>,
    stops: bool,
    limits: Vec<Limit>,
    from_ms: Option<i64>,
    until_ms: Option<i64>,
    active: bool,
}

#[derive(Clone, Debug)]
enum Limit {
    Ever,
    Day,
    Rolling { most: usize, per_ms: i64 },
}

impl Rule {
    /// Reads a campaign in its published JSON form.
    pub fn from_json(json: &Value) -> Rule {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let group = json.get("group").filter(|group| !group.is_null());
        let schedule = json.get("schedule").filter(|schedule| !schedule.is_null());
        Rule {
            id: text(&json["id"]),
            triggers: match &json["trigger"] {
                Value::Array(list) => list.iter().map(text).collect(),
                one => vec![text(one)],
            },
            when: json.get("when").filter(|when| !when.is_null()).cloned(),
            priority: json.get("priority").and_then(Value::as_i64).unwrap_or(0),
            group: group.map(|group| text(&group["name"])),
            stops: group.is_some_and(|group| group.get("when_suppressed") == Some(&Value::from("stop"))),
            limits: json
                .get("limits")
                .and_then(Value::as_array)
                .map(|limits| limits.iter().map(Limit::from_json).collect())
                .unwrap_or_default(),
            from_ms: schedule.and_then(|schedule| schedule.get("start")).and_then(instant_ms),
            until_ms: schedule.and_then(|schedule| schedule.get("end")).and_then(instant_ms),
            active: json.get("status").is_none_or(|status| status.is_null() || status == "active"),
        }
    }
}

impl Limit {
    fn from_json(json: &Value) -> Limit {
        match json.get("once_per").and_then(Value::as_str) {
            Some("ever") => Limit::Ever,
            Some("calendar_day") => Limit::Day,
            Some(other) => panic!("the model knows no limit once_per {other}"),
            None => Limit::Rolling {
                most: json["at_most"].as_u64().expect("at_most is a number") as usize,
                per_ms: duration_ms(&json["per"]).expect("per is a duration"),
            },
        }
    }

    /// `None` when one more allow at `t` is fine, else the reason code and the time at which it would be fine again.
    fn refuses(&self, allows: &[i64], t: i64) -> Option<(&'static str, i64)> {
        match *self {
            Limit::Ever => (!allows.is_empty()).then_some(("once_ever", i64::MAX)),
            Limit::Day => {
                let day = t.div_euclid(DAY_MS);
                let is_used = |day: i64| allows.iter().any(|allow| allow.div_euclid(DAY_MS) == day);
                // The next day may be used up already, by an event that came before this one.
                let reopens = (day + 1..).find(|day| !is_used(*day)).expect("some day is free");
                is_used(day).then_some(("calendar_limit", reopens * DAY_MS))
            }
            Limit::Rolling { most, per_ms } => {
                if fits(allows, t, most, per_ms) {
                    return None;
                }
                let reopens = allows
                    .iter()
                    .map(|allow| allow + per_ms)
                    .filter(|&at| at > t && fits(allows, at, most, per_ms))
                    .min();
                Some(("rolling_limit", reopens.expect("after the last allow and its window it is open")))
            }
        }
    }
}

/// Whether a further allow at `t` leaves no window `(x - D, x]` with more than `most` in it.
fn fits(allows: &[i64], t: i64, most: usize, per_ms: i64) -> bool {
    let mut all = allows.to_vec();
    all.push(t);
    all.iter().all(|&end| all.iter().filter(|&&at| at > end - per_ms && at <= end).count() <= most)
}

/// A decision that must be published exactly once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// Whom it is for.
    pub user_id: String,
    /// What caused it.
    pub event_id: String,
    /// Which campaign decided.
    pub campaign_id: String,
    /// `allow` or `suppress`.
    pub outcome: String,
    /// The reason code.
    pub reason: String,
    /// The campaign that took the slot, when the reason is `outranked`.
    pub outranked_by: Option<String>,
    /// When the event happened.
    pub occurred_at_ms: i64,
    /// The id that every replay must give it.
    pub decision_id: String,
}

/// What becomes of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The campaigns that decided, in the order in which they must be published; never empty.
    Decided(Vec<Expected>),
    /// Remembered perhaps, but no campaign had anything to decide.
    Ignored,
    /// The user had an event of this id before.
    Duplicate,
    /// The user was erased, and this is not newer.
    Erased,
}

/// What is known of a user.
#[derive(Clone, Debug, Default)]
pub struct Person {
    /// Ids of his events.
    pub event_ids: BTreeSet<String>,
    /// Type and time of each event.
    pub past: Vec<(String, i64)>,
    /// His traits.
    pub traits: BTreeMap<String, Value>,
    /// Campaign and time of each allow.
    pub allows: Vec<(String, i64)>,
    /// Time of his newest event.
    pub newest_ms: Option<i64>,
    /// Time of his newest erasure: what is not newer is dropped.
    pub erased_ms: Option<i64>,
}

/// All users, all their past, and the campaigns that are live now.
#[derive(Clone)]
pub struct Model {
    rules: Vec<Rule>,
    lateness_ms: i64,
    pii_traits: BTreeSet<String>,
    /// Types that the catalog remembers; when it is told, events that nobody cares for leave no trace.
    remembered: Option<BTreeSet<String>>,
    people: BTreeMap<String, Person>,
}

impl Model {
    /// A model without any past, over campaigns in their published JSON form.
    pub fn new(campaigns: &[Value]) -> Model {
        let mut model = Model {
            rules: Vec::new(),
            lateness_ms: 3_600_000,
            pii_traits: BTreeSet::new(),
            remembered: None,
            people: BTreeMap::new(),
        };
        model.replace_campaigns(campaigns);
        model
    }

    /// The same with the traits that must be neither seen nor remembered.
    pub fn without_traits(mut self, names: &[&str]) -> Model {
        self.pii_traits = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// The same with a catalog that remembers these types and no others.
    pub fn remembering(mut self, types: &[&str]) -> Model {
        self.remembered = Some(types.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// From the next event on, other campaigns decide.
    pub fn replace_campaigns(&mut self, campaigns: &[Value]) {
        let rules: Vec<Rule> = campaigns.iter().map(Rule::from_json).collect();
        self.replace_rules(&rules);
    }

    /// The same for campaigns that have been read before.
    pub fn replace_rules(&mut self, rules: &[Rule]) {
        self.rules = rules.to_vec();
        self.rules.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
    }

    /// What is known of a user; `None` of one who never had an event.
    pub fn person(&self, user_id: &str) -> Option<&Person> {
        self.people.get(user_id)
    }

    /// Forgets a user, as an erasure at that time does.
    pub fn erase(&mut self, user_id: &str, at_ms: i64) {
        let person = self.people.entry(user_id.to_owned()).or_default();
        *person = Person { erased_ms: person.erased_ms.max(Some(at_ms)), ..Person::default() };
    }

    /// Whether the event can change or cause anything: a campaign triggers on its type, the catalog remembers it, it carries
    /// traits, or its type is reserved.
    fn is_of_interest(&self, event_type: &str, event: &Value) -> bool {
        let reserved = ["user.", "subscription."].iter().any(|start| event_type.starts_with(start))
            || ["campaign.joined", "campaign.left"].contains(&event_type);
        let has_traits =
            event.get("traits").and_then(Value::as_object).is_some_and(|traits| !traits.is_empty());
        let triggers =
            self.rules.iter().any(|rule| rule.active && rule.triggers.iter().any(|t| t == event_type));
        let remembered = self.remembered.as_ref().is_none_or(|types| types.contains(event_type));
        remembered || reserved || has_traits || triggers
    }

    /// Handles the next event of the topic, given as the README's JSON line.
    pub fn handle(&mut self, event: &Value) -> Verdict {
        let user_id = event["user_id"].as_str().expect("user_id").to_owned();
        let event_id = event["event_id"].as_str().expect("event_id").to_owned();
        let event_type = event["type"].as_str().expect("type").to_owned();
        let t = instant_ms(&event["occurred_at"]).expect("occurred_at");
        let is_of_interest = self.is_of_interest(&event_type, event);
        let person = self.people.entry(user_id.clone()).or_default();
        if person.erased_ms.is_some_and(|erased| t <= erased) {
            return Verdict::Erased;
        }
        if !is_of_interest {
            return Verdict::Ignored;
        }
        if event_type == "user.erased" && !person.event_ids.contains(&event_id) {
            *person = Person { erased_ms: Some(t), ..Person::default() };
            return Verdict::Ignored;
        }
        if !person.event_ids.insert(event_id.clone()) {
            return Verdict::Duplicate;
        }

        if let Some(traits) = event.get("traits").and_then(Value::as_object) {
            person.traits.extend(traits.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        person.traits.retain(|name, _| !self.pii_traits.contains(name));
        let late = person.newest_ms.is_some_and(|newest| newest - t > self.lateness_ms);
        let seen = Seen { event, traits: &person.traits, past: &person.past, t };
        let matching: Vec<&Rule> = self
            .rules
            .iter()
            .filter(|rule| rule.active && rule.triggers.contains(&event_type))
            .filter(|rule| rule.from_ms.is_none_or(|from| from <= t))
            .filter(|rule| rule.until_ms.is_none_or(|until| t < until))
            .filter(|rule| rule.when.as_ref().is_none_or(|when| seen.holds(when) == Some(true)))
            .collect();

        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        let mut decisions = Vec::new();
        for rule in matching {
            let own: Vec<i64> =
                person.allows.iter().filter(|(id, _)| *id == rule.id).map(|(_, at)| *at).collect();
            let slot = rule.group.as_ref().and_then(|group| taken.get(group)).cloned();
            let refusal = rule.limits.iter().filter_map(|limit| limit.refuses(&own, t)).max_by_key(|r| r.1);
            let (outcome, reason) = if late {
                ("suppress", "late_event")
            } else if slot.is_some() {
                ("suppress", "outranked")
            } else if let Some((reason, _)) = refusal {
                ("suppress", reason)
            } else {
                ("allow", "allowed")
            };
            if let Some(group) = &rule.group
                && (outcome == "allow" || rule.stops)
            {
                taken.entry(group.clone()).or_insert_with(|| rule.id.clone());
            }
            if outcome == "allow" {
                person.allows.push((rule.id.clone(), t));
            }
            decisions.push(Expected {
                user_id: user_id.clone(),
                event_id: event_id.clone(),
                campaign_id: rule.id.clone(),
                outcome: outcome.to_owned(),
                reason: reason.to_owned(),
                outranked_by: slot.filter(|_| reason == "outranked"),
                occurred_at_ms: t,
                decision_id: decision_id(&user_id, &event_id, &rule.id),
            });
        }

        person.past.push((event_type, t));
        person.newest_ms = Some(person.newest_ms.map_or(t, |newest| newest.max(t)));
        if decisions.is_empty() { Verdict::Ignored } else { Verdict::Decided(decisions) }
    }
}

/// What a condition may look at.
struct Seen<'a> {
    event: &'a Value,
    traits: &'a BTreeMap<String, Value>,
    past: &'a [(String, i64)],
    t: i64,
}

impl Seen<'_> {
    /// Kleene's logic: `None` is UNKNOWN.
    fn holds(&self, condition: &Value) -> Option<bool> {
        if let Some(list) = condition.get("all") {
            let parts: Vec<_> =
                list.as_array().expect("a list").iter().map(|part| self.holds(part)).collect();
            return if parts.contains(&Some(false)) {
                Some(false)
            } else if parts.contains(&None) {
                None
            } else {
                Some(true)
            };
        }
        if let Some(list) = condition.get("any") {
            let parts: Vec<_> =
                list.as_array().expect("a list").iter().map(|part| self.holds(part)).collect();
            return if parts.contains(&Some(true)) {
                Some(true)
            } else if parts.contains(&None) {
                None
            } else {
                Some(false)
            };
        }
        if let Some(part) = condition.get("not") {
            return self.holds(part).map(|holds| !holds);
        }
        self.compares(condition)
    }

    fn compares(&self, comparison: &Value) -> Option<bool> {
        let history = comparison.get("history").filter(|history| !history.is_null());
        let left = match history {
            Some(query) => self.history(query),
            None => self.field(comparison["field"].as_str().expect("field")),
        };
        let right = match comparison.get("ref").and_then(Value::as_str) {
            Some(name) => self.field(name),
            None => comparison.get("value").cloned().or(Some(Value::Bool(true))),
        };
        let operator = comparison.get("op").and_then(Value::as_str).unwrap_or("eq");
        match operator {
            "exists" => return Some(left.is_some()),
            "missing" => return Some(left.is_none()),
            _ => {}
        }
        let (left, right) = (left?, right?);
        let since = history.is_some_and(|query| query["fn"] == "since");
        let held = match operator {
            "any_of" | "all_of" | "none_of" => left.as_array()?.clone(),
            _ => Vec::new(),
        };
        match operator {
            "eq" => same(&left, &right, since),
            "ne" => same(&left, &right, since).map(|same| !same),
            "lt" => Some(order(&left, &right, since)?.is_lt()),
            "lte" => Some(order(&left, &right, since)?.is_le()),
            "gt" => Some(order(&left, &right, since)?.is_gt()),
            "gte" => Some(order(&left, &right, since)?.is_ge()),
            "between" => {
                let low = order(&left, right.get(0)?, since)?.is_ge();
                let high = order(&left, right.get(1)?, since)?.is_le();
                Some(low && high)
            }
            "in" => among(&left, &right),
            "not_in" => among(&left, &right).map(|found| !found),
            "prefix" => Some(left.as_str()?.starts_with(right.as_str()?)),
            "suffix" => Some(left.as_str()?.ends_with(right.as_str()?)),
            "contains" => match &left {
                Value::Array(list) => Some(list.contains(right.as_str().map(|_| &right)?)),
                text => Some(text.as_str()?.contains(right.as_str()?)),
            },
            "any_of" => Some(right.as_array()?.iter().any(|one| held.contains(one))),
            "all_of" => Some(right.as_array()?.iter().all(|one| held.contains(one))),
            "none_of" => Some(!right.as_array()?.iter().any(|one| held.contains(one))),
            other => panic!("the model knows no operator {other}"),
        }
    }

    fn field(&self, name: &str) -> Option<Value> {
        let value = match name.split_once('.').expect("a dotted name") {
            ("event", property) => self.event.get("properties")?.get(property)?.clone(),
            ("user", name) => self.traits.get(name)?.clone(),
            _ => panic!("the model knows no field {name}"),
        };
        (!value.is_null()).then_some(value)
    }

    /// The current event is not part of its own history: it joins the past after its decisions.
    fn history(&self, query: &Value) -> Option<Value> {
        let event_type = query["event"].as_str().expect("event");
        let last_ms = query.get("last").and_then(duration_ms);
        let times: Vec<i64> = self
            .past
            .iter()
            .filter(|(past_type, _)| past_type == event_type)
            .map(|(_, at)| *at)
            .filter(|&at| last_ms.is_none_or(|last| at > self.t - last && at <= self.t))
            .collect();
        match query["fn"].as_str().expect("fn") {
            "exists" => Some(Value::Bool(!times.is_empty())),
            "count" => Some(Value::from(times.len())),
            "since" => {
                times.iter().filter(|&&at| at <= self.t).max().map(|latest| Value::from(self.t - latest))
            }
            other => panic!("the model knows no function {other}"),
        }
    }
}

fn same(left: &Value, right: &Value, since: bool) -> Option<bool> {
    match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => Some(a == b),
        (Value::Array(a), Value::Array(b)) => Some(a == b),
        _ => Some(order(left, right, since)?.is_eq()),
    }
}

fn order(left: &Value, right: &Value, since: bool) -> Option<std::cmp::Ordering> {
    if since {
        return left.as_i64()?.partial_cmp(&duration_ms(right)?);
    }
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// UNKNOWN when no element is of the value's kind.
fn among(left: &Value, list: &Value) -> Option<bool> {
    let answers: Vec<_> = list.as_array()?.iter().map(|one| same(left, one, false)).collect();
    if answers.contains(&Some(true)) {
        Some(true)
    } else if answers.contains(&None) {
        None
    } else {
        Some(false)
    }
}

/// An instant in RFC 3339 or in milliseconds since the Unix epoch.
pub fn instant_ms(value: &Value) -> Option<i64> {
    match value {
        Value::Number(ms) => ms.as_i64(),
        Value::String(text) => text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond()),
        _ => None,
    }
}

/// A duration such as `30d`, or a number of milliseconds.
fn duration_ms(value: &Value) -> Option<i64> {
    match value {
        Value::Number(ms) => ms.as_i64(),
        Value::String(text) => {
            let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
            let unit = match text.get(digits.len()..)? {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => DAY_MS,
                _ => return None,
            };
            Some(digits.parse::<i64>().ok()? * unit)
        }
        _ => None,
    }
}

/// UUIDv5 over user, event and campaign id, each behind its length in bytes.
pub fn decision_id(user_id: &str, event_id: &str, campaign_id: &str) -> String {
    let mut name = Vec::new();
    for part in [user_id, event_id, campaign_id] {
        name.extend((part.len() as u32).to_be_bytes());
        name.extend(part.as_bytes());
    }
    Uuid::new_v5(&DECISION_NAMESPACE, &name).to_string()
}
