//! Merging an event's traits into those known of the user.
//!
//! One rule serves both [`UserState::record`](super::UserState::record) and the evaluation of conditions, so that a
//! condition sees exactly what will be stored:
//!
//! - traits that the catalog names as PII are dropped, those that came before the catalog said so included;
//! - an explicit null removes the trait;
//! - at most [`MAX_TRAITS`] are kept: known names are updated always, new names are taken in name order until the
//!   bound is reached, the rest is dropped.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::event::{Properties, Value};

/// Traits kept of a user at most.
pub const MAX_TRAITS: usize = 256;

/// The user's traits after an event that brings `incoming`; borrowed when nothing changes.
pub fn merged<'a>(
    known: &'a Properties,
    incoming: &Properties,
    pii_traits: &BTreeSet<String>,
) -> Cow<'a, Properties> {
    if incoming.is_empty() && !pii_traits.iter().any(|name| known.contains_key(name)) {
        return Cow::Borrowed(known);
    }
    let mut traits = known.clone();
    merge(&mut traits, incoming, pii_traits);
    Cow::Owned(traits)
}

/// Merges `incoming` into `known`.
pub(super) fn merge(known: &mut Properties, incoming: &Properties, pii_traits: &BTreeSet<String>) {
    for name in pii_traits {
        known.remove(name);
    }
    // Removals first: otherwise it would depend on names whether a new trait finds room.
    for (name, _) in incoming.iter().filter(|(_, value)| **value == Value::Null) {
        known.remove(name);
    }
    for (name, value) in incoming {
        if *value == Value::Null || pii_traits.contains(name) {
            continue;
        }
        if let Some(old) = known.get_mut(name) {
            old.clone_from(value);
        } else if known.len() < MAX_TRAITS {
            known.insert(name.clone(), value.clone());
        }
    }
}

/// Bytes that a value occupies besides its place in a map, roughly.
pub(super) fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Boolean(_) | Value::Long(_) | Value::Double(_) => 0,
        Value::String(text) => text.len(),
        Value::Strings(list) => {
            list.iter().fold(0, |sum, text| sum.saturating_add(text.len()).saturating_add(24))
        }
    }
}

pub(super) fn approximate_bytes(traits: &Properties) -> usize {
    traits.iter().fold(0, |sum, (name, value)| {
        sum.saturating_add(64).saturating_add(name.len()).saturating_add(value_bytes(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(pairs: &[(&str, Value)]) -> Properties {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn text(value: &str) -> Value {
        Value::String(value.to_owned())
    }

    #[test]
    fn new_values_win_and_null_removes() {
        let known = traits(&[("tier", text("silver")), ("country", text("DE")), ("age", Value::Long(30))]);
        let incoming = traits(&[("tier", text("gold")), ("age", Value::Null), ("vip", Value::Boolean(true))]);
        let after = merged(&known, &incoming, &BTreeSet::new());
        assert_eq!(
            *after,
            traits(&[("country", text("DE")), ("tier", text("gold")), ("vip", Value::Boolean(true))])
        );
    }

    #[test]
    fn pii_is_dropped_also_when_it_came_before_the_catalog_said_so() {
        let pii = BTreeSet::from(["email".to_owned()]);
        let known = traits(&[("email", text("a@example.org")), ("tier", text("gold"))]);
        assert_eq!(*merged(&known, &Properties::new(), &pii), traits(&[("tier", text("gold"))]));
        let incoming = traits(&[("email", text("b@example.org"))]);
        assert_eq!(*merged(&known, &incoming, &pii), traits(&[("tier", text("gold"))]));
    }

    #[test]
    fn nothing_is_copied_when_nothing_changes() {
        let known = traits(&[("tier", text("gold"))]);
        assert!(matches!(merged(&known, &Properties::new(), &BTreeSet::new()), Cow::Borrowed(_)));
    }

    #[test]
    fn the_number_is_bounded_known_names_are_updated_and_removals_make_room() {
        let mut known: Properties = (0..MAX_TRAITS).map(|n| (format!("t{n:03}"), Value::Long(0))).collect();
        merge(&mut known, &traits(&[("a", Value::Long(1)), ("t005", Value::Long(5))]), &BTreeSet::new());
        assert_eq!(known.len(), MAX_TRAITS);
        assert_eq!(known.get("a"), None);
        assert_eq!(known.get("t005"), Some(&Value::Long(5)));

        let swap = traits(&[("a", Value::Long(1)), ("b", Value::Long(2)), ("t255", Value::Null)]);
        merge(&mut known, &swap, &BTreeSet::new());
        assert_eq!(known.len(), MAX_TRAITS);
        assert_eq!(known.get("a"), Some(&Value::Long(1)), "the first in name order finds the free place");
        assert_eq!(known.get("b"), None);
    }

    #[test]
    fn bytes_count_names_and_values() {
        let list = Value::Strings(vec!["aa".to_owned(), "b".to_owned()]);
        let bytes =
            approximate_bytes(&traits(&[("name", text("value")), ("list", list), ("n", Value::Long(1))]));
        assert!((200..400).contains(&bytes), "{bytes}");
    }
}
