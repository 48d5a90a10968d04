//! `campaignd dlq` on a broker that has transactions: what it shows is what lies there, what it replays is on `events`
//! once, whatever kills it when, and what is still wanted is not deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use campaignd::partitioner::Partitioner;
use campaignd::schema::EVENT_SCHEMA;
use campaignd::schema::registry::{RegistryClient, RegistrySettings};
use serde_json::{Value, json};

use crate::suite::{Services, Suite};
use crate::support::compare::same_decisions_in_order;
use crate::support::kafka::{Record, Stored};
use crate::support::model::Model;
use crate::support::poll::{until, until_within};
use crate::support::process::{Pause, campaignd, program};
use crate::support::shop::{CAMPAIGNS, Item, Shop, Truth};
use crate::support::stage::Stage;
use crate::support::{blocking, unique};

const PARTITIONS: i32 = 3;

pub fn stories(suite: &mut Suite) {
    // Alone, because it must foresee the next id of the registry.
    suite.lone_story(
        "dead_letters::what_was_unknown_is_decided_when_it_is_replayed",
        |services| async move {
            what_was_unknown_is_decided_when_it_is_replayed(&services);
        },
    );
    suite.story("dead_letters::no_kill_loses_or_doubles_a_replayed_record", |services| async move {
        no_kill_loses_or_doubles_a_replayed_record(&services);
    });
    suite.story("dead_letters::a_second_replay_ends_the_first", |services| async move {
        a_second_replay_ends_the_first(&services);
    });
    suite.story("dead_letters::what_cannot_be_replayed_is_left_and_said", |services| async move {
        what_cannot_be_replayed_is_left_and_said(&services);
    });
    suite.story("dead_letters::what_is_still_wanted_is_not_purged", |services| async move {
        what_is_still_wanted_is_not_purged(&services);
    });
}

fn stage(services: &Services, label: &str) -> Stage {
    Stage::service(&services.kafka, &services.cassandra, &services.registry, label, PARTITIONS)
}

/// A command of `campaignd dlq`, to its end.
fn dlq(stage: &Stage, arguments: &[&str]) -> Output {
    let config = stage.config();
    campaignd(&[&["dlq"], arguments, &["--config", &config]].concat(), stage.folder.path())
}

/// One that must succeed; what it printed.
fn shown(stage: &Stage, arguments: &[&str]) -> String {
    let start = Instant::now();
    let output = dlq(stage, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "dlq {}:\n{text}\n{error}", arguments.join(" "));
    println!("$ campaignd dlq {} # {:.1?}\n{text}", arguments.join(" "), start.elapsed());
    text
}

fn told(stage: &Stage, arguments: &[&str]) -> Value {
    serde_json::from_str(&shown(stage, &[arguments, &["--output", "json"]].concat()))
        .expect("one JSON object")
}

/// One that must fail with this exit code; what it said.
fn refused(stage: &Stage, code: i32, arguments: &[&str]) -> String {
    let output = dlq(stage, arguments);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "dlq {}:\n{text}", arguments.join(" "));
    println!("$ campaignd dlq {}\n{text}", arguments.join(" "));
    text
}

