//! YAML documents as JSON values, for the topology files.
//!
//! Only what such files need: plain scalars are null, booleans, whole numbers or texts as YAML 1.2's core schema says;
//! anchors, tags and duplicate keys are refused.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Value};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 32;

/// All documents of the text, or what is wrong with it and where.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, String> {
    let mut events = Parser::new_from_str(text);
    let mut documents = Vec::new();
    while let Some(event) = events.next() {
        match positioned(event)?.0 {
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::Nothing => {}
            first => documents.push(value(first, &mut events, 0)?),
        }
    }
    Ok(documents)
}

type Scanned<'input> = Result<(Event<'input>, Span), ScanError>;

fn positioned(event: Scanned<'_>) -> Result<(Event<'_>, Span), String> {
    event.map_err(|error| format!("is not YAML: {error}"))
}

fn next<'input>(events: &mut impl Iterator<Item = Scanned<'input>>) -> Result<(Event<'input>, Span), String> {
    positioned(events.next().ok_or("ends in the middle of a document")?)
}

fn value<'input>(
    event: Event<'input>,
    events: &mut impl Iterator<Item = Scanned<'input>>,
    depth: usize,
) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!("is nested deeper than {MAX_DEPTH} levels"));
    }
    match event {
        Event::Scalar(text, style, 0, None) => Ok(scalar(&text, style)),
        Event::SequenceStart(0, None) => {
            let mut items = Vec::new();
            loop {
                match next(events)?.0 {
                    Event::SequenceEnd => return Ok(Value::Array(items)),
                    item => items.push(value(item, events, depth + 1)?),
                }
            }
        }
        Event::MappingStart(0, None) => {
            let mut map = Map::new();
            loop {
                let (key, span) = next(events)?;
                let key = match key {
                    Event::MappingEnd => return Ok(Value::Object(map)),
                    Event::Scalar(key, _, 0, None) => key.into_owned(),
                    _ => return Err(format!("line {}: a key must be a plain text", span.start.line())),
                };
                let inner = value(next(events)?.0, events, depth + 1)?;
                if map.insert(key.clone(), inner).is_some() {
                    return Err(format!("line {}: the key {key} is given twice", span.start.line()));
                }
            }
        }
        _ => Err("uses an anchor, an alias or a tag; write the value itself".into()),
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_those_of_the_core_schema() {
        let text = "a: 1\nb: \"1\"\nc: true\nd: [x, ~]\ne: { f: delete }\n---\n2\n";
        let expected =
            vec![json!({"a": 1, "b": "1", "c": true, "d": ["x", null], "e": {"f": "delete"}}), json!(2)];
        assert_eq!(documents(text).unwrap(), expected);
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        assert!(documents("a: 1\na: 2\n").unwrap_err().contains("line 2: the key a is given twice"));
        assert!(documents("a: &x 1\nb: *x\n").unwrap_err().contains("anchor"));
        assert!(documents("a: [1\n").unwrap_err().contains("is not YAML"));
        assert!(documents(&"[".repeat(50)).is_err());
    }
}
