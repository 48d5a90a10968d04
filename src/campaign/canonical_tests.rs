use proptest::prelude::*;

use super::*;
use crate::campaign::testing;
use crate::campaign::yaml::{parse_campaign, parse_catalog};

const FILE: &str = r#"
id: welcome_back
description: "Thanks, again"
trigger: [signup, purchase]
status: active
schedule: { start: "2026-01-01T00:00:00Z" }
when:
  all:
    - { field: event.amount, op: gt, value: 50.50 }
    - { field: user.opted_in }
    - { history: { event: purchase, fn: exists } }
priority: 5
group: { name: thanks }
tags: [b, a]
limits:
  - { at_most: 3, per: 48h }
action: { type: send, channel: email, template: T, params: { rate: 5.0, count: 5 } }
"#;

#[test]
fn the_form_is_fixed() {
    let campaign = parse_campaign("a.yaml", FILE).unwrap();
    let expected = concat!(
        r#"{"action":{"channel":"email","params":{"count":5,"rate":5.0},"template":"T","type":"send"},"#,
        r#""description":"Thanks, again","group":{"name":"thanks","when_suppressed":"next"},"id":"welcome_back","#,
        r#""limits":[{"at_most":3,"per":"2d"}],"priority":5,"schedule":{"start":"2026-01-01T00:00:00Z"},"#,
        r#""status":"active","tags":["a","b"],"trigger":["purchase","signup"],"when":{"all":["#,
        r#"{"field":"event.amount","op":"gt","value":50.5},{"field":"user.opted_in","op":"eq","value":true},"#,
        r#"{"history":{"event":"purchase","fn":"exists","lifetime":true},"op":"eq","value":true}]}}"#,
    );
    assert_eq!(campaign.to_canonical_json(), expected);
    assert_eq!(Campaign::from_canonical_json(expected.as_bytes()).unwrap(), campaign);
}

#[test]
fn an_invalid_record_names_the_first_problem_and_counts_the_rest() {
    let error =
        Campaign::from_canonical_json(br#"{"id":"a","trigger":[],"action":{"type":"shout"}}"#).unwrap_err();
    assert_eq!(error.diagnostics.len(), 2);
    assert!(error.to_string().contains("and 1 more"), "{error}");
    assert!(error.to_string().contains("trigger"), "{error}");
}

#[test]
fn too_large_and_too_deep_records_are_refused() {
    let huge = vec![b' '; MAX_RECORD_BYTES + 1];
    assert_eq!(Campaign::from_canonical_json(&huge).unwrap_err().diagnostics[0].code, Code::TooLarge);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Campaign::from_canonical_json(deep.as_bytes()).unwrap_err().diagnostics[0].code, Code::Syntax);
    let nested = |levels: usize| {
        let (open, close) = (r#"{"not":"#.repeat(levels), "}".repeat(levels));
        format!(
            r#"{{"id":"a","trigger":["x"],"action":{{"type":"alert"}},"when":{open}{{"field":"event.x"}}{close}}}"#
        )
    };
    assert!(Campaign::from_canonical_json(nested(31).as_bytes()).is_ok());
    assert_eq!(
        Campaign::from_canonical_json(nested(32).as_bytes()).unwrap_err().diagnostics[0].code,
        Code::TooLarge
    );
}

proptest! {
    #[test]
    fn campaigns_round_trip(campaign in testing::campaign()) {
        let text = campaign.to_canonical_json();
        let read = Campaign::from_canonical_json(text.as_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&read, &campaign);
        prop_assert_eq!(read.to_canonical_json(), text);
    }

    #[test]
    fn catalogs_round_trip(catalog in testing::catalog()) {
        let text = catalog.to_canonical_json();
        let read = Catalog::from_canonical_json(text.as_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&read, &catalog);
        prop_assert_eq!(read.to_canonical_json(), text);
    }

    /// Canonical JSON is YAML too: the file reader and the record reader agree on it.
    #[test]
    fn canonical_json_reads_the_same_as_a_file(campaign in testing::campaign(), catalog in testing::catalog()) {
        prop_assert_eq!(parse_campaign("a.yaml", &campaign.to_canonical_json()), Ok(campaign));
        prop_assert_eq!(parse_catalog("catalog.yaml", &catalog.to_canonical_json()), Ok(catalog));
    }
}