/// A replay that runs beside the story.
fn start(stage: &Stage, arguments: &[&str], pause: Option<&Pause<'_>>) -> Child {
    let mut command = Command::new(program());
    command.arg("dlq").args(arguments).args(["--config", &stage.config()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(pause) = pause {
        std::fs::remove_file(pause.file).ok();
        command.env("CAMPAIGND_PAUSE_POINT", pause.point);
        command.env("CAMPAIGND_PAUSE_AFTER", pause.after.to_string());
        command.env("CAMPAIGND_PAUSE_FILE", pause.file);
    }
    command.spawn().expect("campaignd starts")
}

fn await_pause(child: &mut Child, pause: &Pause<'_>) {
    until(&format!("the replay to reach {} {}", pause.point, pause.after), || {
        if let Some(status) = child.try_wait().expect("the child can be asked") {
            panic!("the replay ended with {status}");
        }
        match std::fs::read_to_string(pause.file) {
            Ok(name) if name == pause.point => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn kill(mut child: Child) {
    child.kill().expect("the replay can be killed");
    child.wait().expect("the replay can be waited for");
}

/// What stands on `events` from these offsets on, partition by partition in order.
fn events_from(stage: &Stage, ends: &BTreeMap<i32, i64>) -> Vec<Stored> {
    let mut records = stage.kafka.read_committed(&stage.settings.topic("events"));
    records.retain(|record| record.offset >= ends[&record.partition]);
    records
}

fn events_ends(stage: &Stage) -> BTreeMap<i32, i64> {
    stage.kafka.ends(&stage.settings.topic("events"))
}

fn home(key: &[u8]) -> i32 {
    Partitioner::Murmur2.partition(key, PARTITIONS)
}

/// The records are these dead letters, each once, in the order of its partition, unchanged but for our headers.
fn are_the_letters(records: &[Stored], letters: &[Stored], replays: &str) {
    let number = |record: &Stored| record.header("n").expect("a number");
    for partition in 0..PARTITIONS {
        let expected: Vec<String> =
            letters.iter().filter(|l| home(l.key.as_deref().unwrap()) == partition).map(number).collect();
        let found: Vec<String> = records.iter().filter(|r| r.partition == partition).map(number).collect();
        assert_eq!(found, expected, "partition {partition}");
    }
    let by_number: BTreeMap<String, &Stored> =
        letters.iter().map(|letter| (number(letter), letter)).collect();
    for record in records {
        let letter = by_number[&number(record)];
        assert_eq!((&record.key, &record.value), (&letter.key, &letter.value));
        let mut headers = letter.headers.clone();
        headers.retain(|(name, _)| !name.starts_with("campaignd."));
        headers.push(("campaignd.replays".to_owned(), replays.as_bytes().to_vec()));
        assert_eq!(record.headers, headers);
    }
}

/// A dead letter as the processor writes it, without one.
fn letter(stage: &Stage, number: usize, partition: i32, code: &str) -> Record {
    let user = (0..)
        .map(|n| format!("user-{number}-{n}"))
        .find(|user| home(user.as_bytes()) == partition)
        .expect("a user of every partition");
    let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
    Record {
        partition: Some(partition),
        key: Some(user.into_bytes()),
        value: Some(format!("value {number}").into_bytes()),
        headers: vec![
            header("n", number.to_string()),
            header("campaignd.original.topic", stage.settings.topic("events")),
            header("campaignd.original.partition", partition.to_string()),
            header("campaignd.original.offset", number.to_string()),
            header("campaignd.error.code", code.to_owned()),
            header("campaignd.error.text", "why".to_owned()),
        ],
    }
}

fn letters(stage: &Stage, numbers: std::ops::Range<usize>, code: &str) -> Vec<Record> {
    numbers.map(|number| letter(stage, number, number as i32 % PARTITIONS, code)).collect()
}

fn lay(stage: &Stage, letters: &[Record]) {
    stage.kafka.produce(&stage.settings.topic("events.dlq"), letters);
}

/// The events' schema with a field more that takes no bytes, so that it gets an id of its own.
fn register_another(stage: &Stage) -> u32 {
    let mut schema: Value = serde_json::from_str(EVENT_SCHEMA).unwrap();
    let field = json!({ "name": unique("field"), "type": "null", "default": null });
    schema["fields"].as_array_mut().unwrap().push(field);
    let client = RegistryClient::new(RegistrySettings::at(&stage.settings.registry)).unwrap();
    blocking(client.register(&unique("subject"), &schema.to_string())).unwrap()
}

/// The whole way: events under a schema that nobody knows yet, the tool's four commands, and decisions in the end.
fn what_was_unknown_is_decided_when_it_is_replayed(services: &Services) {
    let stage = stage(services, "dlqround");
    stage.apply(CAMPAIGNS);
    let unknown = register_another(&stage) + 2;
    let items = Shop::new(47, 60, 0.0, stage.schema_id).take(900);
    // Some users write under the new schema already.
    let (mut known, mut early): (Vec<Item>, Vec<Item>) = (Vec::new(), Vec::new());
    let sent: Vec<Item> = items
        .into_iter()
        .map(|mut item| {
            let is_early = item.record.key.as_deref().unwrap().ends_with(b"7");
            if is_early {
                item.record.value.as_mut().unwrap()[1..5].copy_from_slice(&unknown.to_be_bytes());
            }
            if is_early { &mut early } else { &mut known }.push(item.clone());
            item
        })
        .collect();
    assert!(early.len() > 50, "worth nothing: {}", early.len());
    stage.produce(&sent);
    let mut process = stage.start();
    let handled = stage.await_handled(&mut process, sent.len() as u64);
    assert_eq!(handled.dead, early.len() as u64);

    let count = early.len().to_string();
    let list = shown(&stage, &["list"]);
    let titles = ["CODE", "TOPIC", "SCHEMA", "COUNT", "REPLAYED", "FIRST", "LAST", "LAST", "AT"];
    assert_eq!(list.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), titles);
    let row: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    let (events, id) = (stage.settings.topic("events"), unknown.to_string());
    assert_eq!(row[..5], ["unknown_schema", &events, &id, &count, "0"]);
    assert_eq!(list.lines().last(), Some(format!("{count} dead letters in 1 group").as_str()));
    let place = *row.last().unwrap();

    let show = shown(&stage, &["show", place]);
    let error = format!("  error      unknown_schema: the registry knows no schema {unknown}\n");
    assert!(
        show.contains(&error) && show.contains("bytes, not an event: ") && show.contains("00000000  00 ")
    );
    let by_day = told(&stage, &["list", "--by", "partition,day", "--schema", &id, "--since", "1h"]);
    let groups = by_day["groups"].as_array().unwrap();
    let sum: u64 = groups.iter().map(|group| group["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, early.len() as u64, "{by_day}");
    assert!(groups.iter().all(|group| group["day"].is_string() && group["partition"].is_u64()), "{by_day}");

    let before = events_ends(&stage);
    let dry = shown(&stage, &["replay", "--code", "unknown_schema", "--dry-run"]);
    let sentence = format!("{count} records would be replayed to {events}, 0 left, 0 not asked for\n");
    assert!(dry.ends_with(&sentence), "{dry}");
    assert_eq!(events_ends(&stage), before, "a dry run writes nothing, not even a marker");

    while register_another(&stage) < unknown {}
    let show = shown(&stage, &["show", place]);
    assert!(show.contains("  value      an event, ") && show.contains("\"event_id\":"), "{show}");
    let one: Value = told(&stage, &["show", place]);
    assert_eq!(one["value"]["event"]["user_id"], one["key"]);
    let replay = shown(&stage, &["replay", "--code", "unknown_schema"]);
    assert!(replay.ends_with(&format!("{count} records replayed to {events}, 0 left, 0 not asked for\n")));
    are_the_letters(&events_from(&stage, &before), &stage.dead_letters(), "1");

    let handled = stage.await_handled(&mut process, (sent.len() + early.len()) as u64);
    assert_eq!(handled.dead, early.len() as u64, "nothing died again");
    let mut model = Model::new(&stage.published_campaigns());
    let mut truth = Truth::default();
    truth.add(&mut model, &known);
    let decided = truth.decided;
    truth.add(&mut model, &early);
    assert!(truth.decided - decided > 20, "worth nothing: {} of {}", truth.decided - decided, early.len());
    same_decisions_in_order(&truth.decisions, &stage.decisions()).unwrap();

    let again = shown(&stage, &["replay", "--code", "unknown_schema"]);
    assert!(again.contains("it goes on where the same replay ended before\n0 records replayed"), "{again}");
    let purged = shown(&stage, &["purge", "--all", "--yes"]);
    assert!(purged.ends_with(&format!("{count} dead letters deleted\n")), "{purged}");
    assert_eq!(shown(&stage, &["list"]), "no dead letters\n");
    process.terminate();
    process.wait(Duration::from_secs(20));
}

/// Poison in, a replay killed between each two of its effects and while it works, and in the end each record stands on
/// `events` once more, in its order.
fn no_kill_loses_or_doubles_a_replayed_record(services: &Services) {
    const RECORDS: usize = 6_000;
    let stage = stage(services, "dlqkill");
    let items: Vec<Item> = (0..RECORDS)
        .map(|number| {
            let key = Some(format!("user-{}", number % 200).into_bytes());
            let headers = vec![("n".to_owned(), number.to_string().into_bytes())];
            let value = Some(format!("no framing {number}").into_bytes());
            Item { record: Record { partition: None, key, value, headers }, event: None }
        })
        .collect();
    stage.produce(&items);
    let mut process = stage.start();
    stage.await_handled(&mut process, RECORDS as u64);
    process.terminate();
    process.wait(Duration::from_secs(20));
    let letters = stage.dead_letters();
    assert_eq!(letters.len(), RECORDS);
    let ends = events_ends(&stage);

    let arguments = ["replay", "--code", "bad_framing,bad_avro"];
    let file = stage.folder.path().join("paused");
    let mut replayed = Vec::new();
    for after in 1..=3 {
        for point in ["before_send_offsets", "before_commit", "after_commit"] {
            let pause = Pause { point, after, file: &file };
            let mut child = start(&stage, &arguments, Some(&pause));
            await_pause(&mut child, &pause);
            kill(child);
            // Whatever was committed is all of a transaction; asking waits until what was left open is settled.
            replayed.push((format!("{point} {after}"), events_from(&stage, &ends).len()));
        }
    }
    for round in 0..4_u64 {
        let seen = events_ends(&stage);
        let slow = [&arguments[..], &["--rate", "1000"]].concat();
        let child = start(&stage, &slow, None);
        until("the replay to write", || {
            if events_ends(&stage) == seen { Err("nothing") } else { Ok(()) }.map_err(str::to_owned)
        });
        // Not a synchronisation but the moment of the fault.
        std::thread::sleep(Duration::from_millis(round * 97));
        kill(child);
        replayed.push((format!("at work {round}"), events_from(&stage, &ends).len()));
    }
    println!("killed, and replayed so far: {replayed:?}");
    let before_last = replayed.last().unwrap().1;
    assert!(before_last > 0 && before_last < RECORDS, "worth nothing: {replayed:?}");
    let steps: BTreeSet<usize> = replayed.iter().map(|(_, count)| *count).collect();
    assert!(steps.len() >= 4, "worth nothing: {replayed:?}");

    let last = told(&stage, &arguments);
    assert_eq!(
        (&last["resumed"], &last["complete"], &last["error"]),
        (&json!(true), &json!(true), &Value::Null)
    );
    assert_eq!(last["totals"]["replayed"], RECORDS - before_last);
    are_the_letters(&events_from(&stage, &ends), &letters, "1");

    // The same again, and another order that means some of the same records, write nothing.
    let seen = events_from(&stage, &ends);
    assert_eq!(told(&stage, &arguments)["totals"], json!({ "replayed": 0, "left": 0, "not_asked": 0 }));
    let other = told(&stage, &["replay", "--user", "user-7", "--max-replays", "5"]);
    assert_eq!(other["totals"], json!({ "replayed": 0, "left": 30, "not_asked": RECORDS - 30 }));
    assert_eq!(other["left"][0]["reason"], "already_replayed");
    assert_eq!(events_from(&stage, &ends), seen);
}

/// Of two replays at once the first ends with a sentence, and nothing is written twice.
fn a_second_replay_ends_the_first(services: &Services) {
    let stage = stage(services, "dlqtwo");
    // As if another partitioner had placed them: they go to their own partitions.
    let mut letters = letters(&stage, 0..300, "wrong_partition");
    letters.iter_mut().for_each(|letter| letter.partition = letter.partition.map(|p| (p + 1) % PARTITIONS));
    lay(&stage, &letters);
    let ends = events_ends(&stage);
    let first = start(&stage, &["replay", "--all", "--rate", "20"], None);
    until("the first to write", || match events_from(&stage, &ends).len() {
        0 => Err("nothing".to_owned()),
        _ => Ok(()),
    });
    let second = told(&stage, &["replay", "--all"]);
    assert_eq!((&second["complete"], &second["resumed"]), (&json!(true), &json!(true)));
    let output = first.wait_with_output().unwrap();
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("the first:\n{text}{error}");
    assert_eq!(output.status.code(), Some(1), "{text}{error}");
    assert!(error.contains("another replay has begun"), "{error}");
    let by_first: u64 = text.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(
        by_first + second["totals"]["replayed"].as_u64().unwrap(),
        300,
        "each says what it has written"
    );
    are_the_letters(&events_from(&stage, &ends), &stage.dead_letters(), "1");
}

/// The cap holds over the way through `events` and back, and what cannot be replayed stays, with its reason.
fn what_cannot_be_replayed_is_left_and_said(services: &Services) {
    let stage = stage(services, "dlqleft");
    stage.apply(CAMPAIGNS);
    let poison: Vec<Item> = (0..20)
        .map(|number| {
            let headers = vec![("n".to_owned(), number.to_string().into_bytes())];
            let key = (number > 0).then(|| format!("user-{number}").into_bytes());
            Item {
                record: Record { partition: None, key, value: Some(b"poison".to_vec()), headers },
                event: None,
            }
        })
        .collect();
    stage.produce(&poison);
    let mut process = stage.start();
    stage.await_handled(&mut process, 20);
    let mut omitted = letter(&stage, 100, 0, "too_large");
    omitted.value = None;
    omitted.headers.push(("campaignd.value.omitted".to_owned(), b"16000000".to_vec()));
    let mut other = letter(&stage, 101, 0, "bad_avro");
    other.headers[1].1 = b"events.of.others".to_vec();
    let foreign = Record { key: Some(b"someone".to_vec()), value: Some(b"?".to_vec()), ..Record::default() };
    let mut large = letter(&stage, 102, 0, "bad_avro");
    // More than `events` takes, and nothing that compresses.
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    large.value = Some((0..2_000_000).map(|_| random()).collect());
    lay(&stage, &[omitted, other, foreign, large]);

    let first = told(&stage, &["replay", "--all", "--max-replays", "1"]);
    assert_eq!(first["totals"], json!({ "replayed": 19, "left": 5, "not_asked": 0 }), "{first}");
    let reasons: BTreeSet<&str> =
        first["left"].as_array().unwrap().iter().map(|left| left["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["no_key", "not_ours", "other_topic", "too_large", "value_omitted"].into());

    // Those that went died again, and say how often they have been replayed.
    stage.await_handled(&mut process, 39);
    let letters = stage.dead_letters();
    let again: Vec<&Stored> = letters.iter().filter(|l| l.header("campaignd.replays").is_some()).collect();
    assert_eq!(again.len(), 19);
    assert!(again.iter().all(|letter| letter.header("campaignd.replays").as_deref() == Some("1")));
    let list = told(&stage, &["list", "--code", "bad_framing", "--by", "code"]);
    assert_eq!((&list["groups"][0]["count"], &list["groups"][0]["replayed"]), (&json!(38), &json!(19)));

    let seen = events_ends(&stage);
    let second = shown(&stage, &["replay", "--all", "--max-replays", "1"]);
    assert!(second.contains("is left: it has been replayed as often as --max-replays allows\n"), "{second}");
    assert!(second.contains("0 records replayed") && second.contains("(replay_limit 19)"), "{second}");
    // A higher cap is another order: it leaves what the first has replayed, and what cannot be replayed at all.
    let third = told(&stage, &["replay", "--all", "--max-replays", "2"]);
    assert_eq!(third["totals"], json!({ "replayed": 19, "left": 24, "not_asked": 0 }), "{third}");
    let records = events_from(&stage, &seen);
    assert!(records.iter().all(|record| record.header("campaignd.replays").as_deref() == Some("2")));
    assert_eq!(records.len(), 19);
    stage.await_handled(&mut process, 58);
    let fourth = told(&stage, &["replay", "--all", "--max-replays", "2"]);
    assert_eq!(fourth["totals"], json!({ "replayed": 0, "left": 19, "not_asked": 0 }), "{fourth}");
    process.terminate();
    process.wait(Duration::from_secs(20));
}

/// A purge says what it would delete, spares what a replay has been started for, and deletes the rest.
fn what_is_still_wanted_is_not_purged(services: &Services) {
    let stage = stage(services, "dlqpurge");
    lay(&stage, &letters(&stage, 0..60, "bad_avro"));
    lay(&stage, &letters(&stage, 60..90, "bad_framing"));
    let topic = stage.settings.topic("events.dlq");
    let left = |stage: &Stage| stage.kafka.read_committed(&topic).len();

    let file = stage.folder.path().join("paused");
    let pause = Pause { point: "before_commit", after: 2, file: &file };
    let arguments = ["replay", "--code", "bad_avro"];
    let mut child = start(&stage, &arguments, Some(&pause));
    await_pause(&mut child, &pause);
    kill(child);

    let dry = shown(&stage, &["purge", "--all"]);
    assert!(dry.contains("90 dead letters would be deleted; --yes deletes\n"), "{dry}");
    assert!(dry.contains("has not reached 60 records\n"), "{dry}");
    let refusal = refused(&stage, 1, &["purge", "--all", "--yes"]);
    assert!(refusal.contains("90 dead letters not deleted") && refusal.contains("--force"), "{refusal}");
    assert_eq!(left(&stage), 90);
    assert!(refused(&stage, 64, &["purge", "7@1"]).contains("no partition 7"));
    assert!(refused(&stage, 64, &["list", "--partition", "7"]).contains("no partition 7"));
    assert!(refused(&stage, 1, &["show", "0@5000"]).contains("holds the offsets 0 to 29"));

    assert_eq!(told(&stage, &arguments)["totals"], json!({ "replayed": 60, "left": 0, "not_asked": 30 }));
    // Deleted up to a place, in its partition only.
    let one = shown(&stage, &["purge", "0@5", "--yes"]);
    assert!(one.contains("partition 0 begins at offset 5\n5 dead letters deleted\n"), "{one}");
    assert_eq!(left(&stage), 85);
    assert_eq!(told(&stage, &["list"])["totals"]["dead_letters"], 85);
    assert!(shown(&stage, &["purge", "--until", "1h", "--yes"]).contains("0 dead letters"));
    assert_eq!(left(&stage), 85);
    // What the replay has passed, the other code among it, is nobody's any more.
    assert_eq!(told(&stage, &["purge", "--all", "--yes"])["deleted"], true);
    assert_eq!(shown(&stage, &["list"]), "no dead letters\n");
    // Nothing is left of what the replay was about, so its group is gone, and the same order begins anew.
    lay(&stage, &letters(&stage, 90..93, "bad_avro"));
    let anew = told(&stage, &arguments);
    assert_eq!((&anew["resumed"], &anew["totals"]["replayed"]), (&json!(false), &json!(3)), "{anew}");

    // Forced, what is wanted goes too.
    lay(&stage, &letters(&stage, 93..96, "bad_avro"));
    let pause = Pause { point: "before_send_offsets", after: 2, file: &file };
    let mut child = start(&stage, &arguments, Some(&pause));
    await_pause(&mut child, &pause);
    kill(child);
    refused(&stage, 1, &["purge", "--all", "--yes"]);
    assert_eq!(told(&stage, &["purge", "--all", "--yes", "--force"])["totals"]["dead_letters"], 6);
    until_within(Duration::from_secs(20), "the topic to be empty", || match left(&stage) {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    });
}
