//! Stories of the state machine, and properties over random ones.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    window: Duration::from_secs(10),
    failure_share_percent: 50,
    run_length: 5,
    probe_min: Duration::from_millis(200),
    probe_max: Duration::from_secs(2),
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn answered(answered: u32) -> Results {
    Results { answered, failed: 0 }
}

fn failed(failed: u32) -> Results {
    Results { answered: 0, failed }
}

#[test]
fn a_run_of_failures_opens_it_and_an_answer_ends_the_run() {
    let mut circuit = Circuit::new(LIMITS);
    assert_eq!(circuit.record(ms(0), answered(1_000)), Change::None);
    assert_eq!(circuit.record(ms(1), failed(4)), Change::None);
    assert_eq!(circuit.record(ms(2), answered(1)), Change::None);
    assert_eq!(circuit.record(ms(3), failed(4)), Change::None, "the run began anew");
    assert_eq!(circuit.record(ms(4), failed(1)), Change::Opened);
    assert!(circuit.is_open());
}

#[test]
fn a_share_of_failures_opens_it_once_there_is_enough_to_judge() {
    let mut circuit = Circuit::new(LIMITS);
    assert_eq!(circuit.record(ms(0), Results { answered: 1, failed: 3 }), Change::None, "four are too few");
    assert_eq!(circuit.record(ms(1), Results { answered: 1, failed: 1 }), Change::Opened);
    let mut circuit = Circuit::new(LIMITS);
    for _ in 0..20 {
        assert_eq!(circuit.record(ms(0), Results { answered: 51, failed: 49 }), Change::None);
    }
    assert_eq!(circuit.record(ms(1), Results { answered: 0, failed: 4 }), Change::None);
    assert_eq!(circuit.record(ms(2), Results { answered: 100, failed: 200 }), Change::Opened);
}

#[test]
fn one_that_fails_while_others_are_answered_does_not_open_it() {
    let mut circuit = Circuit::new(LIMITS);
    for second in 0..1_000 {
        assert_eq!(circuit.record(ms(second * 1_000), Results { answered: 3, failed: 1 }), Change::None);
    }
}

#[test]
fn what_lies_behind_the_window_counts_no_more() {
    let mut circuit = Circuit::new(LIMITS);
    circuit.record(ms(0), answered(1_000));
    circuit.record(ms(9_000), Results { answered: 4, failed: 5 });
    // The thousand have slid out; of the ten that are left, six have failed.
    assert_eq!(circuit.record(ms(10_500), Results { answered: 0, failed: 1 }), Change::Opened);
}

#[test]
fn a_check_decides_however_few_it_asked_and_however_well_things_went_before() {
    let mut circuit = Circuit::new(LIMITS);
    circuit.record(ms(0), answered(100_000));
    assert_eq!(circuit.check(ms(1), Results { answered: 2, failed: 1 }), Change::None);
    assert_eq!(circuit.check(ms(2), Results { answered: 1, failed: 2 }), Change::Opened);
    assert_eq!(circuit.check(ms(3), failed(3)), Change::None, "it is open already");
}

#[test]
fn one_probe_at_a_time_at_growing_intervals_and_only_a_probe_closes_it() {
    let mut circuit = Circuit::new(LIMITS);
    circuit.record(ms(1_000), failed(5));
    let mut now = ms(1_000);
    for interval in [200, 400, 800, 1_600, 2_000, 2_000] {
        let at = now + ms(interval);
        assert_eq!(circuit.admit(at - ms(1)), Admission::NotBefore(at));
        assert_eq!(circuit.admit(at), Admission::Probe);
        assert_eq!(circuit.admit(at + ms(50)), Admission::ProbeUnderWay);
        assert_eq!(circuit.record(at, answered(1_000)), Change::None, "a late answer closes nothing");
        now = at + ms(100);
        assert_eq!(circuit.probed(now, false), Change::None);
    }
    assert_eq!(circuit.admit(now + ms(2_000)), Admission::Probe);
    assert_eq!(circuit.probed(now + ms(2_001), true), Change::Closed);
    assert_eq!(circuit.admit(now + ms(2_001)), Admission::Go);
    assert_eq!(circuit.record(now + ms(2_002), failed(4)), Change::None, "the run began anew");
}

#[test]
fn a_probe_that_is_dropped_makes_room_for_the_next_at_once() {
    let mut circuit = Circuit::new(LIMITS);
    circuit.record(ms(0), failed(5));
    assert_eq!(circuit.admit(ms(200)), Admission::Probe);
    circuit.give_up(ms(300));
    assert_eq!(circuit.admit(ms(300)), Admission::Probe);
    assert_eq!(circuit.probed(ms(301), true), Change::Closed);
    circuit.give_up(ms(302));
    assert_eq!(circuit.probed(ms(302), false), Change::None, "nobody holds the probe");
    assert!(!circuit.is_open());
}

