//! Users wait in retry topics on real Kafka, in their order, through kills, and whatever else stands there.
//!
//! The registry is campaignd's own embedded one: the stories need to know which id the next schema gets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use campaignd::kafka::log::{BatchLimits, KafkaLog, LogSettings};
use campaignd::pipeline::log::{EventLog, Input, LogError};
use campaignd::schema::registry::{RegistryClient, RegistrySettings};
use campaignd::telemetry::health::Health;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::{Value, json};

use crate::audit::audit_rows;
use crate::suite::{Services, Suite};
use crate::support::compare::{same_decisions, same_decisions_in_order};
use crate::support::kafka::{Kafka, Record, Stored};
use crate::support::poll::until;
use crate::support::process::{Campaignd, must_succeed};
use crate::support::settings::free_port;
use crate::support::shop::{CAMPAIGNS, Item, Shop, Truth};
use crate::support::stage::{Handled, Stage};
use crate::support::wire::frame_event;
use crate::support::{blocking, registry, unique};

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(30);
const EVENT_SCHEMA: &str = include_str!("../../schemas/event.avsc");

pub fn stories(suite: &mut Suite) {
    suite.story("parking::a_user_waits_in_order_until_his_schema_is_known", |services| async move {
        a_user_waits_in_order_until_his_schema_is_known(&services);
    });
    suite.story("parking::kills_with_parked_users_keep_their_order", |services| async move {
        kills_with_parked_users_keep_their_order(&services);
    });
    suite.story("parking::a_tier_that_is_added_is_used_without_loss", |services| async move {
        a_tier_that_is_added_is_used_without_loss(&services);
    });
    suite.story(
        "parking::what_waits_is_read_to_the_end_or_the_hanging_transaction_is_named",
        what_waits_is_read_to_the_end_or_the_hanging_transaction_is_named,
    );
    suite.story("parking::attempts_run_out_into_an_identical_dead_letter", |services| async move {
        attempts_run_out_into_an_identical_dead_letter(&services);
    });
    suite.story("parking::a_forged_retry_record_is_a_dead_letter", |services| async move {
        a_forged_retry_record_is_a_dead_letter(&services);
    });
}

fn stage(services: &Services, label: &str) -> Stage {
    let mut stage =
        Stage::service(&services.kafka, &services.cassandra, &registry::start(), label, PARTITIONS);
    stage.settings.batch_max_records = 100;
    stage.settings.retry_delays_ms = vec![200, 800, 2_000];
    // A third delay is a third topic.
    must_succeed(&["topology", "apply", "--config", &stage.config()], stage.folder.path());
    stage
}

/// The next schema that is registered gets the id after the newest one.
fn unknown_id(stage: &Stage) -> u32 {
    stage.schema_id + 10
}

/// Registers schemas until one has the id that was unknown; each is the schema of events with one more field.
fn register(stage: &Stage, id: u32) {
    let client = RegistryClient::new(RegistrySettings::at(&stage.settings.registry)).unwrap();
    let subject = format!("{}-value", stage.settings.topic("events"));
    let newer = |name: &str| {
        let mut schema: Value = serde_json::from_str(EVENT_SCHEMA).unwrap();
        let field = json!({ "name": name, "type": "string", "default": "" });
        schema["fields"].as_array_mut().unwrap().push(field);
        schema.to_string()
    };
    for number in 0.. {
        let name = format!("note_{number}");
        let got = blocking(client.register(&subject, &newer(&name))).unwrap();
        if got == id {
            return;
        }
        assert!(got < id, "the registry has gone past {id}");
    }
}

/// The shop's records; of these users every event from the second on is of the schema with one more field if `is_newer`
/// says so of its number.
fn items(
    shop: &mut Shop,
    count: usize,
    users: &BTreeSet<String>,
    id: u32,
    seen: &mut BTreeMap<String, u32>,
) -> Vec<Item> {
    let mut items = shop.take(count);
    for item in &mut items {
        let event = item.event.as_ref().expect("this shop has no poison");
        let user = event["user_id"].as_str().unwrap().to_owned();
        let number = seen.entry(user.clone()).or_default();
        *number += 1;
        // Only now and then: what waits behind it is of a schema that is known.
        if users.contains(&user) && *number % 4 == 2 {
            let mut value = frame_event(id, event);
            value.push(0); // the new field: an empty text
            item.record.value = Some(value);
        }
    }
    items
}

