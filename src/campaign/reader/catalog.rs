//! Catalogs from nodes.

use std::collections::BTreeMap;

use super::{At, Findings};
use crate::campaign::catalog::{Catalog, DEFAULT_REMEMBER_AT_MOST, MAX_REMEMBER_AT_MOST, Remember};
use crate::campaign::diagnostic::Code;

/// Keys of a catalog.
pub(crate) const KEYS: &[&str] = &["remember", "pii_traits", "allowed_lateness"];
const LATER_KEYS: &[&str] = &[
    "events",
    "traits",
    "segments",
    "subscriptions",
    "consent",
    "zone",
    "limits",
    "activity",
    "campaign_events",
];
const MAX_REMEMBERED_TYPES: usize = 256;
const MAX_KEPT_PROPERTIES: usize = 64;
const MAX_PII_TRAITS: usize = 256;

/// Reads a catalog; `None` only after something has been reported.
pub(crate) fn read_catalog(at: &At<'_>, findings: &mut Findings) -> Option<Catalog> {
    let fields = at.fields(findings, KEYS, LATER_KEYS)?;
    let default = Catalog::default();
    let remember = fields.get("remember").and_then(|at| read_remember(&at, findings)).unwrap_or_default();
    let pii_traits = fields
        .get("pii_traits")
        .and_then(|at| at.names(findings, 0, MAX_PII_TRAITS))
        .map(|names| names.into_iter().collect());
    let allowed_lateness_ms = fields.get("allowed_lateness").and_then(|at| at.duration_ms(findings));
    Some(Catalog {
        remember,
        pii_traits: pii_traits.unwrap_or(default.pii_traits),
        allowed_lateness_ms: allowed_lateness_ms.unwrap_or(default.allowed_lateness_ms),
    })
}

fn read_remember(at: &At<'_>, findings: &mut Findings) -> Option<BTreeMap<String, Remember>> {
    let entries = at.entries(findings)?;
    if entries.len() > MAX_REMEMBERED_TYPES {
        let message = format!("{} remembered event types; {MAX_REMEMBERED_TYPES} are allowed", entries.len());
        at.error(findings, Code::TooLarge, message);
        return None;
    }
    let mut remember = BTreeMap::new();
    for entry in entries {
        let child = at.child(entry);
        if let Some(problem) = super::name_problem(&entry.key) {
            child.error(findings, Code::BadName, problem);
            continue;
        }
        if let Some(value) = read_one(&child, findings) {
            remember.insert(entry.key.clone(), value);
        }
    }
    Some(remember)
}

fn read_one(at: &At<'_>, findings: &mut Findings) -> Option<Remember> {
    let fields = at.fields(findings, &["for", "at_most", "properties"], &[])?;
    let for_ms = fields.require("for", findings).and_then(|at| at.duration_ms(findings));
    let at_most = match fields.get("at_most") {
        Some(at) => at.integer(findings, 1, MAX_REMEMBER_AT_MOST.into()).and_then(|n| u32::try_from(n).ok()),
        None => Some(DEFAULT_REMEMBER_AT_MOST),
    };
    let properties = fields.get("properties").and_then(|at| at.names(findings, 0, MAX_KEPT_PROPERTIES));
    Some(Remember { for_ms: for_ms?, at_most: at_most?, properties: properties.unwrap_or_default() })
}
