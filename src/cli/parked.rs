//! `campaignd parked`: who waits in the retry topics, and letting a user's records go.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArguments, DONE, Output, UsageError, campaigns};
use crate::campaign::release::Release;
use crate::config::Config;
use crate::kafka::campaigns::{Desired, publish};
use crate::kafka::group_offsets::{From, GroupOffsets};
use crate::kafka::log::read_waiting;
use crate::pipeline::log::{Input, Record};
use crate::pipeline::parking::{Origin, due};
use crate::position::Position;
use crate::telemetry::health::Health;

/// Orders to let records go are kept so long; by then every record they are about has come due.
const RELEASES_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// See who waits in the retry topics, and let a user's records go
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArguments),
    Release(ReleaseArguments),
}

/// List the users with records in the retry topics, those who wait the longest first
///
/// For each: how many records wait, the first of them, why, how often it has failed, and when it is tried next. What has
/// been handled since the group's last commit is still shown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd parked list --config campaignd.toml\n  \
    campaignd parked list --limit 10 --output json")]
struct ListArguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// Most users that are listed; all are counted.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Send a user's waiting records to the dead letter topic, in order
///
/// For a user whose state is corrupt or cannot be read for good. The order goes to the campaigns topic, so the instance
/// that owns the user follows it also after a restart. Each waiting record that would have to wait once more when it comes
/// due becomes a dead letter with the code `released`; one that can be handled is handled. Records that reach `events`
/// after the order wait again. `campaignd dlq replay` brings them back when the cause is mended.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  campaignd parked release ada --yes")]
struct ReleaseArguments {
    /// The user.
    #[arg(value_name = "USER")]
    user_id: String,

    #[command(flatten)]
    config: ConfigArguments,

    /// Do it.
    #[arg(long)]
    yes: bool,

    /// Who is said to have given the order.
    #[arg(long, env = "USER", default_value = "unknown")]
    author: String,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Does what the subcommand says.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // The clients block, so they stay off the executor's threads.
    match arguments.command {
        Command::List(arguments) => tokio::task::spawn_blocking(move || list(&arguments)).await?,
        Command::Release(arguments) => tokio::task::spawn_blocking(move || release(&arguments)).await?,
    }
}

/// A user who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiter {
    user_id: String,
    records: usize,
    /// The first record, which all others wait behind.
    first: Position,
    /// Time of the first record on `events`, ms since the Unix epoch.
    since_ms: Option<i64>,
    code: Option<String>,
    failures: u32,
    due_ms: Option<i64>,
}

fn list(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load_and_log()?;
    let records = waiting(&config)?;
    let (waiters, foreign) = waiters(&records, &config.topics.events);
    let shown = waiters.iter().take(usize::try_from(arguments.limit)?);
    match arguments.output {
        Output::Human => {
            shown.for_each(|waiter| println!("{}", line(waiter)));
            let left_out = waiters.len().saturating_sub(usize::try_from(arguments.limit)?);
            if left_out > 0 {
                println!("... and {left_out} users more; see --limit");
            }
            println!(
                "{} users wait with {} records{}",
                waiters.len(),
                records.len() - foreign,
                if foreign > 0 {
                    format!("; {foreign} records were not written by campaignd")
                } else {
                    String::new()
                }
            );
        }
        Output::Json => {
            shown.for_each(|waiter| println!("{}", json_line(waiter)));
            println!(
                "{}",
                json!({ "totals": { "users": waiters.len(), "records": records.len() - foreign, "foreign": foreign } })
            );
        }
    }
    Ok(ExitCode::from(DONE))
}

/// What the group has not handled of the retry topics.
fn waiting(config: &Config) -> anyhow::Result<Vec<Record>> {
    let timeout = Duration::from_millis(config.kafka.timeout_ms);
    let group = GroupOffsets::new(&config.client_config(), &config.group.id, timeout)?;
    let topics: Vec<(u8, String)> =
        (1..=config.retry.tiers()).map(|tier| (tier, config.topics.retry_topic(tier))).collect();
    let (_, counts) = group.identity(&topics.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>())?;
    let mut from = BTreeMap::new();
    for (tier, name) in &topics {
        let partitions = counts.get(name).copied().unwrap_or(0);
        let positions = group.positions(name, partitions, From::Committed)?;
        from.extend((0..).zip(positions).map(|(partition, offset)| (Input::retry(*tier, partition), offset)));
    }
    Ok(read_waiting(&config.log_settings(&Health::new()), &from)?)
}