/// Records of these users from their first one of the unknown schema on.
fn behind(items: &[Item], users: &BTreeSet<String>, id: u32) -> usize {
    let mut parked: BTreeSet<&str> = BTreeSet::new();
    let mut count = 0;
    for item in items {
        let user = item.event.as_ref().unwrap()["user_id"].as_str().unwrap();
        if item.record.value.as_ref().unwrap()[1..5] == id.to_be_bytes() {
            assert!(users.contains(user));
            parked.insert(user);
        }
        count += usize::from(parked.contains(user));
    }
    count
}

fn truth_of(stage: &Stage, items: &[Item]) -> Truth {
    let mut truth = Truth::default();
    truth.add(&mut stage.model(), items);
    truth
}

fn users(count: usize) -> BTreeSet<String> {
    (0..count).map(|n| format!("user-{:04}", n * 3)).collect()
}

/// All that need not wait is handled and committed, and all else waits. The process says how much: whoever counts on the
/// topics counts a record that moves from one to another twice.
fn await_parked(stage: &Stage, process: &mut Campaignd, parked: usize) {
    let (group, events) = (stage.settings.group(), stage.settings.topic("events"));
    until("all events to be committed and the users to wait", || {
        let waiting = process.metrics().sum("campaignd_pending_records", &[]) as usize;
        let lag = stage.kafka.lag(&group, &events);
        if lag == 0 && waiting == parked {
            Ok(())
        } else {
            Err(format!("lag {lag}, {waiting} of {parked} wait"))
        }
    });
}

/// The owner has deleted what it has consumed: the log of each retry partition begins where the group stands.
fn await_deleted(stage: &Stage, process: &mut Campaignd) {
    let group = stage.settings.group();
    for topic in stage.settings.retry_topics() {
        until(&format!("the consumed prefix of {topic} to be deleted"), || {
            process.must_live();
            let (starts, committed) = (stage.kafka.starts(&topic), stage.kafka.committed(&group, &topic));
            if starts == committed {
                Ok(())
            } else {
                Err(format!("starts {starts:?}, committed {committed:?}"))
            }
        });
    }
}

fn a_user_waits_in_order_until_his_schema_is_known(services: &Services) {
    let mut stage = stage(services, "parked");
    stage.settings.retry_max_attempts = 1_000;
    stage.apply(CAMPAIGNS);
    let (id, parked) = (unknown_id(&stage), users(8));
    let mut shop = Shop::new(71, 60, 0.0, stage.schema_id);
    let items = items(&mut shop, 2_000, &parked, id, &mut BTreeMap::new());
    let waiting = behind(&items, &parked, id);
    assert!(waiting > 150, "worth nothing: {waiting} records wait");
    stage.produce(&items);
    let mut process = stage.start();
    await_parked(&stage, &mut process, waiting);

    // Others are through, in their order; the parked users are where the model is before their first unknown schema.
    let truth = truth_of(&stage, &items);
    let of_others = |decisions: &mut Vec<_>| {
        decisions.retain(|decision: &crate::support::model::Expected| !parked.contains(&decision.user_id));
    };
    let (mut expected, mut found) = (truth.decisions.clone(), stage.decisions());
    of_others(&mut expected);
    let parked_now = found.len();
    of_others(&mut found);
    same_decisions_in_order(&expected, &found).unwrap();
    assert!(parked_now < truth.decisions.len(), "nothing of the parked users is missing");

    register(&stage, id);
    stage.await_drained(&mut process, Duration::from_secs(60));
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
    assert_eq!(stage.dead_letters(), []);
    assert_eq!(process.metrics().sum("campaignd_pending_records", &[]), 0);
    await_deleted(&stage, &mut process);
}

fn kills_with_parked_users_keep_their_order(services: &Services) {
    let mut stage = stage(services, "parked_kill");
    stage.settings.retry_max_attempts = 1_000;
    stage.apply(CAMPAIGNS);
    let (id, parked) = (unknown_id(&stage), users(8));
    let mut shop = Shop::new(73, 60, 0.0, stage.schema_id);
    let (mut all, mut seen) = (Vec::new(), BTreeMap::new());
    for round in 0..4 {
        let more = items(&mut shop, 500, &parked, id, &mut seen);
        stage.produce(&more);
        all.extend(more);
        let mut process = stage.start();
        if round % 2 == 0 {
            await_parked(&stage, &mut process, behind(&all, &parked, id));
        } else {
            until("some records to be handled", || match Handled::of(&mut process).total() {
                0 => Err("none".to_owned()),
                _ => Ok(()),
            });
        }
        process.kill();
    }
    let mut process = stage.start();
    await_parked(&stage, &mut process, behind(&all, &parked, id));
    process.kill();
    register(&stage, id);
    let mut process = stage.start();
    stage.await_drained(&mut process, Duration::from_secs(60));
    let truth = truth_of(&stage, &all);
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
    same_decisions(&truth.decisions, &audit_rows(services, &stage)).unwrap();
    assert_eq!(stage.dead_letters(), []);
    assert_eq!(process.metrics().sum("campaignd_unexplained_replays_total", &[]), 0);
}

