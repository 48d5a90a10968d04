//! What a definition that reads well can still get wrong: nonsense of its own, and contradictions to the catalog.
//!
//! Checking reports findings by path; [`Finding::locate`] turns a path into a place of the file. It is not a reader: it
//! sees only definitions, so that a live campaign can be checked against a new catalog as well as a file.

use std::collections::BTreeMap;

use super::catalog::{Catalog, Remember};
use super::condition::{
    Comparison, Condition, Field, HistoryFunction, HistoryQuery, Literal, Operand, Operator, Right, Window,
};
use super::definition::{Campaign, Limit};
use super::diagnostic::{Code, Diagnostic, Severity};
use super::duration::DisplayMs;
use super::number::Number;
use super::yaml::{Parsed, SourceMap};

/// Something wrong with a part of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The part, such as `when.all[1].history.event`.
    pub path: String,
    /// Whether it forbids publishing.
    pub severity: Severity,
    /// Stable code.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

impl Finding {
    fn error(path: String, code: Code, message: String, suggestion: &str) -> Finding {
        Finding { path, severity: Severity::Error, code, message, suggestion: Some(suggestion.to_owned()) }
    }

    fn warning(path: String, code: Code, message: String, suggestion: &str) -> Finding {
        Finding { severity: Severity::Warning, ..Finding::error(path, code, message, suggestion) }
    }

    /// The finding with its place in a file.
    pub fn locate(self, source: &SourceMap) -> Diagnostic {
        Diagnostic {
            file: source.file.clone(),
            at: source.locate(&self.path),
            path: self.path,
            severity: self.severity,
            code: self.code,
            message: self.message,
            suggestion: self.suggestion,
        }
    }
}

/// Checks that the states a catalog makes can always be written (rule S9).
pub fn check_catalog(catalog: &Catalog) -> Option<Finding> {
    let message = catalog.too_large()?;
    let suggestion = "lower `at_most`, or keep fewer properties";
    Some(Finding::error("remember".into(), Code::StateTooLarge, message, suggestion))
}

/// Checks a campaign by itself and, where there is one, against the catalog.
pub fn check_campaign(campaign: &Campaign, catalog: Option<&Catalog>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(schedule) = campaign.schedule
        && let (Some(start), Some(end)) = (schedule.start_ms, schedule.end_ms)
        && end <= start
    {
        let message = "the schedule ends before it starts, so the campaign would never run".to_owned();
        let path = "schedule.end".to_owned();
        findings.push(Finding::error(path, Code::EmptySchedule, message, "swap `start` and `end`"));
    }
    for (index, limit) in campaign.limits.iter().enumerate() {
        if let Limit::AtMost { n: 0, .. } = limit {
            let message = "a limit of 0 never allows".to_owned();
            let path = format!("limits[{index}].at_most");
            let help = "use 1 or more, or pause the campaign with `status: paused`";
            findings.push(Finding::error(path, Code::LimitOfZero, message, help));
        }
    }
    if let (Some(when), Some(catalog)) = (&campaign.when, catalog) {
        Checker { catalog, findings: &mut findings }.condition(when, "when".to_owned());
    }
    findings
}

/// Campaigns of one folder that have the same id, each reported at every file but the first.
pub fn check_unique<'a>(campaigns: impl IntoIterator<Item = &'a Parsed<Campaign>>) -> Vec<Diagnostic> {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    for parsed in campaigns {
        let (id, file) = (parsed.value.id.as_str(), parsed.source.file.as_str());
        let known = *first.entry(id).or_insert(file);
        if known != file {
            let message = format!("the campaign `{id}` is defined in {known} too");
            let finding = Finding::error(
                "id".to_owned(),
                Code::DuplicateCampaign,
                message,
                "give one of the two another id",
            );
            diagnostics.push(finding.locate(&parsed.source));
        }
    }
    diagnostics
}

struct Checker<'a> {
    catalog: &'a Catalog,
    findings: &'a mut Vec<Finding>,
}

