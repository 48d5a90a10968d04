use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::campaign::condition::{Condition, Literal, Operand, Operator, Right};
use crate::campaign::definition::{Limit, Status, WhenSuppressed};
use crate::campaign::testing;

const GOOD: &str = r#"# thanks for a large purchase
id: big_purchase
description: |
  Thanks gold customers
  for large purchases
status: paused
schedule: { start: "2026-01-01T00:00:00Z", end: "2027-01-01T00:00:00+01:00" }
trigger: purchase
when:
  all:
    - { field: event.amount, op: gt, value: 50 }
    - any:
        - { field: user.tier, op: in, value: [gold, platinum] }
        - not: { field: user.opted_out }
    - { history: { event: signup, fn: since }, op: lte, value: 30d }
priority: 50
group: { name: thanks, when_suppressed: stop }
tags: [shop]
limits:
  - { once_per: calendar_day }
  - { at_most: 3, per: 7d }
action: { type: send, channel: email, template: THANKS, params: { percent: 10, text: "no" } }
"#;

/// `line:column code` of everything wrong with a campaign.
fn problems(text: &str) -> Vec<String> {
    let diagnostics = parse_campaign("a.yaml", text).expect_err("the file should be refused");
    assert!(diagnostics.iter().all(|one| one.file == "a.yaml" && !one.message.is_empty()));
    diagnostics.iter().map(|one| format!("{}:{} {}", one.at.line, one.at.column, one.code)).collect()
}

fn with(rest: &str) -> String {
    format!("id: a\ntrigger: purchase\naction: {{ type: alert }}\n{rest}\n")
}

#[test]
fn a_campaign_is_read() {
    let campaign = parse_campaign("a.yaml", GOOD).unwrap();
    assert_eq!(campaign.id, "big_purchase");
    assert_eq!(campaign.description.as_deref(), Some("Thanks gold customers\nfor large purchases\n"));
    assert_eq!(campaign.status, Some(Status::Paused));
    let schedule = campaign.schedule.unwrap();
    assert!(schedule.contains(1_767_225_600_000) && !schedule.contains(1_767_225_599_999));
    assert!(schedule.contains(1_798_757_999_999) && !schedule.contains(1_798_758_000_000));
    assert_eq!(campaign.trigger, ["purchase"]);
    assert_eq!(campaign.priority, 50);
    assert_eq!(campaign.group.unwrap().when_suppressed, WhenSuppressed::Stop);
    let limits: Vec<String> = campaign.limits.iter().map(Limit::to_string).collect();
    assert_eq!(limits, ["once_per calendar_day", "at_most 3 per 7d"]);
    let Some(Condition::All(parts)) = campaign.when else { panic!("not a conjunction") };
    assert_eq!(parts.len(), 3);
    let Condition::Compare(since) = &parts[2] else { panic!("not a comparison") };
    assert!(matches!(since.left, Operand::History(_)));
    assert_eq!(
        (since.operator, &since.right),
        (Operator::Lte, &Right::Literal(Literal::DurationMs(30 * 86_400_000)))
    );
}

#[test]
fn what_is_absent_has_its_default() {
    let campaign = parse_campaign("a.yaml", &with("")).unwrap();
    assert_eq!((campaign.status, campaign.effective_status()), (None, Status::Active));
    assert_eq!((campaign.priority, campaign.when, campaign.schedule), (0, None, None));
    assert!(campaign.limits.is_empty() && campaign.tags.is_empty() && campaign.group.is_none());
}

#[test]
fn all_problems_are_reported_with_their_places() {
    let text = "id: a b\ntrigers: purchase\nstatus: activ\npriority: high\nlimits:\n  - { at_most: 3 }\n  - { once_per: year }\naction:\n  type: send\n  channel: email\n  params: { a: null }\n";
    assert_eq!(
        problems(text),
        [
            "1:1 C0011",
            "1:5 C0020",
            "2:1 C0010",
            "3:9 C0014",
            "4:11 C0012",
            "6:5 C0011",
            "7:17 C0014",
            "9:3 C0011",
            "11:16 C0012",
        ]
    );
    let diagnostics = parse_campaign("a.yaml", text).unwrap_err();
    let unknown = diagnostics.iter().find(|one| one.code == Code::UnknownKey).unwrap();
    assert_eq!(unknown.suggestion.as_deref(), Some("did you mean `trigger`?"));
    let word = diagnostics.iter().find(|one| one.message.contains("activ`")).unwrap();
    assert_eq!(word.suggestion.as_deref(), Some("did you mean `active`?"));
}

