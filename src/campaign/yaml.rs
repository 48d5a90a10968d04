//! Campaign and catalog files: YAML into nodes, with every ambiguity refused, and from there into definitions.
//!
//! YAML is used as plain nested data. Anchors, aliases, tags, merge keys and several documents are errors, and so is every
//! plain scalar that YAML 1.1 and YAML 1.2 read differently, because authors' editors and pipelines use both. Size and
//! depth are bounded before anything is built.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::catalog::Catalog;
use super::definition::Campaign;
use super::diagnostic::{Code, Diagnostic, Location};
use super::node::{Entry, Node, NodeValue};
use super::reader::{At, Findings, read_campaign, read_catalog};
use super::scalar;

/// Largest file that is read.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// Deepest nesting that is read.
const MAX_DEPTH: usize = 80;

/// A definition and where each of its parts stands in its file.
#[derive(Clone, Debug)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// Where its parts stand.
    pub source: SourceMap,
}

/// Where the parts of a definition stand, by path such as `limits[0].per`.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    /// File name as given.
    pub file: String,
    places: BTreeMap<String, Location>,
}

impl SourceMap {
    /// The place of a path, else of the nearest part around it.
    pub fn locate(&self, path: &str) -> Location {
        let mut path = path;
        loop {
            if let Some(at) = self.places.get(path) {
                return *at;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return self.places.get("").copied().unwrap_or_default(),
            }
        }
    }

    fn of(file: &str, root: &Node) -> SourceMap {
        let mut map = SourceMap { file: file.to_owned(), places: BTreeMap::new() };
        map.add(root, root.at, String::new());
        map
    }

    fn add(&mut self, node: &Node, at: Location, path: String) {
        match &node.value {
            NodeValue::Map(entries) => {
                for entry in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    self.add(&entry.value, entry.at, format!("{path}{dot}{}", entry.key));
                }
            }
            NodeValue::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.add(item, item.at, format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
        self.places.insert(path, at);
    }
}

/// Reads a campaign file; all problems at once.
pub fn parse_campaign(file_name: &str, text: &str) -> Result<Campaign, Vec<Diagnostic>> {
    parse_campaign_with_source(file_name, text).map(|parsed| parsed.value)
}

/// Reads a catalog file; all problems at once.
pub fn parse_catalog(file_name: &str, text: &str) -> Result<Catalog, Vec<Diagnostic>> {
    parse_catalog_with_source(file_name, text).map(|parsed| parsed.value)
}

/// [`parse_campaign`], with the places that [`super::check`] points to.
pub fn parse_campaign_with_source(file_name: &str, text: &str) -> Result<Parsed<Campaign>, Vec<Diagnostic>> {
    parse(file_name, text, read_campaign)
}

/// [`parse_catalog`], with the places that [`super::check`] points to.
pub fn parse_catalog_with_source(file_name: &str, text: &str) -> Result<Parsed<Catalog>, Vec<Diagnostic>> {
    parse(file_name, text, read_catalog)
}

fn parse<T>(
    file_name: &str,
    text: &str,
    read: fn(&At<'_>, &mut Findings) -> Option<T>,
) -> Result<Parsed<T>, Vec<Diagnostic>> {
    let mut findings = Findings::new(file_name);
    let value = load(text, &mut findings).and_then(|root| {
        let value = read(&At::root(&root), &mut findings)?;
        // Only of what was read without errors: there, depth and the lengths of names are bounded, so paths are too.
        (!findings.has_errors()).then(|| Parsed { value, source: SourceMap::of(file_name, &root) })
    });
    findings.finish(value)
}

/// A list or mapping that is still open.
enum Open {
    List { at: Location, items: Vec<Node> },
    Map { at: Location, entries: Vec<Entry>, seen: BTreeMap<String, Location>, key: Option<Key> },
}

/// A key whose value comes next.
struct Key {
    text: String,
    at: Location,
    /// A key that has been reported is not handed on.
    reported: bool,
}

/// Text into one node; `None` when what was found leaves nothing worth reading.
fn load(text: &str, findings: &mut Findings) -> Option<Node> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_FILE_BYTES}", text.len());
        findings.error(Location { line: 1, column: 1 }, Code::TooLarge, message);
        return None;
    }
    let mut loader = Loader { findings, open: Vec::new(), documents: 0, root: None };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => loader.take(event, place(&span))?,
            Err(error) => {
                let at = location(error.marker().line(), error.marker().col());
                loader.findings.error(at, Code::Syntax, format!("not well-formed YAML: {}", error.info()));
                return None;
            }
        }
    }
    if loader.root.is_none() {
        loader.findings.error(Location { line: 1, column: 1 }, Code::Document, "the file is empty");
    }
    loader.root
}