/// An instance that knows one retry topic runs on while another one brings a second: it joins the group again, so that it can
/// take over what the other one leaves there.
fn a_tier_that_is_added_is_used_without_loss(services: &Services) {
    let mut stage =
        Stage::service(&services.kafka, &services.cassandra, &registry::start(), "tier", PARTITIONS);
    stage.settings.retry_max_attempts = 1_000;
    stage.settings.retry_delays_ms.truncate(1);
    // The stage has made two retry topics; here the second comes later.
    let second = stage.settings.topic("events.retry.2");
    stage.kafka.delete_topic(&second);
    stage.apply(CAMPAIGNS);
    let (id, parked) = (unknown_id(&stage), users(8));
    let mut shop = Shop::new(89, 60, 0.0, stage.schema_id);
    let mut seen = BTreeMap::new();
    let mut all = items(&mut shop, 500, &parked, id, &mut seen);
    stage.produce(&all);
    let mut first = stage.start();
    await_parked(&stage, &mut first, behind(&all, &parked, id));

    stage.settings.retry_delays_ms = vec![100, 400];
    must_succeed(&["topology", "apply", "--config", &stage.config()], stage.folder.path());
    let mut other = stage.settings.clone();
    other.instance = "b".to_owned();
    other.http_port = free_port();
    let mut newer = stage.start_another(&other);
    until("the second tier to be used", || {
        newer.must_live();
        first.must_live();
        match stage.kafka.ends(&second).values().sum::<i64>() {
            0 => Err("nothing stands there".to_owned()),
            _ => Ok(()),
        }
    });
    // Both go on: the older one has its share of the partitions again, with the second tier.
    let mut produce = |stage: &Stage| {
        let more = items(&mut shop, 500, &parked, id, &mut seen);
        stage.produce(&more);
        all.extend(more);
    };
    produce(&stage);
    let (group, events) = (stage.settings.group(), stage.settings.topic("events"));
    until("all partitions to be handled by the two", || match stage.kafka.lag(&group, &events) {
        0 => Ok(()),
        lag => Err(format!("lag {lag}")),
    });
    newer.kill();
    produce(&stage);
    await_parked(&stage, &mut first, behind(&all, &parked, id));
    register(&stage, id);
    stage.await_drained(&mut first, Duration::from_secs(60));
    same_decisions_in_order(&truth_of(&stage, &all).decisions, &stage.decisions()).unwrap();
    assert_eq!(stage.dead_letters(), []);
}

