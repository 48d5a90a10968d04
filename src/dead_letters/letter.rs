//! A dead letter as it stands on its topic.

use bytes::Bytes;

use crate::pipeline::log::Header;
use crate::pipeline::outputs::{self, header};

use super::place::Place;

/// Longest text taken from a header; ours are shorter.
const MAX_TEXT_BYTES: usize = 1_024;

/// A record of the dead letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands.
    pub place: Place,
    /// When it became a dead letter, ms since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Key as its producer wrote it.
    pub key: Option<Bytes>,
    /// Value as its producer wrote it, unless it was left out.
    pub value: Option<Bytes>,
    /// Its producer's headers, and ours behind them.
    pub headers: Vec<Header>,
    /// What our headers say of it.
    pub origin: Origin,
}

/// Where a dead letter comes from and why it is one. What a header does not say, or not in a form that ours have, is
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Topic it was read from.
    pub topic: Option<String>,
    /// Partition it was read from.
    pub partition: Option<i32>,
    /// Offset it was read at.
    pub offset: Option<i64>,
    /// Its timestamp there, ms since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Error code.
    pub code: Option<String>,
    /// What exactly was wrong.
    pub text: Option<String>,
    /// Schema id of its framing.
    pub schema_id: Option<u32>,
    /// Offset of the newest campaign record at that time.
    pub campaigns_position: Option<i64>,
    /// Size of a value that was left out.
    pub omitted_bytes: Option<u64>,
    /// How often it has been replayed.
    pub replays: u32,
}

impl DeadLetter {
    /// Reads the headers of a record of the dead letter topic.
    pub fn of(
        place: Place,
        timestamp_ms: Option<i64>,
        key: Option<Bytes>,
        value: Option<Bytes>,
        headers: Vec<Header>,
    ) -> DeadLetter {
        let origin = Origin::of(&headers);
        DeadLetter { place, timestamp_ms, key, value, headers, origin }
    }

    /// The headers that its producer wrote.
    pub fn own_headers(&self) -> impl Iterator<Item = &Header> {
        self.headers.iter().filter(|header| !header.name.starts_with(header::PREFIX))
    }
}

impl Origin {
    fn of(headers: &[Header]) -> Origin {
        Origin {
            topic: text(headers, header::ORIGINAL_TOPIC),
            partition: number(headers, header::ORIGINAL_PARTITION),
            offset: number(headers, header::ORIGINAL_OFFSET),
            timestamp_ms: number(headers, header::ORIGINAL_TIMESTAMP),
            code: text(headers, header::ERROR_CODE),
            text: text(headers, header::ERROR_TEXT),
            schema_id: number(headers, header::SCHEMA_ID),
            campaigns_position: number(headers, header::CAMPAIGNS_POSITION),
            omitted_bytes: number(headers, header::VALUE_OMITTED),
            replays: outputs::replays(headers),
        }
    }
}

fn text(headers: &[Header], name: &str) -> Option<String> {
    let value = headers.iter().find(|header| header.name == name)?.value.as_deref()?;
    let text = std::str::from_utf8(value).ok()?;
    (!text.is_empty() && text.len() <= MAX_TEXT_BYTES).then(|| text.to_owned())
}

fn number<T: std::str::FromStr>(headers: &[Header], name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::letter_of;
    use super::*;

    fn header(name: &str, value: Option<&[u8]>) -> Header {
        Header { name: name.to_owned(), value: value.map(Bytes::copy_from_slice) }
    }

    #[test]
    fn what_the_pipeline_writes_is_read() {
        let letter = letter_of(Some("ada"), 3, 99, "bad_avro", 2);
        let expected = Origin {
            topic: Some("events".into()),
            partition: Some(3),
            offset: Some(1_099),
            timestamp_ms: Some(500),
            code: Some("bad_avro".into()),
            text: Some("why".into()),
            schema_id: Some(7),
            campaigns_position: Some(12),
            omitted_bytes: None,
            replays: 2,
        };
        assert_eq!(letter.origin, expected);
        assert_eq!(letter.place.to_string(), "3@99");
        assert_eq!(letter.own_headers().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["n"]);
    }

    #[test]
    fn headers_of_any_other_form_say_nothing() {
        let long = vec![b'x'; MAX_TEXT_BYTES + 1];
        let headers = [
            header(header::ORIGINAL_TOPIC, Some(&long)),
            header(header::ORIGINAL_PARTITION, Some(b"3000000000")),
            header(header::ORIGINAL_OFFSET, Some(b"\xff")),
            header(header::ERROR_CODE, None),
            header(header::ERROR_TEXT, Some(b"")),
            header(header::SCHEMA_ID, Some(b"-1")),
        ];
        assert_eq!(Origin::of(&headers), Origin::default());
    }
}
