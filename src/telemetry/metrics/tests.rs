use super::*;

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render().unwrap().1).unwrap()
}

#[test]
fn names_follow_the_rules_and_labels_are_there_from_the_start() {
    let metrics = Metrics::new().unwrap();
    metrics.decisions(Outcome::Suppress, ReasonCode::RollingLimit, 3);
    metrics.dead_letter("bad_framing");
    let text = text(&metrics);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("campaignd_"), "{line}");
        assert!(!line.contains("user_id"), "{line}");
    }
    for family in metrics.inner.registry.gather() {
        let counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
        assert_eq!(counter, family.name().ends_with("_total"), "{}", family.name());
        assert!(!family.help().is_empty());
    }
    assert!(text.contains("campaignd_events_total{result=\"duplicate\"} 0"), "{text}");
    assert!(text.contains("campaignd_rewinds_total{cause=\"transaction\"} 0"), "{text}");
    assert!(
        text.contains("campaignd_decisions_total{outcome=\"suppress\",reason=\"rolling_limit\"} 3"),
        "{text}"
    );
    assert!(text.contains("campaignd_dead_letters_total{code=\"bad_framing\"} 1"), "{text}");
    assert!(text.contains("campaignd_campaigns_position -1"), "{text}");
}

#[test]
fn a_snapshot_reads_back_what_was_counted() {
    let metrics = Metrics::new().unwrap();
    metrics.events(EventResult::Decided, 5);
    metrics.events(EventResult::DeadLetter, 2);
    metrics.decisions(Outcome::Allow, ReasonCode::Allowed, 4);
    metrics.decisions(Outcome::Suppress, ReasonCode::LateEvent, 1);
    metrics.decisions(Outcome::Suppress, ReasonCode::Outranked, 1);
    metrics.dead_letter("bad_avro");
    metrics.dead_letter("bad_avro");
    metrics.rewind(RewindCause::Abandoned);
    let waiting = metrics.waiting();
    metrics.breaker_opened(Dependency::Registry);
    let snapshot = metrics.clone().snapshot();
    assert_eq!(snapshot.events(EventResult::Decided), 5);
    assert_eq!(snapshot.events(EventResult::Ignored), 0);
    assert_eq!(snapshot.events_total(), 7);
    assert_eq!(snapshot.decisions(Outcome::Allow), 4);
    assert_eq!(snapshot.decisions(Outcome::Suppress), 2);
    assert_eq!(snapshot.decisions(Outcome::Holdout), 0);
    assert_eq!(snapshot.dead_letters, BTreeMap::from([("bad_avro".to_string(), 2)]));
    assert_eq!(snapshot.rewinds, 1);
    assert!(snapshot.paused);
    assert_eq!(snapshot.breaker_opens, 1);
    drop(waiting);
    assert!(!metrics.snapshot().paused);
}

#[test]
fn paused_until_the_last_that_waits_goes_on() {
    let metrics = Metrics::new().unwrap();
    let (first, second) = (metrics.waiting(), metrics.waiting());
    drop(first);
    assert!(text(&metrics).contains("campaignd_paused 1"));
    drop(second);
    assert!(text(&metrics).contains("campaignd_paused 0"));
}

#[test]
fn a_breaker_is_shown_by_dependency() {
    let metrics = Metrics::new().unwrap();
    assert!(text(&metrics).contains("campaignd_breaker_open{dependency=\"store\"} 0"));
    metrics.breaker_opened(Dependency::Store);
    metrics.breaker_probe(Dependency::Store);
    let now = text(&metrics);
    assert!(now.contains("campaignd_breaker_open{dependency=\"store\"} 1"), "{now}");
    assert!(now.contains("campaignd_breaker_open{dependency=\"registry\"} 0"), "{now}");
    assert!(now.contains("campaignd_breaker_probes_total{dependency=\"store\"} 1"), "{now}");
    metrics.breaker_closed(Dependency::Store);
    assert!(text(&metrics).contains("campaignd_breaker_open{dependency=\"store\"} 0"));
}

#[test]
fn latencies_count_only_after_a_flush_and_give_quantiles() {
    let metrics = Metrics::new().unwrap();
    let latencies = metrics.event_latencies();
    for _ in 0..99 {
        latencies.observe(0.004);
    }
    latencies.observe(3.0);
    assert_eq!(metrics.snapshot().event_latency.quantile(0.5), None);
    latencies.flush();
    let latency = metrics.snapshot().event_latency;
    assert_eq!(latency.count, 100);
    let half = latency.quantile(0.5).unwrap();
    assert!((0.003..=0.005).contains(&half), "{half}");
    let largest = latency.quantile(1.0).unwrap();
    assert!((2.5..=5.0).contains(&largest), "{largest}");
}

#[test]
fn a_quantile_above_the_last_bound_is_the_last_bound() {
    let metrics = Metrics::new().unwrap();
    let latencies = metrics.event_latencies();
    latencies.observe(1_000.0);
    latencies.flush();
    assert_eq!(metrics.snapshot().event_latency.quantile(0.99), Some(60.0));
}
