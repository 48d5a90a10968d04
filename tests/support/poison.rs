//! Nothing a producer can write crashes or stalls the processor, and every record is accounted for.
//!
//! Records are valid events, duplicates, known kinds of poison, and mutations of valid events of which nobody can say
//! beforehand whether they still are events. A header numbers each, so that every dead letter is held against its
//! original, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::compare::same_decisions_in_order;
use super::kafka::{Record, Stored};
use super::model::{Expected, Verdict};
use super::shop::{CAMPAIGNS, Item, Shop};
use super::stage::{Handled, Stage};
use super::wire::{encode_event, frame_event};

/// What must become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// An event as good as any.
    Event,
    /// A dead letter, with this error code.
    Dead(&'static str),
    /// A dead letter or an event: any answer will do, as long as there is exactly one.
    Either,
}

/// Feeds so many records and holds everything that comes out against what went in.
pub fn every_record_is_accounted_for(stage: &Stage, count: usize) {
    stage.apply(CAMPAIGNS);
    let records = records(stage, count);
    let items: Vec<Item> = records.iter().map(|(item, _)| item.clone()).collect();
    stage.produce(&items);
    let mut process = stage.start();
    let handled = stage.await_handled(&mut process, count as u64);
    assert_eq!(
        handled.total(),
        count as u64,
        "decided + ignored + duplicate + dead-lettered is what went in: {handled:?}"
    );

    let dead = dead_letters_are_the_originals(stage, &records, handled);
    let codes: BTreeMap<&str, usize> = records.iter().fold(BTreeMap::new(), |mut codes, (_, fate)| {
        if let Fate::Dead(code) = fate {
            *codes.entry(*code).or_default() += 1;
        }
        codes
    });
    println!("{count} records: {handled:?}, dead of known kinds: {codes:?}");
    for (index, (item, fate)) in records.iter().enumerate() {
        let code = dead.get(&index).map(String::as_str);
        match fate {
            Fate::Event => assert_eq!(code, None, "record {index} is an event: {:?}", item.event),
            Fate::Dead(expected) => assert_eq!(code, Some(*expected), "record {index}: {:?}", item.record),
            Fate::Either => {}
        }
    }

    // The valid events of users without a mutated record came out as if nothing had been between them.
    let touched: BTreeSet<&[u8]> = records
        .iter()
        .filter(|(_, fate)| *fate == Fate::Either)
        .filter_map(|(item, _)| item.record.key.as_deref())
        .collect();
    let mut model = stage.model();
    let expected: Vec<Expected> = records
        .iter()
        .filter(|(item, fate)| {
            *fate == Fate::Event && !touched.contains(item.record.key.as_deref().unwrap_or_default())
        })
        .filter_map(|(item, _)| match model.handle(item.event.as_ref()?) {
            Verdict::Decided(decisions) => Some(decisions),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(expected.len() * 40 > count, "worth nothing: {} decisions", expected.len());
    let mut found = stage.decisions();
    found.retain(|decision| !touched.contains(decision.user_id.as_bytes()));
    same_decisions_in_order(&expected, &found).unwrap();
}

/// Every dead letter is one of ours, there once, unchanged, with its own headers first and text in ours; returns the
/// error codes by record number.
fn dead_letters_are_the_originals(
    stage: &Stage,
    records: &[(Item, Fate)],
    handled: Handled,
) -> BTreeMap<usize, String> {
    let letters = stage.dead_letters();
    assert_eq!(letters.len() as u64, handled.dead, "as many dead letters as the counter says");
    let originals: BTreeMap<(i32, i64), Stored> = stage
        .kafka
        .read_committed(&stage.settings.topic("events"))
        .into_iter()
        .map(|record| ((record.partition, record.offset), record))
        .collect();
    let mut codes = BTreeMap::new();
    for letter in letters {
        let index: usize = letter.header("n").expect("the original header").parse().expect("a number");
        let original = &records[index].0.record;
        assert_eq!(
            (&letter.key, &letter.value),
            (&original.key, &original.value),
            "record {index} is unchanged"
        );
        let mut kept = original.headers.clone();
        kept.retain(|(name, _)| !name.starts_with("campaignd."));
        let (own, ours) = letter.headers.split_at(kept.len());
        assert_eq!(own, kept, "the producer's headers of record {index} come first, forged ones are gone");
        let names: BTreeSet<&String> = ours.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), ours.len(), "each header of ours is there once");
        for (name, value) in ours {
            assert!(name.starts_with("campaignd."), "record {index} has a header {name}");
            assert!(
                std::str::from_utf8(value).is_ok() && value.len() <= 1_024,
                "header {name} of record {index}"
            );
        }
        let number = |name: &str| letter.header(name).expect(name).parse::<i64>().expect("a number");
        assert_eq!(letter.header("campaignd.original.topic"), Some(stage.settings.topic("events")));
        let place = (number("campaignd.original.partition") as i32, number("campaignd.original.offset"));
        let stood =
            originals.get(&place).unwrap_or_else(|| panic!("record {index} did not stand at {place:?}"));
        assert_eq!(stood.header("n"), letter.header("n"), "the place of record {index} is right");
        assert_eq!(letter.partition, place.0, "record {index} stays on its partition number");
        let code = letter.header("campaignd.error.code").expect("an error code");
        assert_eq!(codes.insert(index, code), None, "record {index} is a dead letter once");
    }
    codes
}

