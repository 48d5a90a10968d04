//! Version 1 of the state cell. Do not change these types: add a version.

use std::collections::BTreeMap;

use bitcode::{Decode, Encode};

use crate::decision::Outcome;
use crate::event::Value;
use crate::position::Position;
use crate::user::UserState;
use crate::user::allows::{AllowLog, CampaignAllows};
use crate::user::dedup::DedupWindow;
use crate::user::history::{History, Occurrence, TypeHistory};
use crate::user::outbox::{Outbox, Output};
use crate::user::state::Erasure;

#[derive(Encode, Decode)]
struct StateV1<'a> {
    applied: Option<PositionV1>,
    newest_event_ms: Option<i64>,
    traits: Vec<(&'a str, ValueV1<'a>)>,
    types: Vec<TypeV1<'a>>,
    types_overflowed: bool,
    allows: Vec<AllowsV1>,
    seen_ids: Vec<SeenV1>,
    entries: Vec<EntryV1<'a>>,
    erasure: Option<ErasureV1>,
    /// Payloads of the outputs, one after the other: bitcode encodes no borrowed bytes.
    payloads: Vec<u8>,
}

#[derive(Encode, Decode)]
struct PositionV1 {
    incarnation: u32,
    partition: i32,
    offset: i64,
}

#[derive(Encode, Decode)]
struct ErasureV1 {
    position: PositionV1,
    at_ms: i64,
}

#[derive(Encode, Decode)]
enum ValueV1<'a> {
    Null,
    Boolean(bool),
    Long(i64),
    Double(f64),
    String(&'a str),
    Strings(Vec<&'a str>),
}

#[derive(Encode, Decode)]
struct TypeV1<'a> {
    event_type: &'a str,
    count: u64,
    first_ms: i64,
    last_ms: i64,
    dropped_ms: Option<i64>,
    names: Vec<&'a str>,
    kept: Vec<OccurrenceV1<'a>>,
}

#[derive(Encode, Decode)]
struct OccurrenceV1<'a> {
    at_ms: i64,
    values: Vec<(u16, ValueV1<'a>)>,
}

#[derive(Encode, Decode)]
struct AllowsV1 {
    campaign: u64,
    total: u32,
    dropped_ms: Option<i64>,
    times_ms: Vec<i64>,
}

#[derive(Encode, Decode)]
struct SeenV1 {
    hash: u64,
    seen_ms: i64,
}

#[derive(Encode, Decode)]
struct EntryV1<'a> {
    position: PositionV1,
    outputs: Vec<OutputV1<'a>>,
}

#[derive(Encode, Decode)]
enum OutputV1<'a> {
    Decision { outcome: OutcomeV1, length: u32 },
    Activity { length: u32 },
    DeadLetter { code: &'a str, text: &'a str },
}

#[derive(Encode, Decode)]
enum OutcomeV1 {
    Allow,
    Suppress,
    Holdout,
}

pub(super) fn encode(state: &UserState) -> Vec<u8> {
    let mut payloads = Vec::with_capacity(state.outbox.bytes());
    let entries = state
        .outbox
        .entries()
        .map(|entry| EntryV1 {
            position: position_to_wire(entry.position),
            outputs: entry.outputs.iter().map(|output| output_to_wire(output, &mut payloads)).collect(),
        })
        .collect();
    bitcode::encode(&StateV1 {
        applied: state.applied.map(position_to_wire),
        newest_event_ms: state.newest_event_ms,
        traits: state.traits.iter().map(|(name, value)| (name.as_str(), value_to_wire(value))).collect(),
        types: state.history.types.iter().map(|(name, history)| type_to_wire(name, history)).collect(),
        types_overflowed: state.history.overflowed,
        allows: state.allows.campaigns.iter().map(|(key, allows)| allows_to_wire(*key, allows)).collect(),
        seen_ids: state.dedup.iter().map(|(hash, seen_ms)| SeenV1 { hash, seen_ms }).collect(),
        entries,
        erasure: state
            .erasure
            .map(|Erasure { position, at_ms }| ErasureV1 { position: position_to_wire(position), at_ms }),
        payloads,
    })
}

pub(super) fn decode(body: &[u8]) -> Option<UserState> {
    let wire: StateV1<'_> = bitcode::decode(body).ok()?;
    let mut dedup = DedupWindow::default();
    for SeenV1 { hash, seen_ms } in wire.seen_ids {
        dedup.push(hash, seen_ms);
    }
    Some(UserState {
        applied: wire.applied.map(position_from_wire),
        newest_event_ms: wire.newest_event_ms,
        traits: wire
            .traits
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value_from_wire(value)))
            .collect(),
        history: history_from_wire(wire.types, wire.types_overflowed)?,
        allows: allows_from_wire(wire.allows)?,
        dedup,
        outbox: outbox_from_wire(wire.entries, &wire.payloads)?,
        erasure: wire
            .erasure
            .map(|ErasureV1 { position, at_ms }| Erasure { position: position_from_wire(position), at_ms }),
    })
}

fn position_to_wire(position: Position) -> PositionV1 {
    let Position { incarnation, partition, offset } = position;
    PositionV1 { incarnation, partition, offset }
}

fn position_from_wire(position: PositionV1) -> Position {
    let PositionV1 { incarnation, partition, offset } = position;
    Position { incarnation, partition, offset }
}

