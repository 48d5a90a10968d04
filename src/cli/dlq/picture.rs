//! One dead letter for people and for programs, in bounded space.

use std::fmt::{self, Display};

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::table::{plain, time};
use crate::dead_letters::DeadLetter;
use crate::event::Event;
use crate::pipeline::log::Header;

/// Headers shown; a producer may write any number.
const MAX_HEADERS: usize = 64;
const BYTES_PER_LINE: usize = 16;

/// What is in a value.
pub(super) enum Content {
    /// Nothing; or it was left out because of its size.
    Absent {
        /// The size of what was left out.
        omitted_bytes: Option<u64>,
    },
    /// An event.
    Event {
        /// The size of the value.
        bytes: usize,
        /// The event.
        event: Box<Event>,
    },
    /// Something else.
    Bytes {
        /// The value.
        bytes: Bytes,
        /// Why it is no event.
        why: String,
    },
}

/// A dead letter to be shown.
pub(super) struct Picture<'a> {
    /// The dead letter topic.
    pub(super) topic: &'a str,
    /// The record.
    pub(super) letter: &'a DeadLetter,
    /// Its value.
    pub(super) content: &'a Content,
    /// How much of each value and header is shown.
    pub(super) max_bytes: usize,
}

impl Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, origin) = (self.letter, &self.letter.origin);
        let when = letter.timestamp_ms.map_or(String::new(), |time_ms| format!("  {}", time(time_ms)));
        writeln!(f, "{} {}{when}", self.topic, letter.place)?;
        let code = origin.code.as_deref().unwrap_or("no code: not written by campaignd");
        let text = origin.text.as_deref().map_or(String::new(), |text| format!(": {}", plain(text)));
        line(f, "error", &format!("{}{text}", plain(code)))?;
        if let Some(from) = self.from() {
            line(f, "from", &from)?;
        }
        if let Some(id) = origin.schema_id {
            line(f, "schema", &id.to_string())?;
        }
        if let Some(position) = origin.campaigns_position {
            line(f, "campaigns", &format!("as of offset {position}"))?;
        }
        if origin.replays > 0 {
            line(f, "replays", &origin.replays.to_string())?;
        }
        line(f, "key", &letter.key.as_deref().map_or("none".to_owned(), |key| self.text_or_hex(key)))?;
        let mut name = "headers";
        for header in self.letter.own_headers().take(MAX_HEADERS) {
            line(f, name, &self.header(header))?;
            name = "";
        }
        let unshown = self.letter.own_headers().count().saturating_sub(MAX_HEADERS);
        if unshown > 0 {
            line(f, "", &format!("and {unshown} more"))?;
        }
        self.content(f)
    }
}