fn records(stage: &Stage, count: usize) -> Vec<(Item, Fate)> {
    let mut random = ChaCha8Rng::seed_from_u64(0xdead);
    let mut shop = Shop::new(23, 300, 0.0, stage.schema_id);
    // Users of their own for records that may or may not be events, so that the others can be judged exactly.
    let mut other_shop = Shop::named(29, 100, 0.0, stage.schema_id, "odd");
    (0..count)
        .map(|index| {
            let (mut item, fate) = match random.random_range(0..100) {
                0..45 => (shop.take(1).remove(0), Fate::Event),
                45..70 => poison(&mut random, shop.peek(), stage.schema_id),
                _ => (mutated(&mut random, other_shop.take(1).remove(0)), Fate::Either),
            };
            item.record.headers = vec![("n".to_owned(), index.to_string().into_bytes())];
            if random.random_bool(0.1) {
                // A forged header of ours, and one that is no text.
                item.record.headers.push(("campaignd.original.offset".to_owned(), b"7".to_vec()));
                item.record.headers.push(("binary".to_owned(), vec![0xff, 0x00, 0xfe]));
            }
            (item, fate)
        })
        .collect()
}

/// Poison of a known kind, made of an event that is never sent as such.
fn poison(random: &mut ChaCha8Rng, event: Value, schema_id: u32) -> (Item, Fate) {
    let good = frame_event(schema_id, &event);
    let user = event["user_id"].as_str().expect("a text").as_bytes().to_vec();
    let with = |change: fn(&mut Value)| {
        let mut event = event.clone();
        change(&mut event);
        frame_event(schema_id, &event)
    };
    let mut record = Record { key: Some(user.clone()), value: Some(good.clone()), ..Record::default() };
    let fate = match random.random_range(0..19) {
        0 => {
            record.key = None;
            "bad_key"
        }
        1 => {
            record.key = Some(vec![0xff, 0xfe, 0x01]);
            "bad_key"
        }
        2 => {
            record.key = Some([user.as_slice(), b"-else"].concat());
            "wrong_key"
        }
        3 => {
            record.value = None;
            "bad_framing"
        }
        4 => {
            record.value = Some(Vec::new());
            "bad_framing"
        }
        5 => {
            record.value = Some([b"{", &good[1..]].concat());
            "bad_framing"
        }
        6 => {
            record.value = Some(good[..4].to_vec());
            "bad_framing"
        }
        7 => {
            // Half of them beyond the signed numbers that a registry uses.
            let id: u32 = random.random_range(1_000_000..2_000_000) | [0, 1 << 31][random.random_range(0..2)];
            record.value = Some([&[0], id.to_be_bytes().as_slice(), &good[5..]].concat());
            "unknown_schema"
        }
        8 => {
            record.value = Some(good[..random.random_range(5..good.len())].to_vec());
            "bad_avro"
        }
        9 => {
            record.value = Some([good.as_slice(), b"x"].concat());
            "bad_avro"
        }
        10 => {
            // A text that claims to be eight exabytes long.
            let header = &good[..5];
            record.value = Some([header, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat());
            "bad_avro"
        }
        11 => {
            // A text of negative length.
            record.value = Some([&good[..5], &[0x03]].concat());
            "bad_avro"
        }
        12 => {
            // A map with a trillion entries, of which none is there.
            let empty = encode_event(&json!({
                "event_id": "e", "user_id": event["user_id"], "type": "view", "occurred_at": 0,
            }));
            let maps = empty.len() - 3;
            let count = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
            record.value = Some([&good[..5], &empty[..maps], &count].concat());
            "bad_avro"
        }
        13 => {
            // A property of a union branch that does not exist.
            let empty = encode_event(&json!({
                "event_id": "e", "user_id": event["user_id"], "type": "view", "occurred_at": 0,
            }));
            let maps = empty.len() - 3;
            record.value =
                Some([&good[..5], &empty[..maps], &[0x02, 0x02, b'a', 0x0c, 0x00, 0x00, 0x00]].concat());
            "bad_avro"
        }
        14 => {
            record.value = Some(with(|event| event["event_id"] = json!("x".repeat(5_000))));
            "limits_exceeded"
        }
        15 => {
            record.value = Some(with(|event| {
                let many: serde_json::Map<String, Value> =
                    (0..1_000).map(|n| (format!("p{n}"), Value::Null)).collect();
                event["properties"] = Value::Object(many);
            }));
            "limits_exceeded"
        }
        16 => {
            record.value = Some(vec![0; 70_000]);
            "too_large"
        }
        17 => {
            record.value = Some(with(|event| {
                event["occurred_at"] = json!(9_000_000_000_000_i64);
                // Not a type that nobody cares for: when such an event occurred is nobody's business either.
                event["type"] = json!("purchase");
            }));
            "future_event"
        }
        _ => {
            record.partition = Some(stray_partition(&user));
            "wrong_partition"
        }
    };
    (Item { record, event: None }, Fate::Dead(fate))
}

/// Of four partitions, one that is not the key's.
fn stray_partition(key: &[u8]) -> i32 {
    (murmur2(key) % 4 + 1) % 4
}

/// Java's default partitioner, before the modulus.
pub fn murmur2(bytes: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0_u32, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    ((hash ^ (hash >> 15)) & 0x7fff_ffff) as i32
}

/// A valid event with a few bytes changed, removed, doubled or added.
fn mutated(random: &mut ChaCha8Rng, mut item: Item) -> Item {
    let value = item.record.value.as_mut().expect("an event has a value");
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..value.len().max(1)).min(value.len());
        match random.random_range(0..5) {
            0 if at < value.len() => value[at] ^= 1 << random.random_range(0..8),
            1 if at < value.len() => value[at] = random.random(),
            2 => value.truncate(at),
            3 => value.insert(at, random.random()),
            _ => {
                let slice = value[at..].to_vec();
                value.extend(slice.iter().take(20));
            }
        }
    }
    item.event = None;
    item
}