fn value_to_wire(value: &Value) -> ValueV1<'_> {
    match value {
        Value::Null => ValueV1::Null,
        Value::Boolean(value) => ValueV1::Boolean(*value),
        Value::Long(value) => ValueV1::Long(*value),
        Value::Double(value) => ValueV1::Double(*value),
        Value::String(text) => ValueV1::String(text),
        Value::Strings(list) => ValueV1::Strings(list.iter().map(String::as_str).collect()),
    }
}

fn value_from_wire(value: ValueV1<'_>) -> Value {
    match value {
        ValueV1::Null => Value::Null,
        ValueV1::Boolean(value) => Value::Boolean(value),
        ValueV1::Long(value) => Value::Long(value),
        ValueV1::Double(value) => Value::Double(value),
        ValueV1::String(text) => Value::String(text.to_owned()),
        ValueV1::Strings(list) => Value::Strings(list.into_iter().map(str::to_owned).collect()),
    }
}

fn type_to_wire<'a>(event_type: &'a str, history: &'a TypeHistory) -> TypeV1<'a> {
    TypeV1 {
        event_type,
        count: history.count,
        first_ms: history.first_ms,
        last_ms: history.last_ms,
        dropped_ms: history.dropped_ms,
        names: history.names.iter().map(String::as_str).collect(),
        kept: history
            .kept
            .iter()
            .map(|occurrence| OccurrenceV1 {
                at_ms: occurrence.at_ms,
                values: occurrence.values.iter().map(|(name, value)| (*name, value_to_wire(value))).collect(),
            })
            .collect(),
    }
}

fn history_from_wire(types: Vec<TypeV1<'_>>, overflowed: bool) -> Option<History> {
    let mut history = History { types: BTreeMap::new(), overflowed };
    for wire in types {
        let kept = wire.kept.into_iter().map(|occurrence| Occurrence {
            at_ms: occurrence.at_ms,
            values: occurrence
                .values
                .into_iter()
                .map(|(name, value)| (name, value_from_wire(value)))
                .collect(),
        });
        let names = wire.names.into_iter().map(str::to_owned).collect();
        let of_type = TypeHistory::from_parts(
            wire.count,
            wire.first_ms,
            wire.last_ms,
            wire.dropped_ms,
            names,
            kept.collect(),
        )?;
        history.types.insert(wire.event_type.to_owned(), of_type);
    }
    Some(history)
}

fn allows_to_wire(campaign: u64, allows: &CampaignAllows) -> AllowsV1 {
    AllowsV1 {
        campaign,
        total: allows.total,
        dropped_ms: allows.dropped_ms,
        times_ms: allows.times_ms.clone(),
    }
}

fn allows_from_wire(wire: Vec<AllowsV1>) -> Option<AllowLog> {
    let mut log = AllowLog::default();
    for AllowsV1 { campaign, total, dropped_ms, times_ms } in wire {
        let allows = CampaignAllows { total, dropped_ms, times_ms };
        if !allows.is_consistent() {
            return None;
        }
        log.insert(campaign, allows);
    }
    Some(log)
}

fn output_to_wire<'a>(output: &'a Output, payloads: &mut Vec<u8>) -> OutputV1<'a> {
    let mut append = |bytes: &[u8]| {
        payloads.extend_from_slice(bytes);
        // No payload comes near 4 GiB: a record on Kafka is at most a few MiB.
        u32::try_from(bytes.len()).unwrap_or(u32::MAX)
    };
    match output {
        Output::Decision { outcome, bytes } => {
            let outcome = match outcome {
                Outcome::Allow => OutcomeV1::Allow,
                Outcome::Suppress => OutcomeV1::Suppress,
                Outcome::Holdout => OutcomeV1::Holdout,
            };
            OutputV1::Decision { outcome, length: append(bytes) }
        }
        Output::Activity { bytes } => OutputV1::Activity { length: append(bytes) },
        Output::DeadLetter { code, text } => OutputV1::DeadLetter { code, text },
    }
}

fn outbox_from_wire(entries: Vec<EntryV1<'_>>, payloads: &[u8]) -> Option<Outbox> {
    let mut outbox = Outbox::default();
    let mut rest = payloads;
    for entry in entries {
        let mut outputs = Vec::with_capacity(entry.outputs.len());
        for output in entry.outputs {
            outputs.push(output_from_wire(output, &mut rest)?);
        }
        outbox.push(position_from_wire(entry.position), outputs);
    }
    rest.is_empty().then_some(outbox)
}

fn output_from_wire(output: OutputV1<'_>, payloads: &mut &[u8]) -> Option<Output> {
    let mut take = |length: u32| {
        let (payload, rest) = payloads.split_at_checked(usize::try_from(length).ok()?)?;
        *payloads = rest;
        Some(payload.to_vec())
    };
    Some(match output {
        OutputV1::Decision { outcome, length } => {
            let outcome = match outcome {
                OutcomeV1::Allow => Outcome::Allow,
                OutcomeV1::Suppress => Outcome::Suppress,
                OutcomeV1::Holdout => Outcome::Holdout,
            };
            Output::Decision { outcome, bytes: take(length)? }
        }
        OutputV1::Activity { length } => Output::Activity { bytes: take(length)? },
        OutputV1::DeadLetter { code, text } => {
            Output::DeadLetter { code: code.to_owned(), text: text.to_owned() }
        }
    })
}
