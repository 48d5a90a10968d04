//! The tree between text and definition: what YAML files and JSON records have in common.
//!
//! Both are loaded into nodes, one reader turns nodes into definitions, and definitions print through nodes. So the rules of
//! a definition exist once, whatever text it came from. Numbers are exact from the first character on.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::diagnostic::Location;
use super::number::Number;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Location,
    pub(crate) value: NodeValue,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeValue {
    Null,
    Boolean(bool),
    /// `integral`: written without a point; the difference matters only to parameters.
    Number {
        value: Number,
        integral: bool,
    },
    String(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that has been reported already; readers stay silent about it.
    Reported,
}

/// An entry of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Location,
    pub(crate) value: Node,
}

impl NodeValue {
    /// The type in an author's words.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            NodeValue::Null => "nothing",
            NodeValue::Boolean(_) => "a boolean",
            NodeValue::Number { .. } => "a number",
            NodeValue::String(_) => "a text",
            NodeValue::List(_) => "a list",
            NodeValue::Map(_) => "a mapping",
            NodeValue::Reported => "something reported already",
        }
    }
}

/// Builds nodes that have no place.
impl Node {
    pub(crate) fn new(value: NodeValue) -> Node {
        Node { at: Location::default(), value }
    }

    pub(crate) fn boolean(value: bool) -> Node {
        Node::new(NodeValue::Boolean(value))
    }

    pub(crate) fn integer(value: i64) -> Node {
        Node::new(NodeValue::Number { value: Number::from_i64(value), integral: true })
    }

    pub(crate) fn number(value: Number) -> Node {
        Node::new(NodeValue::Number { value, integral: value.as_i64().is_some() })
    }

    pub(crate) fn string(value: impl Into<String>) -> Node {
        Node::new(NodeValue::String(value.into()))
    }

    pub(crate) fn list(values: impl IntoIterator<Item = Node>) -> Node {
        Node::new(NodeValue::List(values.into_iter().collect()))
    }

    pub(crate) fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Node)>) -> Node {
        let entry = |(key, value): (K, Node)| Entry { key: key.into(), at: Location::default(), value };
        Node::new(NodeValue::Map(entries.into_iter().map(entry).collect()))
    }

    /// JSON in its canonical form: keys sorted by code point, no white space.
    pub(crate) fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        match &self.value {
            NodeValue::Null | NodeValue::Reported => out.push_str("null"),
            NodeValue::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            NodeValue::Number { value, integral } => {
                let text = value.to_string();
                out.push_str(&text);
                if !integral && !text.contains('.') {
                    out.push_str(".0");
                }
            }
            NodeValue::String(value) => write_json_string(value, out),
            NodeValue::List(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    value.write_json(out);
                }
                out.push(']');
            }
            NodeValue::Map(entries) => {
                let mut sorted: Vec<&Entry> = entries.iter().collect();
                sorted.sort_by(|a, b| a.key.cmp(&b.key));
                out.push('{');
                for (index, entry) in sorted.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_json_string(&entry.key, out);
                    out.push(':');
                    entry.value.write_json(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_json_string(text: &str, out: &mut String) {
    // `Display` of a JSON string value escapes; a string cannot fail to serialize.
    out.push_str(&serde_json::Value::from(text).to_string());
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::new(NodeValue::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::new(NodeValue::Number { value: Number::from_u64(value), integral: true }))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        let value = Number::from_f64(value).ok_or_else(|| E::custom("a number with too many digits"))?;
        Ok(Node::new(NodeValue::Number { value, integral: false }))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::string(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Node, E> {
        Ok(Node::string(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Node::list(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        while let Some((key, value)) = access.next_entry::<String, Node>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("the key `{key}` stands there twice")));
            }
            entries.push((key, value));
        }
        Ok(Node::map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Result<String, serde_json::Error> {
        serde_json::from_str::<Node>(text).map(|node| node.to_json())
    }

    #[test]
    fn json_is_sorted_and_without_white_space() {
        let text = r#"{ "b": [1, -2.50, null, true], "a": {"é": "q\"\n", "A": ""} }"#;
        assert_eq!(canonical(text).unwrap(), r#"{"a":{"A":"","é":"q\"\n"},"b":[1,-2.5,null,true]}"#);
    }

    #[test]
    fn numbers_stay_what_they_are() {
        for text in ["9223372036854775807", "-9223372036854775808", "0.000000001", "5.0", "123456.123456789"]
        {
            assert_eq!(canonical(text).unwrap(), text);
        }
        assert!(canonical("1e300").is_err());
        assert!(canonical("0.12345678901").is_err());
    }

    #[test]
    fn duplicate_keys_are_refused() {
        assert!(canonical(r#"{"a":1,"a":1}"#).is_err());
    }
}