impl Checker<'_> {
    fn condition(&mut self, condition: &Condition, path: String) {
        match condition {
            Condition::All(parts) => self.parts(parts, &format!("{path}.all")),
            Condition::Any(parts) => self.parts(parts, &format!("{path}.any")),
            Condition::Not(part) => self.condition(part, format!("{path}.not")),
            Condition::Compare(comparison) => self.comparison(comparison, &path),
        }
    }

    fn parts(&mut self, parts: &[Condition], path: &str) {
        for (index, part) in parts.iter().enumerate() {
            self.condition(part, format!("{path}[{index}]"));
        }
    }

    fn comparison(&mut self, comparison: &Comparison, path: &str) {
        match &comparison.left {
            Operand::Field(field) => self.field(field, comparison.operator, format!("{path}.field")),
            Operand::History(query) => self.history(query, comparison, path),
        }
        if let Right::Ref(field) = &comparison.right {
            self.field(field, comparison.operator, format!("{path}.ref"));
        }
    }

    /// Personal traits are not stored, so a condition could see one only on the event that brings it.
    fn field(&mut self, field: &Field, operator: Operator, path: String) {
        let Field::User(name) = field else { return };
        if !self.catalog.pii_traits.contains(name) {
            return;
        }
        if matches!(operator, Operator::Exists | Operator::Missing) {
            let message = format!("the personal trait `{name}` is not stored, so it counts as missing");
            let help = "keep a trait of your own beside it, such as `has_email`";
            self.findings.push(Finding::warning(path, Code::PersonalTrait, message, help));
        } else {
            let message = format!("`{name}` is a personal trait: a condition may ask only whether it exists");
            let help = "use `op: exists`, or a trait that is not personal";
            self.findings.push(Finding::error(path, Code::PersonalTrait, message, help));
        }
    }

    fn history(&mut self, query: &HistoryQuery, comparison: &Comparison, path: &str) {
        let Some(remember) = self.catalog.remember.get(&query.event_type) else {
            let message = format!("the catalog does not remember `{}`", query.event_type);
            let path = format!("{path}.history.event");
            let help = format!(
                "add it under `remember` in the catalog, such as `{}: {{ for: 90d }}`",
                query.event_type
            );
            self.findings.push(Finding::error(path, Code::NotRemembered, message, &help));
            return;
        };
        if let Window::LastMs(window_ms) = query.window
            && window_ms > remember.for_ms
        {
            let message = format!(
                "the window of {} is longer than the {} for which the catalog remembers `{}`",
                DisplayMs(window_ms),
                DisplayMs(remember.for_ms),
                query.event_type
            );
            let path = format!("{path}.history.last");
            let help = "shorten the window, or raise `for` in the catalog";
            self.findings.push(Finding::error(path, Code::WindowTooLong, message, help));
        }
        self.threshold(query, remember, &comparison.right, path);
    }

    /// A windowed count sees at most what is kept; lifetime counts are exact whatever is kept.
    fn threshold(&mut self, query: &HistoryQuery, remember: &Remember, right: &Right, path: &str) {
        if query.function != HistoryFunction::Count || query.window == Window::Lifetime {
            return;
        }
        let kept = Number::from_u64(remember.at_most.into());
        let literals = match right {
            Right::Literal(literal) => std::slice::from_ref(literal),
            Right::Literals(literals) => literals.as_slice(),
            Right::Nothing | Right::Ref(_) => &[],
        };
        if literals.iter().any(|literal| matches!(literal, Literal::Number(number) if *number > kept)) {
            let message = format!(
                "the catalog keeps the last {} of `{}`; a windowed count above that cannot be told",
                remember.at_most, query.event_type
            );
            let help = "lower the number, or raise `at_most` in the catalog";
            let finding = Finding::warning(format!("{path}.value"), Code::ThresholdTooHigh, message, help);
            self.findings.push(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::yaml::{parse_campaign_with_source, parse_catalog};

    const CATALOG: &str = "remember:\n  purchase: { for: 30d, at_most: 10 }\npii_traits: [email]\n";

    fn check(file: &str) -> Vec<(u32, &'static str, Severity)> {
        let catalog = parse_catalog("catalog.yaml", CATALOG).unwrap();
        let parsed = parse_campaign_with_source("a.yaml", file).unwrap();
        check_campaign(&parsed.value, Some(&catalog))
            .into_iter()
            .map(|finding| finding.locate(&parsed.source))
            .map(|diagnostic| (diagnostic.at.line, diagnostic.code.as_str(), diagnostic.severity))
            .collect()
    }

    fn campaign(rest: &str) -> String {
        format!("id: a\ntrigger: purchase\naction: {{ type: alert }}\n{rest}")
    }

    #[test]
    fn a_sound_campaign_has_no_findings() {
        let when = "when:\n  all:\n    - { history: { event: purchase, fn: count, last: 30d }, op: gte, value: 10 }\n    \
                    - { history: { event: purchase, fn: count }, op: gte, value: 1000 }\n    \
                    - { field: user.tier, op: eq, value: gold }\nlimits: [{ at_most: 1, per: 1d }]\n";
        assert_eq!(check(&campaign(when)), []);
    }

    #[test]
    fn every_check_finds_its_line() {
        let rest = "when:\n  all:\n    - { history: { event: refund, fn: exists } }\n    \
                    - not: { history: { event: purchase, fn: exists, last: 31d } }\n    \
                    - { history: { event: purchase, fn: count, last: 1d }, op: gt, value: 11 }\n    \
                    - { field: user.email, op: eq, value: a }\n    \
                    - { field: user.email, op: exists }\n    \
                    - { field: event.x, op: eq, ref: user.email }\n\
                    limits:\n  - { at_most: 0, per: 1d }\n\
                    schedule:\n  start: \"2026-01-02T00:00:00Z\"\n  end: \"2026-01-02T00:00:00Z\"\n";
        let mut found = check(&campaign(rest));
        found.sort();
        assert_eq!(
            found,
            [
                (6, "C0100", Severity::Error),
                (7, "C0101", Severity::Error),
                (8, "C0104", Severity::Warning),
                (9, "C0105", Severity::Error),
                (10, "C0105", Severity::Warning),
                (11, "C0105", Severity::Error),
                (13, "C0102", Severity::Error),
                (16, "C0103", Severity::Error),
            ]
        );
    }

    #[test]
    fn an_id_belongs_to_one_file() {
        let parse = |file: &str| parse_campaign_with_source(file, &campaign("")).unwrap();
        let diagnostics = check_unique([&parse("a.yaml"), &parse("b.yaml")]);
        assert_eq!(diagnostics.len(), 1);
        assert_eq!(
            diagnostics[0].to_string().lines().next().unwrap(),
            "b.yaml:1:1: error C0106: the campaign `a` is defined in a.yaml too"
        );
    }
}
