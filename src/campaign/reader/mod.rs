//! From nodes to definitions: the one place that knows which keys there are and what they take.
//!
//! Readers go on after an error, so that all problems are found in one go; what could not be read is left out and the
//! whole is refused at the end. A key of the language that this version does not have yet is refused by name, never
//! ignored.

mod campaign;
mod catalog;
mod condition;

use std::fmt;

#[cfg(test)]
pub(crate) use campaign::KEYS as CAMPAIGN_KEYS;
pub(crate) use campaign::read_campaign;
#[cfg(test)]
pub(crate) use catalog::KEYS as CATALOG_KEYS;
pub(crate) use catalog::read_catalog;
pub(crate) use condition::word as operator_word;

use super::diagnostic::{Code, Diagnostic, Location, Severity};
use super::duration;
use super::node::{Entry, Node, NodeValue};
use super::timestamp;

/// Longest name: ids, event types, fields, tags, groups.
const MAX_NAME_BYTES: usize = 128;
/// Most problems that are reported of one text.
const MAX_FINDINGS: usize = 100;

/// Collects what is wrong with one text.
pub(crate) struct Findings {
    file: String,
    diagnostics: Vec<Diagnostic>,
}

impl Findings {
    pub(crate) fn new(file: &str) -> Findings {
        Findings { file: file.to_owned(), diagnostics: Vec::new() }
    }

    pub(crate) fn error(&mut self, at: Location, code: Code, message: impl Into<String>) {
        self.push(at, String::new(), code, message.into(), None);
    }

    pub(crate) fn error_with(
        &mut self,
        at: Location,
        code: Code,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.push(at, String::new(), code, message.into(), Some(suggestion.into()));
    }

    fn push(&mut self, at: Location, path: String, code: Code, message: String, suggestion: Option<String>) {
        if self.diagnostics.len() < MAX_FINDINGS {
            let file = self.file.clone();
            let severity = Severity::Error;
            self.diagnostics.push(Diagnostic { file, at, path, severity, code, message, suggestion });
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.diagnostics.is_empty()
    }

    /// The value if nothing was found, else everything that was, in the order of the text.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<Diagnostic>> {
        match value {
            Some(value) if self.diagnostics.is_empty() => Ok(value),
            _ => {
                self.diagnostics.sort_by_key(|diagnostic| diagnostic.at);
                Err(self.diagnostics)
            }
        }
    }
}

/// A node and the way to it. Lives on the stack; the path is spelled out only when something is wrong.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    node: &'a Node,
    /// Where the key or the item stands.
    place: Location,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match (self.step, self.parent.map(|parent| parent.step)) {
            (Step::Root, _) => Ok(()),
            (Step::Key(key), Some(Step::Root)) => f.write_str(key),
            (Step::Key(key), _) => write!(f, ".{key}"),
            (Step::Index(index), _) => write!(f, "[{index}]"),
        }
    }
}

impl<'a> At<'a> {
    pub(crate) fn root(node: &'a Node) -> At<'a> {
        At { node, place: node.at, parent: None, step: Step::Root }
    }

    fn error(&self, findings: &mut Findings, code: Code, message: impl Into<String>) {
        findings.push(self.node.at, self.to_string(), code, message.into(), None);
    }

    fn error_with(
        &self,
        findings: &mut Findings,
        code: Code,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        findings.push(self.node.at, self.to_string(), code, message.into(), Some(suggestion.into()));
    }

    fn wrong_type(&self, findings: &mut Findings, wanted: &str) {
        if self.node.value != NodeValue::Reported {
            let message = format!("{} is wanted here, not {}", wanted, self.node.value.type_name());
            self.error(findings, Code::WrongType, message);
        }
    }

    fn boolean(&self, findings: &mut Findings) -> Option<bool> {
        match &self.node.value {
            NodeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type(findings, "true or false");
                None
            }
        }
    }