struct Loader<'a> {
    findings: &'a mut Findings,
    open: Vec<Open>,
    documents: usize,
    root: Option<Node>,
}

impl Loader<'_> {
    /// `None` stops the loading.
    fn take(&mut self, event: Event<'_>, at: Location) -> Option<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Some(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.findings.error(at, Code::Document, "the file holds more than one document");
                    return None;
                }
                Some(())
            }
            Event::Alias(_) => {
                let message = "aliases are not used here";
                self.findings.error_with(at, Code::YamlFeature, message, "write the value out again");
                self.place(Node { at, value: NodeValue::Reported })
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_decoration(anchor, tag.is_some(), at);
                self.scalar(&text, style, at)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_decoration(anchor, tag.is_some(), at);
                self.begin(Open::List { at, items: Vec::new() }, at)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_decoration(anchor, tag.is_some(), at);
                self.begin(Open::Map { at, entries: Vec::new(), seen: BTreeMap::new(), key: None }, at)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop()? {
                    Open::List { at, items } => Node { at, value: NodeValue::List(items) },
                    Open::Map { at, entries, .. } => Node { at, value: NodeValue::Map(entries) },
                };
                self.place(node)
            }
        }
    }

    fn refuse_decoration(&mut self, anchor: usize, tagged: bool, at: Location) {
        if anchor != 0 {
            let message = "anchors are not used here";
            self.findings.error_with(at, Code::YamlFeature, message, "remove the `&name`");
        }
        if tagged {
            let message = "tags are not used here";
            self.findings.error_with(
                at,
                Code::YamlFeature,
                message,
                "remove the `!tag`; quote the value to make it a text",
            );
        }
    }

    fn begin(&mut self, open: Open, at: Location) -> Option<()> {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            self.findings.error(at, Code::WrongType, "a key must be a text, not a list or a mapping");
            return None;
        }
        if self.open.len() >= MAX_DEPTH {
            self.findings.error(at, Code::TooLarge, format!("nested deeper than {MAX_DEPTH} levels"));
            return None;
        }
        self.open.push(open);
        Some(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: Location) -> Option<()> {
        let value = match style {
            ScalarStyle::Plain => self.plain(text, at),
            _ => NodeValue::String(text.to_owned()),
        };
        if let Some(Open::Map { seen, key: key @ None, .. }) = self.open.last_mut() {
            let mut reported = value == NodeValue::Reported;
            if style == ScalarStyle::Plain && text == "<<" {
                let message = "merge keys are not used here";
                self.findings.error_with(at, Code::YamlFeature, message, "write the entries out");
                reported = true;
            }
            let first = *seen.entry(text.to_owned()).or_insert(at);
            if first != at {
                let message = format!("the key `{text}` stands there twice, first in line {}", first.line);
                self.findings.error_with(at, Code::DuplicateKey, message, "keep one of the two");
                reported = true;
            }
            *key = Some(Key { text: text.to_owned(), at, reported });
            return Some(());
        }
        self.place(Node { at, value })
    }

    fn plain(&mut self, text: &str, at: Location) -> NodeValue {
        match scalar::resolve(text) {
            Ok(value) => value,
            Err(trap) => {
                let message = format!("`{text}` {}", trap.why());
                self.findings.error_with(at, trap.code(), message, trap.suggestion(text));
                NodeValue::Reported
            }
        }
    }

    fn place(&mut self, node: Node) -> Option<()> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => {
                // Only an alias can stand where a key is due here; it has been reported.
                let Key { text, at, reported } = key.take()?;
                if !reported {
                    entries.push(Entry { key: text, at, value: node });
                }
            }
        }
        Some(())
    }
}

fn place(span: &Span) -> Location {
    location(span.start.line(), span.start.col())
}

/// The parser counts columns from 0.
fn location(line: usize, column: usize) -> Location {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Location { line: number(line), column: number(column).saturating_add(1) }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