/// Rule O2, on the reader itself: markers and aborted records do not stop it, and an open transaction is named.
async fn what_waits_is_read_to_the_end_or_the_hanging_transaction_is_named(services: Services) {
    let (events, retry) = (unique("events"), unique("retry"));
    let kafka = Kafka::at(&services.kafka);
    let topics = [(events.clone(), 2, "delete"), (retry.clone(), 2, "delete")];
    tokio::task::spawn_blocking(move || {
        let topics: Vec<(&str, i32, &str)> =
            topics.iter().map(|(name, partitions, cleanup)| (name.as_str(), *partitions, *cleanup)).collect();
        kafka.create_topics(&topics);
    })
    .await
    .unwrap();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &services.kafka);
    let settings = LogSettings {
        client: client.clone(),
        events,
        retry: vec![retry.clone()],
        longest_delay: Duration::from_secs(60),
        decisions: String::new(),
        activity: String::new(),
        dead_letters: String::new(),
        group_id: unique("group"),
        instance_id: "a".into(),
        static_membership: false,
        is_sole_member: false,
        session_timeout: Duration::from_secs(6),
        // A transaction hangs when nothing has moved for twice as long.
        transaction_timeout: Duration::from_secs(1),
        drain_timeout: Duration::from_secs(1),
        batch: BatchLimits {
            max_wait: Duration::ZERO,
            max_records: 1,
            max_bytes: 1,
            max_records_per_user: 1,
        },
        health: Health::new(),
    };
    let (mut log, retry) = tokio::task::spawn_blocking(move || {
        let log = KafkaLog::open(&settings).unwrap();
        let writer = |id: &str| -> ThreadedProducer<DefaultProducerContext> {
            let producer: ThreadedProducer<_> = client
                .clone()
                .set("transactional.id", unique(id))
                .set("transaction.timeout.ms", "60000")
                .create()
                .unwrap();
            producer.init_transactions(PATIENCE).unwrap();
            producer
        };
        (log, (retry, writer("good"), writer("hanging")))
    })
    .await
    .unwrap();
    let (retry, good, hanging) = &retry;
    let write = |producer: &ThreadedProducer<_>, values: &[&str]| {
        producer.begin_transaction().unwrap();
        for value in values {
            producer.send(BaseRecord::<str, str>::to(retry).partition(1).key("u").payload(value)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    };
    let waiting = |from: i64| {
        let stands = log.stands();
        async move {
            let waiting =
                stands.waiting(&[(Input::retry(1, 0), 0), (Input::retry(1, 1), from)].into()).await?;
            Ok::<Vec<i64>, LogError>(waiting.iter().map(|record| record.offset).collect())
        }
    };

    // A partition that was just created may have no leader yet.
    let begin = Instant::now();
    while let Err(error) = waiting(0).await {
        assert!(begin.elapsed() < PATIENCE, "{error}");
    }

    write(good, &["0", "1", "2"]);
    good.commit_transaction(PATIENCE).unwrap(); // a marker at 3
    assert_eq!(waiting(0).await.unwrap(), [0, 1, 2]);
    write(good, &["4", "5"]);
    good.abort_transaction(PATIENCE).unwrap(); // a marker at 6
    assert_eq!(waiting(0).await.unwrap(), [0, 1, 2]);
    assert!(waiting(3).await.unwrap().is_empty(), "only markers and what was aborted stands there");
    assert!(waiting(7).await.unwrap().is_empty(), "nothing stands there");
    write(hanging, &["7"]);
    write(good, &["8"]);
    good.commit_transaction(PATIENCE).unwrap(); // a marker at 9
    let error = waiting(1).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, LogError::Unavailable(_)), "{text}");
    assert!(text.contains(&format!("{retry}[1] from offset 7 to 10")), "{text}");
    assert!(text.contains("a transaction that does not end hangs there"), "{text}");
    assert!(!text.contains(&format!("{retry}[0]")), "{text}");
    hanging.commit_transaction(PATIENCE).unwrap();
    assert_eq!(waiting(1).await.unwrap(), [1, 2, 7, 8]);
    let below = [(Input::retry(1, 1), 2)].into();
    log.stands().delete_consumed(&below).await.unwrap();
    log.stands().delete_consumed(&below).await.expect("what is deleted already is no failure");
    assert_eq!(waiting(0).await.unwrap(), [2, 7, 8]);
    log.close().await;
}

fn attempts_run_out_into_an_identical_dead_letter(services: &Services) {
    let mut stage = stage(services, "run_out");
    stage.settings.retry_max_attempts = 3;
    stage.apply(CAMPAIGNS);
    let id = unknown_id(&stage);
    let mut shop = Shop::new(79, 20, 0.0, stage.schema_id);
    let mut items = shop.take(600);
    let mut doomed = Vec::new();
    for item in items.iter_mut().skip(5).step_by(20) {
        let event = item.event.take().expect("this shop has no poison");
        item.record.value = Some(frame_event(id, &event));
        item.record.headers.extend([
            ("twice".to_owned(), b"a".to_vec()),
            ("twice".to_owned(), vec![0xff, 0]),
            ("empty".to_owned(), Vec::new()),
        ]);
        doomed.push(item.record.clone());
    }
    stage.produce(&items);
    let mut process = stage.start();
    stage.await_drained(&mut process, Duration::from_secs(60));

    let by_number: BTreeMap<String, Stored> =
        stage.dead_letters().into_iter().map(|letter| (letter.header("n").unwrap(), letter)).collect();
    assert_eq!(by_number.len(), doomed.len());
    assert_eq!(
        process.metrics().sum("campaignd_dead_letters_total", &["unknown_schema"]) as usize,
        doomed.len()
    );
    for record in &doomed {
        let letter = &by_number[&String::from_utf8_lossy(&record.headers[0].1).into_owned()];
        assert_eq!((&letter.key, &letter.value), (&record.key, &record.value));
        let (own, ours) = letter.headers.split_at(record.headers.len());
        assert_eq!(own, record.headers);
        let names: BTreeSet<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), ours.len(), "each of ours is there once: {ours:?}");
        assert_eq!(letter.header("campaignd.error.code").as_deref(), Some("unknown_schema"));
        assert_eq!(letter.header("campaignd.schema.id"), Some(id.to_string()));
        assert_eq!(letter.header("campaignd.original.topic"), Some(stage.settings.topic("events")));
    }
    // Two attempts failed into a tier each, the third was the last.
    let parked = process.metrics().sum("campaignd_parked_records_total", &["unknown_schema"]) as usize;
    assert_eq!(parked, 2 * doomed.len());
    let truth = truth_of(&stage, &items);
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
    await_deleted(&stage, &mut process);
}

