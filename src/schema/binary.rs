//! Writing the Avro binary encoding, as far as our schemas need it.
//!
//! A branch number is the place of a branch in its union, so these functions and the `.avsc` files belong together; the
//! tests read back with `apache-avro` what was written here.

use crate::event::Value;

/// `int`, `long` and all counts: zigzag, seven bits a byte, least significant first.
pub(super) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    // A collection in memory never has more than i64::MAX items.
    put_long(out, i64::try_from(count).unwrap_or(i64::MAX));
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// `["null", T]` of a string.
pub(super) fn put_optional_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => put_long(out, 0),
        Some(text) => {
            put_long(out, 1);
            put_string(out, text);
        }
    }
}

/// `["null", T]` of a long.
pub(super) fn put_optional_long(out: &mut Vec<u8>, value: Option<i64>) {
    match value {
        None => put_long(out, 0),
        Some(value) => {
            put_long(out, 1);
            put_long(out, value);
        }
    }
}

/// A map of values.
pub(super) fn put_values<'a>(
    out: &mut Vec<u8>,
    values: impl ExactSizeIterator<Item = (&'a String, &'a Value)>,
) {
    if values.len() > 0 {
        put_count(out, values.len());
        for (name, value) in values {
            put_string(out, name);
            put_value(out, value);
        }
    }
    put_long(out, 0);
}

/// `["null", "boolean", "long", "double", "string", array of string]`.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => put_long(out, 0),
        Value::Boolean(value) => {
            put_long(out, 1);
            out.push(u8::from(*value));
        }
        Value::Long(value) => {
            put_long(out, 2);
            put_long(out, *value);
        }
        Value::Double(value) => {
            put_long(out, 3);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::String(text) => {
            put_long(out, 4);
            put_string(out, text);
        }
        Value::Strings(texts) => {
            put_long(out, 5);
            if !texts.is_empty() {
                put_count(out, texts.len());
                texts.iter().for_each(|text| put_string(out, text));
            }
            put_long(out, 0);
        }
    }
}
