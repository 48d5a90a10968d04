//! What a condition sees: the event, the user's traits after the event, and the history before it.

use std::borrow::Cow;

use crate::campaign::catalog::Catalog;
use crate::campaign::condition::{Field, HistoryAnswer, HistoryQuery, Scope, Unknown};
use crate::event::{Event, Properties, Value};
use crate::user::{UserState, traits};

/// An event laid over its user's state. Nothing is changed by it.
#[derive(Debug)]
pub struct EventScope<'a> {
    state: &'a UserState,
    event: &'a Event,
    catalog: &'a Catalog,
    traits: Cow<'a, Properties>,
}

impl<'a> EventScope<'a> {
    /// Lays `event` over `state`: its traits are merged exactly as they will be stored, so PII traits are not seen.
    pub fn new(state: &'a UserState, event: &'a Event, catalog: &'a Catalog) -> Self {
        let traits = traits::merged(state.traits(), &event.traits, &catalog.pii_traits);
        Self { state, event, catalog, traits }
    }

    /// The event.
    pub fn event(&self) -> &'a Event {
        self.event
    }

    /// The state before the event.
    pub fn state(&self) -> &'a UserState {
        self.state
    }

    /// The catalog that holds for the event.
    pub fn catalog(&self) -> &'a Catalog {
        self.catalog
    }
}

impl Scope for EventScope<'_> {
    fn field(&self, field: &Field) -> Option<&Value> {
        match field {
            Field::Event(name) => self.event.properties.get(name),
            Field::User(name) => self.traits.get(name),
        }
    }

    fn history(&self, query: &HistoryQuery) -> HistoryAnswer {
        // What is not remembered may have happened all the same.
        if !self.catalog.remember.contains_key(&query.event_type) {
            return HistoryAnswer::Unknown(Unknown::HistoryTruncated);
        }
        self.state.history().answer(query, self.event.occurred_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::condition::{HistoryFunction, Window};
    use crate::decision::fixtures::{catalog, event, record};

    fn user(name: &str) -> Field {
        Field::User(name.to_owned())
    }

    #[test]
    fn an_events_traits_are_seen_but_personal_ones_are_not() {
        let catalog = catalog();
        let mut state = UserState::new();
        let mut before = event("e1", "view", 0);
        before.traits = [("tier".to_owned(), Value::String("silver".to_owned()))].into();
        record(&mut state, &before, &[], &catalog);

        let mut now = event("e2", "view", 1);
        now.properties = [("sku".to_owned(), Value::Long(7))].into();
        now.traits = [
            ("tier".to_owned(), Value::String("gold".to_owned())),
            ("email".to_owned(), Value::String("a@example.org".to_owned())),
        ]
        .into();
        let scope = EventScope::new(&state, &now, &catalog);
        assert_eq!(scope.field(&user("tier")), Some(&Value::String("gold".to_owned())));
        assert_eq!(scope.field(&user("email")), None);
        assert_eq!(scope.field(&user("sku")), None);
        assert_eq!(scope.field(&Field::Event("sku".to_owned())), Some(&Value::Long(7)));
        assert_eq!(scope.field(&Field::Event("tier".to_owned())), None);
        assert_eq!(scope.event().event_id, "e2");
        assert_eq!(scope.state().traits().len(), 1);
        assert!(scope.catalog().pii_traits.contains("email"));
    }

    #[test]
    fn a_type_that_the_catalog_does_not_remember_is_unknown() {
        let catalog = catalog();
        let state = UserState::new();
        let now = event("e", "view", 0);
        let scope = EventScope::new(&state, &now, &catalog);
        let count = |event_type: &str| {
            scope.history(&HistoryQuery {
                event_type: event_type.to_owned(),
                function: HistoryFunction::Count,
                window: Window::Lifetime,
            })
        };
        assert_eq!(count("purchase"), HistoryAnswer::Count(0));
        assert_eq!(count("never_heard_of"), HistoryAnswer::Unknown(Unknown::HistoryTruncated));
    }
}
