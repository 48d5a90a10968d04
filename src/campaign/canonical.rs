//! The canonical JSON of campaigns and catalogs: what lies on the `campaigns` topic.
//!
//! Keys are sorted, there is no white space, lists that are sets are sorted, defaults that mean nothing are left out; so
//! two definitions are the same exactly when their texts are. What is written is read back as the same value.

use std::fmt;

use super::catalog::Catalog;
use super::condition::{
    Comparison, Condition, HistoryFunction, HistoryQuery, Literal, Operand, Right, Window,
};
use super::definition::{Action, ActionKind, Campaign, Limit};
use super::diagnostic::{Code, Diagnostic, Location};
use super::duration::DisplayMs;
use super::node::{Node, NodeValue};
use super::number::Number;
use super::reader::{At, Findings, operator_word, read_campaign, read_catalog};
use super::timestamp;
use crate::event::Value;

/// Largest record value that is read.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// A record that is no definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDefinition {
    /// All that is wrong with it; at least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for InvalidDefinition {
    /// The first problem, and how many more there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.diagnostics.first() else { return f.write_str("not a definition") };
        if !first.path.is_empty() {
            write!(f, "{}: ", first.path)?;
        }
        write!(f, "{} ({})", first.message, first.code)?;
        match self.diagnostics.len() {
            0 | 1 => Ok(()),
            more => write!(f, " and {} more", more - 1),
        }
    }
}

impl std::error::Error for InvalidDefinition {}

impl Campaign {
    /// The campaign as canonical JSON.
    pub fn to_canonical_json(&self) -> String {
        campaign_node(self).to_json()
    }

    /// Reads canonical JSON, or any JSON of the same shape.
    pub fn from_canonical_json(bytes: &[u8]) -> Result<Campaign, InvalidDefinition> {
        from_json("campaign", bytes, read_campaign)
    }
}

impl Catalog {
    /// The catalog as canonical JSON.
    pub fn to_canonical_json(&self) -> String {
        catalog_node(self).to_json()
    }

    /// Reads canonical JSON, or any JSON of the same shape.
    pub fn from_canonical_json(bytes: &[u8]) -> Result<Catalog, InvalidDefinition> {
        from_json("catalog", bytes, read_catalog)
    }
}