fn a_forged_retry_record_is_a_dead_letter(services: &Services) {
    let stage = stage(services, "forged");
    stage.apply(CAMPAIGNS);
    let mut shop = Shop::new(83, 20, 0.0, stage.schema_id);
    let items = shop.take(300);
    let ours = |changes: &[(&str, Option<&[u8]>)]| {
        let mut headers: Vec<(String, Vec<u8>)> = [
            ("campaignd.original.topic", stage.settings.topic("events")),
            ("campaignd.original.partition", "0".to_owned()),
            ("campaignd.original.offset", "7".to_owned()),
            ("campaignd.original.incarnation", "0".to_owned()),
            ("campaignd.retry.attempt", "1".to_owned()),
            ("campaignd.retry.failures", "1".to_owned()),
            ("campaignd.retry.due", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value.into_bytes()))
        .into();
        for (name, value) in changes {
            headers.retain(|(known, _)| known != name);
            headers.extend(value.map(|value| ((*name).to_owned(), value.to_vec())));
        }
        headers
    };
    let forgeries = [
        Vec::new(),
        ours(&[("campaignd.retry.due", None)]),
        ours(&[("campaignd.retry.due", Some(b"soon"))]),
        ours(&[("campaignd.retry.due", Some(&[0xff, 0xfe]))]),
        ours(&[("campaignd.original.offset", None)]),
        ours(&[("campaignd.original.offset", Some(b"-1"))]),
        ours(&[("campaignd.original.offset", Some(b"99999999999999999999"))]),
        ours(&[("campaignd.original.partition", Some(b"1"))]),
        ours(&[("campaignd.original.topic", Some(b"elsewhere"))]),
        ours(&[("campaignd.retry.attempt", Some(b"4294967296"))]),
        [ours(&[]), vec![("campaignd.retry.attempt".to_owned(), b"2".to_vec())]].concat(),
        // All is right but the time, which would hold up those behind it for ever.
        ours(&[("campaignd.retry.due", Some(b"9223372036854775807"))]),
        Vec::new(),
    ];
    let forged: Vec<Record> = forgeries
        .iter()
        .enumerate()
        .map(|(number, headers)| Record {
            partition: Some(0),
            key: Some(b"user-0001".to_vec()),
            value: Some(format!("forged {number}").into_bytes()),
            headers: [headers.clone(), vec![("forgery".to_owned(), number.to_string().into_bytes())]]
                .concat(),
        })
        .collect();
    let (first, second) = items.split_at(150);
    stage.produce(first);
    let mut process = stage.start();
    stage.await_handled(&mut process, first.len() as u64);
    stage.kafka.produce(&stage.settings.retry_topics()[0], &forged);
    // On `events` our headers are nobody's: the events are as good as others.
    let mut second = second.to_vec();
    for item in second.iter_mut().step_by(3) {
        item.record.headers.extend(ours(&[("campaignd.retry.due", Some(b"9999999999999"))]));
    }
    stage.produce(&second);
    stage.await_drained(&mut process, Duration::from_secs(60));

    let letters = stage.dead_letters();
    let values: BTreeSet<Vec<u8>> = letters.iter().map(|letter| letter.value.clone().unwrap()).collect();
    assert_eq!(values, forged.iter().map(|record| record.value.clone().unwrap()).collect());
    for letter in &letters {
        // What has all our headers is ours, as far as anybody can tell, and judged like others: the user's place is elsewhere.
        let is_whole = letter.value.as_deref() == Some(b"forged 11");
        let code = if is_whole { "wrong_partition" } else { "bad_retry_record" };
        assert_eq!(letter.header("campaignd.error.code").as_deref(), Some(code), "{letter:?}");
        assert_eq!(letter.partition, 0);
        assert!(letter.header("forgery").is_some());
    }
    assert_eq!(letters.len(), forged.len());
    let truth = truth_of(&stage, &[first, &second].concat());
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();
}
