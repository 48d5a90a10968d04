//! The shop is a fair source: what it writes is what a producer would write, the same for every seed. That its events reach
//! every reason code is asserted by the crash story.

use campaignd::event::Event;
use campaignd::schema::{EVENT_SCHEMA, WriterSchema, decode_event, wire};
use serde_json::Value;

use crate::support::shop::Shop;

#[test]
fn its_bytes_decode_to_its_json_lines() {
    let schema = WriterSchema::parse(7, EVENT_SCHEMA).unwrap();
    for item in Shop::new(1, 20, 0.0, 7).take(500) {
        let line = item.event.unwrap();
        let bytes = item.record.value.unwrap();
        let (id, body) = wire::split(&bytes).unwrap();
        let decoded = decode_event(&schema, body).unwrap();
        assert_eq!(id, 7);
        assert_eq!(decoded, Event::from_json(&line.to_string()).unwrap());
        assert_eq!(item.record.key.unwrap(), decoded.user_id.as_bytes());
    }
}

#[test]
fn the_same_seed_gives_the_same_records() {
    let records = |seed| -> Vec<Option<Value>> {
        Shop::new(seed, 20, 0.1, 7).take(300).into_iter().map(|item| item.event).collect()
    };
    assert_eq!(records(5), records(5));
    assert_ne!(records(5), records(6));
}
