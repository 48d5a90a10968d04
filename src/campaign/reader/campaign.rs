//! Campaigns from nodes.

use std::collections::BTreeMap;

use super::condition::read_condition;
use super::{At, Fields, Findings};
use crate::campaign::definition::{
    Action, ActionKind, Campaign, Group, Limit, Schedule, Status, WhenSuppressed,
};
use crate::campaign::diagnostic::Code;
use crate::campaign::node::NodeValue;
use crate::event::Value;

/// Keys of a campaign.
pub(crate) const KEYS: &[&str] = &[
    "id",
    "description",
    "status",
    "schedule",
    "trigger",
    "when",
    "priority",
    "group",
    "tags",
    "limits",
    "action",
];
const LATER_KEYS: &[&str] = &[
    "requires",
    "quiet_hours",
    "holdout",
    "variants",
    "expires_after",
    "epoch",
    "transactional",
    "counts",
    "join_when",
    "salt",
];
/// Longest description.
const MAX_DESCRIPTION_BYTES: usize = 4_096;
const MAX_TRIGGERS: usize = 64;
const MAX_TAGS: usize = 64;
const MAX_LIMITS: usize = 16;
const MAX_PARAMS: usize = 64;
const MAX_PARAM_ITEMS: usize = 256;

/// Reads a campaign; `None` only after something has been reported.
pub(crate) fn read_campaign(at: &At<'_>, findings: &mut Findings) -> Option<Campaign> {
    let fields = at.fields(findings, KEYS, LATER_KEYS)?;
    let id = fields.require("id", findings).and_then(|at| read_id(&at, findings));
    let description = fields.get("description").and_then(|at| read_description(&at, findings));
    let statuses = Status::ALL.map(|status| (status.as_str(), status));
    let status = fields.get("status").and_then(|at| at.word(findings, &statuses));
    let schedule = fields.get("schedule").and_then(|at| read_schedule(&at, findings));
    let trigger = fields.require("trigger", findings).and_then(|at| read_trigger(&at, findings));
    let when = fields.get("when").and_then(|at| read_condition(&at, findings));
    let priority = fields
        .get("priority")
        .and_then(|at| at.integer(findings, i32::MIN.into(), i32::MAX.into()))
        .and_then(|value| i32::try_from(value).ok())
        .unwrap_or_default();
    let group = fields.get("group").and_then(|at| read_group(&at, findings));
    let tags = fields.get("tags").and_then(|at| at.names(findings, 0, MAX_TAGS)).unwrap_or_default();
    let limits = fields.get("limits").and_then(|at| read_limits(&at, findings)).unwrap_or_default();
    let action = fields.require("action", findings).and_then(|at| read_action(&at, findings));
    // Whatever was there and could not be read has been reported, and the whole is refused for it.
    Some(Campaign {
        id: id?,
        description,
        status,
        schedule,
        trigger: trigger?,
        when,
        priority,
        group,
        tags,
        limits,
        action: action?,
    })
}

/// Ids go into record keys, file names and commands, so they are plainer than other names.
fn read_id(at: &At<'_>, findings: &mut Findings) -> Option<String> {
    let id = at.name(findings)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !id.bytes().all(plain) || !id.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        let message = format!(
            "`{id}` is no campaign id: letters, digits, `_`, `-` and `.`, beginning with a letter or digit"
        );
        at.error(findings, Code::BadName, message);
        return None;
    }
    Some(id.to_owned())
}

fn read_description(at: &At<'_>, findings: &mut Findings) -> Option<String> {
    let text = at.string(findings)?;
    if text.len() > MAX_DESCRIPTION_BYTES {
        let message =
            format!("the description has {} bytes; {MAX_DESCRIPTION_BYTES} are allowed", text.len());
        at.error(findings, Code::TooLarge, message);
        return None;
    }
    Some(text.to_owned())
}

fn read_schedule(at: &At<'_>, findings: &mut Findings) -> Option<Schedule> {
    let fields = at.fields(findings, &["start", "end"], &[])?;
    let mut time = |key| fields.get(key).and_then(|at| at.timestamp_ms(findings));
    Some(Schedule { start_ms: time("start"), end_ms: time("end") })
}

/// One event type or a list.
fn read_trigger(at: &At<'_>, findings: &mut Findings) -> Option<Vec<String>> {
    match &at.node.value {
        NodeValue::List(_) => at.names(findings, 1, MAX_TRIGGERS),
        _ => Some(vec![at.name(findings)?.to_owned()]),
    }
}

fn read_group(at: &At<'_>, findings: &mut Findings) -> Option<Group> {
    let fields = at.fields(findings, &["name", "when_suppressed"], &[])?;
    let words = [WhenSuppressed::Next, WhenSuppressed::Stop].map(|value| (value.as_str(), value));
    let when_suppressed = fields.get("when_suppressed").and_then(|at| at.word(findings, &words));
    let name = fields.require("name", findings).and_then(|at| at.name(findings));
    Some(Group { name: name?.to_owned(), when_suppressed: when_suppressed.unwrap_or_default() })
}

