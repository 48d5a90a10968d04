//! Holds a cell against what the model knows of its user.

use std::collections::BTreeMap;

use campaignd::event::Value as EventValue;
use campaignd::user::UserState;
use campaignd::user::allows::Allows;
use serde_json::json;

use crate::campaigns::REMEMBERED;
use crate::model::Person;
use crate::oracle::as_event;

/// What differs.
pub fn compare_state(person: Option<&Person>, state: &UserState) -> Vec<String> {
    let nobody = Person::default();
    let person = person.unwrap_or(&nobody);
    let mut problems = Vec::new();
    let mut differ = |what: &str, cell: String, model: String| {
        if cell != model {
            problems.push(format!("the cell's {what} is {cell}, the model's {model}"));
        }
    };
    differ("newest event", format!("{:?}", state.newest_event_ms()), format!("{:?}", person.newest_ms));

    let mut totals: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (campaign, at) in &person.allows {
        totals.entry(campaign).or_default().push(*at);
    }
    differ("number of campaigns that allowed", state.allows().len().to_string(), totals.len().to_string());
    for (campaign, mut times) in totals {
        times.sort_unstable();
        let kept = match state.allows().of(campaign) {
            Allows::Known(allows) => allows.times_ms().to_vec(),
            Allows::Never | Allows::Unknown => Vec::new(),
        };
        // The log keeps so many times of a campaign.
        let newest = times.split_off(times.len().saturating_sub(64));
        differ(&format!("allows of {campaign}"), format!("{kept:?}"), format!("{newest:?}"));
    }

    let traits: BTreeMap<&String, String> = state
        .traits()
        .iter()
        .map(|(name, value)| match value {
            EventValue::String(text) => (name, text.clone()),
            other => (name, format!("{other:?}")),
        })
        .collect();
    let known: BTreeMap<&String, String> = person
        .traits
        .iter()
        .map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned()))
        .collect();
    differ("traits", format!("{traits:?}"), format!("{known:?}"));

    let count = state.history().of_type(REMEMBERED).map_or(0, |history| history.lifetime_count());
    let past = person.past.iter().filter(|(event_type, _)| event_type == REMEMBERED).count();
    differ("count of purchases", count.to_string(), past.to_string());

    let is_known = |id: &String| state.is_duplicate(&as_event(&json!({ "event_id": id })));
    // Ids older than seven days of the user's time may have gone.
    let times = person.past.iter().map(|(_, at)| *at);
    let span_ms = times.clone().max().unwrap_or(0) - times.min().unwrap_or(0);
    if span_ms < campaignd::user::dedup::MAX_AGE_MS {
        let unknown: Vec<&String> = person.event_ids.iter().filter(|id| !is_known(id)).collect();
        differ("unknown ids", format!("{unknown:?}"), "[]".to_owned());
    }
    problems
}