#[test]
fn traps_must_be_quoted_wherever_they_stand() {
    for trap in ["no", "off", "Yes", "on", "22:00", "010", "1e3", "2026-01-01", "0x1F", "1_000", ".5", "y"] {
        assert_eq!(
            problems(&with(&format!("when: {{ field: event.x, op: eq, value: {trap} }}"))),
            ["4:40 C0005"],
            "{trap}"
        );
        assert!(
            parse_campaign(
                "a.yaml",
                &with(&format!("when: {{ field: event.x, op: eq, value: \"{trap}\" }}"))
            )
            .is_ok()
        );
        assert_eq!(problems(&with(&format!("tags: [{trap}]"))), ["4:8 C0005"], "{trap}");
    }
    assert_eq!(
        problems("id: a\ntrigger: purchase\naction: { type: alert, params: { no: 1 } }\n"),
        ["3:34 C0005"]
    );
}

#[test]
fn duplicate_keys_are_refused_at_every_level() {
    assert_eq!(problems(&with("id: b")), ["4:1 C0003"]);
    assert_eq!(problems(&with("when:\n  field: event.x\n  \"field\": event.y")), ["6:3 C0003"]);
}

#[test]
fn anchors_aliases_tags_and_merges_are_refused() {
    assert_eq!(problems(&with("tags: &t [x]")), ["4:7 C0004"]);
    assert!(problems(&with("tags: &t [x]\ngroup: *t")).contains(&"5:8 C0004".to_owned()));
    assert_eq!(problems(&with("priority: !!int 5")), ["4:11 C0004"]);
    assert_eq!(problems(&with("<<: { tags: [x] }")), ["4:1 C0004"]);
}

#[test]
fn a_file_is_one_mapping() {
    assert_eq!(problems(""), ["1:1 C0002"]);
    assert_eq!(problems("# only a comment\n"), ["1:1 C0002"]);
    assert_eq!(problems("- a\n"), ["1:1 C0012"]);
    assert_eq!(problems("id: a\n---\nid: b\n")[0], "2:1 C0002");
    assert_eq!(problems("id: [a\n").len(), 1);
    assert!(problems("id: [a\n")[0].ends_with("C0001"));
    assert_eq!(problems("? [a, b]\n: c\n"), ["1:3 C0012"]);
}

#[test]
fn the_rest_of_the_language_is_refused_by_name() {
    for rest in [
        "when: |\n  event.amount > 50",
        "when: event.amount > 50",
        "requires: { subscription: promotions }",
        "quiet_hours: { from: \"22:00\", to: \"08:00\" }",
        "holdout: 5%",
        "variants: []",
        "limits: [{ once_per: calendar_week }]",
        "limits: [{ once_per: calendar_day, zone: user }]",
        "when: { history: { event: purchase, fn: sum, of: amount }, op: gt, value: 5 }",
        "when: { field: user.segments, op: contains, value: vip }",
        "when: { field: local.hour, op: gt, value: 5 }",
    ] {
        let diagnostics = parse_campaign("a.yaml", &with(rest)).unwrap_err();
        assert!(diagnostics.iter().all(|one| one.code == Code::NotYetSupported), "{rest}: {diagnostics:?}");
    }
}

#[test]
fn operators_and_operands_must_go_together() {
    for (condition, code) in [
        ("{ field: event.x, op: between, value: [1] }", "C0016"),
        ("{ field: event.x, op: between, value: 5 }", "C0012"),
        ("{ field: event.x, op: in, value: [] }", "C0016"),
        ("{ field: event.x, op: in, value: [1, a] }", "C0041"),
        ("{ field: event.x, op: gt, value: true }", "C0012"),
        ("{ field: event.x, op: prefix, value: 5 }", "C0012"),
        ("{ field: event.x, op: eq, value: null }", "C0012"),
        ("{ field: event.x, op: exists, value: 5 }", "C0041"),
        ("{ field: event.x, op: eq }", "C0011"),
        ("{ field: event.x, value: 5 }", "C0011"),
        ("{ field: event.x, op: eq, value: 5, ref: user.y }", "C0017"),
        ("{ field: event.x, op: equals, value: 5 }", "C0014"),
        ("{ field: evnt.x, op: eq, value: 5 }", "C0040"),
        ("{ field: event., op: eq, value: 5 }", "C0040"),
        ("{ field: x, op: eq, value: 5 }", "C0040"),
        ("{ op: eq, value: 5 }", "C0042"),
        ("{ all: [{ field: event.x }], any: [{ field: event.x }] }", "C0017"),
        ("{ not: { field: event.x }, op: eq }", "C0017"),
        ("{ all: [] }", "C0016"),
        ("[{ field: event.x }]", "C0012"),
        ("{ history: { event: p, fn: count } }", "C0011"),
        ("{ history: { event: p, fn: count }, op: gte, value: -1 }", "C0023"),
        ("{ history: { event: p, fn: count }, op: gte, value: 1.5 }", "C0023"),
        ("{ history: { event: p, fn: count }, op: prefix, value: a }", "C0041"),
        ("{ history: { event: p, fn: exists }, op: gt, value: true }", "C0041"),
        ("{ history: { event: p, fn: since }, op: lt, value: 5 }", "C0021"),
        ("{ history: { event: p, fn: since }, op: lt, value: 5 days }", "C0021"),
        ("{ history: { event: p, fn: since }, op: lt, ref: event.x }", "C0041"),
        ("{ history: { event: p, fn: exists, last: 7d, lifetime: true } }", "C0017"),
        ("{ history: { event: p, fn: exists, last: 0d } }", "C0021"),
        ("{ field: event.x, op: gt, value: 1234567.123456789 }", "C0023"),
    ] {
        let found = problems(&with(&format!("when: {condition}")));
        assert_eq!(found.len(), 1, "{condition}: {found:?}");
        assert!(found[0].ends_with(code), "{condition}: {found:?}");
    }
}