fn read_limits(at: &At<'_>, findings: &mut Findings) -> Option<Vec<Limit>> {
    let mut limits = Vec::new();
    for item in at.items(findings, 0, MAX_LIMITS)? {
        let Some(limit) = read_limit(&item, findings) else { continue };
        if limits.contains(&limit) {
            let message = format!("the limit `{limit}` stands in the list twice");
            item.error_with(findings, Code::DuplicateEntry, message, "remove one of the two");
        }
        limits.push(limit);
    }
    Some(limits)
}

fn read_limit(at: &At<'_>, findings: &mut Findings) -> Option<Limit> {
    let fields = at.fields(findings, &["once_per", "at_most", "per"], &["zone", "scope"])?;
    match (fields.get("once_per"), fields.get("at_most")) {
        (Some(once_per), None) => {
            if let Some(per) = fields.get("per") {
                per.error(findings, Code::ConflictingKeys, "`per` goes with `at_most`, not with `once_per`");
            }
            read_once_per(&once_per, findings)
        }
        (None, Some(at_most)) => {
            let n = at_most.integer(findings, 0, 1_000_000).and_then(|n| u32::try_from(n).ok());
            let per_ms = fields.require("per", findings).and_then(|at| at.duration_ms(findings));
            Some(Limit::AtMost { n: n?, per_ms: per_ms? })
        }
        _ => {
            let message = "a limit has either `once_per` or `at_most` with `per`";
            let suggestion = "such as { once_per: calendar_day } or { at_most: 3, per: 7d }";
            at.error_with(findings, Code::ConflictingKeys, message, suggestion);
            None
        }
    }
}

fn read_once_per(at: &At<'_>, findings: &mut Findings) -> Option<Limit> {
    if let NodeValue::String(text) = &at.node.value
        && ["calendar_week", "calendar_month"].contains(&text.as_str())
    {
        at.error(findings, Code::NotYetSupported, format!("`{text}` is not supported yet"));
        return None;
    }
    at.word(findings, &[("ever", Limit::OncePerEver), ("calendar_day", Limit::OncePerCalendarDay)])
}

fn read_action(at: &At<'_>, findings: &mut Findings) -> Option<Action> {
    let fields =
        at.fields(findings, &["type", "channel", "template", "params"], &["recipient", "variant"])?;
    let words = [("send", ActionKind::Send), ("alert", ActionKind::Alert)];
    let kind = fields.require("type", findings).and_then(|at| at.word(findings, &words));
    let channel = read_action_name(&fields, "channel", kind, findings);
    let template = read_action_name(&fields, "template", kind, findings);
    let params = fields.get("params").and_then(|at| read_params(&at, findings)).unwrap_or_default();
    Some(Action { kind: kind?, channel, template, params })
}

/// A send needs a channel and a template; an alert may have them.
fn read_action_name(
    fields: &Fields<'_>,
    key: &str,
    kind: Option<ActionKind>,
    findings: &mut Findings,
) -> Option<String> {
    let at = match kind {
        Some(ActionKind::Send) => fields.require(key, findings)?,
        _ => fields.get(key)?,
    };
    at.name(findings).map(str::to_owned)
}

fn read_params(at: &At<'_>, findings: &mut Findings) -> Option<BTreeMap<String, Value>> {
    let entries = at.entries(findings)?;
    if entries.len() > MAX_PARAMS {
        let message = format!("{} parameters; {MAX_PARAMS} are allowed", entries.len());
        at.error(findings, Code::TooLarge, message);
        return None;
    }
    let mut params = BTreeMap::new();
    for entry in entries {
        let child = at.child(entry);
        if let Some(problem) = super::name_problem(&entry.key) {
            child.error(findings, Code::BadName, problem);
            continue;
        }
        if let Some(value) = read_value(&child, findings) {
            params.insert(entry.key.clone(), value);
        }
    }
    Some(params)
}

fn read_value(at: &At<'_>, findings: &mut Findings) -> Option<Value> {
    match &at.node.value {
        NodeValue::Boolean(value) => Some(Value::Boolean(*value)),
        NodeValue::String(value) => Some(Value::String(value.clone())),
        NodeValue::Number { value, .. } if !value.is_portable() => {
            at.error(findings, Code::BadNumber, format!("{value} has too many digits"));
            None
        }
        NodeValue::Number { value, integral: true } => value.as_i64().map(Value::Long),
        NodeValue::Number { value, integral: false } => Some(Value::Double(value.to_f64())),
        NodeValue::List(_) => {
            let items = at.items(findings, 0, MAX_PARAM_ITEMS)?;
            let texts: Vec<Option<&str>> = items.iter().map(|item| item.string(findings)).collect();
            texts.into_iter().map(|text| text.map(str::to_owned)).collect::<Option<_>>().map(Value::Strings)
        }
        _ => {
            at.wrong_type(findings, "a boolean, a number, a text or a list of texts");
            None
        }
    }
}