impl Picture<'_> {
    /// As one object.
    pub(super) fn to_json(&self) -> Value {
        let (letter, origin) = (self.letter, &self.letter.origin);
        let headers: Vec<Value> = self
            .letter
            .own_headers()
            .take(MAX_HEADERS)
            .map(|header| json!({ "name": header.name, "value": header.value.as_deref().map(|v| self.bytes_json(v)) }))
            .collect();
        let value = match self.content {
            Content::Absent { omitted_bytes } => json!({ "omitted_bytes": omitted_bytes }),
            Content::Event { bytes, event } => json!({ "bytes": bytes, "event": event }),
            Content::Bytes { bytes, why } => {
                let cut = self.cut(bytes);
                json!({ "bytes": bytes.len(), "hex": hex(cut), "is_cut": cut.len() < bytes.len(), "why": why })
            }
        };
        json!({
            "partition": letter.place.partition, "offset": letter.place.offset, "time": letter.timestamp_ms.map(time),
            "error": { "code": origin.code, "text": origin.text },
            "original": {
                "topic": origin.topic, "partition": origin.partition, "offset": origin.offset,
                "time": origin.timestamp_ms.map(time),
            },
            "schema": origin.schema_id, "campaigns_position": origin.campaigns_position, "replays": origin.replays,
            "key": letter.key.as_deref().map(|key| self.bytes_json(key)), "headers": headers, "value": value,
        })
    }

    fn from(&self) -> Option<String> {
        let origin = &self.letter.origin;
        let place = match (origin.partition, origin.offset) {
            (Some(partition), Some(offset)) => format!(" {partition}@{offset}"),
            _ => String::new(),
        };
        let when = origin.timestamp_ms.map_or(String::new(), |time_ms| format!("  {}", time(time_ms)));
        Some(format!("{}{place}{when}", plain(origin.topic.as_deref()?)))
    }

    fn header(&self, header: &Header) -> String {
        let value = header.value.as_deref().map_or("null".to_owned(), |value| self.text_or_hex(value));
        format!("{} = {value}", plain(&header.name))
    }

    fn content(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Absent { omitted_bytes: None } => line(f, "value", "none"),
            Content::Absent { omitted_bytes: Some(bytes) } => {
                line(f, "value", &format!("left out, because it had {bytes} bytes"))
            }
            Content::Event { bytes, event } => {
                line(f, "value", &format!("an event, {bytes} bytes"))?;
                line(f, "", &self.cut_text(&event.to_json()))
            }
            Content::Bytes { bytes, why } => {
                line(f, "value", &format!("{} bytes, not an event: {}", bytes.len(), plain(why)))?;
                let cut = self.cut(bytes);
                for (number, row) in cut.chunks(BYTES_PER_LINE).enumerate() {
                    line(f, "", &dump(number * BYTES_PER_LINE, row))?;
                }
                match bytes.len() - cut.len() {
                    0 => Ok(()),
                    rest => line(f, "", &format!("and {rest} bytes more; raise --max-bytes")),
                }
            }
        }
    }

    /// A text as it is, anything else in hex.
    fn text_or_hex(&self, bytes: &[u8]) -> String {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.cut_text(&plain(text)),
            Err(_) => {
                let cut = self.cut(bytes);
                let more = if cut.len() < bytes.len() { "…" } else { "" };
                format!("0x{}{more}", hex(cut))
            }
        }
    }

    /// A text, or an object with the bytes in hex.
    fn bytes_json(&self, bytes: &[u8]) -> Value {
        match std::str::from_utf8(bytes) {
            Ok(text) => json!(self.cut_text(text)),
            Err(_) => json!({ "hex": hex(self.cut(bytes)) }),
        }
    }

    fn cut<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(..self.max_bytes).unwrap_or(bytes)
    }

    fn cut_text(&self, text: &str) -> String {
        if text.len() <= self.max_bytes {
            return text.to_owned();
        }
        let end = (0..=self.max_bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        format!(
            "{}… ({} bytes more; raise --max-bytes)",
            text.get(..end).unwrap_or_default(),
            text.len() - end
        )
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {name:9}  {text}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `00000010  6c 61 …  |la…|`
fn dump(offset: usize, row: &[u8]) -> String {
    let cells: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String =
        row.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
    format!("{offset:08x}  {:width$}  |{text}|", cells.join(" "), width = BYTES_PER_LINE * 3 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::Place;
    use crate::dead_letters::testing::dead;
    use crate::pipeline::log::{InputTopic, Record};

    fn letter() -> DeadLetter {
        let header = |name: &str, value: Option<&'static [u8]>| Header {
            name: name.to_owned(),
            value: value.map(Bytes::from_static),
        };
        let record = Record {
            topic: InputTopic::Events,
            partition: 3,
            offset: 4_711,
            timestamp_ms: Some(1_768_473_000_000),
            key: Some(Bytes::from_static(b"ada\x1b[2J")),
            value: Some(Bytes::from_static(b"\0\0\0\0\x07some bytes of it")),
            headers: vec![
                header("traceparent", Some(b"00-1")),
                header("binary", Some(b"\xff\0")),
                header("null", None),
            ],
        };
        let place = Place { partition: 3, offset: 118 };
        let dead = dead(&record, place, "unknown_schema");
        DeadLetter { timestamp_ms: Some(1_768_473_000_500), ..dead }
    }

    fn shown(content: &Content, max_bytes: usize) -> (String, Value) {
        let letter = letter();
        let picture = Picture { topic: "events.dlq", letter: &letter, content, max_bytes };
        (picture.to_string(), picture.to_json())
    }

    #[test]
    fn a_value_that_is_no_event_is_shown_as_bytes() {
        let bytes = letter().value.unwrap();
        let (text, json) =
            shown(&Content::Bytes { bytes, why: "the registry knows no schema 7".into() }, 1_024);
        let expected = "\
events.dlq 3@118  2026-01-15T10:30:00.500Z
  error      unknown_schema: why
  from       events 3@4711  2026-01-15T10:30:00.000Z
  schema     7
  campaigns  as of offset 12
  key        ada\u{fffd}[2J
  headers    traceparent = 00-1
             binary = 0xff00
             null = null
  value      21 bytes, not an event: the registry knows no schema 7
             00000000  00 00 00 00 07 73 6f 6d 65 20 62 79 74 65 73 20  |.....some bytes |
             00000010  6f 66 20 69 74                                   |of it|
";
        assert_eq!(text, expected);
        assert_eq!(json["value"]["hex"], "0000000007736f6d65206279746573206f66206974");
        assert_eq!(json["value"]["is_cut"], false);
        assert_eq!(json["original"]["offset"], 4_711);
        assert_eq!(json["headers"][1]["value"]["hex"], "ff00");
        assert_eq!(json["headers"][2]["value"], Value::Null);
    }

    #[test]
    fn an_event_is_shown_as_its_json() {
        let event =
            Event::from_json(r#"{"event_id":"e","user_id":"ada","type":"view","occurred_at":0}"#).unwrap();
        let (text, json) = shown(&Content::Event { bytes: 21, event: Box::new(event) }, 1_024);
        assert!(
            text.contains("  value      an event, 21 bytes\n             {\"event_id\":\"e\","),
            "{text}"
        );
        assert_eq!(json["value"]["event"]["user_id"], "ada");
    }

    #[test]
    fn no_producer_can_flood_the_terminal() {
        let bytes = Bytes::from(vec![0xff; 100_000]);
        let (text, json) = shown(&Content::Bytes { bytes, why: "why".into() }, 16);
        assert!(text.len() < 1_000, "{text}");
        assert!(text.contains("and 99984 bytes more"), "{text}");
        assert_eq!(
            (json["value"]["hex"].as_str().unwrap().len(), &json["value"]["is_cut"]),
            (32, &json!(true))
        );

        let mut letter = letter();
        let header = |value: Vec<u8>| Header { name: "x".into(), value: Some(value.into()) };
        letter.headers = vec![header(vec![b'a'; 10_000]); 1_000];
        letter.key = Some(vec![0xfe; 10_000].into());
        let content = Content::Absent { omitted_bytes: Some(16_000_000) };
        let picture = Picture { topic: "events.dlq", letter: &letter, content: &content, max_bytes: 16 };
        assert!(picture.to_string().len() < 10_000 && picture.to_json().to_string().len() < 10_000);
        assert!(picture.to_string().contains("and 936 more"));
        assert!(picture.to_string().contains("left out, because it had 16000000 bytes"));
    }
}
