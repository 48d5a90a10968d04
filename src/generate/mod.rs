//! A generator of shop events with known duplicates and known poison.
//!
//! What always holds: the same options give the same records, byte for byte; every event id is unique but for the
//! duplicates; a user's events come in the order of their times, but for the late ones; and what each record should
//! lead to is known ([`GroundTruth`]), so that whoever feeds them to campaignd can add up. It is pure: it knows neither
//! Kafka nor a clock, and nothing of campaigns.

mod options;
mod poison;
mod skew;
mod story;
mod truth;

use std::collections::VecDeque;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::event::{Event, Properties};
use crate::schema::{encode_event, wire};

pub use options::{DEFAULT_START_MS, GenerateOptions, OptionsError};
pub use poison::{Poison, PoisonKind};
pub use truth::GroundTruth;

use skew::Skew;
use story::Story;

/// How many events back a duplicate may reach; far fewer than the processor remembers ids of.
const DUPLICATES_REACH: usize = 64;

/// One record to be written to `events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The user it is about, or whose place poison takes.
    pub user_id: String,
    /// What to write.
    pub record: GeneratedRecord,
}

/// What kind of record.
#[derive(Clone, Debug, PartialEq)]
pub enum GeneratedRecord {
    /// A new event.
    Event(Event),
    /// An event that came before, again, as an impatient producer sends it.
    Duplicate(Event),
    /// A record that must end in the dead letter topic.
    Poison(Poison),
}

impl Generated {
    /// The event, unless it is poison.
    pub fn event(&self) -> Option<&Event> {
        match &self.record {
            GeneratedRecord::Event(event) | GeneratedRecord::Duplicate(event) => Some(event),
            GeneratedRecord::Poison(_) => None,
        }
    }

    /// The record key.
    pub fn key(&self) -> Option<&[u8]> {
        match &self.record {
            GeneratedRecord::Event(_) | GeneratedRecord::Duplicate(_) => Some(self.user_id.as_bytes()),
            GeneratedRecord::Poison(poison) => poison.key.as_deref(),
        }
    }

    /// The record value; events are framed under the schema id.
    pub fn value(&self, schema_id: u32) -> Vec<u8> {
        match &self.record {
            GeneratedRecord::Event(event) | GeneratedRecord::Duplicate(event) => encoded(event, schema_id),
            GeneratedRecord::Poison(poison) => poison.value.clone(),
        }
    }

    /// Whether it has to be written to another partition than its key's.
    pub fn wants_wrong_partition(&self) -> bool {
        matches!(&self.record, GeneratedRecord::Poison(poison) if poison.kind == PoisonKind::WrongPartition)
    }
}

fn encoded(event: &Event, schema_id: u32) -> Vec<u8> {
    let mut value = wire::header(schema_id, 160);
    encode_event(event, &mut value);
    value
}

/// Yields [`GenerateOptions::events`] records.
#[derive(Debug)]
pub struct Generator {
    options: GenerateOptions,
    random: ChaCha8Rng,
    skew: Skew,
    stories: Vec<Story>,
    recent: VecDeque<Event>,
    /// The user whose next event follows at once, within minutes.
    hurried: Option<usize>,
    index: u64,
    truth: GroundTruth,
}

impl Generator {
    /// A generator; refuses options that make no sense.
    pub fn new(options: GenerateOptions) -> Result<Self, OptionsError> {
        options.check()?;
        Ok(Self {
            random: ChaCha8Rng::seed_from_u64(options.seed),
            skew: Skew::new(options.users, options.skew),
            stories: vec![Story::default(); options.users as usize],
            recent: VecDeque::with_capacity(DUPLICATES_REACH),
            hurried: None,
            index: 0,
            truth: GroundTruth::default(),
            options,
        })
    }

    /// What has been yielded so far.
    pub fn truth(&self) -> &GroundTruth {
        &self.truth
    }

    fn generate(&mut self) -> Generated {
        let share: f64 = self.random.random();
        if share < self.options.poison {
            return self.poison();
        }
        if share < self.options.poison + self.options.duplicates && !self.recent.is_empty() {
            let place = self.random.random_range(0..self.recent.len());
            if let Some(event) = self.recent.get(place).cloned() {
                return Generated {
                    user_id: event.user_id.clone(),
                    record: GeneratedRecord::Duplicate(event),
                };
            }
        }
        let event = self.event();
        if self.recent.len() == DUPLICATES_REACH {
            self.recent.pop_front();
        }
        self.recent.push_back(event.clone());
        Generated { user_id: event.user_id.clone(), record: GeneratedRecord::Event(event) }
    }

    fn event(&mut self) -> Event {
        let (user, earliest_ms) = match self.hurried.take() {
            Some(user) => (user, 0),
            None => (self.skew.draw(&mut self.random), self.now_ms()),
        };
        let late = self.random.random_bool(self.options.late);
        let Some(story) = self.stories.get_mut(user) else { return self.decoy(user) };
        let limits = story::Times { earliest_ms, latest_ms: self.options.end_ms(), late };
        let scene = story.next(user, limits, &mut self.random);
        if scene.hurried {
            self.hurried = Some(user);
        }
        self.truth.late += u64::from(scene.late);
        Event {
            event_id: self.event_id(),
            user_id: user_id(user),
            event_type: scene.event_type.to_owned(),
            occurred_at_ms: scene.occurred_at_ms,
            properties: scene.properties,
            traits: scene.traits,
            trace_id: None,
        }
    }

    fn poison(&mut self) -> Generated {
        let user = self.skew.draw(&mut self.random);
        let decoy = self.decoy(user);
        let other = user_id(if user == 0 { self.options.users as usize } else { user - 1 });
        let poison = Poison::draw(&self.options, decoy, other, &mut self.random);
        Generated { user_id: user_id(user), record: GeneratedRecord::Poison(poison) }
    }

    /// An event that looks right; poison is made of it.
    fn decoy(&self, user: usize) -> Event {
        Event {
            event_id: self.event_id(),
            user_id: user_id(user),
            event_type: "purchase".into(),
            occurred_at_ms: self.now_ms(),
            properties: Properties::from([("amount".into(), crate::event::Value::Double(99.5))]),
            traits: Properties::new(),
            trace_id: None,
        }
    }

    fn event_id(&self) -> String {
        format!("{:x}-{}", self.options.seed, self.index)
    }

    /// The time of the record at hand: they are spread evenly.
    fn now_ms(&self) -> i64 {
        let span = i128::from(self.options.span_ms) * i128::from(self.index);
        let passed = span / i128::from(self.options.events.max(1));
        self.options.start_ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }
}

impl Iterator for Generator {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        if self.index >= self.options.events {
            return None;
        }
        let generated = self.generate();
        self.truth.observe(&generated);
        self.index += 1;
        Some(generated)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.options.events - self.index).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}

/// The id of a user by number; with skew, the smaller the busier.
fn user_id(user: usize) -> String {
    format!("user-{user:06}")
}

#[cfg(test)]
mod tests;
