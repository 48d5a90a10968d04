//! `campaignd topology rebase`: the topic of events has been made anew.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::{ConfigArguments, DIFFERENCES, DONE, Output};
use crate::config::Config;
use crate::kafka::group_offsets::{From, GroupOffsets};
use crate::pipeline::clock::{Clock, SystemClock};
use crate::store::{self, FenceRow, StateStore};
use crate::topology::rebase::{Rebased, rebase};

/// Say that the topic of events was made anew, so that its offsets begin a new incarnation
///
/// After a topic was deleted and created again, or on a move to another cluster, the offsets in the users' states belong
/// to a log that is gone, and `campaignd run` refuses to start. This raises the incarnation of every partition, so that
/// all records of the new topic lie behind what was applied of the old one. What users did and were told stays; outputs
/// of the old topic that were never published are dropped and counted.
///
/// All instances must be stopped. Without --yes it only says what it would do.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd topology rebase --config campaignd.toml\n  \
    campaignd topology rebase --from end --yes\n\n\
    Exit codes: 0 done or nothing to do, 1 failed, 2 there is something to do (without --yes), 64 bad usage or configuration.")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// Where the new topic is read from.
    #[arg(long, value_enum, default_value_t)]
    from: Begin,

    /// Do it.
    #[arg(long)]
    yes: bool,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Begin {
    /// The first record that is there.
    #[default]
    Start,
    /// Behind the last record that is there now.
    End,
}

/// What Kafka says of the topics, and where reading would begin.
struct Found {
    cluster_id: String,
    partition_count: i32,
    /// Offsets to set, by topic.
    positions: BTreeMap<String, Vec<i64>>,
}

/// Runs the command.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load_and_log()?;
    let from = match arguments.from {
        Begin::Start => From::Start,
        Begin::End => From::End,
    };
    let group = GroupOffsets::new(
        &config.client_config(),
        &config.group.id,
        Duration::from_millis(config.kafka.timeout_ms),
    )?;
    let (group, found) = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || look(&group, &config, from).map(|found| (group, found))).await??
    };
    let (state, _audit) = store::open(&config).await?;
    let standing = rows(&*state, &config.topics.events, found.partition_count).await?;
    let now_us = SystemClock.now_ms().saturating_mul(1_000);
    let rebased = rebase(&standing, &found.cluster_id, found.partition_count, now_us);
    show(&rebased, &config, &found, arguments.output, arguments.yes);
    if rebased.is_empty() {
        return Ok(ExitCode::from(DONE));
    }
    if !arguments.yes {
        return Ok(ExitCode::from(DIFFERENCES));
    }
    for one in &rebased {
        state
            .replace_fence(&config.topics.events, one.partition, one.old.as_ref(), &one.new)
            .await
            .with_context(|| format!("partition {} is not rebased; run the command again", one.partition))?;
    }
    // Behind the fences: without them the offsets are refused at the next start, and the command is run again.
    tokio::task::spawn_blocking(move || {
        found.positions.iter().try_for_each(|(topic, positions)| group.commit(topic, positions))
    })
    .await??;
    Ok(ExitCode::from(DONE))
}

/// Asks Kafka; changes nothing.
fn look(group: &GroupOffsets, config: &Config, from: From) -> anyhow::Result<Found> {
    group.check_empty()?;
    let events = &config.topics.events;
    let mut topics = vec![events.clone()];
    topics.extend((1..=config.retry.tiers()).map(|tier| config.topics.retry_topic(tier)));
    let (cluster_id, counts) = group.identity(&topics)?;
    let count_of = |topic: &String| counts.get(topic).copied().unwrap_or(0);
    let partition_count = count_of(events);
    if partition_count == 0 {
        bail!("there is no topic {events}; run `campaignd topology apply` first");
    }
    let mut positions = BTreeMap::new();
    for topic in topics.iter().filter(|topic| count_of(topic) > 0) {
        // What waits in a retry topic still waits, wherever its record came from.
        let from = if topic == events { from } else { From::Committed };
        positions.insert(topic.clone(), group.positions(topic, count_of(topic), from)?);
    }
    Ok(Found { cluster_id, partition_count, positions })
}

/// The rows that stand: of the partitions that are, and of those that were.
async fn rows(
    state: &dyn StateStore,
    topic: &str,
    partition_count: i32,
) -> anyhow::Result<BTreeMap<i32, FenceRow>> {
    let mut rows = BTreeMap::new();
    let mut known = partition_count;
    let mut partition = 0;
    while partition < known {
        if let Some(row) = state.read_fence(topic, partition).await? {
            known = known.max(row.partition_count);
            rows.insert(partition, row);
        }
        partition += 1;
    }
    Ok(rows)
}

fn show(rebased: &[Rebased], config: &Config, found: &Found, output: Output, is_done: bool) {
    let begins = found.positions.get(&config.topics.events);
    for one in rebased {
        let old = one.old.as_ref().map(|row| row.incarnation);
        let begin = usize::try_from(one.partition).ok().and_then(|at| begins?.get(at).copied());
        match output {
            Output::Human => println!(
                "{}[{}]: incarnation {} -> {}, reading from offset {}",
                config.topics.events,
                one.partition,
                old.map_or("none".to_owned(), |old| old.to_string()),
                one.new.incarnation,
                begin.unwrap_or(0),
            ),
            Output::Json => println!(
                "{}",
                json!({
                    "topic": config.topics.events, "partition": one.partition, "incarnation": one.new.incarnation,
                    "old_incarnation": old, "next_offset": begin,
                })
            ),
        }
    }
    let word = if is_done { "rebased" } else { "to rebase (nothing done; repeat with --yes)" };
    match output {
        Output::Human if rebased.is_empty() => println!("no states yet, nothing to rebase"),
        Output::Human => println!("{} partitions {word}", rebased.len()),
        Output::Json => println!("{}", json!({ "totals": { "partitions": rebased.len(), "done": is_done } })),
    }
}