    fn string(&self, findings: &mut Findings) -> Option<&'a str> {
        match &self.node.value {
            NodeValue::String(value) => Some(value),
            NodeValue::Number { .. } | NodeValue::Boolean(_) => {
                let message = format!("a text is wanted here, not {}", self.node.value.type_name());
                self.error_with(findings, Code::WrongType, message, "put quotes around it");
                None
            }
            _ => {
                self.wrong_type(findings, "a text");
                None
            }
        }
    }

    /// A whole number within bounds.
    fn integer(&self, findings: &mut Findings, low: i64, high: i64) -> Option<i64> {
        let NodeValue::Number { value, .. } = &self.node.value else {
            self.wrong_type(findings, "a whole number");
            return None;
        };
        let fits = value.as_i64().filter(|value| (low..=high).contains(value));
        if fits.is_none() {
            let message = format!("{value} is not a whole number from {low} to {high}");
            self.error(findings, Code::BadNumber, message);
        }
        fits
    }

    /// One of a closed list of words.
    fn word<T: Copy>(&self, findings: &mut Findings, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(findings)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{text}` is none of {}", known.join(", "));
        match nearest(text, &known) {
            Some(word) => {
                self.error_with(findings, Code::UnknownWord, message, format!("did you mean `{word}`?"))
            }
            None => self.error(findings, Code::UnknownWord, message),
        }
        None
    }

    /// A name in free text: event types, fields, tags, groups, parameters.
    fn name(&self, findings: &mut Findings) -> Option<&'a str> {
        let text = self.string(findings)?;
        match name_problem(text) {
            None => Some(text),
            Some(problem) => {
                self.error(findings, Code::BadName, problem);
                None
            }
        }
    }

    fn duration_ms(&self, findings: &mut Findings) -> Option<i64> {
        if let NodeValue::Number { value, .. } = &self.node.value {
            let message = format!("a duration needs a unit: {value} of what?");
            self.error_with(
                findings,
                Code::BadDuration,
                message,
                format!("such as {value}d, {value}h, {value}m or {value}s"),
            );
            return None;
        }
        let text = self.string(findings)?;
        match duration::parse_ms(text) {
            Ok(ms) => Some(ms),
            Err(problem) => {
                self.error(
                    findings,
                    Code::BadDuration,
                    format!("`{}` is no duration: {problem}", shorten(text)),
                );
                None
            }
        }
    }

    fn timestamp_ms(&self, findings: &mut Findings) -> Option<i64> {
        let text = self.string(findings)?;
        let ms = timestamp::parse_ms(text);
        if ms.is_none() {
            let message =
                format!("`{}` is no timestamp in RFC 3339 with at most milliseconds", shorten(text));
            self.error_with(findings, Code::BadTimestamp, message, "such as \"2026-01-15T10:30:00Z\"");
        }
        ms
    }

    /// The items of a list, bounded.
    fn items(&self, findings: &mut Findings, least: usize, most: usize) -> Option<Vec<At<'_>>> {
        let NodeValue::List(items) = &self.node.value else {
            self.wrong_type(findings, "a list");
            return None;
        };
        if items.len() < least || items.len() > most {
            let message = format!("the list has {} entries; {least} to {most} are allowed", items.len());
            self.error(findings, Code::ListLength, message);
            return None;
        }
        let item = |(index, node): (usize, &'a Node)| At {
            node,
            place: node.at,
            parent: Some(self),
            step: Step::Index(index),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list of names without duplicates, sorted.
    fn names(&self, findings: &mut Findings, least: usize, most: usize) -> Option<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for item in self.items(findings, least, most)? {
            let Some(name) = item.name(findings) else { continue };
            match names.binary_search_by(|known| known.as_str().cmp(name)) {
                Ok(_) => {
                    let message = format!("`{name}` stands in the list twice");
                    item.error_with(findings, Code::DuplicateEntry, message, "remove one of the two");
                }
                Err(index) => names.insert(index, name.to_owned()),
            }
        }
        Some(names)
    }

    fn entries(&self, findings: &mut Findings) -> Option<&'a [Entry]> {
        match &self.node.value {
            NodeValue::Map(entries) => Some(entries),
            _ => {
                self.wrong_type(findings, "a mapping");
                None
            }
        }
    }

    fn child(&'a self, entry: &'a Entry) -> At<'a> {
        At { node: &entry.value, place: entry.at, parent: Some(self), step: Step::Key(&entry.key) }
    }

    /// The mapping with its keys checked: those in `later` belong to the language but not to this version.
    fn fields(&'a self, findings: &mut Findings, known: &[&str], later: &[&str]) -> Option<Fields<'a>> {
        let entries = self.entries(findings)?;
        for entry in entries {
            let key = entry.key.as_str();
            if known.contains(&key) {
                continue;
            }
            let at = At { place: entry.at, ..self.child(entry) };
            let (code, message, suggestion) = if later.contains(&key) {
                (Code::NotYetSupported, format!("`{key}` is not supported yet"), Some("remove it".to_owned()))
            } else {
                let message = format!("unknown key `{}`", shorten(key));
                let suggestion = match nearest(key, known) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => format!("the keys are {}", known.join(", ")),
                };
                (Code::UnknownKey, message, Some(suggestion))
            };
            findings.push(at.place, at.to_string(), code, message, suggestion);
        }
        Some(Fields { at: self, entries })
    }
}

/// The entries of a mapping by key.
#[derive(Clone, Copy)]
struct Fields<'a> {
    at: &'a At<'a>,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<At<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.at.child(entry))
    }

    fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// The entry, or an error that it is missing.
    fn require(&self, key: &str, findings: &mut Findings) -> Option<At<'a>> {
        let at = self.get(key);
        if at.is_none() {
            self.at.error(findings, Code::MissingKey, format!("the key `{key}` is missing"));
        }
        at
    }
}

/// What is wrong with a name, if anything.
fn name_problem(text: &str) -> Option<String> {
    if text.is_empty() {
        Some("a name must not be empty".to_owned())
    } else if text.len() > MAX_NAME_BYTES {
        Some(format!("a name may have at most {MAX_NAME_BYTES} bytes; this one has {}", text.len()))
    } else if text.trim() != text || text.chars().any(char::is_control) {
        Some(format!("`{}` has white space at an end or control characters", text.escape_debug()))
    } else {
        None
    }
}

/// The word that was probably meant.
fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    if text.len() > MAX_NAME_BYTES {
        return None;
    }
    let distance = |word: &str| strsim::osa_distance(&text.to_lowercase(), word);
    let word = words.iter().copied().min_by_key(|word| distance(word))?;
    (distance(word) <= 1 + word.len() / 4).then_some(word)
}

/// A text short enough for a message.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
