//! What a replay is told to do, and what that means for one dead letter.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::filter::Filter;
use super::letter::DeadLetter;
use crate::pipeline::log::Header;
use crate::pipeline::outputs::header;

/// What a replay is told. Two replays that are told the same are one: the second goes on where the first stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Which dead letters.
    pub filter: Filter,
    /// How often a record may have been replayed in all, this time included.
    pub max_replays: u32,
    /// The topic they go back to, which must be the one they come from.
    pub events: String,
}

/// What a replay does with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not asked for.
    NotAsked,
    /// It stays where it is.
    Left(Left),
    /// It goes back to `events`.
    Replay {
        /// How often it will have been replayed then.
        replays: u32,
    },
}

/// Why a dead letter that was asked for is not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Its headers are not those of a dead letter.
    NotOurs,
    /// It comes from another topic than the `events` of this configuration.
    OtherTopic,
    /// Without a key it has no partition.
    NoKey,
    /// Its value was too large for the dead letter topic.
    ValueOmitted,
    /// It has been replayed as often as it may.
    ReplayLimit,
    /// Another replay has written it to `events` already.
    AlreadyReplayed,
    /// `events` takes no record of this size.
    TooLarge,
}

impl Left {
    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Left::NotOurs => "not_ours",
            Left::OtherTopic => "other_topic",
            Left::NoKey => "no_key",
            Left::ValueOmitted => "value_omitted",
            Left::ReplayLimit => "replay_limit",
            Left::AlreadyReplayed => "already_replayed",
            Left::TooLarge => "too_large",
        }
    }

    /// What an operator is told.
    pub fn reason(self) -> &'static str {
        match self {
            Left::NotOurs => {
                "it has no error code or no original topic, so it is no dead letter of campaignd"
            }
            Left::OtherTopic => "it comes from another topic than topics.events",
            Left::NoKey => "it has no key, so it belongs to no partition; its producer must send it anew",
            Left::ValueOmitted => "its value was too large to be kept; its producer must send it anew",
            Left::ReplayLimit => "it has been replayed as often as --max-replays allows",
            Left::AlreadyReplayed => "another replay has written it to the events topic already",
            Left::TooLarge => "the events topic takes no record of this size; see its max.message.bytes",
        }
    }
}

impl Order {
    /// What is done with a dead letter. It depends on nothing else, so it can be told of an earlier replay too.
    pub fn verdict(&self, letter: &DeadLetter) -> Verdict {
        if !self.filter.matches(letter) {
            return Verdict::NotAsked;
        }
        let origin = &letter.origin;
        let left = match (&origin.code, &origin.topic) {
            (None, _) | (_, None) => Some(Left::NotOurs),
            (_, Some(topic)) if *topic != self.events => Some(Left::OtherTopic),
            _ if letter.key.is_none() => Some(Left::NoKey),
            _ if origin.omitted_bytes.is_some() => Some(Left::ValueOmitted),
            _ if origin.replays >= self.max_replays => Some(Left::ReplayLimit),
            _ => None,
        };
        left.map_or(Verdict::Replay { replays: origin.replays + 1 }, Verdict::Left)
    }

    /// The consumer group that keeps how far this replay has come.
    pub fn group_id(&self, group_id: &str) -> String {
        // A struct of texts and numbers always has a form in JSON.
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{}{:016x}", Order::group_prefix(group_id), xxh3_64(text.as_bytes()))
    }

    /// How the names of these groups begin.
    pub fn group_prefix(group_id: &str) -> String {
        format!("{group_id}-dlq-replay-")
    }
}

/// The headers of a replayed record: its producer's, and how often it has been replayed.
pub fn headers(letter: &DeadLetter, replays: u32) -> Vec<Header> {
    let count = Header { name: header::REPLAYS.to_owned(), value: Some(replays.to_string().into()) };
    letter.own_headers().cloned().chain([count]).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::{dead, letter, letter_of};
    use super::*;
    use crate::pipeline::log::{InputTopic, Record};

    fn order() -> Order {
        Order { filter: Filter::default(), max_replays: 3, events: "events".into() }
    }

    #[test]
    fn what_cannot_be_replayed_is_left_with_its_reason() {
        let left = |letter: &DeadLetter| match order().verdict(letter) {
            Verdict::Left(left) => left,
            other => panic!("{other:?}"),
        };
        assert_eq!(left(&letter_of(None, 0, 0, "bad_key", 0)), Left::NoKey);
        assert_eq!(left(&letter_of(Some("ada"), 0, 0, "bad_avro", 3)), Left::ReplayLimit);
        assert_eq!(left(&letter_of(Some("ada"), 0, 0, "bad_avro", 1_000)), Left::ReplayLimit);
        let mut omitted = letter(0, 0, "too_large");
        omitted.origin.omitted_bytes = Some(16_000_000);
        assert_eq!(left(&omitted), Left::ValueOmitted);
        let mut other = letter(0, 0, "bad_avro");
        other.origin.topic = Some("events.eu".into());
        assert_eq!(left(&other), Left::OtherTopic);
        for foreign in [|o: &mut DeadLetter| o.origin.code = None, |o: &mut DeadLetter| o.origin.topic = None]
        {
            let mut letter = letter(0, 0, "bad_avro");
            foreign(&mut letter);
            assert_eq!(left(&letter), Left::NotOurs);
        }
    }

    #[test]
    fn the_rest_goes_back_and_is_counted() {
        assert_eq!(order().verdict(&letter(0, 0, "bad_avro")), Verdict::Replay { replays: 1 });
        let twice = letter_of(Some("ada"), 0, 0, "bad_avro", 2);
        assert_eq!(order().verdict(&twice), Verdict::Replay { replays: 3 });
        let mut order = order();
        order.filter.user = Some("bob".into());
        assert_eq!(order.verdict(&twice), Verdict::NotAsked);
    }

    #[test]
    fn a_replayed_record_has_its_producers_headers_and_its_count() {
        let mut letter = letter_of(Some("ada"), 0, 0, "bad_avro", 2);
        letter.headers.insert(0, Header { name: "null".into(), value: None });
        let found: Vec<(String, Option<Bytes>)> =
            headers(&letter, 3).into_iter().map(|header| (header.name, header.value)).collect();
        let expected = [
            ("null".to_owned(), None),
            ("n".to_owned(), Some(Bytes::from_static(b"1"))),
            (header::REPLAYS.to_owned(), Some(Bytes::from_static(b"3"))),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_count_survives_the_way_through_events_and_back() {
        let mut letter = letter(0, 0, "bad_avro");
        for expected in 1..=3 {
            let Verdict::Replay { replays } = order().verdict(&letter) else { panic!("{letter:?}") };
            assert_eq!(replays, expected);
            let record = Record {
                topic: InputTopic::Events,
                partition: 0,
                offset: 0,
                timestamp_ms: None,
                key: letter.key.clone(),
                value: letter.value.clone(),
                headers: headers(&letter, replays),
            };
            letter = dead(&record, letter.place, "bad_avro");
        }
        assert_eq!(order().verdict(&letter), Verdict::Left(Left::ReplayLimit));
    }

    #[test]
    fn the_same_order_has_the_same_group_and_another_one_another() {
        let name = |order: &Order| order.group_id("campaignd");
        // Written down, because another name would forget how far replays have come.
        assert_eq!(name(&order()), "campaignd-dlq-replay-e1ea733c05b8d3e4");
        let mut others = vec![order(); 3];
        others[0].max_replays = 4;
        others[1].events = "other".into();
        others[2].filter.user = Some("ada".into());
        for other in others {
            assert_ne!(name(&other), name(&order()));
        }
    }
}