/// The users who wait, the first record that is oldest on `events` first, and how many records are not ours.
fn waiters(records: &[Record], events_topic: &str) -> (Vec<Waiter>, usize) {
    let mut users: BTreeMap<&str, Waiter> = BTreeMap::new();
    let mut foreign = 0;
    for record in records {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let (Some(user_id), Ok(origin)) = (key, Origin::of_retry(record, events_topic)) else {
            foreign += 1;
            continue;
        };
        let waiter = |records| Waiter {
            user_id: user_id.to_owned(),
            records,
            first: origin.position,
            since_ms: origin.timestamp_ms,
            code: origin.code.clone(),
            failures: origin.failures,
            due_ms: due(record),
        };
        match users.get_mut(user_id) {
            None => {
                users.insert(user_id, waiter(1));
            }
            Some(known) if origin.position < known.first => *known = waiter(known.records + 1),
            Some(known) => known.records += 1,
        }
    }
    let mut waiters: Vec<Waiter> = users.into_values().collect();
    waiters.sort_by_key(|waiter| (waiter.since_ms, waiter.first));
    (waiters, foreign)
}

fn line(waiter: &Waiter) -> String {
    let Waiter { user_id, records, first, code, failures, due_ms, since_ms } = waiter;
    let plural = if *records == 1 { "" } else { "s" };
    format!(
        "{user_id}: {records} record{plural}, the first is {first} of {}, {} ({failures} failures), next try {}",
        moment(*since_ms),
        code.as_deref().unwrap_or("blocked"),
        moment(*due_ms),
    )
}

fn json_line(waiter: &Waiter) -> serde_json::Value {
    json!({
        "user_id": waiter.user_id, "records": waiter.records, "since": moment(waiter.since_ms),
        "partition": waiter.first.partition, "offset": waiter.first.offset, "code": waiter.code,
        "failures": waiter.failures, "due": moment(waiter.due_ms),
    })
}

fn moment(ms: Option<i64>) -> String {
    ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or("unknown".to_owned(), |time| time.to_string())
}

fn release(arguments: &ReleaseArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load_and_log()?;
    if !arguments.yes {
        let text = format!(
            "this would send every waiting record of {} to {}; repeat with --yes",
            arguments.user_id, config.topics.dlq
        );
        return Err(UsageError(text).into());
    }
    let now = jiff::Timestamp::from_millisecond(jiff::Timestamp::now().as_millisecond())?;
    let order = Release { until_ms: now.as_millisecond() };
    let topic = campaigns::topic(&config);
    let oldest_ms = order.until_ms.saturating_sub(i64::try_from(RELEASES_KEPT.as_millis())?);
    let outlived = topic.read()?.releases().into_iter().filter(|(_, release)| release.until_ms < oldest_ms);
    let mut controls: BTreeMap<String, Option<String>> =
        outlived.map(|(user_id, _)| (Release::key(&user_id), None)).collect();
    controls.insert(Release::key(&arguments.user_id), Some(order.to_json()));
    let desired = Desired { controls, ..Desired::default() };
    publish(&topic, &campaigns::transactional_id(&config), &desired, &arguments.author, &now.to_string())?;
    match arguments.output {
        Output::Human => println!(
            "records of {} written to {} up to {now} go to {} when they come due; see `campaignd parked list`",
            arguments.user_id, config.topics.events, config.topics.dlq
        ),
        Output::Json => println!("{}", json!({ "released": arguments.user_id, "until": now.to_string() })),
    }
    Ok(ExitCode::from(DONE))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::partitioner::Partitioner;
    use crate::pipeline::log::InputTopic;
    use crate::pipeline::outputs::{self, Why};
    use crate::pipeline::tests::settings;

    fn parked(user_id: &'static str, offset: i64, code: Option<&str>, due_ms: i64) -> Record {
        let event = Record {
            topic: InputTopic::Events,
            partition: 0,
            offset,
            timestamp_ms: Some(offset * 1_000),
            key: Some(Bytes::from_static(user_id.as_bytes())),
            value: None,
            headers: Vec::new(),
        };
        let position = Position { incarnation: 0, partition: 0, offset };
        let origin = Origin {
            failures: u32::from(code.is_some()),
            code: code.map(str::to_owned),
            ..Origin::of_event(position, event.timestamp_ms)
        };
        let why = Why { code, text: "", campaigns_position: 0 };
        let parked = outputs::retry(&event, &origin, 1, due_ms, &settings(Partitioner::Murmur2), why);
        Record { topic: InputTopic::Retry(1), headers: parked.headers, ..event }
    }

    #[test]
    fn users_are_listed_by_their_first_record_the_oldest_first() {
        let records = [
            parked("bob", 7, Some("unknown_schema"), 9_000),
            parked("ada", 5, None, 8_000),
            parked("ada", 3, Some("state_corrupt"), 60_000),
            Record { headers: Vec::new(), ..parked("eve", 1, None, 0) },
        ];
        let (waiters, foreign) = waiters(&records, "events");
        assert_eq!(foreign, 1);
        assert_eq!(
            waiters.iter().map(line).collect::<Vec<_>>(),
            [
                "ada: 2 records, the first is events[0]@3 of 1970-01-01T00:00:03Z, state_corrupt (1 failures), next try \
                 1970-01-01T00:01:00Z",
                "bob: 1 record, the first is events[0]@7 of 1970-01-01T00:00:07Z, unknown_schema (1 failures), next try \
                 1970-01-01T00:00:09Z",
            ]
        );
    }
}