#[test]
fn what_opens_again_soon_is_probed_less_often() {
    let mut circuit = Circuit::new(LIMITS);
    let mut now = ms(0);
    for interval in [200, 400, 800] {
        circuit.record(now, failed(5));
        assert_eq!(circuit.admit(now), Admission::NotBefore(now + ms(interval)));
        now += ms(interval);
        assert_eq!(circuit.admit(now), Admission::Probe);
        circuit.probed(now, true);
    }
    now += LIMITS.window;
    circuit.record(now, failed(5));
    assert_eq!(circuit.admit(now), Admission::NotBefore(now + ms(200)), "it was well for a whole window");
}

/// Something that can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    Record(u32, u32),
    Check(u32, u32),
    Admit,
    Probed(bool),
    GiveUp,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        (0_u32..50, 0_u32..50).prop_map(|(a, f)| Step::Record(a, f)),
        (0_u32..4, 0_u32..4).prop_map(|(a, f)| Step::Check(a, f)),
        Just(Step::Admit),
        any::<bool>().prop_map(Step::Probed),
        Just(Step::GiveUp),
    ];
    prop::collection::vec((0_u64..5_000, step), 0..200)
}

fn limits() -> impl Strategy<Value = Limits> {
    (1_u64..60_000, 1_u64..=100, 1_u64..50, 1_u64..1_000, 0_u64..10_000).prop_map(
        |(window, share, run_length, probe_min, more)| Limits {
            window: ms(window),
            failure_share_percent: share,
            run_length,
            probe_min: ms(probe_min),
            probe_max: ms(probe_min + more),
        },
    )
}

proptest! {
    /// Whatever happens: one probe at a time, its intervals within their bounds, memory bounded, and the way back open.
    #[test]
    fn its_bounds_hold_and_there_is_always_a_way_back(limits in limits(), steps in steps()) {
        let mut circuit = Circuit::new(limits);
        let mut now = Duration::ZERO;
        let mut probing = false;
        for (wait, step) in steps {
            now += ms(wait);
            let was_open = circuit.is_open();
            match step {
                Step::Record(answered, failed) => {
                    let change = circuit.record(now, Results { answered, failed });
                    prop_assert!(change != Change::Closed);
                    prop_assert!(change != Change::Opened || !was_open && failed > 0);
                }
                Step::Check(answered, failed) => {
                    circuit.check(now, Results { answered, failed });
                }
                Step::Admit => match circuit.admit(now) {
                    Admission::Go => prop_assert!(!was_open),
                    Admission::Probe => {
                        prop_assert!(was_open && !probing, "two probes at a time");
                        probing = true;
                    }
                    Admission::NotBefore(at) => {
                        prop_assert!(was_open && at > now && at <= now + limits.probe_max);
                    }
                    Admission::ProbeUnderWay => prop_assert!(probing),
                },
                Step::Probed(got_through) => {
                    let change = circuit.probed(now, got_through);
                    prop_assert_eq!(change == Change::Closed, probing && got_through);
                    probing = false;
                }
                Step::GiveUp => {
                    circuit.give_up(now);
                    probing = false;
                }
            }
            prop_assert!(circuit.parts.len() <= PARTS as usize + 1);
            prop_assert!(!probing || circuit.is_open());
        }
        circuit.give_up(now);
        if circuit.is_open() {
            now += limits.probe_max;
            prop_assert_eq!(circuit.admit(now), Admission::Probe);
            prop_assert_eq!(circuit.probed(now, true), Change::Closed);
        }
        prop_assert_eq!(circuit.admit(now), Admission::Go);
    }

    /// It opens for every outage, and never for answers.
    #[test]
    fn failures_alone_open_it_and_answers_alone_never(limits in limits(), before in 0_u32..100_000) {
        let mut circuit = Circuit::new(limits);
        for second in 0..20 {
            prop_assert_eq!(circuit.record(ms(second * 1_000), answered(before)), Change::None);
        }
        let mut failures = 0_u64;
        while !circuit.is_open() {
            failures += 1;
            circuit.record(ms(20_000), failed(1));
            prop_assert!(failures <= limits.run_length);
        }
    }

    /// The window is what a list of all results says it is.
    #[test]
    fn the_share_is_that_of_the_results_in_the_window(
        results in prop::collection::vec((0_u64..3_000, 0_u32..20, 0_u32..20), 1..60),
        share in 1_u64..=100,
    ) {
        let limits = Limits { failure_share_percent: share, run_length: u64::MAX, ..LIMITS };
        let mut circuit = Circuit::new(limits);
        let mut all: Vec<(u64, Results)> = Vec::new();
        let mut now = Duration::ZERO;
        for (wait, answered, failed) in results {
            now += ms(wait);
            let (part, results) = (part_of(now, limits.window), Results { answered, failed });
            all.push((part, results));
            let mut window = Results::default();
            for (at, results) in &all {
                if at + u64::from(PARTS) > part {
                    window.add(*results);
                }
            }
            if results.total() > 0 {
                prop_assert_eq!(circuit.count(now, results), window);
            } else {
                all.pop();
            }
        }
    }
}