#[test]
fn a_catalog_is_read() {
    let text = "remember:\n  purchase: { for: 90d, at_most: 100, properties: [sku, amount] }\n  signup: { for: 365d }\npii_traits: [email, phone]\nallowed_lateness: 2h\n";
    let catalog = parse_catalog("catalog.yaml", text).unwrap();
    assert_eq!(catalog.remember["purchase"].properties, ["amount", "sku"]);
    assert_eq!(catalog.remember["purchase"].at_most, 100);
    assert_eq!(catalog.remember["signup"].at_most, 256);
    assert_eq!(catalog.remember["signup"].for_ms, 365 * 86_400_000);
    assert!(catalog.pii_traits.contains("email"));
    assert_eq!(catalog.allowed_lateness_ms, 7_200_000);
    let wrong = "remember:\n  purchase: { at_most: 0 }\nallowed_latness: 1h\n";
    let codes: Vec<&str> =
        parse_catalog("c.yaml", wrong).unwrap_err().iter().map(|one| one.code.as_str()).collect();
    assert_eq!(codes, ["C0011", "C0023", "C0010"]);
}

#[test]
fn bombs_are_cheap() {
    let laughs = format!("a: &a [{}]\nb: &b [{}]\n", "x, ".repeat(1_000), "*a, ".repeat(1_000));
    let long_key = format!("{}:\n{}", "k".repeat(100_000), "  a: 1\n".repeat(20_000));
    for text in [
        "[".repeat(200_000),
        "{a: ".repeat(60_000),
        "? ".repeat(120_000),
        "- ".repeat(120_000),
        "a:\n".repeat(80_000),
        laughs,
        long_key,
        "x".repeat(MAX_FILE_BYTES + 1),
        format!("id: {}", "\"".repeat(200_000)),
        "&a ".repeat(80_000),
    ] {
        let begin = Instant::now();
        let diagnostics = parse_campaign("a.yaml", &text).unwrap_err();
        assert!(!diagnostics.is_empty() && diagnostics.len() <= 100);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:.20}: {:?}", text, begin.elapsed());
    }
}

proptest! {
    #[test]
    fn no_text_crashes_the_reader(text in "\\PC{0,200}") {
        let _ = parse_campaign("a.yaml", &text);
        let _ = parse_catalog("a.yaml", &text);
    }

    /// A valid file with one piece cut out or doubled is read or refused, never a crash.
    #[test]
    fn no_mutation_crashes_the_reader(campaign in testing::campaign(), at in 0usize..400, length in 0usize..20, insert in "[\\[\\]{}:,&*!|>'\"#%@` \n-]{0,3}") {
        let text: Vec<char> = campaign.to_canonical_json().chars().collect();
        let at = at.min(text.len());
        let end = (at + length).min(text.len());
        let mutated: String = text[..at].iter().copied().chain(insert.chars()).chain(text[end..].iter().copied()).collect();
        let _ = parse_campaign("a.yaml", &mutated);
    }

    #[test]
    fn every_plain_scalar_is_resolved_or_refused(text in "[0-9a-zA-Z:._+~-]{1,10}") {
        if let Ok(NodeValue::Number { value, .. }) = scalar::resolve(&text) {
            prop_assert_eq!(text.parse::<f64>().ok(), Some(value.to_f64()));
        }
    }
}
