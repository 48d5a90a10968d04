//! Records that no processor can decide, each for one reason.

use rand::Rng;
use serde::Serialize;

use super::{GenerateOptions, encoded};
use crate::event::{Event, Limits, Properties, Value};
use crate::schema::wire::{HEADER_BYTES, header};

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PoisonKind {
    /// Not in the Confluent wire format: another first byte, or too short.
    BadFraming,
    /// An Avro record that was cut off.
    BadAvro,
    /// Framed bytes that mean nothing.
    Garbage,
    /// A property of a type that the schema does not have.
    UnknownValueType,
    /// A good event under another user's key.
    WrongKey,
    /// A good event without a key.
    MissingKey,
    /// A property longer than allowed.
    Oversized,
    /// A good event in a partition that is not its key's; the writer has to see to that.
    WrongPartition,
}

impl PoisonKind {
    const ANYWHERE: [PoisonKind; 7] = [
        PoisonKind::BadFraming,
        PoisonKind::BadAvro,
        PoisonKind::Garbage,
        PoisonKind::UnknownValueType,
        PoisonKind::WrongKey,
        PoisonKind::MissingKey,
        PoisonKind::Oversized,
    ];
}

/// A record that must end in the dead letter topic, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// What is wrong with it.
    pub kind: PoisonKind,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Poison {
    pub(super) fn draw(
        options: &GenerateOptions,
        mut event: Event,
        other_user: String,
        random: &mut impl Rng,
    ) -> Poison {
        let kinds = PoisonKind::ANYWHERE.len() + usize::from(options.wrong_partitions);
        let kind = PoisonKind::ANYWHERE.get(random.random_range(0..kinds)).copied();
        let kind = kind.unwrap_or(PoisonKind::WrongPartition);
        let mut key = Some(event.user_id.clone().into_bytes());
        let id = options.schema_id;
        let value = match kind {
            PoisonKind::BadFraming if random.random_bool(0.5) => {
                vec![0; random.random_range(0..HEADER_BYTES)]
            }
            PoisonKind::BadFraming => {
                let mut value = encoded(&event, id);
                if let Some(magic) = value.first_mut() {
                    *magic = random.random_range(1..=255);
                }
                value
            }
            PoisonKind::BadAvro => {
                let mut value = encoded(&event, id);
                value.truncate(random.random_range(HEADER_BYTES..value.len()));
                value
            }
            PoisonKind::Garbage => {
                let mut value = header(id, 64);
                // The length of the first text is -1, so no bytes that follow can be an event.
                value.push(1);
                value.extend((0..random.random_range(0..64)).map(|_| random.random::<u8>()));
                value
            }
            PoisonKind::UnknownValueType => {
                event.properties = Properties::from([("p".into(), Value::Null)]);
                unknown_branch(encoded(&event, id))
            }
            PoisonKind::WrongKey => {
                key = Some(other_user.into_bytes());
                encoded(&event, id)
            }
            PoisonKind::MissingKey => {
                key = None;
                encoded(&event, id)
            }
            PoisonKind::Oversized => {
                let long = "x".repeat(Limits::DEFAULT.max_value_bytes + 1);
                event.properties.insert("note".into(), Value::String(long));
                encoded(&event, id)
            }
            PoisonKind::WrongPartition => encoded(&event, id),
        };
        Poison { kind, key, value }
    }
}

/// Turns the branch number of the only property, which is null, into one that the union does not have. After it come the
/// ends of both maps and the absent trace id, a byte each.
fn unknown_branch(mut value: Vec<u8>) -> Vec<u8> {
    const BYTES_AFTER: usize = 3;
    const BRANCH_9: u8 = 18;
    if let Some(place) = value.len().checked_sub(BYTES_AFTER + 1)
        && let Some(branch) = value.get_mut(place)
    {
        *branch = BRANCH_9;
    }
    value
}