fn from_json<T>(
    what: &str,
    bytes: &[u8],
    read: fn(&At<'_>, &mut Findings) -> Option<T>,
) -> Result<T, InvalidDefinition> {
    let mut findings = Findings::new(what);
    if bytes.len() > MAX_RECORD_BYTES {
        let message = format!("the record has {} bytes, more than {MAX_RECORD_BYTES}", bytes.len());
        findings.error(Location::default(), Code::TooLarge, message);
        return findings.finish(None).map_err(|diagnostics| InvalidDefinition { diagnostics });
    }
    let value = match serde_json::from_slice::<Node>(bytes) {
        Ok(root) => read(&At::root(&root), &mut findings),
        Err(error) => {
            findings.error(Location::default(), Code::Syntax, format!("not well-formed JSON: {error}"));
            None
        }
    };
    findings.finish(value).map_err(|diagnostics| InvalidDefinition { diagnostics })
}

fn campaign_node(campaign: &Campaign) -> Node {
    let mut entries: Vec<(&str, Node)> = vec![
        ("id", Node::string(&campaign.id)),
        ("trigger", names(&campaign.trigger)),
        ("priority", Node::integer(campaign.priority.into())),
        ("action", action_node(&campaign.action)),
    ];
    if let Some(description) = &campaign.description {
        entries.push(("description", Node::string(description)));
    }
    if let Some(status) = campaign.status {
        entries.push(("status", Node::string(status.as_str())));
    }
    if let Some(schedule) = campaign.schedule {
        let times = [("start", schedule.start_ms), ("end", schedule.end_ms)];
        let present =
            times.into_iter().filter_map(|(key, ms)| Some((key, Node::string(timestamp::format_ms(ms?)))));
        entries.push(("schedule", Node::map(present)));
    }
    if let Some(when) = &campaign.when {
        entries.push(("when", condition_node(when)));
    }
    if let Some(group) = &campaign.group {
        let suppressed = Node::string(group.when_suppressed.as_str());
        entries.push((
            "group",
            Node::map([("name", Node::string(&group.name)), ("when_suppressed", suppressed)]),
        ));
    }
    if !campaign.tags.is_empty() {
        entries.push(("tags", names(&campaign.tags)));
    }
    if !campaign.limits.is_empty() {
        entries.push(("limits", Node::list(campaign.limits.iter().map(limit_node))));
    }
    Node::map(entries)
}

fn names(names: &[String]) -> Node {
    Node::list(names.iter().map(Node::string))
}

fn duration(ms: i64) -> Node {
    Node::string(DisplayMs(ms).to_string())
}

fn limit_node(limit: &Limit) -> Node {
    match limit {
        Limit::OncePerEver => Node::map([("once_per", Node::string("ever"))]),
        Limit::OncePerCalendarDay => Node::map([("once_per", Node::string("calendar_day"))]),
        Limit::AtMost { n, per_ms } => {
            Node::map([("at_most", Node::integer((*n).into())), ("per", duration(*per_ms))])
        }
    }
}

fn action_node(action: &Action) -> Node {
    let kind = match action.kind {
        ActionKind::Send => "send",
        ActionKind::Alert => "alert",
    };
    let mut entries = vec![("type", Node::string(kind))];
    if let Some(channel) = &action.channel {
        entries.push(("channel", Node::string(channel)));
    }
    if let Some(template) = &action.template {
        entries.push(("template", Node::string(template)));
    }
    if !action.params.is_empty() {
        let params = action.params.iter().map(|(name, value)| (name.clone(), value_node(value)));
        entries.push(("params", Node::map(params)));
    }
    Node::map(entries)
}

fn value_node(value: &Value) -> Node {
    match value {
        Value::Null => Node::new(NodeValue::Null),
        Value::Boolean(value) => Node::boolean(*value),
        Value::Long(value) => Node::integer(*value),
        // A definition holds no double without an exact value; one made by hand becomes null, which is refused on reading.
        Value::Double(value) => Node::new(
            Number::from_f64(*value)
                .map_or(NodeValue::Null, |value| NodeValue::Number { value, integral: false }),
        ),
        Value::String(value) => Node::string(value),
        Value::Strings(values) => names(values),
    }
}

pub(crate) fn condition_node(condition: &Condition) -> Node {
    match condition {
        Condition::All(parts) => Node::map([("all", Node::list(parts.iter().map(condition_node)))]),
        Condition::Any(parts) => Node::map([("any", Node::list(parts.iter().map(condition_node)))]),
        Condition::Not(part) => Node::map([("not", condition_node(part))]),
        Condition::Compare(comparison) => comparison_node(comparison),
    }
}

fn comparison_node(comparison: &Comparison) -> Node {
    let mut entries = vec![match &comparison.left {
        Operand::Field(field) => ("field", Node::string(field.to_string())),
        Operand::History(query) => ("history", history_node(query)),
    }];
    entries.push(("op", Node::string(operator_word(comparison.operator))));
    match &comparison.right {
        Right::Nothing => {}
        Right::Literal(literal) => entries.push(("value", literal_node(literal))),
        Right::Literals(literals) => entries.push(("value", Node::list(literals.iter().map(literal_node)))),
        Right::Ref(field) => entries.push(("ref", Node::string(field.to_string()))),
    }
    Node::map(entries)
}

fn history_node(query: &HistoryQuery) -> Node {
    let function = match query.function {
        HistoryFunction::Exists => "exists",
        HistoryFunction::Count => "count",
        HistoryFunction::Since => "since",
    };
    let window = match query.window {
        Window::LastMs(ms) => ("last", duration(ms)),
        Window::Lifetime => ("lifetime", Node::boolean(true)),
    };
    Node::map([("event", Node::string(&query.event_type)), ("fn", Node::string(function)), window])
}

fn literal_node(literal: &Literal) -> Node {
    match literal {
        Literal::Boolean(value) => Node::boolean(*value),
        Literal::Number(value) => Node::number(*value),
        Literal::String(value) => Node::string(value),
        Literal::DurationMs(ms) => duration(*ms),
    }
}

fn catalog_node(catalog: &Catalog) -> Node {
    let remember = catalog.remember.iter().map(|(event_type, remember)| {
        let mut entries =
            vec![("for", duration(remember.for_ms)), ("at_most", Node::integer(remember.at_most.into()))];
        if !remember.properties.is_empty() {
            entries.push(("properties", names(&remember.properties)));
        }
        (event_type.clone(), Node::map(entries))
    });
    Node::map([
        ("remember", Node::map(remember)),
        ("pii_traits", Node::list(catalog.pii_traits.iter().map(Node::string))),
        ("allowed_lateness", duration(catalog.allowed_lateness_ms)),
    ])
}

#[cfg(test)]
#[path = "canonical_tests.rs"]
mod tests;
